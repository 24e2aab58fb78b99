"""How close a point cloud comes to known geometry: accuracy, completeness and F-score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import ConfigError, ShapeError
from .neighbours import checked_points, nearest_distance
from .surface import Surface

# Of a mesh, for completeness. Recall is a share of them: its standard error is at most 0.002.
SAMPLES = 100_000


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


def score_cloud(
    xyz: np.ndarray, truth: np.ndarray | Surface, thresholds: Sequence[float], *, samples: np.ndarray | None = None
) -> CloudScore:
    """Score points against the true surface.

    Accuracy, completeness and F-score as in Knapitsch et al. 2017 (Tanks and Temples, eq. 3–8): precision is the
    share of points nearer than the threshold to the truth, recall the share of the truth nearer than that to a point.

    Args:
        xyz: [n, 3]; none score infinitely far.
        truth: a mesh, to which distances are exact; or samples [m, 3] of the surface, m ≥ 1, to which a distance is
            too large by up to their spacing.
        thresholds: distances. All lengths are in the same unit, scene units as a rule.
        samples: [m, 3], what must be complete: where the mesh has sides that no camera saw, samples of those that were
            seen. None takes ``truth``'s own samples, or SAMPLES of the mesh.

    Raises:
        ShapeError: arrays of another shape, or no truth.
        BadPoints: a point that is not finite.
        ConfigError: a threshold that is not a positive number.
    """
    for threshold in thresholds:
        if not 0 < threshold < float("inf"):
            raise ConfigError(f"Points cannot be scored at a threshold of {threshold:g}; expected a positive distance.")
    xyz = checked_points(xyz, "scored points")
    if isinstance(truth, Surface):
        to_truth = truth.distance(xyz)
        samples = truth.sample(SAMPLES) if samples is None else checked_points(samples, "true points")
    else:
        truth = checked_points(truth, "true points")
        to_truth = nearest_distance(xyz, truth)
        samples = truth if samples is None else checked_points(samples, "true points")
    if len(samples) == 0 or (isinstance(truth, np.ndarray) and len(truth) == 0):
        raise ShapeError("A point cloud can only be scored against at least one true point, got none.")
    to_points = nearest_distance(samples, xyz)
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
