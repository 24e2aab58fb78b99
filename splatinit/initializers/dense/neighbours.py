"""Which photos a reference is matched with: those that see the same from another place, neither too near nor too far.

The measure is that of multi-view stereo (Yao et al. 2018, MVSNet, §4.1; Schönberger et al. 2016, §4): the points that
both photos see, weighted by the angle between the two rays to each. Where the scene has no points, proxies in the
frustum of the reference stand in for them. A camera that only turned sees everything at angle 0 and is no neighbour.
"""

from __future__ import annotations

import numpy as np

from ...geometry.rigid import inverse, unproject
from ..rig import Rig

# Degrees between two rays. Below the first depth is uncertain (its error is that of the match, divided by the angle);
# beyond the second surfaces look too different to be matched. Between them all angles are equally good.
GOOD_ANGLES = (4.0, 15.0)
SPREAD = (1.5, 8.0)  # degrees, standard deviations with which the weight falls on either side
USABLE = 0.02  # least score of a neighbour: for example one point in fifty at a good angle
# And least share of the best one's score: what is far worse adds more wrong matches than right ones.
RELATIVE = 0.1
MOST_POINTS = 300  # that judge a pair; the error of a share is 3 % then
# The proxies: columns, rows, and depths as multiples of the typical one.
GRID, DEPTHS = (6, 4), (0.5, 1.0, 2.0, 4.0)
# Least eigenvalue of the mean of I − d dᵀ over the optical axes d: 0 where they are parallel. 0.02 is a spread of 8°.
CONVERGENT = 0.02
# Score that is left of a photo which looks from the same side as one that was chosen before.
SAME_SIDE = 0.5


def angle_weight(degrees: np.ndarray) -> np.ndarray:
    """How good the angle between two rays is for triangulation, in [0, 1]."""
    low = np.minimum(degrees - GOOD_ANGLES[0], 0) / SPREAD[0]
    high = np.maximum(degrees - GOOD_ANGLES[1], 0) / SPREAD[1]
    # At angle 0 nothing is left, so that a camera at the same place is worth nothing, however much it sees.
    return np.exp(-0.5 * (low**2 + high**2)) * np.minimum(degrees, 1.0)


def typical_depths(rig: Rig) -> np.ndarray:
    """[n] distance at which each camera probably looks, from the cameras alone.

    The distance to the point that all optical axes pass nearest to, where they converge in front of most cameras; else
    (forward-facing and inside-out captures) twice the extent of the cameras.
    """
    d = rig.axis
    across = np.eye(3) - d[:, :, None] * d[:, None, :]
    total = across.sum(axis=0)
    if np.linalg.eigvalsh(total)[0] > CONVERGENT * len(rig):
        focus = np.linalg.solve(total, np.einsum("nij,nj->i", across, rig.center))
        depth = ((focus - rig.center) * d).sum(axis=1)
        if (depth > 0).mean() > 0.75:
            return np.where(depth > 0.1 * rig.extent, depth, rig.extent)
    return np.full(len(rig), 2 * rig.extent)


def proxies(rig: Rig, view: int, depth: float) -> np.ndarray:
    """[p, 3] points spread over the frustum of ``view`` around ``depth``."""
    columns, rows = (np.arange(k) + 0.5 for k in GRID)
    px = np.stack(np.meshgrid(columns / GRID[0], rows / GRID[1]), axis=-1).reshape(-1, 2) * rig.size[view]
    z = np.repeat(depth * np.array(DEPTHS), len(px))
    return unproject(rig.K[view], inverse(rig.pose[view]), np.tile(px, (len(DEPTHS), 1)), z)


def seen_points(rig: Rig, view: int, points: np.ndarray | None, depth: float) -> np.ndarray:
    """[p, 3] what judges the pairs of ``view``: evenly chosen ones of ``points`` [n, 3] that it sees, else proxies.

    Points say nothing about what hides them; the angles at those on the far side of an object are so large that they
    hardly count.
    """
    if points is not None and len(points):
        _, _, seen = rig.look(np.array([view]), points)
        index = np.flatnonzero(seen[0])
        if len(index) >= GRID[0] * GRID[1]:
            return points[index[np.linspace(0, len(index) - 1, min(len(index), MOST_POINTS)).astype(int)]]
    return proxies(rig, view, depth)


def pair_scores(rig: Rig, view: int, xyz: np.ndarray) -> np.ndarray:
    """[n] how well each camera triangulates what ``view`` sees at ``xyz`` [p, 3], in [0, 1]; 0 for ``view`` itself.

    The mean over the points of: seen there · weight of the angle · ratio of the sizes at which both see it (≤ 1).
    """
    everyone = np.arange(len(rig))
    _, z, seen = rig.look(everyone, xyz)
    rays = xyz - rig.center[:, None]
    rays /= np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-300)
    angle = angles_between(rays, rays[view])
    with np.errstate(invalid="ignore", divide="ignore"):
        size = rig.focal[:, None] / z
        ratio = size / size[view]
        weight = np.where(seen, angle_weight(angle) * np.minimum(ratio, 1 / ratio), 0.0)
    scores = weight.mean(axis=1)
    scores[view] = 0.0
    return scores


def angles_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between unit vectors, exact for tiny angles, where the arc cosine is not."""
    return np.degrees(2 * np.arcsin(np.minimum(np.linalg.norm(a - b, axis=-1) / 2, 1.0)))


def choose_neighbours(rig: Rig, view: int, xyz: np.ndarray, count: int) -> list[int]:
    """At most ``count`` cameras to match ``view`` with, the best first; none where no camera has a usable score.

    Greedy: a camera on the same side as one that was chosen tells less than one on another side, where the scale of
    the angles, repeated texture and occlusion differ.
    """
    scores = pair_scores(rig, view, xyz)
    offset = rig.center - rig.center[view]
    side = offset / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-300)
    chosen: list[int] = []
    factor = np.ones(len(rig))
    usable = scores >= max(USABLE, RELATIVE * float(scores.max()))
    while len(chosen) < min(count, int(usable.sum())):
        value = np.where(usable, scores * factor, -1.0)
        value[chosen] = -1.0
        best = int(value.argmax())
        chosen.append(best)
        factor = np.minimum(factor, 1 - (1 - SAME_SIDE) * np.maximum(side @ side[best], 0) ** 2)
    return chosen


def sparse_or_none(points: np.ndarray | None) -> np.ndarray | None:
    """Finite points [p, 3] float64, or None where there are none."""
    if points is None:
        return None
    xyz = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    xyz = xyz[np.isfinite(xyz).all(axis=1)]
    return xyz if len(xyz) else None
