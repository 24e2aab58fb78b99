"""From two-view matchers to :class:`Matches`: one reference with several neighbours, filtered by what is known.

A network finds one photo in one other, at a size of its own. Here are the parts that all of them need: photos at the
network's size and coordinates back, the filter by masks and by the epipolar geometry, and the union of the pairs into
one set of reference points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..types import Camera
from .base import Matches, MatchView


@dataclass(frozen=True)
class Pair:
    """What was found of a reference in one neighbour, px of the photos at their own sizes (centres at +0.5).

    Attributes:
        points: [m, 2] float32 px in the reference. A point that the matcher finds in several neighbours must have the
            same bits in each.
        targets: [m, 2] float32 px in the neighbour.
        certainty: [m] float32 in [0, 1].
    """

    points: np.ndarray
    targets: np.ndarray
    certainty: np.ndarray


@dataclass(frozen=True)
class Gate:
    """Which matches count.

    Attributes:
        certainty: those that the matcher gives at least this.
        epipolar: px of the neighbour that the target may lie off the epipolar line, where both cameras are known;
            None: any.
    """

    certainty: float
    epipolar: float | None

    def __post_init__(self) -> None:
        if not 0 <= self.certainty <= 1:
            raise ConfigError(f"A matcher's certainty is {self.certainty:g}; expected a number from 0 to 1.")
        if self.epipolar is not None and not 0 < self.epipolar < float("inf"):
            raise ConfigError(f"A matcher's epipolar is {self.epipolar:g} px; expected a positive number, or none.")


def match_neighbours(
    find: Callable[[MatchView], Pair],
    reference: MatchView,
    neighbours: Sequence[MatchView],
    gate: Gate,
    depth_range: tuple[float, float] | None = None,
) -> Matches:
    """What ``find`` finds of the reference in each neighbour, as far as it passes the gate.

    Matches on unusable pixels of either photo, or outside of one, are dropped. The reference points of all neighbours
    become one set: a point found in several neighbours is one row with several targets, which can be triangulated from
    all of them; a matcher whose reference points differ from neighbour to neighbour gives rows with one target and NaN
    elsewhere. Rows are ordered by y, then x.
    """
    kept = []
    for neighbour in neighbours:
        pair = find(neighbour)
        keep = _passes(pair, reference, neighbour, gate, depth_range)
        # Adding 0 turns −0 into 0: equal numbers have equal bits from here on.
        kept.append(
            Pair(
                np.ascontiguousarray(pair.points[keep], np.float32) + np.float32(0),
                np.asarray(pair.targets[keep], np.float32),
                np.asarray(pair.certainty[keep], np.float32),
            )
        )
    # A point's 8 bytes as one whole number: coordinates are not negative, so on a little-endian machine the numbers
    # are ordered by y, then x.
    keys = [pair.points.view(np.dtype("<u8"))[:, 0] for pair in kept]
    rows, found = np.unique(np.concatenate(keys), return_inverse=True)
    targets = np.full((len(kept), len(rows), 2), np.nan, np.float32)
    certainty = np.zeros((len(kept), len(rows)), np.float32)
    start = 0
    for v, pair in enumerate(kept):
        row = found[start : start + len(pair.points)]
        start += len(pair.points)
        # Of several targets of one point the most certain is written last, and stays.
        order = np.argsort(pair.certainty, kind="stable")
        targets[v, row[order]] = pair.targets[order]
        certainty[v, row[order]] = pair.certainty[order]
    return Matches(rows.view(np.float32).reshape(-1, 2), targets, certainty)


def _passes(
    pair: Pair,
    reference: MatchView,
    neighbour: MatchView,
    gate: Gate,
    depth_range: tuple[float, float] | None,
) -> np.ndarray:
    """[m] bool: which matches of a pair count."""
    keep = pair.certainty >= gate.certainty
    for view, px in ((reference, pair.points), (neighbour, pair.targets)):
        keep &= _usable(view, px)
    if gate.epipolar is not None and reference.camera is not None and neighbour.camera is not None:
        index = np.nonzero(keep)[0]
        distance = epipolar_distance(
            reference.camera, neighbour.camera, pair.points[index], pair.targets[index], depth_range
        )
        keep[index] = distance <= gate.epipolar
    return keep


def _usable(view: MatchView, px: np.ndarray) -> np.ndarray:
    """[m] bool: which of [m, 2] px are finite and lie on a usable pixel of the photo."""
    height, width = view.rgb.shape[:2]
    # A NaN compares as False.
    inside = (px[:, 0] >= 0) & (px[:, 1] >= 0) & (px[:, 0] < width) & (px[:, 1] < height)
    if view.usable is not None:
        column, row = px[inside].astype(np.int64).T
        inside[inside] = view.usable[row, column]
    return inside


def epipolar_distance(
    reference: Camera,
    neighbour: Camera,
    points: np.ndarray,
    targets: np.ndarray,
    depth_range: tuple[float, float] | None = None,
) -> np.ndarray:
    """How far targets lie from where their points can be seen in the neighbour, given both poses.

    A point of the reference is a ray; the neighbour sees the part of it in front of both cameras, within
    ``depth_range``, as a segment of the epipolar line (Hartley and Zisserman, Multiple View Geometry, §9.1 and §9.6).
    Without a baseline the segment is one point.

    Args:
        points: [m, 2] px in the reference.
        targets: [m, 2] px in the neighbour.
        depth_range: (nearest, farthest) camera z in the reference, scene units; None: from 0 to infinity.

    Returns:
        [m] float64 px of the neighbour from the target to the nearest point of the segment; infinity where nothing of
        the ray is in front of the neighbour.
    """
    motion = neighbour.cam_from_world @ reference.world_from_cam
    rays = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ np.linalg.inv(reference.K).T
    # Homogeneous px in the neighbour at depth z: z · direction + epipole; at infinity: direction.
    direction = rays @ (neighbour.K @ motion[:3, :3]).T
    epipole = np.broadcast_to(neighbour.K @ motion[:3, 3], direction.shape)
    near, far = (0.0, np.inf) if depth_range is None else depth_range
    start = near * direction + epipole
    end = direction if np.isinf(far) else far * direction + epipole
    # Cut off what is behind the neighbour. Not quite at its plane, whose points are infinitely far away.
    front = 1e-6 * np.maximum(start[:, 2], end[:, 2])
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = []
        for one, other in ((start, end), (end, start)):
            share = np.clip((front - one[:, 2]) / (other[:, 2] - one[:, 2]), 0, 1)
            share = np.where(one[:, 2] < front, share, 0)[:, None]
            cut = one + share * (other - one)
            ends.append(cut[:, :2] / cut[:, 2:])
        along = ends[1] - ends[0]
        offset = targets - ends[0]
        length = (along**2).sum(1)
        position = np.where(length > 0, np.clip((offset * along).sum(1) / length, 0, 1), 0)
        distance = np.linalg.norm(offset - position[:, None] * along, axis=1)
    return np.where((front > 0) & np.isfinite(distance), distance, np.inf)


# ------------------------------------------------------------------------------------------------ the network's size
def network_size(width: int, height: int, longest: int, multiple: int) -> tuple[int, int]:
    """(width, height) px nearest to ``longest`` for the longer side, both multiples of ``multiple`` and at least that.

    The two sides are rounded on their own, so pixels may become a little oblong; :func:`to_photo` undoes exactly that.
    """
    scale = longest / max(width, height) / multiple
    return max(1, round(width * scale)) * multiple, max(1, round(height * scale)) * multiple


def at_size(rgb: np.ndarray, width: int, height: int) -> np.ndarray:
    """A photo [h, w, 3] uint8 at another size: averaged where it shrinks, linear where it grows."""
    import cv2

    if rgb.shape[:2] == (height, width):
        return rgb
    shrinks = width * height < rgb.shape[0] * rgb.shape[1]
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def to_photo(px: np.ndarray, view: MatchView, width: int, height: int) -> np.ndarray:
    """[m, 2] px at the network's ``width`` × ``height`` → [m, 2] float32 px of the photo.

    With pixel centres at +0.5 a change of size is a mere scaling, and OpenCV's resize keeps to it.
    """
    scale = np.array([view.rgb.shape[1] / width, view.rgb.shape[0] / height])
    return (px * scale).astype(np.float32)
