"""``file``: points that the user brings: a laser scan, dense stereo, another tool's cloud, a saved start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import BadPoints, ConfigError
from ..io.colmap_model import read_model
from ..io.pointcloud import read_ply_points
from ..progress import Progress
from ..types import Initialization, Scene
from .base import CostMeter


@dataclass(frozen=True, kw_only=True)
class FileConfig:
    """Which points.

    Attributes:
        path: a .ply with x y z, and red green blue where it has colours, or a folder with a COLMAP model. In the
            coordinates of the scene's cameras (scene units).
    """

    path: Path | None = None


class File:
    """The points of a file, unchanged."""

    def __init__(self, config: FileConfig = FileConfig()) -> None:
        self.config = config

    def initialize(self, scene: Scene, *, seed: int, progress: Progress) -> Initialization:
        """Raises ConfigError without a path, FormatError for a file that is none, BadPoints for unusable points."""
        path = self.config.path
        if path is None:
            raise ConfigError("init.name=file needs the file.", hint="Add init.path=points.ply.")
        if not path.exists():
            raise BadPoints(f"{path} does not exist.", hint="init.path is a .ply file or a COLMAP model folder.")
        with CostMeter() as cost, cost.stage("read"):
            points = read_model(path).points.cloud() if path.is_dir() else read_ply_points(path)
            points.check(str(path))
        return Initialization(
            points=points,
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={"initializer": "file", "path": str(path)},
        )
