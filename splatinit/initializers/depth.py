"""``depth``: points on the depth maps that came with the photos (LiDAR phones, depth cameras, rendered scenes).

Each pixel of a view is as likely as any other, so that points are dense where the photos look closely. Measured on a
rendered scene (20 000 points, 700 steps): 31.9 dB; spread evenly over the surface instead, by voxels as large as the
pixels there, 30.8 dB. Scales are left to the seeding: the pixels' footprints, at the same median, gave 32.0 dB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import BadPoints, ConfigError
from ..geometry.rigid import unproject
from ..progress import Progress
from ..types import DepthPrior, Initialization, PointCloud, Scene, View
from .base import CostMeter

OPAQUE = 128  # of 255: a more transparent pixel shows the background, whatever its depth says
# How many times its even share a view hands on, for the views that have too few usable pixels.
SPARE = 4


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """How many points, from which pixels.

    Attributes:
        count: number of points, as evenly over the views as their pixels allow (100 000 as ``random``); fewer where
            the maps hold fewer.
        jump: a pixel is left out where the inverse depth bends by more than this share of itself from pixel to
            pixel: there sensors mix foreground and background, and the point would hang between them. Planes do not
            bend, however steep. None keeps all.
        prior: the maps go to the trainer as depth priors too (train.depth_weight). Off: it moved a rendered scene by
            less than 0.1 dB.
    """

    count: int = 100_000
    jump: float | None = 0.05
    prior: bool = False

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"init.count is {self.count}; expected at least 1 point.")
        if self.jump is not None and not 0 < self.jump < float("inf"):
            raise ConfigError(f"init.jump is {self.jump:g}; expected a positive share of the depth, or none.")


class Depth:
    """Back-projected pixels of the training views, with the photos' colours."""

    def __init__(self, config: DepthConfig = DepthConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises BadPoints when no training photo has a depth map, or none has a usable pixel."""
        config = self.config
        views = [view for view in scene.train if view.photo.has_depth]
        if not views:
            raise BadPoints(
                f"{scene.root}: none of the {len(scene.train)} training photos has a depth map to start from.",
                hint="nerfstudio scenes bring them as 'depth_file_path', Polycam exports as keyframes/depth; without "
                "them, start with --init sfm or --init random.",
            )
        rng = np.random.default_rng(seed)
        most = SPARE * -(-config.count // len(views))
        xyz: list[np.ndarray] = []
        rgb: list[np.ndarray] = []
        priors: dict[str, DepthPrior] = {}
        usable_pixels = all_pixels = 0
        with CostMeter() as cost:
            with cost.stage("back-project"):
                progress.start("depth", len(views))
                for done, view in enumerate(views, start=1):
                    depth, colour, usable = _pixels(view, config.jump)
                    usable_pixels, all_pixels = usable_pixels + int(usable.sum()), all_pixels + usable.size
                    rows, columns = np.nonzero(usable)
                    pick = rng.permutation(len(rows))[:most]
                    rows, columns = rows[pick], columns[pick]
                    px = np.stack([columns + 0.5, rows + 0.5], axis=1)
                    xyz.append(unproject(view.camera.K, view.camera.world_from_cam, px, depth[rows, columns]))
                    rgb.append(colour[rows, columns])
                    if config.prior:
                        priors[view.name] = DepthPrior(view.name, depth, usable.astype(np.float32))
                    progress.advance(done)
                progress.finish()
            if usable_pixels == 0:
                raise BadPoints(
                    f"{scene.root}: the depth maps of its {len(views)} training photos have no usable pixel; expected "
                    "depth above 0 where the photo is opaque and not masked.",
                    hint="Check the unit and the files of the depth maps, and the masks (data.masks=off).",
                )
            with cost.stage("draw"):
                # Candidates are in random order, so that the first ones are a fair draw.
                shares = even_shares([len(each) for each in xyz], config.count)
                points = PointCloud(
                    xyz=np.concatenate([each[:share] for each, share in zip(xyz, shares, strict=True)]),
                    rgb=np.concatenate([each[:share] for each, share in zip(rgb, shares, strict=True)]) / 255.0,
                )
        share = usable_pixels / all_pixels
        notes = [f"{len(points)} points from {len(views)} depth maps; {share:.0%} of their pixels are usable"]
        if len(views) < len(scene.train):
            notes.append(f"{len(scene.train) - len(views)} of {len(scene.train)} training photos have no depth map")
        return Initialization(
            points=points,
            depth_priors=priors,
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={"initializer": "depth", **asdict(config), "seed": seed, "views": len(views)},
            notes=tuple(notes),
        )


def even_shares(available: Sequence[int], count: int) -> list[int]:
    """How many of ``count`` each takes, at most what is ``available``: equal, and what one lacks the others take."""
    shares = [0] * len(available)
    rest = count
    for place, index in enumerate(sorted(range(len(available)), key=lambda i: available[i])):
        shares[index] = min(available[index], rest // (len(available) - place))
        rest -= shares[index]
    return shares


def bends(depth: np.ndarray, jump: float) -> np.ndarray:
    """[h, w] bool: where the inverse depth bends by more than ``jump`` of itself along a row or a column.

    Inverse depth is linear over the image of a plane, so that only edges and folds bend. A neighbour of unknown depth
    (0) says nothing.

    Args:
        depth: [h, w], 0 = unknown.
    """
    inverse = np.where(depth > 0, 1.0 / np.where(depth > 0, depth, 1.0), np.nan)
    found = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        lines, bent = np.moveaxis(inverse, axis, 0), np.moveaxis(found, axis, 0)
        bent[1:-1] |= np.abs(lines[2:] + lines[:-2] - 2 * lines[1:-1]) > jump * lines[1:-1]
    return found


def _pixels(view: View, jump: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth [h, w], colours [h, w, 3] uint8, and which pixels [h, w] may become points."""
    depth, pixels = view.depth(), view.pixels()
    usable = depth > 0
    if pixels.alpha is not None:
        usable &= pixels.alpha >= OPAQUE
    if pixels.mask is not None:
        usable &= pixels.mask == 255
    if jump is not None:
        usable &= ~bends(depth, jump)
    return depth, pixels.rgb, usable
