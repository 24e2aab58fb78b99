"""What a sweep's scores say about its variants: means, paired differences with intervals, ranks, rank correlations.

Numbers only, nothing is drawn. A run that failed, or whose score is not finite, is *missing*: it never enters a mean,
and is counted and named, because a variant that fails on the hard scenes would otherwise look good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

LEVEL = 0.95
REPEATS = 2000
PERMUTATIONS = 2000
_BLOCK = 4_000_000  # random numbers that are drawn at once
_ROUNDING = 1e-9  # relative to the scores: a spread below it is rounding


@dataclass(frozen=True)
class Scores:
    """One number of every run, such as its PSNR.

    Attributes:
        cells: (scene, variant, seed) → the number; None or not finite where the run failed or was not measured.
        planned: every (scene, variant, seed) that the sweep means to have; those that ``cells`` lacks are missing.
    """

    cells: Mapping[tuple[str, str, int], float | None]
    planned: frozenset[tuple[str, str, int]] = field(default_factory=frozenset)

    @cached_property
    def scenes(self) -> list[str]:
        return sorted({scene for scene, _, _ in (*self.cells, *self.planned)})

    @cached_property
    def _finite(self) -> dict[tuple[str, str], dict[int, float]]:
        found: dict[tuple[str, str], dict[int, float]] = {}
        for (scene, variant, seed), value in sorted(self.cells.items()):
            if value is not None and np.isfinite(value):
                found.setdefault((scene, variant), {})[seed] = float(value)
        return found

    def per_seed(self, scene: str, variant: str) -> dict[int, float]:
        """The finite scores of one variant on one scene, by seed."""
        return self._finite.get((scene, variant), {})

    @cached_property
    def _wanted(self) -> dict[str, set[tuple[str, int]]]:
        found: dict[str, set[tuple[str, int]]] = {}
        for scene, name, seed in (*self.cells, *self.planned):
            found.setdefault(name, set()).add((scene, seed))
        return found

    def wanted(self, variant: str) -> set[tuple[str, int]]:
        """The (scene, seed) at which the variant has a score, or should have one."""
        return self._wanted.get(variant, set())

    def scenes_of(self, variant: str) -> list[str]:
        """The scenes on which the variant has a score, in the order of :attr:`scenes`."""
        return [scene for scene in self.scenes if self.per_seed(scene, variant)]

    def missing(self, variant: str) -> list[tuple[str, int]]:
        """The (scene, seed) at which this variant has no score."""
        return sorted(
            (scene, seed) for scene, seed in self.wanted(variant) if seed not in self.per_seed(scene, variant)
        )


@dataclass(frozen=True)
class Summary:
    """One variant over a sweep.

    Attributes:
        mean: mean over scenes of the mean over seeds, so that a scene with more seeds weighs no more; NaN
            without scores.
        spread: sample standard deviation over seeds, pooled over scenes by their degrees of freedom; NaN where no scene
            has two seeds.
        scenes, runs: how many entered.
        missing: the (scene, seed) that did not.
    """

    mean: float
    spread: float
    scenes: int
    runs: int
    missing: list[tuple[str, int]]


def summarize(scores: Scores, variant: str, scenes: Iterable[str] | None = None) -> Summary:
    """Mean and spread of one variant over all scenes, or over ``scenes``."""
    kept = scores.scenes if scenes is None else list(scenes)
    values = [list(scores.per_seed(scene, variant).values()) for scene in kept]
    values = [each for each in values if each]
    freedom = sum(len(each) - 1 for each in values)
    squares = sum(float(np.square(np.asarray(each) - np.mean(each)).sum()) for each in values)
    return Summary(
        mean=float(np.mean([np.mean(each) for each in values])) if values else float("nan"),
        spread=float(np.sqrt(squares / freedom)) if freedom else float("nan"),
        scenes=len(values),
        runs=sum(map(len, values)),
        missing=[(scene, seed) for scene, seed in scores.missing(variant) if scene in kept],
    )


@dataclass(frozen=True)
class Field:
    """Variants that can be held against each other, because all of them have a score on all of these scenes."""

    variants: list[str]
    scenes: list[str]


def fields(scores: Scores, variants: Sequence[str]) -> list[Field]:
    """The fields in which means and ranks are fair, the widest first; each variant with a score is in at least one.

    A mean over other scenes is another mean: a variant that ran only on an easy scene would seem to win. The first
    field has the variants that have scores on more than half as many scenes as the widest has, over the scenes which
    these have in common. Each remaining variant (made for one scene, or failed on most) gives a field of its own
    scenes, with all variants that have scores on all of them.
    """
    own = {variant: found for variant in variants if (found := scores.scenes_of(variant))}
    if not own:
        return []
    widest = max(map(len, own.values()))
    broad = [variant for variant in own if 2 * len(own[variant]) > widest]
    while not (common := [scene for scene in own[broad[0]] if all(scene in own[each] for each in broad)]):
        broad.remove(min(reversed(broad), key=lambda variant: len(own[variant])))
    found = [Field(broad, common)]
    for variant in own:
        if variant not in broad and not any(field.scenes == own[variant] for field in found[1:]):
            rivals = [each for each in own if set(own[variant]) <= set(own[each])]
            found.append(Field(rivals, own[variant]))
    return found


# -------------------------------------------------------------------------------------------------- paired differences
@dataclass(frozen=True)
class Comparison:
    """How variant ``a`` differs from variant ``b``, pair by pair.

    Attributes:
        difference: mean over scenes of the mean over seeds of score(a) − score(b); NaN without a pair.
        low, high: ends of the interval; NaN where there is but one pair, or where all pairs differ by exactly the same
            (nothing is known about the spread then).
        scenes: scene → its mean difference.
        pairs: (scene, seed) that both variants have.
        unpaired: (scene, seed) that both should have and at least one has not. Where only one of them was meant to
            run, nothing is missing.
    """

    a: str
    b: str
    difference: float
    low: float
    high: float
    scenes: dict[str, float]
    pairs: list[tuple[str, int]]
    unpaired: list[tuple[str, int]]

    @property
    def separated(self) -> bool:
        """Whether the interval leaves 0 out."""
        return bool(self.low > 0 or self.high < 0)


def compare(
    scores: Scores,
    a: str,
    b: str,
    *,
    level: float = LEVEL,
    repeats: int = REPEATS,
    seed: int = 0,
) -> Comparison:
    """The paired difference of two variants with a bootstrap confidence interval.

    Runs are paired by scene and seed: both saw the same photos and the same random draws, so what makes a scene hard
    cancels. What is resampled, with replacement: first the scenes, because the question is how the variants would do on
    scenes like these, and runs of one scene are alike; then, within each scene drawn, its seeds (the paired
    differences), because the mean of a few seeds is itself uncertain. The statistic is the mean over scenes of the mean
    over seeds. With one scene only its seeds are resampled, and the interval speaks of that scene alone; with one seed
    only scenes are.

    The interval is difference ± t · s, where s is the standard deviation of the resampled statistic times √(n/(n−1))
    and t is Student's quantile with n−1 degrees of freedom, n scenes (or seeds of the one scene): a t interval with a
    bootstrap standard error (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", arXiv:1411.5279). The
    plain percentile interval is far too narrow for the handful of scenes of a sweep: with 5 it covers 84 % where it
    says 95 %. Resampling seeds within scenes counts their noise twice, which errs on the side of claiming less: up to
    98 % where seeds differ far more than scenes.

    Args:
        level: of confidence, in (0, 1).
        repeats: number of resamples.
        seed: of the resampling, fixed, so that a report says the same each time.
    """
    left = {scene: scores.per_seed(scene, a) for scene in scores.scenes}
    right = {scene: scores.per_seed(scene, b) for scene in scores.scenes}
    paired = {
        scene: {each: left[scene][each] - right[scene][each] for each in left[scene] if each in right[scene]}
        for scene in scores.scenes
    }
    paired = {scene: values for scene, values in paired.items() if values}
    pairs = [(scene, each) for scene, values in paired.items() for each in values]
    groups = [np.array(list(values.values())) for values in paired.values()]
    difference = float(np.mean([group.mean() for group in groups])) if groups else float("nan")
    size = max((abs(value) for sides in (left, right) for each in sides.values() for value in each.values()), default=0)
    half = _half_width(groups, level, repeats, seed, size * _ROUNDING)
    return Comparison(
        a,
        b,
        difference,
        difference - half,
        difference + half,
        {scene: float(group.mean()) for scene, group in zip(paired, groups, strict=True)},
        pairs,
        sorted((scores.wanted(a) & scores.wanted(b)) - set(pairs)),
    )


def _half_width(groups: Sequence[np.ndarray], level: float, repeats: int, seed: int, rounding: float) -> float:
    """Half the width of the interval (see :func:`compare`); NaN where the resamples do not differ."""
    from scipy.special import stdtrit

    units = len(groups) if len(groups) > 1 else sum(map(len, groups))
    if units < 2:
        return float("nan")
    spread = resample(groups, repeats, np.random.default_rng(seed)).std()
    if spread <= rounding:
        return float("nan")
    return float(stdtrit(units - 1, 0.5 + level / 2) * spread * np.sqrt(units / (units - 1)))


def resample(groups: Sequence[np.ndarray], repeats: int, rng: np.random.Generator) -> np.ndarray:
    """[repeats] means over groups drawn with replacement, each mean over members drawn with replacement in the group.

    Args:
        groups: the values of each scene, [seeds of it], at least one each.
    """
    n, sizes = len(groups), np.array([len(group) for group in groups])
    table = np.zeros((n, sizes.max()))
    for row, group in zip(table, groups, strict=True):
        row[: len(group)] = group
    means = np.empty(repeats)
    rows = max(1, _BLOCK // (n * table.shape[1]))
    for start in range(0, repeats, rows):
        count = min(rows, repeats - start)
        drawn = rng.integers(0, n, (count, n))
        of = sizes[drawn]
        members = (rng.random((count, n, table.shape[1])) * of[..., None]).astype(np.intp)
        taken = table[drawn[..., None], members]
        counted = np.arange(table.shape[1]) < of[..., None]
        means[start : start + count] = ((taken * counted).sum(axis=2) / of).mean(axis=1)
    return means


def ratio(scores: Scores, a: str, b: str) -> float:
    """Geometric mean over scenes of the geometric mean over seeds of score(a) / score(b), for numbers of Gaussians or
    seconds; NaN without a pair of positive numbers."""
    logs = {
        (scene, name): {seed: np.log(value) for seed, value in scores.per_seed(scene, name).items() if value > 0}
        for scene in scores.scenes
        for name in (a, b)
    }
    scenes = []
    for scene in scores.scenes:
        left, right = logs[scene, a], logs[scene, b]
        both = [left[seed] - right[seed] for seed in left if seed in right]
        if both:
            scenes.append(np.mean(both))
    return float(np.exp(np.mean(scenes))) if scenes else float("nan")


def sentence(
    comparison: Comparison,
    *,
    unit: str = "dB",
    digits: int = 2,
    lower_is_better: bool = False,
    gaussians: float = float("nan"),
    level: float = LEVEL,
) -> str:
    """A comparison in plain words: who beats whom by how much, or that the evidence does not separate them.

    Args:
        unit: of the score, "" for none.
        gaussians: ratio of the numbers of Gaussians of a and b, NaN where unknown.
    """
    a, b, value = comparison.a, comparison.b, comparison.difference
    gap = f" {unit}" if unit else ""
    if not comparison.pairs:
        return f"{a} and {b} cannot be compared: no scene and seed has a score of both."
    swap = (value > 0) if lower_is_better else (value < 0)
    first, second = (b, a) if swap else (a, b)
    share = 1 / gaussians if swap and gaussians else gaussians
    over = f"over {_extent(comparison)}"
    with_gaussians = f", with {share:.2f}× the Gaussians" if np.isfinite(share) else ""
    ends = sorted((abs(comparison.low), abs(comparison.high)))
    if comparison.separated:
        interval = f"[{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
        text = f"{first} beats {second} by {abs(value):.{digits}f}{gap} {interval} {over}{with_gaussians}."
    elif np.isnan(comparison.low) and len(comparison.pairs) == 1:
        text = (
            f"One pair of runs does not separate {a} from {b}: {first} is {abs(value):.{digits}f}{gap} better {over}"
            f"{with_gaussians}, and how much chance there is in that is not known."
        )
    elif np.isnan(comparison.low):
        told = "do not differ at all" if value == 0 else f"differ by {abs(value):.{digits}f}{gap} in every pair"
        text = (
            f"{a} and {b} {told} {over}{with_gaussians}: without any spread there is no interval, and they are not "
            "separated."
        )
    else:
        sign = -1 if swap else 1
        low, high = sorted((sign * comparison.low, sign * comparison.high))
        interval = f"[{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")
        mean = -abs(value) if lower_is_better else abs(value)
        if lower_is_better:
            low, high = sorted((-low, -high))
        told = f"{mean:+.{digits}f}".replace("-", "−")
        text = (
            f"The evidence does not separate {first} from {second}: {told}{gap} {interval} {over}{with_gaussians}; "
            f"the {level:.0%} interval holds 0."
        ).replace("95%", "95 %")
    if len(comparison.scenes) == 1 and len(comparison.pairs) > 1:
        text += " It speaks of this scene only."
    return text


def _extent(comparison: Comparison) -> str:
    scenes, pairs = len(comparison.scenes), len(comparison.pairs)
    told = f"{scenes} scene{'s' * (scenes != 1)}"
    if pairs % scenes == 0 and all(
        sum(scene == name for scene, _ in comparison.pairs) == pairs // scenes for name in comparison.scenes
    ):
        seeds = pairs // scenes
        return f"{told} × {seeds} seed{'s' * (seeds != 1)}"
    return f"{told}, {pairs} pairs of runs"


def left_out(comparison: Comparison, why: Callable[[str, int], str] | None = None, shown: int = 4) -> str:
    """Which pairs a comparison lacks, in plain words; "" where it has all.

    Args:
        why: (scene, seed) → why that pair is missing, in a few words.
        shown: so many are named.
    """
    lost = comparison.unpaired
    if not lost:
        return ""
    total = len(lost) + len(comparison.pairs)
    named = "; ".join(f"{scene} seed {seed}" + (f": {why(scene, seed)}" if why else "") for scene, seed in lost[:shown])
    more = f"; and {len(lost) - shown} more" if len(lost) > shown else ""
    return f"Left out, because a run is missing: {len(lost)} of {total} pairs ({named}{more})."


# --------------------------------------------------------------------------------------------------------------- ranks
def ranks(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """[n] ranks from 1 (smallest); equal values share the mean of their ranks. Raises ValueError for NaN."""
    values = np.asarray(values, float)
    if np.isnan(values).any():
        raise ValueError("ranks of NaN")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((2 * last - counts + 1) / 2)[inverse]


def scene_ranks(
    scores: Scores, variants: Sequence[str], scene: str, *, lower_is_better: bool = False
) -> dict[str, float]:
    """variant → its rank on one scene by its mean over seeds, 1 best, among those that have a score there."""
    means = {variant: summarize(scores, variant, [scene]).mean for variant in variants}
    means = {variant: mean for variant, mean in means.items() if not np.isnan(mean)}
    placed = ranks(np.array(list(means.values())) * (1 if lower_is_better else -1))
    return dict(zip(means, map(float, placed), strict=True))


def mean_ranks(
    scores: Scores, variants: Sequence[str], *, lower_is_better: bool = False
) -> tuple[dict[str, float], int]:
    """variant → its mean rank over scenes, 1 best, and the number of scenes that were ranked.

    Only scenes count where all variants have a score: a rank among fewer competitors would be another rank. All NaN
    where there is no such scene.
    """
    table = [scene_ranks(scores, variants, scene, lower_is_better=lower_is_better) for scene in scores.scenes]
    table = [each for each in table if len(each) == len(variants)]
    means = {name: float(np.mean([each[name] for each in table])) if table else float("nan") for name in variants}
    return means, len(table)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else float("nan")


@dataclass(frozen=True)
class Prediction:
    """How well a number that is known before training orders the variants as their final score does.

    Attributes:
        rho: mean over scenes of Spearman's correlation within the scene; NaN where no scene has three variants.
        p: share of random orders, permuted within scenes, whose ``|rho|`` is at least as large; NaN with ``rho``.
        scenes, variants: how many scenes, and how many (scene, variant) in them, entered.
    """

    rho: float
    p: float
    scenes: int
    variants: int


def predict(quality: Scores, final: Scores, *, permutations: int = PERMUTATIONS, seed: int = 0) -> Prediction:
    """The rank correlation of a quality of the start with the final score.

    Within each scene over its variants, each averaged over its seeds, then averaged over scenes: over all runs,
    the correlation would mostly say which scenes are easy.
    """
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    variants = sorted({name for _, name, _ in final.cells})
    for scene in final.scenes:
        pairs = [(summarize(quality, name, [scene]).mean, summarize(final, name, [scene]).mean) for name in variants]
        x, y = np.asarray(pairs, float).reshape(-1, 2).T
        finite = np.isfinite(x) & np.isfinite(y)
        if finite.sum() >= 3:
            a, b = ranks(x[finite]), ranks(y[finite])
            if not np.isnan(_correlation(a, b)):
                rows.append((a, b))
    if not rows:
        return Prediction(float("nan"), float("nan"), 0, 0)
    rho = float(np.mean([_correlation(a, b) for a, b in rows]))
    rng = np.random.default_rng(seed)
    by_chance = np.zeros(permutations)
    for a, b in rows:
        a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
        by_chance += rng.permuted(np.tile(b, (permutations, 1)), axis=1) @ a / len(a)
    at_least = int((np.abs(by_chance / len(rows)) >= abs(rho) - 1e-9).sum())
    return Prediction(rho, (at_least + 1) / (permutations + 1), len(rows), sum(len(a) for a, _ in rows))
