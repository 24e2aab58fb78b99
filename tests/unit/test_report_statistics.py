"""Statistics of a sweep against answers that are known: planted effects, no effect, ties, holes."""

from __future__ import annotations

import numpy as np
import pytest

from splatinit.report.statistics import (
    Scores,
    compare,
    fields,
    left_out,
    mean_ranks,
    predict,
    ranks,
    ratio,
    resample,
    scene_ranks,
    sentence,
    summarize,
)

NAN = float("nan")


def planted(
    effect: float,
    rng: np.random.Generator,
    scenes: int = 5,
    seeds: int = 3,
    interaction: float = 0.1,
    noise: float = 0.1,
) -> Scores:
    """``dense`` is ``effect`` better than ``sfm``; scenes differ by 5 dB, the effect by scene and runs by seed."""
    cells = {}
    for k in range(scenes):
        ease, own = rng.normal(25, 5), effect + rng.normal(0, interaction)
        for seed in range(seeds):
            cells[f"s{k}", "sfm", seed] = ease + rng.normal(0, noise)
            cells[f"s{k}", "dense", seed] = ease + own + rng.normal(0, noise)
    return Scores(cells)


def test_a_planted_effect_is_found_within_its_interval() -> None:
    found = compare(planted(0.62, np.random.default_rng(1)), "dense", "sfm")
    assert found.separated and found.low < 0.62 < found.high
    assert found.high - found.low < 0.8  # the 5 dB between scenes cancel in pairs
    assert len(found.pairs) == 15 and len(found.scenes) == 5 and not found.unpaired


@pytest.mark.parametrize(("scenes", "seeds"), [(5, 3), (5, 1), (4, 2), (3, 1), (1, 4), (12, 2)])
def test_no_effect_is_claimed_in_at_most_a_twentieth_of_all_sweeps(scenes: int, seeds: int) -> None:
    rng, n = np.random.default_rng(7), 400
    interaction = 0.0 if scenes == 1 else 0.1  # of one scene, its own effect is what is asked for
    claims = sum(
        compare(planted(0, rng, scenes, seeds, interaction), "dense", "sfm", repeats=400).separated for _ in range(n)
    )
    # 5 % and three standard deviations of a count of 400; and not so wide that nothing would ever be found.
    assert claims <= 33
    if seeds == 1:
        assert claims >= 7


def test_the_interval_contains_a_true_effect_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        found = compare(planted(0.5, rng, 6, 1), "dense", "sfm", repeats=400)
        held += found.low <= 0.5 <= found.high
    assert 274 <= held <= 297  # 95 % ± three standard deviations


def test_the_order_of_variants_and_repetition_do_not_change_the_interval() -> None:
    scores = planted(0.3, np.random.default_rng(2))
    ab, ba = compare(scores, "dense", "sfm"), compare(scores, "sfm", "dense")
    assert (ab.difference, ab.low, ab.high) == pytest.approx((-ba.difference, -ba.high, -ba.low))
    assert compare(scores, "dense", "sfm") == ab


def test_resamples_have_the_mean_and_the_spread_that_theory_gives() -> None:
    groups = [np.array([0.0, 2.0]), np.array([6.0]), np.array([3.0, 3.0, 6.0])]
    drawn = resample(groups, 200_000, np.random.default_rng(0))
    means = np.array([1.0, 6.0, 4.0])
    within = np.array([1 / 2, 0, 2 / 3])  # variance of a group's resampled mean
    assert drawn.mean() == pytest.approx(means.mean(), abs=0.02)
    assert drawn.var() == pytest.approx((means.var() + within.mean()) / 3, rel=0.02)


def test_one_scene_speaks_of_itself() -> None:
    cells = {("fox", "a", k): 30 + 0.01 * k for k in range(4)} | {("fox", "b", k): 29.0 - 0.01 * k for k in range(4)}
    found = compare(Scores(cells), "a", "b")
    assert found.separated
    text = sentence(found)
    assert text.startswith("a beats b by 1.03 dB [") and text.endswith(
        "over 1 scene × 4 seeds. It speaks of this scene only."
    )


def test_one_pair_separates_nothing() -> None:
    found = compare(Scores({("fox", "a", 0): 31.0, ("fox", "b", 0): 29.5}), "a", "b")
    assert np.isnan(found.low) and not found.separated
    assert sentence(found).startswith("One pair of runs does not separate a from b: a is 1.50 dB better over 1 scene")


