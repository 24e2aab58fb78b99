"""``sgpose``: random points in the cuboid of an object that is seen from few sides.

Luo et al. 2024, "Object Gaussian for Monocular 6D Pose Estimation from Sparse Views" (SGPose), arXiv:2409.02581, starts
from a random cuboid in place of SfM points, which a dozen photos of an object hardly give. How the cuboid is found is
ours: from the silhouettes where photos have transparent or masked pixels, else from what most cameras look at.
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
from .random.frusta import Box
from .random.initializer import POINT_BYTES


class SGPose:
    """Points drawn evenly in a cuboid, in random colours."""

    def __init__(self, config: CuboidConfig = CuboidConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises SceneError where the cameras do not look at a common place, OutOfMemory when there is no room for so
        many points, and what decoding the photos does where they have transparent or masked pixels."""
        config = self.config
        require_points(config.count, POINT_BYTES)
        with CostMeter() as cost, cost.stage("draw"):
            center, sides = find_cuboid(scene, config)
            rng = np.random.default_rng(seed)
            points = PointCloud(xyz=Box(center, sides).propose(rng, config.count), rgb=rng.random((config.count, 3)))
        size = " × ".join(f"{side:.3g}" for side in sides)
        where = ", ".join(f"{value:.3g}" for value in center)
        return Initialization(
            points=points,
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={
                "initializer": "sgpose",
                **asdict(config),
                "seed": seed,
                "center": center.tolist(),
                "sides": sides.tolist(),
            },
            notes=(f"{config.count} points in a cuboid of {size} around ({where})",),
        )
