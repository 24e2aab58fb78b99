"""Nearest neighbours in point clouds."""

from __future__ import annotations

import numpy as np

from ..errors import BadPoints, ShapeError


def checked_points(xyz: np.ndarray, where: str) -> np.ndarray:
    """``xyz`` as float64 [n, 3], n ≥ 0. Raises ShapeError or BadPoints, naming ``where``, for points that are none."""
    xyz = np.asarray(xyz, dtype=np.float64)
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise ShapeError(f"{where}: points must be [n, 3], got {list(xyz.shape)}.")
    finite = np.isfinite(xyz).all(axis=1)
    if not finite.all():
        raise BadPoints(
            f"{where}: {int((~finite).sum())} of {len(xyz)} points are not finite (the first is number "
            f"{int(np.argmin(finite))}).",
            hint="Remove these points.",
        )
    return xyz


def neighbour_distances(xyz: np.ndarray, k: int = 3) -> np.ndarray:
    """Distances [n, min(k, n − 1)] from each point [n, 3] to its nearest others, ascending, in the points' units.

    A duplicate counts as a neighbour at distance 0. scipy's k-d tree is exact and uses all cores.
    """
    from scipy.spatial import cKDTree

    xyz = np.asarray(xyz, dtype=np.float64)
    k = min(k, len(xyz) - 1)
    if k < 1:
        return np.zeros((len(xyz), 0))
    # The first hit is the point itself, or a duplicate of it: at distance 0 either way, so the others are right.
    distances, _ = cKDTree(xyz).query(xyz, k=k + 1, workers=-1)
    return distances[:, 1:]


def mean_neighbour_distance(xyz: np.ndarray, k: int = 3) -> np.ndarray:
    """Mean distance [n] from each point to its ``k`` nearest others (fewer where the cloud is smaller).

    NaN for a single point, which has no neighbour to measure by.
    """
    distances = neighbour_distances(xyz, k)
    return distances.mean(axis=1) if distances.shape[1] else np.full(len(distances), np.nan)


def nearest_distance(xyz: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance [n] from each point of ``xyz`` [n, 3] to the nearest of ``others`` [m, 3]; infinite when m = 0."""
    from scipy.spatial import cKDTree

    if len(others) == 0 or len(xyz) == 0:
        return np.full(len(xyz), np.inf)
    distances, _ = cKDTree(np.asarray(others, dtype=np.float64)).query(np.asarray(xyz, dtype=np.float64), workers=-1)
    return distances


_CHUNK = 100_000  # points whose neighbours are gathered at once: 80 MB with 32 each


def local_planes(xyz: np.ndarray, k: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """The plane around each point, from itself and its ``k`` nearest others (fewer where the cloud is smaller).

    Principal component analysis (Hoppe et al. 1992, §3.2).

    Returns:
        normals [n, 3]: unit, of either sign.
        thickness [n]: standard deviation of these points along the normal, relative to that along the shorter axis of
            the plane: 0 for a plane, 0.5 to 0.9 for random points in a volume, 1 on a line, where there is no plane.
    """
    from scipy.spatial import cKDTree

    xyz = np.asarray(xyz, dtype=np.float64)
    normals, thickness = np.zeros_like(xyz), np.ones(len(xyz))
    normals[:, 2] = 1.0
    k = min(k, len(xyz) - 1)
    if k < 2:
        return normals, thickness
    tree = cKDTree(xyz)
    for start in range(0, len(xyz), _CHUNK):
        part = slice(start, start + _CHUNK)
        _, index = tree.query(xyz[part], k=k + 1, workers=-1)
        around = xyz[index] - xyz[part, None]  # relative, so that far scenes lose no digits
        around -= around.mean(axis=1, keepdims=True)
        variance, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around))
        normals[part] = axes[:, :, 0]
        low, middle, high = variance.clip(min=0).T
        plane = middle > 1e-9 * high
        thickness[part][plane] = np.sqrt(low[plane] / middle[plane])
    return normals, thickness
