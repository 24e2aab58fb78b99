"""``acui``: a regular grid in the cuboid that the cameras enclose (angle-pose cuboid uniform initialization).

Cai et al. 2024, "Radiative Gaussian Splatting for Efficient X-ray Novel View Synthesis" (X-Gaussian), arXiv:2403.04116:
a scanner's angles give the poses and its voxels the cuboid, and every second voxel centre along each axis is a point.
Here the poses are the scene's, the cuboid is a setting or follows from them, and the spacing from the number of points.
The authors' radiative model, without view dependence, is seeding.sh_degree=0.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..memory import require_points
from ..progress import Progress
from ..types import Initialization, PointCloud, Scene
from .base import CostMeter
from .cuboid import CuboidConfig, find_cuboid
from .random.initializer import GREY_SPREAD, POINT_BYTES


class Acui:
    """Centres of the cells of a cuboid, grey."""

    def __init__(self, config: CuboidConfig = CuboidConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises SceneError where the cameras do not look at a common place, OutOfMemory when there is no room for so
        many points, and what decoding the photos does where they have transparent or masked pixels."""
        config = self.config
        require_points(config.count, POINT_BYTES)
        with CostMeter() as cost, cost.stage("grid"):
            center, sides = find_cuboid(scene, config)
            cells = cells_of(sides, config.count)
            axes = [((np.arange(n) + 0.5) / n - 0.5) * side for n, side in zip(cells, sides, strict=True)]
            xyz = center + np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
            rgb = 0.5 + GREY_SPREAD * np.random.default_rng(seed).random(xyz.shape)
            points = PointCloud(xyz=xyz, rgb=rgb)
        size = " × ".join(f"{side:.3g}" for side in sides)
        return Initialization(
            points=points,
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={
                "initializer": "acui",
                **asdict(config),
                "seed": seed,
                "center": center.tolist(),
                "sides": sides.tolist(),
                "cells": list(cells),
            },
            notes=(f"a grid of {' × '.join(map(str, cells))} = {len(points)} points in a cuboid of {size}",),
        )


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
