"""``rain``: few points with large Gaussians, after RAIN-GS. Their other half is ``train.low_pass`` (preset ``rain``).

Jung et al. 2024, "Relaxing Accurate Initialization Constraint for 3D Gaussian Splatting", arXiv:2403.09413. The authors
call it sparse-large-variance: points so far apart that each Gaussian, as large as the distance to its 3 nearest, covers
much of every photo and learns its coarse colours first.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..errors import ConfigError
from ..progress import Progress
from ..types import Initialization, Scene
from .random import Random, RandomConfig


@dataclass(frozen=True, kw_only=True)
class RainConfig:
    """How few, and where.

    Attributes:
        count: number of points (RAIN-GS: 10), at least 2, so that they have a distance. It has to be densified.
        size: side of the cube around the training cameras, times the longest side of their box (RAIN-GS: 3).
    """

    count: int = 10
    size: float = 3.0

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ConfigError(f"init.count is {self.count}; expected at least 2 points, sized by their distance.")
        if not 0 < self.size < float("inf"):
            raise ConfigError(f"init.size is {self.size:g}; expected a positive factor.")


class Rain:
    """A few points of random colours in the cube of the cameras."""

    def __init__(self, config: RainConfig = RainConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises SceneError when the cameras span no volume."""
        cube = RandomConfig(volume="cameras", colour="random", count=self.config.count, size=self.config.size)
        begun = Random(cube).initialize(scene, seed=seed, progress=progress)
        keep = {key: begun.recipe[key] for key in ("center", "side")}
        return replace(
            begun,
            recipe={"initializer": "rain", **asdict(self.config), "seed": seed, **keep},
            notes=(*begun.notes, "so few points need densification and the low-pass filter: --config rain"),
        )
