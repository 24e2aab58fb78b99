"""What no pair of photos triangulates: the edges of the outermost photos, blank walls, sky.

Photo after photo, the squares in which no point lies get one, at a guessed depth; it then fills that square of the
photos after it, too, so that a wall that ten photos show is not built ten times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ...geometry.rigid import inverse, unproject
from ...matching import MatchView
from ..rig import Rig

LEAST_CELL = 8  # px, side of the squares
SPACINGS = 2.5  # and at least so many distances of points that should be there: else chance would leave squares empty
ENOUGH = 0.02  # share of a window's weight that values must have
RIDGE = 1.0  # squares², variance of the values' places by which slopes are drawn to 0
OUTSIDE = 1.5  # factor
FEW_USABLE = 0.5  # of a square: with fewer it is the border of a mask, or of a transparent object
BEYOND = 2.0  # radius of the sphere, times the distance that nearly all points keep to its centre
NEARLY_ALL = 0.98


@dataclass(frozen=True)
class Fill:
    """g points in gaps. float32.

    Attributes:
        xyz: [g, 3] scene units.      rgb: [g, 3] in [0, 1], mean of the square.
        radius: [g] scene units, half a square there.      normal: [g, 3] unit, towards the camera.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    radius: np.ndarray
    normal: np.ndarray

    def __len__(self) -> int:
        return len(self.xyz)


def fill_gaps(rig: Rig, photos: Iterable[MatchView], xyz: np.ndarray, *, spacing: float, rule: str) -> Fill:
    """Points for the squares of ``photos``, those of the cameras of ``rig`` in order, in which none of ``xyz`` lies.

    Args:
        xyz: [n, 3] scene units, n ≥ 1.
        spacing: px between two points where there is little detail.
        rule: "near", at the depth of the points around the gap in the photo, or on the sphere where the photo shows
            none; "shell", on a sphere around cameras and points.
    """
    cell = max(LEAST_CELL, math.ceil(SPACINGS * spacing))
    middle, radius = sphere(xyz, rig.center)
    known, parts = xyz.astype(np.float64), []
    for k, photo in enumerate(photos):
        rgb, usable = squares(photo.rgb, photo.usable, cell)
        w = inverse_depths(rig, k, known, rgb.shape[:2], cell)
        gap = ~np.isfinite(w) & (usable >= FEW_USABLE)
        if not gap.any():
            continue
        row, column = np.nonzero(gap)
        size = photo.rgb.shape[1::-1]
        corner = np.stack([column, row], axis=1) * cell
        px = (corner + np.minimum(corner + cell, size)) / 2
        ray = unproject(rig.K[k], inverse(rig.pose[k]), px, np.ones(len(px))) - rig.center[k]
        length = np.linalg.norm(ray, axis=1)
        if rule == "near" and np.isfinite(w).any():
            z = 1 / inpainted(w)[row, column]
        else:
            onto = onto_sphere(rig.center[k], ray / length[:, None], middle, radius)
            z = np.linalg.norm(onto - rig.center[k], axis=1) / length
        found = rig.center[k] + z[:, None] * ray
        known = np.concatenate([known, found])
        parts.append(Fill(found, rgb[row, column], 0.5 * cell * z / rig.focal[k], -ray / length[:, None]))
    fields = ((part.xyz, part.rgb, part.radius, part.normal) for part in parts)
    if not parts:
        return Fill(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 3)))
    return Fill(*(np.concatenate(each).astype(np.float32) for each in zip(*fields, strict=True)))


