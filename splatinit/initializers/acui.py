"""``acui``: a regular grid in the cuboid that the cameras enclose (angle-pose cuboid uniform initialization).

Cai et al. 2024, "Radiative Gaussian Splatting for Efficient X-ray Novel View Synthesis" (X-Gaussian), arXiv:2403.04116:
a scanner's angles give the poses and its voxels the cuboid, and every second voxel centre along each axis is a point.
Here the poses are the scene's, the cuboid is a setting or follows from them, and the spacing from the number of points.
The authors' radiative model, without view dependence, is seeding.sh_degree=0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..progress import Progress
from ..types import Initialization, PointCloud, Scene
from .cuboid import CuboidConfig, Filling, size_text, start_in_cuboid
from .random.initializer import GREY_SPREAD


class Acui:
    """Centres of the cells of a cuboid, grey."""

    def __init__(self, config: CuboidConfig = CuboidConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises what :func:`splatinit.initializers.cuboid.start_in_cuboid` does."""
        return start_in_cuboid("acui", "grid", scene, self.config, seed, self._fill)

    def _fill(self, center: np.ndarray, sides: np.ndarray, rng: np.random.Generator) -> Filling:
        cells = cells_of(sides, self.config.count)
        axes = [((np.arange(n) + 0.5) / n - 0.5) * side for n, side in zip(cells, sides, strict=True)]
        xyz = center + np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        points = PointCloud(xyz=xyz, rgb=0.5 + GREY_SPREAD * rng.random(xyz.shape))
        grid = f"{' × '.join(map(str, cells))} = {len(points)}"
        return Filling(points, f"a grid of {grid} points in a cuboid of {size_text(sides)}", {"cells": list(cells)})


def cells_of(sides: np.ndarray, count: int) -> tuple[int, int, int]:
    """How many cells along each of ``sides`` [3], nearly cubes and nearly ``count`` in all, never more."""
    cells, divided = np.ones(3, np.int64), np.ones(3, bool)
    while True:
        spacing = float((sides[divided].prod() / count) ** (1 / divided.sum()))
        # A side shorter than the spacing is one cell wide, and the others share the count. The longest never is.
        short = divided & (sides < spacing * (1 - 1e-9))
        if not short.any():
            break
        divided &= ~short
    cells[divided] = np.maximum(1, np.floor(sides[divided] / spacing + 1e-9))
    while True:  # whole numbers left some over: they go to where cells are longest, as long as a layer of them fits
        longest = int(np.argmax(sides / cells))
        more = cells + np.eye(3, dtype=np.int64)[longest]
        if more.prod() > count:
            x, y, z = map(int, cells)
            return x, y, z
        cells = more
