"""The one place that changes Gaussians and their optimiser state together."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from ..optim import GaussianAdam


def rows(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """``tensor[index]`` for integer rows, as a copy: on flat rows, fifty times faster than torch is on [n, 15, 3]."""
    flat = tensor.detach().reshape(len(tensor), math.prod(tensor.shape[1:]))
    return flat.index_select(0, index).view(len(index), *tensor.shape[1:])


@torch.no_grad()
def rebuild(adam: GaussianAdam, keep: torch.Tensor, new: Mapping[str, torch.Tensor]) -> None:
    """Keep some rows with their moments, in their order, and append new rows with zero moments.

    Args:
        keep: [m] integer rows of the present Gaussians.
        new: field → rows to append, all six fields, maybe 0 rows.

    Pending gradients are dropped.
    """
    tensors, exp_avg, exp_avg_sq = {}, {}, {}
    for name, old in adam.gaussians.tensors().items():
        zeros = torch.zeros_like(new[name])
        tensors[name] = torch.cat([rows(old, keep), new[name]])
        exp_avg[name] = torch.cat([rows(adam.exp_avg[name], keep), zeros])
        exp_avg_sq[name] = torch.cat([rows(adam.exp_avg_sq[name], keep), zeros])
    adam.replace(tensors, exp_avg, exp_avg_sq)


@torch.no_grad()
def cap_opacities(adam: GaussianAdam, max_logit: float) -> None:
    """Lower every logit opacity to at most ``max_logit``, and forget the moments of the opacities.

    The moments have to go for all rows, also for those below the cap: they say "up" from before the reset and would
    undo it within a few steps (so does 3DGS).
    """
    adam.gaussians.logit_opacities.clamp_max_(max_logit)
    adam.exp_avg["logit_opacities"].zero_()
    adam.exp_avg_sq["logit_opacities"].zero_()
