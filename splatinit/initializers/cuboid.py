"""The cuboid of what most cameras look at, from the poses alone, and tighter where silhouettes are known; and what
``acui`` and ``sgpose``, which fill it, have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from ..errors import ConfigError, SceneError
from ..memory import require_points
from ..types import Initialization, PointCloud, Scene
from .base import CostMeter
from .random.initializer import POINT_BYTES
from .rig import Rig
from .silhouettes import count_views, silhouettes

CELLS = 40  # along each side of what is searched
SEARCHES = 3  # each in the cuboid that the one before found
# Least spread of the directions in which the cameras look, as the variance across the direction in which it is least:
# 2° of standard deviation. With less, where the axes meet is noise.
LEAST_SPREAD = 1.2e-3


@dataclass(frozen=True, kw_only=True)
class CuboidConfig:
    """How many points, in which cuboid.

    Attributes:
        count: number of points (100 000 as ``random``).
        cuboid: x0,y0,z0,x1,y1,z1 in scene units, two opposite corners: for a scanner whose volume is known. None: the
            axis-aligned bounding box of the places that most training photos show, in the ball around the point where
            the cameras' axes meet that leaves most cameras outside. Where photos have transparent or masked pixels,
            these show nothing, so that the cuboid is that of the object.
        share: what "most" is, in (0, 1]: 1 asks every camera, and one that looks elsewhere empties the volume.
        size: factor on the sides of the cuboid.
    """

    count: int = 100_000
    cuboid: tuple[float, ...] | None = None
    share: float = 0.9
    size: float = 1.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"init.count is {self.count}; expected at least 1 point.")
        if self.cuboid is not None:
            corners = np.array(self.cuboid)
            whole = len(corners) == 6 and bool(np.isfinite(corners).all())
            if not (whole and (corners[:3] != corners[3:]).all()):
                numbers = ",".join(f"{value:g}" for value in self.cuboid)
                raise ConfigError(
                    f"init.cuboid is {numbers}; expected six finite numbers x0,y0,z0,x1,y1,z1, two opposite corners "
                    "that differ along every axis."
                )
        if not 0 < self.share <= 1:
            raise ConfigError(f"init.share is {self.share:g}; expected it in (0, 1].")
        if not 0 < self.size < float("inf"):
            raise ConfigError(f"init.size is {self.size:g}; expected a positive factor.")


@dataclass(frozen=True)
class Filling:
    """The points in a cuboid, a note that tells of them, and what the recipe says beyond settings and cuboid."""

    points: PointCloud
    note: str
    recipe: dict[str, object]


def start_in_cuboid(
    name: str,
    stage: str,
    scene: Scene,
    config: CuboidConfig,
    seed: int,
    fill: Callable[[np.ndarray, np.ndarray, np.random.Generator], Filling],
) -> Initialization:
    """What the initializer ``name`` returns, with the points of ``fill`` (centre [3], sides [3], random numbers).

    Raises SceneError where the cameras do not look at a common place, OutOfMemory when there is no room for so many
    points, and what decoding the photos does where they have transparent or masked pixels.
    """
    require_points(config.count, POINT_BYTES)
    with CostMeter() as cost, cost.stage(stage):
        center, sides = find_cuboid(scene, config)
        filling = fill(center, sides, np.random.default_rng(seed))
    return Initialization(
        points=filling.points,
        seconds=cost.seconds,
        peak_memory_mb=cost.peak_memory_mb,
        recipe={
            "initializer": name,
            **asdict(config),
            "seed": seed,
            "center": center.tolist(),
            "sides": sides.tolist(),
            **filling.recipe,
        },
        notes=(filling.note,),
    )


def size_text(sides: np.ndarray) -> str:
    """``sides`` [3] (scene units) as notes tell them."""
    return " × ".join(f"{side:.3g}" for side in sides)


def find_cuboid(scene: Scene, config: CuboidConfig) -> tuple[np.ndarray, np.ndarray]:
    """Centre [3] and sides [3] (scene units) of the cuboid, after ``size``.

    Raises SceneError where the cameras do not look at a common place, and what decoding the photos does.
    """
    if config.cuboid is not None:
        corners = np.array(config.cuboid, dtype=np.float64).reshape(2, 3)
        low, high = corners.min(axis=0), corners.max(axis=0)
    else:
        low, high = _looked_at(scene, config.share)
    return (low + high) / 2, config.size * (high - low)


def meeting_point(rig: Rig) -> tuple[np.ndarray, float]:
    """The point [3] with the least sum of squared distances to the cameras' axes, and how well it is determined: the
    mean of sin² of the axes' angles to the direction along which it is determined worst."""
    across = np.eye(3) - rig.axis[:, :, None] * rig.axis[:, None, :]
    middle = rig.center.mean(axis=0)  # solved from there, so that scenes far from the origin lose no digits
    total = across.sum(axis=0)
    spread = float(np.linalg.eigvalsh(total)[0]) / len(rig)
    if spread < 1e-12:
        return middle, 0.0
    return middle + np.linalg.solve(total, np.einsum("nij,nj->i", across, rig.center - middle)), spread


def _looked_at(scene: Scene, share: float) -> tuple[np.ndarray, np.ndarray]:
    rig = Rig.of([view.camera for view in scene.train])
    where = f"{scene.root}: the {len(rig)} training cameras"
    focus, spread = meeting_point(rig)
    need = math.ceil(share * len(rig) - 1e-9)
    ahead = int((((focus - rig.center) * rig.axis).sum(axis=1) > 0).sum())
    if spread < LEAST_SPREAD or ahead < need:
        raise SceneError(
            f"{where} do not look at a common place: their directions spread by "
            f"{math.degrees(math.asin(math.sqrt(min(1, spread)))):.2g}°, and {ahead} look towards where their axes meet"
            f"; expected 2° and {need}.",
            hint="Give the volume by init.cuboid=x0,y0,z0,x1,y1,z1, or use --init random init.volume=frusta.",
        )
    radius = float(np.quantile(np.linalg.norm(rig.center - focus, axis=1), 1 - share, method="lower"))
    found = silhouettes(scene, masked=True)
    low, high = focus - radius, focus + radius
    for _ in range(SEARCHES):
        step = (high - low) / CELLS
        axes = [low[i] + (np.arange(CELLS) + 0.5) * step[i] for i in range(3)]
        xyz = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        xyz = xyz[np.linalg.norm(xyz - focus, axis=1) <= radius]
        xyz = xyz[count_views(rig, found, xyz)[1] >= need]
        if len(xyz) == 0:
            raise SceneError(
                f"{where} look at no place that {need} of their photos show, nearer than {radius:.3g} scene units to "
                "where their axes meet.",
                hint="Lower init.share, look at the poses and masks (`splatinit check`), or give the volume by "
                "init.cuboid=x0,y0,z0,x1,y1,z1.",
            )
        low, high = xyz.min(axis=0) - step / 2, xyz.max(axis=0) + step / 2
    return low, high
