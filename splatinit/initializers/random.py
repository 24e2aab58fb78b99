"""``random``: points drawn uniformly in a cube. The volume matters most (arXiv:2404.12547), so it is the setting."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..errors import BadPoints, ConfigError, SceneError
from ..geometry.rigid import transform
from ..memory import require_points
from ..progress import Progress
from ..registry import nearest
from ..types import Initialization, PointCloud, Scene
from .base import CostMeter

VOLUMES = ("auto", "cameras", "points", "blender")
COLOURS = ("auto", "random", "grey")

BLENDER_HALF_SIDE = 1.3  # scene units, 3DGS's reader of Blender scenes
# How much larger than its reference a cube is unless ``size`` says otherwise. 3 is the literature's baseline for the
# cameras' box; with 1, 3DGS loses 5 dB on Mip-NeRF 360 (3DGS-MCMC, arXiv:2404.09591, ablation of the extent).
DEFAULT_SIZE = {"cameras": 3.0, "points": 1.0, "blender": 1.0}
# SfM leaves a few points far outside the scene; each axis of the points' box ignores this share at either end.
POINTS_TRIM = 0.01
POINT_BYTES = 73  # measured peak per point: double precision while drawing, and what is left
# 3DGS draws the colour of a Blender start as SH coefficients u/255: grey, with deviations nobody can see.
GREY_SPREAD = 0.28209479177387814 / 255.0


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Where and how many.

    Attributes:
        count: number of points (3DGS and gsplat: 100 000). Training without densification keeps that many.
        volume: the cube they are drawn in.
            "cameras": centred on the bounding box of the training cameras, side = size × its longest side (3DGS §7.3;
            gsplat's ±3 × scene extent is nearly the same cube). "points": the same for the box of the scene's sparse
            points, without the outermost 1 % at either end of each axis. "blender": [−1.3, 1.3]³, where the objects
            of Blender's synthetic scenes are. "auto": "blender" where the photos have transparent pixels and all
            training cameras stand outside that cube and look at it, else "cameras".
        size: factor on the cube's side, None for the literature's (cameras 3, points 1, blender 1).
        colour: "random" (uniform in [0, 1]³, gsplat), "grey" (3DGS on Blender scenes), or "auto": grey in Blender's
            cube, random elsewhere.
    """

    count: int = 100_000
    volume: str = "auto"
    size: float | None = None
    colour: str = "auto"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"init.count is {self.count}; expected at least 1 point.")
        if self.volume not in VOLUMES:
            raise ConfigError(f"init.volume is '{self.volume}'.", hint=nearest(self.volume, list(VOLUMES)))
        if self.colour not in COLOURS:
            raise ConfigError(f"init.colour is '{self.colour}'.", hint=nearest(self.colour, list(COLOURS)))
        if self.size is not None and not 0 < self.size < float("inf"):
            raise ConfigError(f"init.size is {self.size:g}; expected a positive factor.")

    @property
    def needs_points(self) -> bool:
        """Only the points' box needs the points of a poser."""
        return self.volume == "points"


class Random:
    """Uniform points in an axis-aligned cube."""

    def __init__(self, config: RandomConfig = RandomConfig()) -> None:
        self.config = config

    def initialize(self, scene: Scene, *, seed: int, progress: Progress) -> Initialization:
        """Raises SceneError when the cameras span no volume, BadPoints when the points' box is asked for and absent,
        OutOfMemory when there is no room for so many points."""
        config = self.config
        require_points(config.count, POINT_BYTES)
        with CostMeter() as cost, cost.stage("draw"):
            volume = _choose_volume(scene) if config.volume == "auto" else config.volume
            colour = ("grey" if volume == "blender" else "random") if config.colour == "auto" else config.colour
            center, side = _cube(scene, volume)
            side *= DEFAULT_SIZE[volume] if config.size is None else config.size
            rng = np.random.default_rng(seed)
            xyz = center + side * (rng.random((config.count, 3)) - 0.5)
            rgb = rng.random((config.count, 3))
            if colour == "grey":
                rgb = 0.5 + GREY_SPREAD * rgb
            points = PointCloud(xyz=xyz, rgb=rgb)
        where = ", ".join(f"{value:.3g}" for value in center)
        return Initialization(
            points=points,
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={
                "initializer": "random",
                **asdict(config),
                "volume": volume,
                "colour": colour,
                "seed": seed,
                "center": center.tolist(),
                "side": float(side),
            },
            notes=(f"{config.count} points in a cube of side {side:.3g} around ({where}), volume '{volume}'",),
        )


def _choose_volume(scene: Scene) -> str:
    """What "auto" stands for; see RandomConfig."""
    if scene.background is None:
        return "cameras"
    corners = BLENDER_HALF_SIDE * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    for view in scene.train:
        outside = np.abs(view.camera.center).max() > BLENDER_HALF_SIDE
        in_front = (transform(view.camera.cam_from_world, corners)[:, 2] > 0).all()
        if not (outside and in_front):
            return "cameras"
    return "blender"


def _cube(scene: Scene, volume: str) -> tuple[np.ndarray, float]:
    """Centre [3] and side (scene units) of the cube that ``volume`` names, before ``size``."""
    if volume == "blender":
        return np.zeros(3), 2 * BLENDER_HALF_SIDE
    if volume == "cameras":
        xyz = np.stack([view.camera.center for view in scene.train])
        low, high = xyz.min(axis=0), xyz.max(axis=0)
        if (high - low).max() < 1e-8:
            raise SceneError(
                f"{scene.root}: the {len(scene.train)} training cameras all stand at one place, so that their box has "
                "no size to draw random points in.",
                hint="Use init.volume=blender, or init.volume=points where the scene has points.",
            )
    else:
        where = f"{scene.root}: init.volume=points"
        if scene.points is None:
            raise BadPoints(
                f"{where} needs sparse points, and poser '{scene.poser}' left none.", hint="Use init.volume=cameras."
            )
        scene.points.check(where)
        low, high = np.quantile(scene.points.xyz.astype(np.float64), [POINTS_TRIM, 1 - POINTS_TRIM], axis=0)
        if (high - low).max() < 1e-8:
            raise BadPoints(
                f"{where}: the {len(scene.points)} points span no volume.", hint="Use init.volume=cameras."
            )
    return (low + high) / 2, float((high - low).max())
