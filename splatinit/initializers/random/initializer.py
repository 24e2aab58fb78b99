"""Puts volume, density and colours of ``random`` together."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...memory import require_points
from ...progress import Progress
from ...types import Initialization, PointCloud, Scene
from ..base import CostMeter
from .colours import colours_at
from .config import DEFAULT_SIZE, FROM_PHOTOS, RandomConfig
from .cubes import choose_volume, cube
from .frusta import SPACING, Box, draw, places_in_frusta

# Measured peak per point: double precision while drawing, and what is left; with densities of the frusta; with colours
# from photos, where each photo shows all points: sums, weights, and the projection into one photo.
POINT_BYTES, FRUSTA_POINT_BYTES, PHOTO_POINT_BYTES = 73, 100, 340
# 3DGS draws the colour of a Blender start as SH coefficients u/255: grey, with deviations nobody can see.
GREY_SPREAD = 0.28209479177387814 / 255.0


class Random:
    """Points in a cube, or in what the cameras see."""

    def __init__(self, config: RandomConfig = RandomConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises SceneError when the cameras span no volume or do not overlap, BadPoints when the points' box is asked
        for and absent, OutOfMemory when there is no room for so many points, and what decoding the photos does where
        colours or silhouettes come from them."""
        config = self.config
        each = FRUSTA_POINT_BYTES if config.volume == "frusta" else POINT_BYTES
        require_points(config.count, PHOTO_POINT_BYTES if config.colour_in(config.volume) in FROM_PHOTOS else each)
        with CostMeter() as cost:
            with cost.stage("draw"):
                volume = choose_volume(scene) if config.volume == "auto" else config.volume
                colour = config.colour_in(volume)
                facts: dict[str, object] = {}
                if volume == "frusta":
                    places, inside = places_in_frusta(scene, config)
                    views = config.views_among(len(scene.train))
                    facts = {"min_views": views}
                    note = f"{config.count} points where at least {views} of {len(scene.train)} cameras look"
                    if config.see_through < 1 and any(view.photo.has_alpha for view in scene.train):
                        note += f" and at most {config.see_through:.0%} of their photos are transparent"
                    note += f", drawn '{config.density}'"
                else:
                    center, side = cube(scene, volume)
                    side *= DEFAULT_SIZE[volume] if config.size is None else config.size
                    places, inside = Box(center, np.full(3, side)), None
                    facts = {"center": center.tolist(), "side": float(side)}
                    around = ", ".join(f"{value:.3g}" for value in center)
                    note = f"{config.count} points in a cube of side {side:.3g} around ({around}), volume '{volume}'"
                clearance = config.depths(volume)[0] * scene.extent
                cameras = np.stack([view.camera.center for view in scene.train])
                rng = np.random.default_rng(seed)
                where = f"{scene.root}: init.volume={volume}"
                xyz, share = draw(places, inside, cameras, clearance, config.count, rng, where)
                radius = None
                if config.sizes == "density":
                    radius = SPACING * np.cbrt(share / (config.count * places.at(xyz)))
                rgb = rng.random((config.count, 3))
                if colour == "grey":
                    rgb = 0.5 + GREY_SPREAD * rgb
            notes = [note]
            if colour in FROM_PHOTOS:
                with cost.stage("colours"):
                    rgb, unseen = colours_at(scene, xyz, colour, progress)
                if unseen:
                    notes.append(f"no photo shows {unseen} of the points; they have the mean colour")
            points = PointCloud(xyz=xyz, rgb=rgb, radius=radius)
        return Initialization(
            points=points,
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={
                "initializer": "random",
                **asdict(config),
                "volume": volume,
                "sampling": config.density,
                "clearance": clearance / scene.extent,
                "colour": colour,
                "seed": seed,
                **facts,
            },
            notes=tuple(notes),
        )
