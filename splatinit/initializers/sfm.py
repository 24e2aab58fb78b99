"""``sfm``: the points that the poser left. Structure from motion and pose-free networks start the same way here."""

from __future__ import annotations

from pathlib import Path

from ..errors import BadPoints
from ..progress import Progress
from ..types import Initialization, Scene
from .base import CostMeter


class Sfm:
    """All points of the scene with their colours, as 3DGS starts (Kerbl et al. 2023, §4). The seed has no effect."""

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises BadPoints when the poser left no points, or when they are not finite."""
        with CostMeter() as cost, cost.stage("points"):
            if scene.points is None:
                raise BadPoints(
                    f"{scene.root}: poser '{scene.poser}' left no points for the initializer 'sfm'.",
                    hint="Let the poser triangulate them, bring them with the cameras, or start with --init random.",
                )
            scene.points.check(f"{scene.root}: the points that poser '{scene.poser}' left")
        return Initialization(
            points=scene.points,
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={"initializer": "sfm", "poser": scene.poser},
        )
