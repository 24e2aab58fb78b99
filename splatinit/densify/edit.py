"""The one place that changes Gaussians and their optimiser state together."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..optim import GaussianAdam
from ..types import GAUSSIAN_FIELDS


@torch.no_grad()
def rebuild(adam: GaussianAdam, keep: torch.Tensor, new: Mapping[str, torch.Tensor]) -> None:
    """Keep some rows with their moments, in their order, and append new rows with zero moments.

    Args:
        keep: [n] bool, or [m] integer rows, of the present Gaussians.
        new: field → rows to append, all six fields, maybe 0 rows.

    Pending gradients are dropped.
    """
    old = adam.gaussians.tensors()
    if keep.dtype == torch.bool:
        keep = keep.nonzero()[:, 0]
    tensors, exp_avg, exp_avg_sq = {}, {}, {}
    for name in GAUSSIAN_FIELDS:
        tensors[name] = torch.cat([old[name].detach()[keep], new[name]])
        added = torch.zeros_like(new[name])
        exp_avg[name] = torch.cat([adam.exp_avg[name][keep], added])
        exp_avg_sq[name] = torch.cat([adam.exp_avg_sq[name][keep], added])
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
