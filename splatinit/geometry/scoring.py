"""How close a point cloud comes to known geometry: accuracy, completeness and F-score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import ShapeError
from .neighbours import nearest_distance


@dataclass(frozen=True)
class ThresholdScore:
    """At one threshold (scene units): shares in [0, 1] and their harmonic mean."""

    threshold: float
    precision: float  # share of the points that lie within the threshold of the truth
    recall: float  # share of the truth that lies within the threshold of a point
    fscore: float


@dataclass(frozen=True)
class CloudScore:
    """Distances in scene units; infinite where the cloud is empty.

    Attributes:
        n: number of points that were scored.
        accuracy: mean distance from a point to the truth.       accuracy_median: its median.
        completeness: mean distance from the truth to a point.   completeness_median: its median.
        thresholds: one score per threshold, in the order they were asked for.
    """

    n: int
    accuracy: float
    accuracy_median: float
    completeness: float
    completeness_median: float
    thresholds: tuple[ThresholdScore, ...]

    def to_json(self) -> dict:
        """Plain values; infinite distances become None (JSON has no infinity)."""
        values = asdict(self)
        values["thresholds"] = [dict(score) for score in values["thresholds"]]
        return {key: None if value == float("inf") else value for key, value in values.items()}


def score_cloud(xyz: np.ndarray, truth: np.ndarray, thresholds: Sequence[float]) -> CloudScore:
    """Score points [n, 3] against samples of the true surface [m, 3] (m ≥ 1, same units).

    Accuracy, completeness and F-score as in Knapitsch et al. 2017 (Tanks and Temples, eq. 3–8): precision is the
    share of points nearer than the threshold to the truth, recall the share of the truth nearer than that to a point.
    """
    if len(truth) == 0:
        raise ShapeError("A point cloud can only be scored against at least one true point, got none.")
    to_truth, to_points = nearest_distance(xyz, truth), nearest_distance(truth, xyz)
    scores = []
    for threshold in thresholds:
        precision = float((to_truth < threshold).mean()) if len(xyz) else 0.0
        recall = float((to_points < threshold).mean())
        total = precision + recall
        fscore = 2 * precision * recall / total if total else 0.0
        scores.append(ThresholdScore(float(threshold), precision, recall, fscore))
    empty = len(xyz) == 0
    return CloudScore(
        n=len(xyz),
        accuracy=float("inf") if empty else float(to_truth.mean()),
        accuracy_median=float("inf") if empty else float(np.median(to_truth)),
        completeness=float(to_points.mean()),
        completeness_median=float(np.median(to_points)),
        thresholds=tuple(scores),
    )
