"""What a field looks like from a camera: rays, samples along them, sums of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .. import native
from ..native import RaySamples
from ..types import Camera
from .field import Field
from .kernels import ray_sums

CHUNK = 4096  # rays that are rendered at once: 60 MB
NOTHING = 1e-3  # opacity of a ray that meets nothing


@dataclass(frozen=True)
class SamplingConfig:
    """Where a ray is sampled.

    Attributes:
        coarse: even parts of a ray that are weighed by the remembered densities of their cells.
        fine: samples, drawn from these weights (NeRF's second pass: Mildenhall et al. 2020, section 5.2).
        uniform: share of the samples that are spread over all of the ray all the same, so that nothing is overlooked
            for good.
    """

    coarse: int = 96
    fine: int = 16
    uniform: float = 0.1


@dataclass(frozen=True)
class Rays:
    """Attributes: origins [n, 3] and unit directions [n, 3] in the world, scene units."""

    origins: torch.Tensor
    directions: torch.Tensor

    def __len__(self) -> int:
        return len(self.origins)

    def part(self, index: slice | torch.Tensor) -> Rays:
        return Rays(self.origins[index], self.directions[index])


@dataclass(frozen=True)
class Seen:
    """What rays see.

    Attributes:
        rgb [n, 3] without background, opacity [n], depth [n]: sum of weights times distance, distortion [n].
        weights, distance, length [n, fine]: of the samples, front to back; distance of the middle.
        points [n fine, 3], density [n fine]: of the samples.
    """

    rgb: torch.Tensor
    opacity: torch.Tensor
    depth: torch.Tensor
    distortion: torch.Tensor
    weights: torch.Tensor
    distance: torch.Tensor
    length: torch.Tensor
    points: torch.Tensor
    density: torch.Tensor


class CameraRays:
    """Rays of several cameras: their matrices as tensors, prepared once.

    Computed in float64 up to the directions, as :meth:`Camera.center` is.
    """

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self._focal = torch.tensor([[camera.fx, camera.fy] for camera in cameras], dtype=torch.float64)
        self._principal = torch.from_numpy(np.stack([camera.K[:2, 2] for camera in cameras]))
        self._turn = torch.from_numpy(np.stack([camera.world_from_cam[:3, :3] for camera in cameras]))
        self._centre = torch.from_numpy(np.stack([camera.center for camera in cameras])).float()

    def at(self, which: torch.Tensor, pixels: torch.Tensor) -> Rays:
        """Rays of the cameras ``which`` [n] through the pixels [n, 2] (x, y); the first one's centre is (0.5, 0.5)."""
        plane = (pixels.double() - self._principal[which]) / self._focal[which]
        turn = self._turn[which]
        directions = turn[:, :, 0] * plane[:, :1] + turn[:, :, 1] * plane[:, 1:] + turn[:, :, 2]
        directions = torch.nn.functional.normalize(directions, dim=-1).float()
        return Rays(self._centre[which], directions)


def camera_rays(camera: Camera, pixels: torch.Tensor) -> Rays:
    """Rays through the pixels [n, 2] (x, y); the first pixel's centre is (0.5, 0.5)."""
    return CameraRays([camera]).at(torch.zeros(len(pixels), dtype=torch.int64), pixels)


def see(
    field: Field,
    rays: Rays,
    config: SamplingConfig = SamplingConfig(),
    generator: torch.Generator | None = None,
) -> Seen:
    """What the rays see of the field; differentiable w.r.t. its parameters. Samples are random with a generator."""
    n = len(rays)
    shifts = None if generator is None else torch.rand(n, 2, generator=generator)
    length, distance, middle, extent, points = native.ray_samples(
        field.space.arg,
        field.occupancy.density,
        rays.origins,
        rays.directions,
        shifts,
        config.coarse,
        config.fine,
        config.uniform,
        field.near,
    )
    density, rgb = field.radiance(points, rays.directions)
    first = torch.arange(n + 1) * config.fine
    weights, *sums = ray_sums(RaySamples(first, density, rgb, length, distance, middle, extent))
    by_ray = (array.reshape(n, config.fine) for array in (weights, distance, length))
    return Seen(*sums, *by_ray, points, density)


@dataclass(frozen=True)
class Picture:
    """What a camera sees of a field.

    Attributes:
        rgb: [h, w, 3] in [0, 1] without background.      opacity: [h, w].
        mean, median, spread: [h, w] of the distance at which a ray ends (scene units along the ray; spread is its
            standard deviation); 0 where rays meet nothing.
    """

    rgb: torch.Tensor
    opacity: torch.Tensor
    mean: torch.Tensor
    median: torch.Tensor
    spread: torch.Tensor


@torch.no_grad()
def picture(field: Field, camera: Camera, config: SamplingConfig = SamplingConfig()) -> Picture:
    """The field from ``camera``, at its size; samples lie in the middle of their parts."""
    height, width = camera.height, camera.width
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rays = camera_rays(camera, torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5)
    found = []
    for first in range(0, len(rays), CHUNK):
        seen = see(field, rays.part(slice(first, first + CHUNK)), config)
        total = seen.opacity.clamp(min=NOTHING)
        mean = seen.depth / total
        spread = ((seen.weights * (seen.distance - mean[:, None]) ** 2).sum(-1) / total).sqrt()
        facts = torch.stack([seen.opacity, mean, ends(seen, torch.full_like(mean, 0.5)), spread], dim=-1)
        facts[seen.opacity < NOTHING, 1:] = 0.0
        found.append(torch.cat([seen.rgb, facts], dim=-1))
    image = torch.cat(found).reshape(height, width, 7)
    return Picture(image[..., :3], *image[..., 3:].unbind(-1))


def ends(seen: Seen, share: torch.Tensor) -> torch.Tensor:
    """The distance [n] up to which rays have met ``share`` [n] (in [0, 1]) of what they meet in all; scene units.

    A share that is drawn evenly gives distances that are distributed as a ray's end is: Mildenhall et al. 2020, section
    5.2; one half gives the median.
    """
    passed = seen.weights.cumsum(-1)
    wanted = share[:, None] * passed[:, -1:]
    index = (passed < wanted).sum(-1, keepdim=True).clamp(max=passed.shape[1] - 1)
    weight = seen.weights.gather(1, index)
    within = ((wanted - (passed.gather(1, index) - weight)) / weight.clamp(min=1e-12)).clamp(0, 1) - 0.5
    return (seen.distance.gather(1, index) + within * seen.length.gather(1, index))[:, 0]
