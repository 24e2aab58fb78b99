"""Fits a field to posed photos."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..errors import ConfigError, TrainingError
from ..native import adam_step_
from ..types import Camera
from .field import Field
from .rendering import Rays, SamplingConfig, camera_rays, see


@dataclass(frozen=True)
class FitView:
    """Attributes: the camera; rgb [h, w, 3] in [0, 1]; alpha [h, w], None where the photo is opaque."""

    camera: Camera
    rgb: torch.Tensor
    alpha: torch.Tensor | None = None


@dataclass(frozen=True)
class FitConfig:
    """How a field is fitted.

    Attributes:
        steps: updates.      rays: of a step, over all photos.
        lr: at the start, of every parameter; falls to a tenth along a cosine.
        distortion: weight of mip-NeRF 360's distortion loss, against floaters.
    """

    steps: int = 1000
    rays: int = 2048
    lr: float = 1e-2
    distortion: float = 1e-3
    sampling: SamplingConfig = SamplingConfig()


def fit(
    field: Field,
    views: Sequence[FitView],
    config: FitConfig,
    seed: int = 0,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> float:
    """Fit the field in place; the last step's mean squared error of colours.

    Each step draws pixels of all views evenly. Behind what is transparent both sides get the same random colour, so
    that a field cannot explain the background by paint. The same seed gives the same field on the same machine.

    Args:
        on_step: called after each step with its number and loss.
    Raises:
        ConfigError: no views.      TrainingError: the loss is not finite.
    """
    if not views:
        raise ConfigError("A field cannot be fitted: there are no training views.", hint="Give photos with poses.")
    generator = torch.Generator().manual_seed(seed)
    parameters = field.parameters()
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in parameters.items()}
    error = math.nan
    for step in range(1, config.steps + 1):
        rays, rgb, alpha = _batch(views, config.rays, generator)
        seen = see(field, rays, config.sampling, generator)
        background = torch.rand(len(rgb), 3, generator=generator)
        shown = seen.rgb + (1 - seen.opacity)[:, None] * background
        colours = ((shown - (rgb * alpha + (1 - alpha) * background)) ** 2).mean()
        loss = colours + config.distortion * seen.distortion.mean()
        error, total = float(colours.detach()), float(loss.detach())
        if not math.isfinite(total):
            raise TrainingError(
                f"The field diverged: its loss is {total} at step {step} of {config.steps}.",
                hint=f"Lower the rate (lr is {config.lr:g}), or look for broken poses with: splatinit check SCENE",
            )
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        rate = config.lr * (0.55 + 0.45 * math.cos(math.pi * (step - 1) / config.steps))
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
            # The betas and eps of Müller et al. 2022, section 4.
            data, (first, second) = parameter.data, moments[name]
            adam_step_(data, gradient.contiguous(), first, second, lr=rate, step=step, beta2=0.99)
        on_step(step, total)
    return error


def _batch(views: Sequence[FitView], count: int, generator: torch.Generator) -> tuple[Rays, torch.Tensor, torch.Tensor]:
    """Random pixels: rays, colours [n, 3], alpha [n, 1]."""
    which = torch.randint(len(views), (count,), generator=generator).sort().values
    place = torch.rand(count, 2, generator=generator)
    origins, directions, rgb, alpha = [], [], [], []
    for k, view in enumerate(views):
        at = place[which == k]
        height, width = view.rgb.shape[:2]
        x, y = (at[:, 0] * width).long().clamp(max=width - 1), (at[:, 1] * height).long().clamp(max=height - 1)
        rays = camera_rays(view.camera, torch.stack([x, y], dim=-1) + 0.5)
        origins.append(rays.origins)
        directions.append(rays.directions)
        rgb.append(view.rgb[y, x])
        alpha.append(torch.ones(len(at)) if view.alpha is None else view.alpha[y, x])
    return Rays(torch.cat(origins), torch.cat(directions)), torch.cat(rgb), torch.cat(alpha)[:, None]
