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

    One tensor after the other, so that the old and the new of only one are in memory together, as long as the caller
    holds none of the old ones.

    Args:
        keep: [m] integer rows of the present Gaussians.
        new: field → rows to append, all six fields, maybe 0 rows.

    Pending gradients are dropped. Raises what ``adam.admit`` raises, with nothing changed.
    """
    adam.admit(len(keep) + len(new["means"]))
    tensors, exp_avg, exp_avg_sq = adam.give_up()
    for name in list(tensors):
        tensors[name] = _joined(tensors[name], keep, new[name])
        for moments in (exp_avg, exp_avg_sq):
            moments[name] = _joined(moments[name], keep, torch.zeros_like(new[name]))
    adam.replace(tensors, exp_avg, exp_avg_sq)


def _joined(old: torch.Tensor, keep: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Rows ``keep`` of ``old``, then ``new``: a concatenation without a copy of the first part."""
    joined = old.new_empty(len(keep) + len(new), *old.shape[1:])
    width = math.prod(old.shape[1:])
    flat = old.reshape(len(old), width)
    torch.index_select(flat, 0, keep, out=joined[: len(keep)].view(len(keep), width))
    joined[len(keep) :] = new
    return joined


@torch.no_grad()
def cap_opacities(adam: GaussianAdam, max_logit: float) -> None:
    """Lower every logit opacity to at most ``max_logit``, and forget the moments of the opacities.

    The moments have to go for all rows, also for those below the cap: they say "up" from before the reset and would
    undo it within a few steps (so does 3DGS).
    """
    adam.gaussians.logit_opacities.clamp_max_(max_logit)
    adam.exp_avg["logit_opacities"].zero_()
    adam.exp_avg_sq["logit_opacities"].zero_()