def squares(rgb: np.ndarray, usable: np.ndarray | None, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each square of an image [h, w, 3] uint8: the mean colour [r, c, 3] in [0, 1] of its usable pixels, and their
    share [r, c] of those that it has; squares at the right and lower edge are smaller."""
    height, width = rgb.shape[:2]
    rows, columns = -(-height // cell), -(-width // cell)

    def summed(values: np.ndarray) -> np.ndarray:
        grid = np.zeros((rows * cell, columns * cell, *values.shape[2:]))
        grid[:height, :width] = values
        return grid.reshape(rows, cell, columns, cell, *values.shape[2:]).sum(axis=(1, 3))

    open_ = np.ones((height, width)) if usable is None else usable.astype(np.float64)
    count = summed(open_)
    colour = summed(rgb * (open_[..., None] / 255.0)) / np.maximum(count, 1)[..., None]
    return colour, count / summed(np.ones((height, width)))


def inverse_depths(rig: Rig, view: int, xyz: np.ndarray, shape: tuple[int, int], cell: int) -> np.ndarray:
    """[r, c] median of 1 / z of the points ``xyz`` [n, 3] that lie in each square of a photo; NaN where none does."""
    px, z, _ = rig.look(np.array([view]), xyz)
    with np.errstate(invalid="ignore"):
        inside = ((px[0] >= 0) & (px[0] < rig.size[view])).all(axis=1)
    column, row = np.floor(px[0, inside] / cell).astype(np.int64).T
    label, w = row * shape[1] + column, 1 / z[0, inside]
    order = np.lexsort((w, label))
    first = np.flatnonzero(np.diff(label[order], prepend=-1))
    middle = first + np.diff(first, append=len(order)) // 2
    found = np.full(shape[0] * shape[1], np.nan)
    found[label[order[middle]]] = w[order[middle]]
    return found.reshape(shape)


def inpainted(values: np.ndarray) -> np.ndarray:
    """``values`` [r, c], inverse depths with NaN, of which at least one is not, continued from what is around the NaN.

    1 / z is linear in the image of a plane: each gap takes the plane of least squares through the values around it, by
    Gaussian weights of the smallest window that holds enough of them; slopes that few values carry are drawn to 0, and
    nothing leaves the range of the values by more than OUTSIDE.
    """
    import cv2

    known = np.isfinite(values)
    weight = known.astype(np.float64)
    low, high = values[known].min() / OUTSIDE, values[known].max() * OUTSIDE
    w = np.where(known, values, 0.0)
    y, x = (each.astype(np.float64) for each in np.indices(values.shape))
    moments = (weight, weight * x, weight * y, weight * x * x, weight * x * y, weight * y * y, w, w * x, w * y)
    filled, sigma = values.copy(), 1.0
    while not known.all():
        around = [cv2.GaussianBlur(each, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT) for each in moments]
        # A window as large as the photo sees all values there are: any weight is enough then.
        new = ~known & (around[0] > (ENOUGH if sigma < max(values.shape) else 0.0))
        s, sx, sy, sxx, sxy, syy, sw, swx, swy = (each[new] for each in around)
        # Moments around the gap itself, so that the plane's value there is its constant.
        at, up = x[new], y[new]
        sxx, sxy, syy = sxx - at * (2 * sx - at * s), sxy - at * sy - up * (sx - at * s), syy - up * (2 * sy - up * s)
        swx, swy, sx, sy = swx - at * sw, swy - up * sw, sx - at * s, sy - up * s
        A = np.array([[s, sx, sy], [sx, sxx + RIDGE * s, sxy], [sy, sxy, syy + RIDGE * s]])
        plane = np.linalg.solve(A.transpose(2, 0, 1), np.stack([sw, swx, swy], axis=1)[..., None])
        filled[new] = plane[:, 0, 0].clip(low, high)
        known |= new
        sigma *= 1.5
    return filled


def sphere(points: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre [3] and radius of the shell: around the cameras ``centers`` [n, 3], beyond ``points`` [p, 3], p ≥ 1."""
    middle = centers.mean(axis=0)
    reach = float(np.quantile(np.linalg.norm(points - middle, axis=1), NEARLY_ALL))
    return middle, BEYOND * max(reach, float(np.linalg.norm(centers - middle, axis=1).max()))


def onto_sphere(origin: np.ndarray, direction: np.ndarray, middle: np.ndarray, radius: float) -> np.ndarray:
    """[g, 3] where rays from ``origin`` [3], which lies inside, along unit ``direction`` [g, 3] leave the sphere."""
    offset = origin - middle
    b = direction @ offset
    return origin + (np.sqrt(b**2 - offset @ offset + radius**2) - b)[:, None] * direction
