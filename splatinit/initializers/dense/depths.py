"""Between which depths a reference is searched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..rig import Rig

FEWEST = 30  # points that a view must see for their depths to bound it
TRIM = 0.01  # share of the points at either end that are taken for wrong
# Factors beyond the nearest and farthest point: sparse points miss what has no texture, the ground before the feet.
MARGIN_NEAR, MARGIN_FAR = 0.7, 1.5
# Without points: from where the nearest neighbour would be seen at this angle (degrees), which no matcher bridges, to
# where the farthest neighbour makes a disparity of this many px, which no matcher measures.
WIDEST_ANGLE, LEAST_DISPARITY = 45.0, 0.5


def depth_range(rig: Rig, view: int, neighbours: Sequence[int], points: np.ndarray | None) -> tuple[float, float]:
    """(nearest, farthest) camera z of ``view``, scene units, 0 < nearest < farthest.

    From the ``points`` [p, 3] that it sees, else from its ``neighbours`` (at least one, at another place).
    """
    if points is not None:
        _, z, seen = rig.look(np.array([view]), points)
        depths = z[0][seen[0]]
        if len(depths) >= FEWEST:
            near, far = np.quantile(depths, [TRIM, 1 - TRIM])
            return MARGIN_NEAR * float(near), MARGIN_FAR * float(far)
    baselines = np.linalg.norm(rig.center[list(neighbours)] - rig.center[view], axis=1)
    near = float(baselines.min()) / (2 * np.tan(np.radians(WIDEST_ANGLE) / 2))
    return near, max(float(baselines.max()) * float(rig.focal[view]) / LEAST_DISPARITY, 2 * near)
