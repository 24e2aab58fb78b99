"""How much of what the views see a point cloud holds."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import ShapeError
from ..types import Camera
from .neighbours import checked_points
from .rigid import project


def coverage(
    xyz: np.ndarray, views: Iterable[tuple[Camera, np.ndarray]], share: float = 0.01, cells: int = 100
) -> np.ndarray:
    """Share in [0, 1] of each view's pixels that a point covers: [v], NaN for a view without a known depth.

    The image is cut into square cells. In each, only the point that is nearest to the camera counts, as in a z-buffer:
    what floats before a surface hides the points on it. A cell is covered where that point's depth is right at its own
    pixel; all pixels of known depth in it are covered with it.

    Args:
        xyz: points [n, 3], scene units; none cover nothing.
        views: camera and depth [h, w] (scene units along z, 0 = unknown) at the camera's size: true, or estimated.
            Depth where the photo shows nothing (transparent) must be 0.
        share: of the true depth by which a point's may differ.
        cells: along the longer side of the image; a cell is never smaller than a pixel.

    Raises:
        ShapeError: a depth map of another size than its camera; points of another shape.
        BadPoints: a point that is not finite.
    """
    xyz = checked_points(xyz, "coverage")
    found = []
    for camera, depth in views:
        if depth.shape != (camera.height, camera.width):
            raise ShapeError(
                f"coverage: a depth map is {list(depth.shape)}, its camera {camera.width}×{camera.height} px; expected "
                f"[{camera.height}, {camera.width}]."
            )
        found.append(_covered(xyz, camera, depth, share, cells))
    return np.array(found)


def _covered(xyz: np.ndarray, camera: Camera, depth: np.ndarray, share: float, cells: int) -> float:
    known = depth > 0
    if not known.any():
        return float("nan")
    side = max(1.0, max(camera.width, camera.height) / cells)
    columns = int(np.ceil(camera.width / side))
    px, z = project(camera.K, camera.cam_from_world, xyz)
    with np.errstate(invalid="ignore"):  # NaN behind the camera: outside
        inside = (px >= 0).all(axis=1) & (px[:, 0] < camera.width) & (px[:, 1] < camera.height)
    px, z = px[inside], z[inside]
    cell = (px[:, 1] // side).astype(np.int64) * columns + (px[:, 0] // side).astype(np.int64)
    # The nearest point of each cell comes first in it.
    order = np.lexsort((z, cell))
    _, first = np.unique(cell[order], return_index=True)
    front = order[first]
    truth = depth[px[front, 1].astype(np.int64), px[front, 0].astype(np.int64)]
    right = (truth > 0) & (np.abs(z[front] - truth) <= share * truth)
    rows, cols = np.nonzero(known)
    # By pixel centres, as the points' own pixels may straddle two cells.
    pixels = ((rows + 0.5) // side).astype(np.int64) * columns + ((cols + 0.5) // side).astype(np.int64)
    return float(np.isin(pixels, cell[front][right]).mean())
