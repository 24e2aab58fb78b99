"""A sphere around the scene, for what no pair of photos triangulates: sky, and what only one photo sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BEYOND = 2.0  # radius of the sphere, times the distance that nearly all points keep to its centre
NEARLY_ALL = 0.98
FEW_USABLE = 0.5  # of a square: with fewer it is the border of a mask, or of a transparent object


@dataclass(frozen=True)
class Gaps:
    """Pixels of one reference in squares where nothing was triangulated.

    Attributes:
        px: [g, 2] px.      rgb: [g, 3] in [0, 1].
    """

    px: np.ndarray
    rgb: np.ndarray


def find_gaps(
    rgb: np.ndarray, usable: np.ndarray | None, found: np.ndarray, *, cell: int, rng: np.random.Generator
) -> Gaps:
    """One pixel, the middle, of each square without a point; in random order.

    Args:
        rgb: [h, w, 3] uint8.      usable: [h, w] bool, or None for all.      found: [p, 2] px of the points.
        cell: px, side of the squares.
    """
    height, width = rgb.shape[:2]
    rows, columns = -(-height // cell), -(-width // cell)
    # Integral: squares on the border are smaller, and count by the pixels that they have.
    open_ = np.ones((height, width), bool) if usable is None else usable
    grid = np.zeros((rows * cell, columns * cell), bool)
    grid[:height, :width] = open_
    inside = np.zeros_like(grid)
    inside[:height, :width] = True
    share = grid.reshape(rows, cell, columns, cell).sum(axis=(1, 3))
    size = inside.reshape(rows, cell, columns, cell).sum(axis=(1, 3))
    empty = share >= FEW_USABLE * size
    square = np.floor(found / cell).astype(np.int64)
    empty[square[:, 1].clip(0, rows - 1), square[:, 0].clip(0, columns - 1)] = False
    r, c = np.nonzero(empty)
    y = np.minimum(r * cell + cell // 2, height - 1)
    x = np.minimum(c * cell + cell // 2, width - 1)
    pick = rng.permutation(np.flatnonzero(open_[y, x]))
    return Gaps(np.stack([x[pick], y[pick]], axis=1) + 0.5, rgb[y[pick], x[pick]] / 255.0)


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
