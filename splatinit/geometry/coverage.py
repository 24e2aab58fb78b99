"""How much of what the views see a point cloud holds, and whether it has the photos' colours.

All measures look at a view's image in square cells. In each, only the point that is nearest to the camera counts, as in
a z-buffer: what floats before a surface hides the points on it. Where a cell holds no point of the surface in front, a
point behind it is looked at instead: a sparse cloud hides little.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import ShapeError
from ..types import Camera
from .neighbours import checked_points
from .rigid import project


def coverage(
    xyz: np.ndarray, views: Iterable[tuple[Camera, np.ndarray]], share: float = 0.01, cells: int = 100
) -> np.ndarray:
    """Share in [0, 1] of each view's pixels that a point covers: [v], NaN for a view without a known depth.

    A cell is covered where the depth of its nearest point is right at that point's own pixel; all pixels of known depth
    in it are covered with it.

    Args:
        xyz: points [n, 3], scene units; none cover nothing.
        views: camera and depth [h, w] (scene units along z, 0 or not finite: unknown) at the camera's size: true, or
            estimated.
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
        _check_size("coverage", "a depth map", depth, camera)
        front = _front(xyz, camera, cells)
        depth = np.where(np.isfinite(depth), depth, 0.0)
        truth = depth[front.rows, front.columns]
        right = (truth > 0) & (np.abs(front.z - truth) <= share * truth)
        found.append(_share(front, depth > 0, right))
    return np.array(found)


def filled(xyz: np.ndarray, views: Iterable[tuple[Camera, np.ndarray]], cells: int = 100) -> np.ndarray:
    """Share in [0, 1] of each view's pixels in whose cell a point falls, at any depth: [v], NaN where none counts.

    What can be said of coverage where no depth is known.

    Args:
        views: camera and which pixels count, [h, w] bool at the camera's size.
        xyz, cells: as for :func:`coverage`. Raises as that does.
    """
    xyz = checked_points(xyz, "filled")
    found = []
    for camera, counts in views:
        _check_size("filled", "a map of pixels", counts, camera)
        found.append(_share(_front(xyz, camera, cells), counts, np.True_))
    return np.array(found)


def colour_difference(
    xyz: np.ndarray, rgb: np.ndarray, views: Iterable[tuple[Camera, np.ndarray, np.ndarray]], cells: int = 100
) -> np.ndarray:
    """Mean absolute difference in [0, 1] of points' colours to the pixels that they fall on: [v], over the channels.

    Of each cell the nearest point is compared; NaN for a view with none on a pixel that counts.

    Args:
        xyz, cells: as for :func:`coverage`.      rgb: colours of the points [n, 3] in [0, 1].
        views: camera, photo [h, w, 3] uint8, and which of its pixels count [h, w] bool.

    Raises as :func:`coverage` does; ShapeError also for colours of another shape.
    """
    xyz = checked_points(xyz, "colour_difference")
    if rgb.shape != xyz.shape:
        raise ShapeError(
            f"colour_difference: colours are {list(rgb.shape)}; expected {list(xyz.shape)}, as the points."
        )
    found = []
    for camera, photo, counts in views:
        _check_size("colour_difference", "a photo", photo[..., 0], camera)
        _check_size("colour_difference", "a map of pixels", counts, camera)
        front = _front(xyz, camera, cells)
        seen = counts[front.rows, front.columns]
        off = np.abs(photo[front.rows, front.columns] / 255.0 - rgb[front.points])[seen]
        found.append(float(off.mean()) if len(off) else float("nan"))
    return np.array(found)


def _check_size(what: str, kind: str, image: np.ndarray, camera: Camera) -> None:
    if image.shape != (camera.height, camera.width):
        raise ShapeError(
            f"{what}: {kind} is {list(image.shape)}, its camera {camera.width}×{camera.height} px; expected "
            f"[{camera.height}, {camera.width}]."
        )


@dataclass(frozen=True)
class _Front:
    """The nearest point of each cell that holds one, k in all.

    Attributes:
        points: [k] their numbers.      z: [k] their depths.      rows, columns: [k] the pixels they fall on.
        cells: [k] numbers of the cells.
        side: px of a cell.             across: cells in a row.
    """

    points: np.ndarray
    z: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    cells: np.ndarray
    side: float
    across: int


def _front(xyz: np.ndarray, camera: Camera, cells: int) -> _Front:
    side = max(1.0, max(camera.width, camera.height) / cells)
    across = int(np.ceil(camera.width / side))
    px, z = project(camera.K, camera.cam_from_world, xyz)
    with np.errstate(invalid="ignore"):  # NaN behind the camera: outside
        inside = (px >= 0).all(axis=1) & (px[:, 0] < camera.width) & (px[:, 1] < camera.height)
    number = np.flatnonzero(inside)
    px, z = px[inside], z[inside]
    cell = (px[:, 1] // side).astype(np.int64) * across + (px[:, 0] // side).astype(np.int64)
    # The nearest point of each cell comes first in it.
    order = np.lexsort((z, cell))
    _, first = np.unique(cell[order], return_index=True)
    front = order[first]
    rows, columns = (px[front, axis].astype(np.int64) for axis in (1, 0))
    return _Front(number[front], z[front], rows, columns, cell[front], side, across)


def _share(front: _Front, counts: np.ndarray, good: np.ndarray) -> float:
    """Share of the pixels that count [h, w] whose cell holds a point that is ``good`` [k]; NaN if none counts."""
    rows, columns = np.nonzero(counts)
    if len(rows) == 0:
        return float("nan")
    # By pixel centres, as the points' own pixels may straddle two cells.
    pixels = ((rows + 0.5) // front.side).astype(np.int64) * front.across
    pixels += ((columns + 0.5) // front.side).astype(np.int64)
    return float(np.isin(pixels, front.cells[np.broadcast_to(good, front.cells.shape)]).mean())
