"""Do the poses fit the photos? The epipolar error of verified matches, and what was meant where it is large.

Matches that agree among themselves (verified by a fundamental matrix of their own, see :mod:`.matches`) lie on the
epipolar lines of the given poses when these are right. When they do not, the usual mistakes are tried on all pairs at
once: camera axes of another convention, world_from_cam for cam_from_world, a transposed rotation, the camera's centre
for the translation, poses of another photo, a focal length for another size, a lens that was not removed. Turning or
mirroring the world changes no epipolar line, so no such mistake is looked for here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .looks import FEATURE_SIZE
from .matches import Pair
from .report import FAIL, OK, WARN, Finding, listed

GOOD_PX = 1.0  # at the feature size; structure from motion leaves 0.1–0.4 px on real photos
BAD_PX = 4.0  # what is smeared by so much at 800 px is visibly blurred at any size
FIT_PX = 2.0  # a match nearer than this agrees with the poses
_FEWEST_PAIRS = 3
_MATCHES_A_PAIR = 60  # in the search: enough for a median, and rich pairs do not outvote poor ones
_EXPLAINS = 0.35  # of the error that may remain for a mistake to be named
_TIE = 1.1  # the earlier, simpler explanation wins unless a later one is better by this factor
_PAIR_FITS = 0.5  # share of a pair's matches that agree
_BAD_SHARE = 0.65  # of a photo's pairs (by weight) that do not fit, for its pose to be wrong
_FEWEST_BAD = 2
_FULL_WEIGHT = 100  # matches; between photos far apart, a few dozen may agree with each other by chance
_IN_FRONT = 0.5  # share of the matches that lie in front of both cameras
# Where the poses fit, a lens may still be off: many scenes hide a wrong focal length behind their depth. Measured on
# five scenes with good lenses, no factor and no shift of half a pixel took 2 % off the error.
_FOCAL_OFF, _FOCAL_GAIN = 0.04, 0.8
_CENTRE_GAIN = 0.88


@dataclass(frozen=True)
class Observed:
    """Verified matches as flat arrays, and the cameras they are judged by.

    Attributes:
        K, poses: [n, 3, 3] px at the feature size, [n, 4, 4] cam_from_world.
        a, b: [p] photo of each pair.      pair: [m] pair of each match.      x_a, x_b: [m, 3] homogeneous px.
    """

    K: np.ndarray
    poses: np.ndarray
    a: np.ndarray
    b: np.ndarray
    pair: np.ndarray
    x_a: np.ndarray
    x_b: np.ndarray

    @classmethod
    def of(cls, pairs: Sequence[Pair], K: np.ndarray, poses: np.ndarray, at_most: int | None = None) -> Observed:
        """All matches, or ``at_most`` evenly chosen ones of each pair."""
        picks = [
            np.arange(len(p)) if at_most is None else np.unique(np.linspace(0, len(p) - 1, at_most).astype(int))
            for p in pairs
        ]

        def stack(arrays: list[np.ndarray]) -> np.ndarray:
            xy = np.concatenate(arrays)
            return np.concatenate([xy, np.ones((len(xy), 1))], axis=1)

        return cls(
            K,
            poses,
            np.array([p.a for p in pairs]),
            np.array([p.b for p in pairs]),
            np.concatenate([np.full(len(pick), row) for row, pick in enumerate(picks)]),
            stack([p.xy_a[pick] for p, pick in zip(pairs, picks, strict=True)]),
            stack([p.xy_b[pick] for p, pick in zip(pairs, picks, strict=True)]),
        )


def relative(poses: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R [p, 3, 3] and t [p, 3] of b_from_a."""
    R = poses[b, :3, :3] @ np.swapaxes(poses[a, :3, :3], 1, 2)
    return R, poses[b, :3, 3] - np.einsum("pij,pj->pi", R, poses[a, :3, 3])


