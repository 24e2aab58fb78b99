"""Quality over training in numbers: levels, when they are reached, and what a start costs besides."""

from __future__ import annotations

import math

import pytest

from splatinit.report.curves import Curve, in_numbers, levels, reach, scene_curves, time_to_quality
from splatinit.report.tables import Results


def curve(label: str, psnr: list[float], seconds: list[float | None] | None = None, **more: object) -> Curve:
    """Measured after 100, 200, ... steps, a second each."""
    steps = [100 * (k + 1) for k in range(len(psnr))]
    given = {"seed": 0, "preview": False, "gaussians": [10 * step for step in steps], "before": 5.0, "step": steps}
    return Curve(label=label, psnr=psnr, seconds=seconds or [k + 1.0 for k in range(len(psnr))], **(given | more))


def test_a_level_is_reached_between_two_measurements() -> None:
    found = reach([curve("a", [10.0, 20.0, 30.0])], 25.0)["a"]
    assert (found.training, found.total) == (pytest.approx(2.5), pytest.approx(7.5))
    assert (found.at_once, found.reached, found.runs) == (False, 1, 1)


def test_what_is_there_at_the_first_measurement_is_an_upper_bound() -> None:
    found = reach([curve("a", [10.0, 20.0])], 9.0)["a"]
    assert found.at_once and found.training == 1.0


def test_seeds_that_do_not_reach_a_level_are_counted_and_enter_no_mean() -> None:
    found = reach([curve("a", [10.0, 20.0]), curve("a", [10.0, 12.0], seed=1), curve("b", [1.0, 2.0])], 15.0)
    assert (found["a"].reached, found["a"].runs, found["a"].training) == (1, 2, 1.5)
    assert found["b"].reached == 0 and math.isnan(found["b"].total)


def test_a_curve_that_falls_again_has_reached_what_it_reached() -> None:
    assert reach([curve("a", [10.0, 30.0, 12.0])], 20.0)["a"].training == 1.5


def test_without_the_cost_of_the_start_only_training_is_known() -> None:
    found = reach([curve("a", [10.0, 20.0], before=None)], 15.0)["a"]
    assert found.training == 1.5 and math.isnan(found.total)


def test_levels_are_what_all_half_and_the_best_reach_in_all_their_runs() -> None:
    tops = {"a": (30.07, 31.0), "b": (25.55, 25.0), "c": (20.0, 22.0)}
    curves = [curve(name, [1.0, top], seed=seed) for name, each in tops.items() for seed, top in enumerate(each)]
    assert levels(curves) == [20.0, 25.0, 30.0]
    assert levels(curves[:2]) == [30.0] and levels([]) == []


def test_numbers_stand_at_the_steps_that_all_have() -> None:
    found = in_numbers([curve("a", [10.0, 20.0, 30.0]), curve("b", [1.0, 2.0])], ["b", "a", "absent"])
    assert found["columns"] == ["step 100", "step 200"]
    assert [(row["label"], [cell["psnr"] for cell in row["cells"]]) for row in found["rows"]] == [
        ("b", [1.0, 2.0]),
        ("a", [10.0, 20.0]),
    ]
    assert found["rows"][0]["cells"][1] == {"psnr": 2.0, "total": 7.0, "gaussians": 2000.0}


def test_runs_of_one_time_and_other_steps_stand_by_their_order() -> None:
    other = curve("b", [3.0, 4.0], step=[70, 140])
    assert in_numbers([curve("a", [1.0, 2.0]), other], ["a", "b"])["columns"] == ["measurement 1", "measurement 2"]
    assert in_numbers([curve("a", [1.0, 2.0, 3.0]), other], ["a", "b"]) is None


def results(finals: dict[tuple[str, str], float], before: dict[str, float]) -> Results:
    """Runs that rise straight from 0 to their final PSNR in four measurements, 10 s each."""
    runs, steps = [], {}
    for (scene, label), final in finals.items():
        name = f"{scene} {label}"
        row = {"run": name, "scene": scene, "label": label, "seed": 0, "status": "done", "psnr": final}
        runs.append(row | {"seconds_pose": before[label], "seconds_init": 1.0})
        steps[name] = [
            {"step": k, "seconds": 10.0 * k, "psnr": final * k / 4, "preview_psnr": 1.0, "gaussians": 5}
            for k in range(1, 5)
        ]
    return Results(None, runs, {}, steps, {})


def test_time_to_the_reference_counts_what_came_before_training() -> None:
    finals = {("x", "sfm"): 20.0, ("x", "dense"): 40.0, ("y", "sfm"): 20.0, ("y", "dense"): 10.0, ("z", "dense"): 9.0}
    found = time_to_quality(results(finals, {"sfm": 39.0, "dense": 9.0}), ["sfm", "dense"], ["x", "y", "z"], "sfm")
    assert found["levels"] == {"x": 20.0, "y": 20.0}  # on z, sfm has no run
    sfm, dense = found["rows"]
    assert sfm["times"]["x"].total == pytest.approx(80.0) and sfm["ratio"] == pytest.approx(1.0)
    assert dense["times"]["x"].total == pytest.approx(10.0 + 20.0)
    assert (dense["ratio"], dense["scenes"]) == (pytest.approx(30 / 80), 1)
    assert dense["times"]["y"].reached == 0


def test_previews_are_used_where_no_run_measured_all_views() -> None:
    found = results({("x", "a"): 20.0, ("x", "b"): 20.0}, {"a": 0.0, "b": 0.0})
    assert not scene_curves(found, "x")[0].preview
    for row in found.steps["x a"][:-1]:
        row["psnr"] = None
    assert [each.label for each in scene_curves(found, "x")] == ["b"]  # not of one kind with the other
    for row in found.steps["x b"][:-1]:
        row["psnr"] = None
    assert [each.preview for each in scene_curves(found, "x")] == [True, True]
