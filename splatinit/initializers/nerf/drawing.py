"""Points from a fitted field: a pixel, a place along its ray, and whether the other photos agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...geometry.neighbours import mean_neighbour_distance, nearest_distance
from ...nerf import Field, Photos, SamplingConfig, ends, see
from ...progress import Progress
from .config import NerfConfig
from .depths import Depths

RAYS = 8192  # drawn at once
# Rays that are drawn at most for each point that is asked for: where fewer of them end on what photos agree on, the
# field has no more to give.
MOST = 20
# px, least and largest radius of a point, in the photo that looks most closely at it.
SMALLEST, LARGEST = 0.5, 16.0


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    Attributes:
        xyz, rgb: [n, 3], n ≤ what was asked for.      pixel: [n], the size of a pixel there, scene units.
        rays: how many were drawn, and of them ended ``nothing``: nowhere, ``near``: too near to a camera, ``lonely``:
            where too few photos agree.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    pixel: np.ndarray
    rays: int
    nothing: int
    near: int
    lonely: int


@torch.no_grad()
def draw(
    field: Field,
    sampling: SamplingConfig,
    photos: Photos,
    depths: Depths,
    config: NerfConfig,
    clearance: float,
    generator: torch.Generator,
    progress: Progress,
) -> Drawn:
    """Up to ``config.count`` points, each of a pixel drawn evenly, accepted with the opacity of its ray.

    Args:
        clearance: scene units.
    """
    centres = np.stack([camera.center for camera in photos.cameras])
    focal = torch.tensor([np.sqrt(camera.fx * camera.fy) for camera in photos.cameras])
    xyz: list[np.ndarray] = []
    rgb: list[np.ndarray] = []
    pixel: list[np.ndarray] = []
    have = rays = nothing = near = lonely = 0
    progress.start("draw", config.count)
    while have < config.count and rays < MOST * max(config.count, RAYS):
        batch = photos.draw(RAYS, generator)
        seen = see(field, batch.rays, sampling, generator)
        ended = torch.rand(RAYS, generator=generator) < seen.opacity
        share = torch.rand(RAYS, generator=generator)
        if config.depth == "expected":
            distance = seen.depth / seen.opacity.clamp(min=1e-6)
        else:
            distance = ends(seen, torch.full_like(share, 0.5) if config.depth == "median" else share)
        places = batch.rays.origins + distance[:, None] * batch.rays.directions
        found = places.numpy().astype(np.float64)
        clear = nearest_distance(found, centres) >= clearance
        keep = ended.numpy() & clear
        agree = np.zeros(RAYS, bool)
        agree[keep] = depths.agree(found[keep]) >= config.min_views
        rays, nothing = rays + RAYS, nothing + int((~ended).sum())
        near, lonely = near + int((ended.numpy() & ~clear).sum()), lonely + int((keep & ~agree).sum())
        kept = torch.from_numpy(agree)
        colours = batch.rgb[kept]
        if config.colour == "field" and len(colours):
            colours = field.radiance(places[kept], batch.rays.directions[kept])[1]
        xyz.append(found[agree])
        rgb.append(colours.numpy())
        pixel.append((distance / focal[batch.view])[kept].numpy())
        have += int(agree.sum())
        progress.advance(min(have, config.count))
    progress.finish()
    arrays = (np.concatenate(parts)[: config.count] for parts in (xyz, rgb, pixel))
    return Drawn(*arrays, rays, nothing, near, lonely)


def radii(xyz: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """[n] scene units: the mean distance to the 3 nearest, as 3DGS starts, within bounds.

    No smaller than half a pixel there, where many points fell together, and no larger than 16, where they are few.
    """
    return np.nan_to_num(mean_neighbour_distance(xyz, k=3)).clip(SMALLEST * pixel, LARGEST * pixel)