def errors(seen: Observed) -> np.ndarray:
    """[m] px: mean of a match's distances to its two epipolar lines; for cameras at one place, to its image by the
    homography of their rotation."""
    R, t = relative(seen.poses, seen.a, seen.b)
    K_inv = np.linalg.inv(seen.K)
    span = np.linalg.norm(seen.poses[:, :3, 3] - seen.poses[:, :3, 3].mean(axis=0), axis=1).max()
    length = np.linalg.norm(t, axis=1)
    still = length <= 1e-9 * max(span, 1e-300)
    u = t / np.where(still, 1.0, length)[:, None]
    zero = np.zeros(len(u))
    cross = np.stack([zero, -u[:, 2], u[:, 1], u[:, 2], zero, -u[:, 0], -u[:, 1], u[:, 0], zero], axis=1)
    F = np.swapaxes(K_inv[seen.b], 1, 2) @ (cross.reshape(-1, 3, 3) @ R) @ K_inv[seen.a]
    F = F[seen.pair]
    line_b = np.einsum("mij,mj->mi", F, seen.x_a)
    line_a = np.einsum("mji,mj->mi", F, seen.x_b)
    residual = np.abs(np.einsum("mi,mi->m", line_b, seen.x_b))
    with np.errstate(all="ignore"):
        distance = 0.5 * residual * (1 / np.hypot(*line_b.T[:2]) + 1 / np.hypot(*line_a.T[:2]))
        if still.any():
            H = (seen.K[seen.b] @ R @ K_inv[seen.a])[seen.pair]
            image = np.einsum("mij,mj->mi", H, seen.x_a)
            by_turning = np.linalg.norm(image[:, :2] / image[:, 2:] - seen.x_b[:, :2], axis=1)
            distance = np.where(still[seen.pair], by_turning, distance)
    return np.where(np.isfinite(distance), distance, 1e6)


