"""The native kernels of the radiance field as differentiable torch functions, float32 on the CPU."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.autograd.function import once_differentiable

from ..native import (
    HashGrid,
    Mlp,
    RaySamples,
    grid_features_vjp,
    mlp_outputs_vjp,
    ray_sums_vjp,
)
from ..native import grid_features as native_grid_features
from ..native import mlp_outputs as native_mlp_outputs
from ..native import ray_sums as native_ray_sums


class _GridFeatures(torch.autograd.Function):
    @staticmethod
    def forward(ctx, grid: HashGrid, table: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        ctx.grid = grid
        ctx.save_for_backward(points)
        return native_grid_features(grid, table, points)

    @staticmethod
    @once_differentiable
    def backward(ctx, v: torch.Tensor):
        (points,) = ctx.saved_tensors
        return None, grid_features_vjp(ctx.grid, points, v.contiguous()), None


class _MlpOutputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mlp: Mlp, weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        ctx.mlp = mlp
        ctx.save_for_backward(weights, x)
        return native_mlp_outputs(mlp, weights, x)

    @staticmethod
    @once_differentiable
    def backward(ctx, v: torch.Tensor):
        weights, x = ctx.saved_tensors
        v_x, v_weights = mlp_outputs_vjp(ctx.mlp, weights, x, v.contiguous(), with_x=ctx.needs_input_grad[2])
        return None, v_weights, v_x


class _RaySums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, samples: RaySamples, density: torch.Tensor, rgb: torch.Tensor):
        ctx.samples = samples
        ctx.save_for_backward(density, rgb)
        weights, *sums = native_ray_sums(replace(samples, density=density, rgb=rgb))
        ctx.mark_non_differentiable(weights)
        return weights, *sums

    @staticmethod
    @once_differentiable
    def backward(ctx, _, *v: torch.Tensor):
        density, rgb = ctx.saved_tensors
        samples = replace(ctx.samples, density=density, rgb=rgb)
        return None, *ray_sums_vjp(samples, *(cotangent.contiguous() for cotangent in v))


def grid_features(grid: HashGrid, table: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """See :func:`splatinit.native.grid_features`; differentiable w.r.t. the table, not w.r.t. the points."""
    return _GridFeatures.apply(grid, table, points)


def mlp_outputs(mlp: Mlp, weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """See :func:`splatinit.native.mlp_outputs`; differentiable w.r.t. weights and x."""
    return _MlpOutputs.apply(mlp, weights, x)


def ray_sums(samples: RaySamples) -> tuple[torch.Tensor, ...]:
    """See :func:`splatinit.native.ray_sums`; the sums are differentiable w.r.t. density and rgb, weights are not."""
    constant = replace(samples, density=samples.density.detach(), rgb=samples.rgb.detach())
    return _RaySums.apply(constant, samples.density, samples.rgb)