def test_equal_scores_do_not_beat_each_other() -> None:
    cells = {(scene, name, seed): 20.0 for scene in "xyz" for name in "ab" for seed in (0, 1)}
    found = compare(Scores(cells), "a", "b")
    assert found.difference == 0 and not found.separated
    assert sentence(found) == (
        "a and b do not differ at all over 3 scenes × 2 seeds: without any spread there is no interval, and they are "
        "not separated."
    )
    apart = Scores(cells | {(scene, "a", seed): 20.1 for scene in "xyz" for seed in (0, 1)})
    assert "differ by 0.10 dB in every pair" in sentence(compare(apart, "a", "b"))


def test_failed_and_missing_runs_are_said_and_do_not_enter() -> None:
    cells = {
        (scene, name, seed): 20.0 + (name == "a") * (1 + 0.1 * seed)
        for scene in "xyz"
        for name in "ab"
        for seed in (0, 1)
    }
    cells["y", "a", 1] = NAN
    cells["z", "b", 0] = None
    planned = frozenset(cells) | {("w", "a", 0), ("w", "b", 0)}
    scores = Scores(cells, planned)
    found = compare(scores, "a", "b")
    assert found.unpaired == [("w", 0), ("y", 1), ("z", 0)]
    assert found.scenes == pytest.approx({"x": 1.05, "y": 1.0, "z": 1.1})
    assert "over 3 scenes, 4 pairs of runs" in sentence(found)
    assert left_out(found, lambda scene, seed: "a failed" if scene == "y" else "no run", shown=2) == (
        "Left out, because a run is missing: 3 of 7 pairs (w seed 0: no run; y seed 1: a failed; and 1 more)."
    )
    assert summarize(scores, "a").missing == [("w", 0), ("y", 1)]


def test_nothing_in_common_is_said() -> None:
    text = sentence(compare(Scores({("x", "a", 0): 1.0, ("y", "b", 0): 2.0}), "a", "b"))
    assert text == "a and b cannot be compared: no scene and seed has a score of both."


def test_a_scene_that_one_of_two_was_never_meant_to_run_is_not_missing() -> None:
    cells = {(scene, "a", 0): 20.0 for scene in "xyz"} | {("x", "b", 0): 21.0, ("y", "b", 0): None}
    found = compare(Scores(cells), "a", "b")
    assert found.pairs == [("x", 0)] and found.unpaired == [("y", 0)]
    assert left_out(compare(Scores({("x", "a", 0): 1.0, ("x", "b", 0): 2.0}), "a", "b")) == ""


def test_the_sentence_names_the_winner_first_and_says_where_there_is_none() -> None:
    scores = planted(0.62, np.random.default_rng(1))
    forth = sentence(compare(scores, "dense", "sfm"), gaussians=0.47)
    back = sentence(compare(scores, "sfm", "dense"), gaussians=1 / 0.47)
    assert forth == back
    assert forth.startswith("dense beats sfm by 0.") and forth.endswith(
        "over 5 scenes × 3 seeds, with 0.47× the Gaussians."
    )
    # LPIPS: less is better.
    assert sentence(compare(scores, "dense", "sfm"), lower_is_better=True, unit="").startswith("sfm beats dense by 0.")
    cells = {("x", "a", 0): 1.0, ("x", "b", 0): 2.0, ("y", "a", 0): 2.2, ("y", "b", 0): 1.0}
    for first, second in ("ab", "ba"):
        text = sentence(compare(Scores(cells), first, second))
        assert (
            text.startswith("The evidence does not separate a from b: +0.10 dB [−") and "95 % interval holds 0" in text
        )
    text = sentence(compare(Scores(cells), "a", "b"), lower_is_better=True, unit="")
    assert text.startswith("The evidence does not separate b from a: −0.10 [−")


def test_means_weigh_scenes_alike_and_spread_is_pooled() -> None:
    cells = {("x", "a", 0): 10.0, ("x", "a", 1): 12.0, ("x", "a", 2): 14.0, ("y", "a", 0): 30.0, ("y", "a", 1): 32.0}
    found = summarize(Scores(cells), "a")
    assert (found.mean, found.scenes, found.runs) == (21.5, 2, 5)
    assert found.spread == pytest.approx(np.sqrt((8 + 2) / 3))
    assert np.isnan(summarize(Scores({("x", "a", 0): 1.0}), "a").spread)
    assert np.isnan(summarize(Scores({}), "a").mean)


def test_ratios_are_geometric_and_paired() -> None:
    cells = {("x", "a", 0): 100, ("x", "b", 0): 200, ("y", "a", 0): 800, ("y", "b", 0): 400, ("z", "a", 0): 7}
    assert ratio(Scores(cells), "a", "b") == pytest.approx(1.0)
    assert np.isnan(ratio(Scores({("x", "a", 0): 0.0, ("x", "b", 0): 3.0}), "a", "b"))