def triangulate(seen: Observed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z in camera a [m], z in camera b [m] (scene units) and the angle between the rays [m] in degrees.

    The point half way between the rays where they pass each other; NaN where they are parallel.
    """
    K_inv = np.linalg.inv(seen.K)
    R = np.swapaxes(seen.poses[:, :3, :3], 1, 2)  # world_from_cam
    centers = -np.einsum("nij,nj->ni", R, seen.poses[:, :3, 3])
    a, b = seen.a[seen.pair], seen.b[seen.pair]

    def rays(photo: np.ndarray, x: np.ndarray) -> np.ndarray:
        d = np.einsum("mij,mj->mi", (R @ K_inv)[photo], x)
        return d / np.linalg.norm(d, axis=1, keepdims=True)

    d_a, d_b = rays(a, seen.x_a), rays(b, seen.x_b)
    between = centers[b] - centers[a]
    cosine = np.einsum("mi,mi->m", d_a, d_b)
    sine2 = 1 - cosine**2
    along_a, along_b = np.einsum("mi,mi->m", d_a, between), np.einsum("mi,mi->m", d_b, between)
    with np.errstate(all="ignore"):
        safe = np.where(sine2 > 1e-12, sine2, np.nan)
        s_a, s_b = (along_a - cosine * along_b) / safe, (cosine * along_a - along_b) / safe
    point = 0.5 * (centers[a] + s_a[:, None] * d_a + centers[b] + s_b[:, None] * d_b)
    z_a = np.einsum("mi,mi->m", point - centers[a], R[a][:, :, 2])
    z_b = np.einsum("mi,mi->m", point - centers[b], R[b][:, :, 2])
    return z_a, z_b, np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def share_in_front(seen: Observed) -> float:
    """Share of the matches with at least 1° of parallax that lie in front of both cameras; NaN without any."""
    z_a, z_b, angle = triangulate(seen)
    clear = (angle > 1.0) & np.isfinite(z_a) & np.isfinite(z_b)
    return float(((z_a > 0) & (z_b > 0))[clear].mean()) if clear.any() else float("nan")


# ----------------------------------------------------------------------------------------------------- what was meant
@dataclass(frozen=True)
class Mistake:
    """A mistake that was tried: ``id`` for scripts, ``text`` ("the poses fit if ...") and ``advice``."""

    id: str
    text: str
    advice: str


def _stack(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    poses = np.tile(np.eye(4), (len(R), 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = R, t
    return poses


_FLIP = np.diag([1.0, -1.0, -1.0])
_MIRRORED = ", and mirrored (left-handed coordinates, as in Unity, or photos flipped left to right)"
_DIRECTIONS = (("right", "left"), ("down", "up"), ("forward", "backward"))


def rotations_of_axes() -> list[np.ndarray]:
    """The 24 rotations that take axes to axes: OpenCV's first, OpenGL's flip of y and z second.

    Reflections are not among them: one is minus a rotation, which leaves every epipolar line in its place.
    """
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            axes = np.zeros((3, 3))
            axes[range(3), order] = signs
            if np.linalg.det(axes) > 0:
                found.append(axes)
    return sorted(found, key=lambda each: (not np.array_equal(each, np.eye(3)), not np.array_equal(each, _FLIP)))


def _axes_text(axes: np.ndarray) -> str:
    """Which way the axes of the cameras point, e.g. "x right, y up, z backward"."""
    words = []
    for name, column in zip("xyz", axes.T, strict=True):
        row = int(np.argmax(np.abs(column)))
        words.append(f"{name} {_DIRECTIONS[row][int(column[row] < 0)]}")
    return ", ".join(words)


def _pose_mistakes(poses: np.ndarray, expected: np.ndarray) -> Iterator[tuple[Mistake, np.ndarray]]:
    """Poses as they would be without each mistake; simpler mistakes first.

    Args:
        expected: [3, 3] the camera axes of the format in OpenCV's: identity, or OpenGL's flip. Mistakes are told as
            they are in the file, before the reader changed its axes.
    """
    Q, s = expected.T @ poses[:, :3, :3], poses[:, :3, 3] @ expected
    Qt = np.swapaxes(Q, 1, 2)

    def turn(M: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.einsum("nij,nj->ni", M, v)

    kinds = [
        ("", Q, s),
        ("inverse", Qt, -turn(Qt, s)),
        ("centre", Q, -turn(Q, s)),
        ("translation", Q, -turn(Qt, s)),
        ("transposed", Qt, s),
        ("transposed_at_centre", Qt, turn(Qt, turn(Qt, s))),
    ]
    texts = {
        "inverse": (
            "the poses are taken as their inverse (world_from_cam for cam_from_world, or the reverse)",
            "Export the inverse of each matrix: COLMAP's files hold cam_from_world, transforms.json world_from_cam.",
        ),
        "centre": (
            "the translation is taken as the camera's centre",
            "Export t = −R · centre, or the matrix that belongs to the centre.",
        ),
        "translation": (
            "the camera's centre is taken as the translation of cam_from_world",
            "Export centre = −Rᵀ t in the last column.",
        ),
        "transposed": (
            "the rotations are transposed (row and column order mixed up) and the translations kept",
            "Transpose the 3×3 part of each matrix.",
        ),
        "transposed_at_centre": (
            "the rotations are transposed (row and column order mixed up) and the centres kept",
            "Transpose the 3×3 part of each matrix.",
        ),
    }
    for axes in sorted(rotations_of_axes(), key=lambda each: not np.array_equal(each, expected)):
        name = _axes_text(axes)
        as_expected = np.array_equal(axes, expected)
        known = [text for text, each in (("OpenCV", np.eye(3)), ("OpenGL", _FLIP)) if np.array_equal(axes, each)]
        about_axes = f"the camera's axes are taken as {name}" + (f" ({known[0]}'s)" if known else "")
        redo = f"Flip or swap the camera axes of the exported rotations: this format wants {_axes_text(expected)}."
        for id, Q, s in kinds:
            if as_expected and not id:
                continue
            parts = ([(id, *texts[id])] if id else []) + ([] if as_expected else [(f"axes({name})", about_axes, redo)])
            ids, told, advice = zip(*parts, strict=True)
            yield Mistake("+".join(ids), " and ".join(told), " ".join(advice)), _stack(axes @ Q, s @ axes.T)


def _order_mistakes(names: Sequence[str], poses: np.ndarray) -> Iterator[tuple[Mistake, np.ndarray]]:
    """Poses given to other photos: shifted, reversed, or sorted by number where names are sorted as text."""
    n = len(names)
    advice = "Write each pose beside the name of its photo; do not rely on the order of files."
    for shift in (1, -1, 2, -2):
        which = f"{abs(shift)} later" if shift > 0 else f"{abs(shift)} earlier"
        text = f"every photo takes the pose that stands {which} in the order of names"
        yield Mistake(f"order_shift({shift})", text, advice), np.roll(poses, -shift, axis=0)
    yield Mistake("order_reversed", "the order of the poses is reversed", advice), poses[::-1]

    def number(name: str) -> list[tuple[int, int | str]]:
        return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name)]

    by_number = sorted(range(n), key=lambda i: number(names[i]))
    if by_number != list(range(n)):
        text = "the poses are given to the photos in the order of their numbers (2 before 10), not of their letters"
        inverse = np.argsort(by_number)
        yield Mistake("order_by_number", text, advice), poses[inverse]
        text = "the poses are given to the photos in the order of their letters (10 before 2), not of their numbers"
        yield Mistake("order_by_letters", text, advice), poses[np.array(by_number)]


def _median(seen: Observed) -> float:
    return float(np.median(errors(seen)))


def explain(
    seen: Observed, names: Sequence[str], all_poses: np.ndarray, sample: Sequence[int], expected: np.ndarray
) -> tuple[list[Mistake], float]:
    """Which mistakes make the error small, and the median error (px) without them; none where nothing explains it.

    Args:
        names, all_poses: of all posed photos, in order.      sample: which of them ``seen`` holds.
        expected: see :func:`_pose_mistakes`.
    """
    given = _median(seen)
    best, found = given, []
    tries: list[tuple[Mistake, Observed]] = []
    for mistake, poses in _pose_mistakes(seen.poses, expected):
        tries.append((mistake, replace(seen, poses=poses)))
    for mistake, poses in _order_mistakes(names, all_poses):
        tries.append((mistake, replace(seen, poses=poses[np.asarray(sample)])))
    chosen = seen
    for mistake, changed in tries:
        error = _median(changed)
        if error * _TIE < best:
            best, found, chosen = error, [mistake], changed
    if best > _EXPLAINS * given:
        best, found, chosen = given, [], seen
    elif share_in_front(chosen) < _IN_FRONT:
        found = [replace(found[0], id=found[0].id + "+mirrored", text=found[0].text + _MIRRORED)]
    if best > GOOD_PX:
        for fit in (_focal_mistake, _lens_mistake, _centre_mistake):
            mistake, changed = fit(chosen)
            error = _median(changed)
            if error < _EXPLAINS * best:
                best, chosen = error, changed
                found = [*found, mistake]
                break
    return found, best


def _finer(seen: Observed, median: float, scale: np.ndarray) -> list[Finding]:
    """What the error says about the lenses where the poses fit: a finding if something is off."""
    mistake, changed = _focal_mistake(seen)
    factor = float(changed.K[0, 0, 0] / seen.K[0, 0, 0])
    error = _median(changed)
    if abs(factor - 1) > _FOCAL_OFF and error < _FOCAL_GAIN * median:
        text = f"matches would lie {error:.2f} px instead of {median:.2f} px from the epipolar lines if {mistake.text}"
        values = {"factor": factor, "median_px": median, "explained_median_px": error}
        return [Finding("focal", "matches", WARN, text, "focal lengths that fit", mistake.advice, values)]
    tries = {}
    for shift in ((-0.5, -0.5), (0.5, 0.5)):
        K = seen.K.copy()
        K[:, :2, 2] += np.array(shift) * scale[:, None]
        tries[shift] = _median(replace(seen, K=K))
    shift = min(tries, key=lambda each: tries[each])
    if tries[shift] < _CENTRE_GAIN * median:
        text = (
            f"matches would lie {tries[shift]:.2f} px instead of {median:.2f} px from the epipolar lines if the "
            f"principal points moved by {shift[0]:+g} px in x and y"
        )
        advice = "The exporter counts pixels from another corner: the centre of the first pixel is (0.5, 0.5) here."
        values = {"shift_px": shift[0], "median_px": median, "explained_median_px": tries[shift]}
        return [Finding("principal_point", "matches", WARN, text, "principal points that fit", advice, values)]
    return []


def _focal_mistake(seen: Observed) -> tuple[Mistake, Observed]:
    """The common factor of all focal lengths that fits best."""

    def scaled(factor: float) -> Observed:
        K = seen.K.copy()
        K[:, 0, 0] *= factor
        K[:, 1, 1] *= factor
        return replace(seen, K=K)

    factor = _least(lambda x: _median(scaled(2.0**x)), np.arange(-3, 3.01, 0.25))
    factor = 2.0**factor
    text = f"the focal lengths are multiplied by {factor:.2f}"
    advice = "The focal length belongs to another image size or unit: state it in px of the size that w and h say."
    return Mistake(f"focal({factor:.3g})", text, advice), scaled(factor)


def _lens_mistake(seen: Observed) -> tuple[Mistake, Observed]:
    """The radial distortion k1 that is left in the photos."""
    K_inv = np.linalg.inv(seen.K)

    def straight(x: np.ndarray, photo: np.ndarray, k1: float) -> np.ndarray:
        d = np.einsum("mij,mj->mi", K_inv[photo], x)
        r2 = (d[:, :2] ** 2).sum(axis=1)
        for _ in range(5):  # undistorted radius from the distorted one, by fixed point
            factor = 1 + k1 * r2
            r2 = ((d[:, :2] / np.maximum(factor, 0.2)[:, None]) ** 2).sum(axis=1)
        d = np.concatenate([d[:, :2] / np.maximum(1 + k1 * r2, 0.2)[:, None], np.ones((len(d), 1))], axis=1)
        return np.einsum("mij,mj->mi", seen.K[photo], d)

    def changed(k1: float) -> Observed:
        a, b = seen.a[seen.pair], seen.b[seen.pair]
        return replace(seen, x_a=straight(seen.x_a, a, k1), x_b=straight(seen.x_b, b, k1))

    k1 = _least(lambda k: _median(changed(k)), np.arange(-0.4, 0.41, 0.05))
    text = f"a lens distortion of k1 ≈ {k1:.2f} is removed from the photos first"
    advice = "Undistort the photos, or write the distortion (k1 …) into the scene's camera."
    return Mistake(f"lens({k1:.3g})", text, advice), changed(k1)


def _centre_mistake(seen: Observed) -> tuple[Mistake, Observed]:
    """The common shift of all principal points that fits best."""

    def moved(shift: Sequence[float]) -> Observed:
        K = seen.K.copy()
        K[:, 0, 2] += shift[0] * K[:, 0, 0]
        K[:, 1, 2] += shift[1] * K[:, 1, 1]
        return replace(seen, K=K)

    shift = [0.0, 0.0]
    for _ in range(2):
        for axis in (0, 1):

            def cost(x: float, axis: int = axis) -> float:
                return _median(moved([x, shift[1]] if axis == 0 else [shift[0], x]))

            shift[axis] = _least(cost, shift[axis] + np.arange(-0.2, 0.21, 0.05))
    changed = moved(shift)
    dx, dy = (changed.K - seen.K)[0, :2, 2]
    text = f"the principal points move by {dx:+.0f}, {dy:+.0f} px (at {FEATURE_SIZE} px)"
    advice = "The principal point belongs to another size or crop: state cx, cy in px of the photos as they are."
    return Mistake(f"centre({dx:.3g}, {dy:.3g})", text, advice), changed


def _least(cost, grid: np.ndarray) -> float:
    """The argument of the least cost: on the grid, then between its neighbours by thirds."""
    values = [cost(float(x)) for x in grid]
    at = int(np.argmin(values))
    low, high = float(grid[max(at - 1, 0)]), float(grid[min(at + 1, len(grid) - 1)])
    for _ in range(12):
        a, b = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, b) if cost(a) <= cost(b) else (a, high)
    return (low + high) / 2


# ----------------------------------------------------------------------------------------------------------- findings
def pair_shares(seen: Observed, error: np.ndarray, limit: float) -> np.ndarray:
    """[p] share of each pair's matches whose error is below ``limit`` px."""
    count = np.bincount(seen.pair, minlength=len(seen.a))
    return np.bincount(seen.pair, weights=error < limit, minlength=len(seen.a)) / np.maximum(count, 1)


def bad_photos(n: int, a: np.ndarray, b: np.ndarray, fits: np.ndarray, matches: np.ndarray) -> list[int]:
    """Photos whose pairs do not fit although their partners' other pairs do, worst first.

    A bad photo spoils the pairs of its good neighbours, so the worst is taken out with all its pairs, then the next. A
    pair counts by its ``matches`` [p]: one rich pair that fits speaks for a pose louder than two poor ones against it.
    """
    weight = np.minimum(matches, _FULL_WEIGHT).astype(np.float64)
    alive = np.ones(len(a), bool)
    found: list[int] = []
    while True:
        bad = alive & ~fits
        total, against = (
            np.bincount(a[some], weight[some], minlength=n) + np.bincount(b[some], weight[some], minlength=n)
            for some in (alive, bad)
        )
        wrong = np.bincount(a[bad], minlength=n) + np.bincount(b[bad], minlength=n)
        share = against / np.maximum(total, 1)
        share[(wrong < _FEWEST_BAD) | (share < _BAD_SHARE)] = 0
        if not share.any():
            return found
        worst = int(np.lexsort((-wrong, -share))[0])
        found.append(worst)
        alive &= (a != worst) & (b != worst)


def examine(
    pairs: Sequence[Pair],
    K: np.ndarray,
    poses: np.ndarray,
    scale: np.ndarray,
    names: Sequence[str],
    all_names: Sequence[str],
    all_poses: np.ndarray,
    sample: Sequence[int],
    opengl: bool = False,
) -> tuple[list[Finding], bool]:
    """The findings on the epipolar error, and whether the poses can be believed.

    Args:
        pairs: of the sample's n photos.      K, poses, names: the sample's, [n, ...].
        scale: [n] px of the feature size for one px of the photo's full size.
        all_names, all_poses: of all posed photos.      sample: which of them the sample is.
        opengl: the format holds OpenGL axes.
    """
    expected = f"a median below {GOOD_PX:g} px at {FEATURE_SIZE} px"
    if len(pairs) < _FEWEST_PAIRS:
        text = f"only {len(pairs)} pairs of photos could be matched: the poses cannot be judged"
        advice = "See the overlap. Textureless or mirroring objects cannot be judged by features; look at a short run."
        return [Finding("epipolar", "matches", WARN, text, expected, advice, {"pairs": len(pairs)})], True
    seen = Observed.of(pairs, K, poses, _MATCHES_A_PAIR)
    error = errors(seen)
    median, share = float(np.median(error)), float((error < FIT_PX).mean())
    fits = pair_shares(seen, error, max(FIT_PX, 3 * min(median, BAD_PX))) >= _PAIR_FITS
    front = share_in_front(seen)
    values = {
        "median_px": median,
        "share_within_2px": share,
        "pairs": len(pairs),
        "pairs_that_fit": int(fits.sum()),
        "in_front": front,
        "explained_by": [],
        "explained_median_px": None,
    }
    text = f"matches lie {median:.2f} px from the epipolar lines of the poses ({share:.0%} within {FIT_PX:g} px)"
    if median > GOOD_PX:
        mistakes, remaining = explain(seen, all_names, all_poses, sample, _FLIP if opengl else np.eye(3))
        level = FAIL if median > BAD_PX or mistakes else WARN
        if mistakes:
            values |= {"explained_by": [each.id for each in mistakes], "explained_median_px": remaining}
            text += "; they lie " + f"{remaining:.2f} px away if " + " and ".join(each.text for each in mistakes)
            advice = " ".join(dict.fromkeys(each.advice for each in mistakes))
        elif level == FAIL:
            advice = (
                "No usual mistake of conventions explains it: the poses are those of other photos, of an unstable "
                "solution, or wrong. Without poses (--format photos) structure from motion finds them anew."
            )
        else:
            advice = "The poses are coarse (a phone's tracking?). Structure from motion (--format photos) is finer."
        return [Finding("epipolar", "matches", level, text, expected, advice, values)], False
    if front < _IN_FRONT:
        text += f", but {1 - front:.0%} of them lie behind the cameras"
        advice = (
            "The scene is mirrored: left-handed coordinates (Unity, Unreal) read as right-handed ones, translations "
            "of the wrong sign, or photos flipped left to right."
        )
        return [Finding("epipolar", "matches", FAIL, text, expected, advice, values)], False
    findings = [Finding("epipolar", "matches", OK, text, expected, "", values), *_finer(seen, median, scale)]
    bad = bad_photos(len(names), seen.a, seen.b, fits, np.array([len(pair) for pair in pairs]))
    expected = "poses that fit all their neighbours"
    shown = tuple(names[i] for i in bad)
    if bad:
        text = f"{len(bad)} of {len(names)} compared photos do not fit their neighbours: {listed(shown)}"
        advice = "Leave these photos out, or pose them anew; they blur what the others agree on."
        findings.append(Finding("single_poses", "matches", WARN, text, expected, advice, {"bad": len(bad)}, shown))
    else:
        text = f"no single photo disagrees with its neighbours ({len(names)} compared)"
        findings.append(Finding("single_poses", "matches", OK, text, expected, "", {"bad": 0}))
    return findings, True
