"""The line of ``file``: read, place, align, look."""

from __future__ import annotations

from pathlib import Path

from ...config import plain
from ...errors import BadPoints, ConfigError
from ...geometry.rigid import transform
from ...progress import Progress
from ...types import Initialization, Scene
from ..base import CostMeter
from .aligning import aligned
from .config import FileConfig
from .placing import by_pairs, look, offset_of, placed
from .reading import finite, read_points


class File:
    """The points of a file, or points on its mesh, in the coordinates of the scene."""

    def __init__(self, config: FileConfig = FileConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises ConfigError without a path, FormatError for a file that is none, BadPoints for unusable points."""
        config, path = self.config, self.config.path
        if path is None:
            raise ConfigError("init.name=file needs the file.", hint="Add init.path=points.ply.")
        if not path.exists():
            raise BadPoints(
                f"{path} does not exist.", hint="init.path is a point cloud, a mesh or a COLMAP model folder."
            )
        notes: list[str] = []
        with CostMeter() as cost:
            matrix = config.matrix()
            if config.pairs is not None:
                offset, matrix = by_pairs(config.pairs, notes)
            with cost.stage("read"):
                raw = finite(path, read_points(config, path, seed, notes), notes)
            if config.pairs is None:
                offset = offset_of(config, raw.xyz, matrix, scene, notes)
            if config.align != "none":
                with cost.stage("align"):
                    xyz = transform(matrix, raw.xyz - offset)
                    matrix = aligned(xyz, scene, config.align, path, seed, notes) @ matrix
            with cost.stage("place"):
                points = placed(raw, offset, matrix, notes)
                points.check(str(path))
                look(points.xyz, scene, notes)
        for text in notes:
            progress.note(f"{path.name}: {text}")
        return Initialization(
            points=points,
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={
                "initializer": "file",
                **{name: plain(value) for name, value in vars(config).items()},
                "offset": offset.tolist(),
                "matrix": matrix.tolist(),
                "seed": seed,
            },
            notes=tuple(notes),
        )