def test_ranks_share_ties() -> None:
    assert ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1.0, 3.5, 2.0]
    with pytest.raises(ValueError, match="NaN"):
        ranks([1.0, NAN])


def test_variants_compete_where_all_of_them_have_scores() -> None:
    cells = {(scene, name, 0): 20.0 for scene in "wxyz" for name in "abc"} | {("z", "own", 0): 99.0}
    first, second = fields(Scores(cells), ["a", "b", "c", "own", "absent"])
    assert (first.variants, first.scenes) == (["a", "b", "c"], ["w", "x", "y", "z"])
    assert (second.variants, second.scenes) == (["a", "b", "c", "own"], ["z"])
    # One that failed on a scene takes it from the means of all; one that failed on most has a field of its own.
    cells["w", "a", 0] = None
    assert [field.scenes for field in fields(Scores(cells), ["a", "b", "c"])] == [["x", "y", "z"]]
    cells["x", "a", 0] = cells["y", "a", 0] = NAN
    first, second = fields(Scores(cells), ["a", "b", "c"])
    assert (first.variants, first.scenes) == (["b", "c"], ["w", "x", "y", "z"])
    assert (second.variants, second.scenes) == (["a", "b", "c"], ["z"])


def test_variants_without_a_scene_in_common_do_not_compete() -> None:
    cells = {("x", "a", 0): 1.0, ("y", "b", 0): 2.0}
    assert [(each.variants, each.scenes) for each in fields(Scores(cells), ["a", "b"])] == [
        (["a"], ["x"]),
        (["b"], ["y"]),
    ]
    assert fields(Scores({("x", "a", 0): None}), ["a"]) == []


def test_ranks_within_a_scene_pass_over_those_without_a_score() -> None:
    cells = {("x", "a", 0): 3.0, ("x", "a", 1): 5.0, ("x", "b", 0): 4.5, ("x", "c", 0): None}
    assert scene_ranks(Scores(cells), ["a", "b", "c"], "x") == {"a": 2.0, "b": 1.0}
    assert scene_ranks(Scores(cells), ["a", "b", "c"], "x", lower_is_better=True) == {"a": 1.0, "b": 2.0}


def test_mean_ranks_count_only_scenes_where_all_compete() -> None:
    cells = {("x", "a", 0): 3.0, ("x", "b", 0): 1.0, ("y", "a", 0): 1.0, ("y", "b", 0): 1.0, ("z", "a", 0): 9.0}
    assert mean_ranks(Scores(cells), ["a", "b"]) == ({"a": 1.25, "b": 1.75}, 2)
    assert mean_ranks(Scores(cells), ["a", "b"], lower_is_better=True)[0] == {"a": 1.75, "b": 1.25}
    nobody, n = mean_ranks(Scores({("z", "a", 0): 9.0}), ["a", "b"])
    assert n == 0 and np.isnan(list(nobody.values())).all()


def test_in_one_scene_the_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 5, 40).astype(float), rng.normal(size=40)  # with ties
    quality, final = ({("s", f"v{k:02}", 0): value for k, value in enumerate(each)} for each in (x, y))
    found = predict(Scores(quality), Scores(final))
    assert found.rho == pytest.approx(spearmanr(x, y).statistic) and found.variants == 40
    assert found.p == pytest.approx(spearmanr(x, y).pvalue, abs=0.05)


def test_a_quality_predicts_within_scenes_however_scenes_differ() -> None:
    rng = np.random.default_rng(5)
    quality, final, noise = {}, {}, {}
    for k, scene in enumerate("vwxyz"):
        for j, name in enumerate("abcdef"):
            for seed in (0, 1):
                # Hard scenes have many points: over all runs together, the correlation would be negative.
                quality[scene, name, seed] = 100.0 * k + j
                final[scene, name, seed] = 30.0 - 5 * k + 0.5 * j + rng.normal(0, 0.01)
                noise[scene, name, seed] = rng.normal()
    found = predict(Scores(quality), Scores(final))
    assert found.rho == pytest.approx(1.0) and found.p < 0.01 and (found.scenes, found.variants) == (5, 30)
    assert predict(Scores(noise), Scores(final)).p > 0.05
    unknown = predict(Scores(dict.fromkeys(quality, None)), Scores(final))
    assert np.isnan(unknown.rho) and unknown.scenes == 0
    assert predict(Scores(dict.fromkeys(quality, 3.0)), Scores(final)).scenes == 0  # all alike: nothing is ranked
