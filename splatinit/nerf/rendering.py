"""What a field looks like from a camera: rays, samples along them, sums of the samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..native import RaySamples
from ..types import Camera
from .field import Field
from .kernels import ray_sums


@dataclass(frozen=True)
class SamplingConfig:
    """Where a ray is sampled: NeRF's two passes (Mildenhall et al. 2020, section 5.2), the first without gradient.

    Attributes:
        coarse: samples of the first pass, stratified over all of the ray.
        fine: samples of the second, drawn from the weights that the first pass found.
        uniform: share of the second pass's samples that are spread over all of the ray all the same, so that nothing
            is overlooked for good.
    """

    coarse: int = 64
    fine: int = 32
    uniform: float = 0.1


@dataclass(frozen=True)
class Rays:
    """Attributes: origins [n, 3] and unit directions [n, 3] in the world, scene units."""

    origins: torch.Tensor
    directions: torch.Tensor


@dataclass(frozen=True)
class Seen:
    """What rays see.

    Attributes:
        rgb [n, 3] without background, opacity [n], depth [n]: sum of weights times distance, distortion [n].
        weights, distance [n, fine]: of the samples, front to back.
    """

    rgb: torch.Tensor
    opacity: torch.Tensor
    depth: torch.Tensor
    distortion: torch.Tensor
    weights: torch.Tensor
    distance: torch.Tensor


def camera_rays(camera: Camera, pixels: torch.Tensor) -> Rays:
    """Rays through the pixels [n, 2] (x, y); the first pixel's centre is (0.5, 0.5)."""
    K, pose = (torch.as_tensor(matrix, dtype=torch.float64) for matrix in (camera.K, camera.cam_from_world))
    homogeneous = torch.cat([pixels.double(), torch.ones(len(pixels), 1, dtype=torch.float64)], dim=-1)
    directions = torch.nn.functional.normalize(homogeneous @ torch.linalg.inv(K).T @ pose[:3, :3], dim=-1)
    centre = -pose[:3, :3].T @ pose[:3, 3]
    return Rays(centre.float().expand(len(pixels), 3).contiguous(), directions.float().contiguous())


def resample(
    edges: torch.Tensor, weights: torch.Tensor, count: int, uniform: float, generator: torch.Generator | None
) -> torch.Tensor:
    """Edges [n, count + 1] in [0, 1] that cut the distribution of weights [n, m] over edges [n, m + 1] into even parts.

    ``uniform`` of the mass is spread over all of the ray. With a generator, the cuts of a ray are shifted together by
    a random part of a step; without, they lie in the middle.
    """
    n, m = weights.shape
    total = weights.sum(-1, keepdim=True)
    found = torch.where(total > 1e-6, weights / total.clamp(min=1e-6), edges.diff(dim=-1))
    mass = (1 - uniform) * found + uniform * edges.diff(dim=-1)
    cumulative = torch.cat([torch.zeros(n, 1), mass.cumsum(-1)], dim=-1)
    cumulative = cumulative / cumulative[:, -1:]
    shift = torch.rand(n, 1, generator=generator) if generator is not None else torch.full((n, 1), 0.5)
    wanted = (torch.arange(count + 1) + shift) / (count + 1)
    above = torch.searchsorted(cumulative, wanted.contiguous(), right=True).clamp(1, m)
    low, high = cumulative.gather(1, above - 1), cumulative.gather(1, above)
    share = ((wanted - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return torch.lerp(edges.gather(1, above - 1), edges.gather(1, above), share)


def see(field: Field, rays: Rays, config: SamplingConfig, generator: torch.Generator | None = None) -> Seen:
    """What the rays see of the field; differentiable w.r.t. its parameters. Samples are random with a generator."""
    n = len(rays.origins)
    step = 1 / config.coarse
    edges = torch.linspace(0, 1, config.coarse + 1).repeat(n, 1)
    if generator is not None:
        edges[:, 1:-1] += (torch.rand(n, config.coarse - 1, generator=generator) - 0.5) * step
    with torch.no_grad():
        samples, points = _samples(field, rays, edges)
        density = field.density(points)
        weights = ray_sums(_filled(samples, density, torch.zeros(len(points), 3)))[0].reshape(n, config.coarse)
    edges = resample(edges, weights, config.fine, config.uniform, generator)
    samples, points = _samples(field, rays, edges)
    directions = rays.directions.repeat_interleave(config.fine, dim=0)
    density, rgb = field.radiance(points, directions)
    weights, *sums = ray_sums(_filled(samples, density, rgb))
    return Seen(*sums, weights.reshape(n, config.fine), samples.distance.reshape(n, config.fine))


def _samples(field: Field, rays: Rays, edges: torch.Tensor) -> tuple[RaySamples, torch.Tensor]:
    """Samples between the edges [n, m + 1] of the space's own coordinate along each ray, and their middles [n m, 3]."""
    n, m = len(edges), edges.shape[1] - 1
    far = field.space.distances(rays.origins, rays.directions, edges)
    distance, middle = ((e[:, 1:] + e[:, :-1]) / 2 for e in (far, edges))
    points = rays.origins[:, None] + distance[..., None] * rays.directions[:, None]
    along = [array.reshape(-1).contiguous() for array in (far.diff(dim=-1), distance, middle, edges.diff(dim=-1))]
    first = torch.arange(n + 1) * m
    unknown = torch.empty(0)
    return RaySamples(first, unknown, unknown, *along), points.reshape(-1, 3)


def _filled(samples: RaySamples, density: torch.Tensor, rgb: torch.Tensor) -> RaySamples:
    return RaySamples(samples.first, density, rgb, samples.length, samples.distance, samples.middle, samples.extent)
