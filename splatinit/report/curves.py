"""Quality over training: the curves of a scene's runs, and how long each variant takes to reach a given quality.

Seconds count from the photos on: poses, start and training. A start that is slow to make must win that back. Where the
photos came with poses, what ``sfm`` takes to match them for its points is in its pose stage, and the others do without;
where poses had to be found, all runs of a scene have the same seconds of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from .tables import Results, Row

_POINTS = 60  # of a curve in the page: previews are many
_NUMBERS = 6  # columns of the curve in numbers


@dataclass(frozen=True)
class Curve:
    """PSNR of one run over training, at each step at which it was measured.

    Attributes:
        preview: of one held-out view; else the mean over all test views.
        seconds: of training until then; None where not recorded.
        before: seconds of poses and start; None where not recorded.
    """

    label: str
    seed: int
    preview: bool
    step: list[int]
    psnr: list[float]
    seconds: list[float | None]
    gaussians: list[int | None]
    before: float | None

    @property
    def total(self) -> list[float | None]:
        """Seconds since the photos were read."""
        return [None if None in (self.before, each) else self.before + each for each in self.seconds]

    def data(self) -> dict[str, Any]:
        """What the plot needs; of many points an even choice."""
        keep = _evenly(len(self.psnr), _POINTS)
        columns = {"step": self.step, "seconds": self.seconds, "total": self.total, "gaussians": self.gaussians}
        return {
            "label": self.label,
            "seed": self.seed,
            "psnr": [round(self.psnr[k], 3) for k in keep],
            **{name: [_rounded(values[k]) for k in keep] for name, values in columns.items()},
        }


@dataclass(frozen=True)
class Reached:
    """How long the runs of one variant take to reach a level.

    Attributes:
        total, training: mean seconds over the runs that reach it, with and without poses and start; NaN without one.
        at_once: some run was there when it was first looked at, so that the times are upper bounds.
        reached, runs: how many reach it, of how many.
    """

    total: float
    training: float
    at_once: bool
    reached: int
    runs: int


def scene_curves(results: Results, scene: str) -> list[Curve]:
    """The curves of one scene's finished runs, all of one kind: of all test views where any run has at least three such
    measurements, else of the preview."""
    rows = [row for row in results.runs if row["scene"] == scene and row["status"] == "done"]
    steps = {row["run"]: results.steps.get(row["run"], []) for row in rows}
    whole = any(len(_measured(each, "psnr")) > 2 for each in steps.values())
    key = "psnr" if whole else "preview_psnr"
    return [_curve(row, found, key) for row in rows if len(found := _measured(steps[row["run"]], key)) > 1]


def _measured(steps: Sequence[Row], key: str) -> list[Row]:
    return [each for each in steps if each.get(key) is not None]


def _curve(row: Row, steps: list[Row], key: str) -> Curve:
    before = (row["seconds_pose"], row["seconds_init"])
    return Curve(
        label=str(row["label"]),
        seed=row["seed"],
        preview=key != "psnr",
        step=[each["step"] for each in steps],
        psnr=[each[key] for each in steps],
        seconds=[each.get("seconds") for each in steps],
        gaussians=[each.get("gaussians") for each in steps],
        before=None if None in before else sum(before),
    )


def levels(curves: Sequence[Curve]) -> list[float]:
    """What all variants reach in all their runs, what half of them do, and what the best does: dB, rounded down."""
    tops: dict[str, float] = {}
    for curve in curves:
        tops[curve.label] = min(tops.get(curve.label, math.inf), max(curve.psnr))
    if not tops:
        return []
    wanted = (min(tops.values()), median(tops.values()), max(tops.values()))
    return sorted({math.floor(10 * level + 1e-6) / 10 for level in wanted})


def reach(curves: Sequence[Curve], level: float) -> dict[str, Reached]:
    """variant → how long it takes until ``level`` dB; between two measurements along a straight line."""
    found: dict[str, list[tuple[float, float, bool] | None]] = {}
    for curve in curves:
        found.setdefault(curve.label, []).append(_when(curve, level))
    told = {}
    for label, runs in found.items():
        there = [each for each in runs if each is not None]
        nan = math.nan
        told[label] = Reached(
            total=fmean(each[0] for each in there) if there else nan,
            training=fmean(each[1] for each in there) if there else nan,
            at_once=any(each[2] for each in there),
            reached=len(there),
            runs=len(runs),
        )
    return told


def _when(curve: Curve, level: float) -> tuple[float, float, bool] | None:
    """Seconds in all and of training until the curve first reaches ``level``, and whether its first point does."""
    k = next((k for k, value in enumerate(curve.psnr) if value >= level), None)
    if k is None or curve.seconds[k] is None:
        return None
    at = curve.seconds[k]
    if k and curve.seconds[k - 1] is not None:
        part = (level - curve.psnr[k - 1]) / (curve.psnr[k] - curve.psnr[k - 1])
        at = curve.seconds[k - 1] + part * (at - curve.seconds[k - 1])
    return (math.nan if curve.before is None else curve.before + at), at, k == 0


def in_numbers(curves: Sequence[Curve], labels: Sequence[str]) -> dict[str, Any] | None:
    """The curves as a table: at a few measurements the mean over seeds of PSNR, seconds and Gaussians.

    Measurements are those after the same step; where runs were given a time and made different numbers of steps, those
    of the same place in their order. None where they are neither.
    """
    common = sorted(set.intersection(*(set(curve.step) for curve in curves)))
    if len(common) > 1:
        columns = [f"step {common[k]}" for k in _evenly(len(common), _NUMBERS)]
        places = {id(curve): [curve.step.index(int(name[5:])) for name in columns] for curve in curves}
    elif len({len(curve.step) for curve in curves}) == 1:
        chosen = _evenly(len(curves[0].step), _NUMBERS)
        columns = [f"measurement {k + 1}" for k in chosen]
        places = {id(curve): chosen for curve in curves}
    else:
        return None
    rows = []
    for label in labels:
        own = [curve for curve in curves if curve.label == label]
        if not own:
            continue
        cells = [
            {
                "psnr": fmean(curve.psnr[places[id(curve)][k]] for curve in own),
                "total": _mean([curve.total[places[id(curve)][k]] for curve in own]),
                "gaussians": _mean([curve.gaussians[places[id(curve)][k]] for curve in own]),
            }
            for k in range(len(columns))
        ]
        rows.append({"label": label, "cells": cells})
    return {"columns": columns, "rows": rows}


def time_to_quality(
    results: Results, labels: Sequence[str], scenes: Sequence[str], reference: str
) -> dict[str, Any] | None:
    """Over scenes: seconds until the PSNR that all runs of ``reference`` reach, and how that compares with its own.

    Returns:
        None where no scene has curves of ``reference`` and another; else ``levels`` scene → dB, and ``rows``: label,
        scene → Reached, the geometric mean over scenes of seconds(label) / seconds(reference) where all runs of both
        reach it, and how many these are.
    """
    curves = {scene: [each for each in scene_curves(results, scene) if each.label in labels] for scene in scenes}
    own = {scene: [each for each in found if each.label == reference] for scene, found in curves.items()}
    curves = {scene: found for scene, found in curves.items() if own[scene] and len(found) > len(own[scene])}
    if not curves:
        return None
    found = {scene: levels(own[scene])[0] for scene in curves}
    times = {scene: reach(each, found[scene]) for scene, each in curves.items()}
    rows = []
    for label in labels:
        ratios = [
            math.log(each[label].total / each[reference].total)
            for each in times.values()
            if _whole(each.get(label)) and _whole(each.get(reference))
        ]
        rows.append(
            {
                "label": label,
                "times": {scene: times[scene].get(label) for scene in curves},
                "ratio": math.exp(fmean(ratios)) if ratios else math.nan,
                "scenes": len(ratios),
            }
        )
    return {"levels": found, "rows": rows, "preview": any(each[0].preview for each in curves.values())}


def _whole(reached: Reached | None) -> bool:
    return reached is not None and reached.reached == reached.runs and reached.total > 0


def of_scene(results: Results, scene: str) -> Mapping[str, Any] | None:
    """What the page shows of one scene's curves; None where there are none."""
    curves = scene_curves(results, scene)
    if not curves:
        return None
    wanted = levels(curves) if all(None not in curve.seconds for curve in curves) else []
    at = [reach(curves, level) for level in wanted]
    labels = [label for label in results.labels if any(curve.label == label for curve in curves)]
    return {
        "curves": [curve.data() for curve in curves],
        "preview": curves[0].preview,
        "levels": wanted,
        "reached": [(label, [each[label] for each in at]) for label in labels],
        "numbers": in_numbers(curves, labels),
    }


def _evenly(total: int, limit: int) -> list[int]:
    """At most ``limit`` of the indices below ``total``, the first and the last among them."""
    if total <= limit:
        return list(range(total))
    return [round(k * (total - 1) / (limit - 1)) for k in range(limit)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _mean(values: Sequence[float | None]) -> float:
    return math.nan if None in values else fmean(values)
