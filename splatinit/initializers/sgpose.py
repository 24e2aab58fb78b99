"""``sgpose``: random points in the cuboid of an object that is seen from few sides.

Luo et al. 2024, "Object Gaussian for Monocular 6D Pose Estimation from Sparse Views" (SGPose), arXiv:2409.02581, starts
from a random cuboid in place of SfM points, which a dozen photos of an object hardly give. How the cuboid is found is
ours: from the silhouettes where photos have transparent or masked pixels, else from what most cameras look at.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..progress import Progress
from ..types import Initialization, PointCloud, Scene
from .cuboid import CuboidConfig, Filling, size_text, start_in_cuboid
from .random.frusta import Box


class SGPose:
    """Points drawn evenly in a cuboid, in random colours."""

    def __init__(self, config: CuboidConfig = CuboidConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises what :func:`splatinit.initializers.cuboid.start_in_cuboid` does."""
        return start_in_cuboid("sgpose", "draw", scene, self.config, seed, self._fill)

    def _fill(self, center: np.ndarray, sides: np.ndarray, rng: np.random.Generator) -> Filling:
        count = self.config.count
        points = PointCloud(xyz=Box(center, sides).propose(rng, count), rgb=rng.random((count, 3)))
        where = ", ".join(f"{value:.3g}" for value in center)
        return Filling(points, f"{count} points in a cuboid of {size_text(sides)} around ({where})", {})
