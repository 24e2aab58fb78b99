"""How large a point starts."""

from __future__ import annotations

import numpy as np

from ...geometry.neighbours import mean_neighbour_distance

FLOOR = 0.25  # of a pixel's footprint: a Gaussian that is smaller shows between no two pixels


def radii(xyz: np.ndarray, pitch: np.ndarray, spacing: np.ndarray, *, rule: str, factor: float) -> np.ndarray:
    """[n] scene units, positive.

    Args:
        xyz: [n, 3].
        pitch: [n] size of a pixel at the point (z / f), scene units.
        spacing: [n] px between points that is wanted there.
        rule: "footprint", spacing · pitch; "neighbours", the mean distance to the 3 nearest points; "both", the smaller
            one.
        factor: times that.
    """
    footprint = spacing * pitch
    if rule == "footprint" or len(xyz) < 2:
        radius = footprint
    else:
        radius = mean_neighbour_distance(xyz)
        if rule == "both":
            radius = np.minimum(radius, footprint)
    return factor * np.maximum(radius, FLOOR * pitch)
