"""Adam over the six tensors of the Gaussians."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from ctypes import c_double, c_void_p

import torch

from . import native
from .types import GAUSSIAN_FIELDS, Gaussians

BETA1, BETA2 = 0.9, 0.999
EPS = 1e-15  # 3DGS's: gradients of a Gaussian that covers few pixels are tiny, the usual 1e-8 would freeze it


class GaussianAdam:
    """Owns the Gaussians that are being optimised, their moments and their learning rates.

    The formula is Adam's (Kingma & Ba 2015, alg. 1) with one step count for all. Rows are added and removed only by
    :mod:`splatinit.densify.edit`, which keeps the moments in step.

    Attributes:
        gaussians: leaf tensors that require gradients. Read it anew after every refinement: its tensors are replaced.
        learning_rates: field → step size in the unit of the field, for the next :meth:`step`.
        exp_avg, exp_avg_sq: field → running mean of the gradient and of its square, shaped like the field.
        steps: updates made so far.
        admit: asked with the new number of Gaussians before rows are added or removed; what it raises leaves everything
            as it was.
    """

    def __init__(
        self,
        gaussians: Gaussians,
        learning_rates: Mapping[str, float],
        *,
        beta1: float = BETA1,
        beta2: float = BETA2,
        eps: float = EPS,
    ) -> None:
        """Copies ``gaussians`` (float32, contiguous): the caller's stay as they are."""
        self.replace(
            {k: v.detach().to(torch.float32).clone().contiguous() for k, v in gaussians.tensors().items()}, None, None
        )
        self.learning_rates = dict(learning_rates)
        self._beta1, self._beta2, self._eps = beta1, beta2, eps
        self.steps = 0
        self.admit: Callable[[int], None] = lambda count: None

    def replace(
        self,
        tensors: Mapping[str, torch.Tensor],
        exp_avg: Mapping[str, torch.Tensor] | None,
        exp_avg_sq: Mapping[str, torch.Tensor] | None,
    ) -> None:
        """Take other Gaussians, with their moments (None: zeros). The tensors are taken over, not copied."""
        self.gaussians = Gaussians(**{k: v.requires_grad_(True) for k, v in tensors.items()})
        zeros = {k: torch.zeros_like(v, requires_grad=False) for k, v in tensors.items()} if exp_avg is None else {}
        self.exp_avg = dict(zeros if exp_avg is None else exp_avg)
        self.exp_avg_sq = {k: v.clone() for k, v in zeros.items()} if exp_avg_sq is None else dict(exp_avg_sq)

    def give_up(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Tensors, exp_avg and exp_avg_sq by field, for :meth:`replace` to get others: this object lets go of them, so
        that each can be freed as soon as its successor is there."""
        tensors = {name: tensor.detach() for name, tensor in self.gaussians.tensors().items()}
        parts = tensors, self.exp_avg, self.exp_avg_sq
        del self.gaussians, self.exp_avg, self.exp_avg_sq
        return parts

    @torch.no_grad()
    def step(self, *, only_touched: bool = False) -> None:
        """One update from the ``.grad`` of the Gaussians, which are consumed. Fields without a gradient stay.

        only_touched: Gaussians whose gradients are all 0 keep their numbers and moments (sparse Adam of Taming-3DGS,
            Mallick et al. 2024): a Gaussian out of sight is not moved by what it remembers of other views.
        """
        self.steps += 1
        touched = self._touched() if only_touched else None
        for name, parameter in self.gaussians.tensors().items():
            gradient = parameter.grad
            parameter.grad = None
            if gradient is None or parameter.numel() == 0:
                continue
            update = adam_step_torch_
            if native.engine_for(parameter.device) is not None:
                gradient = gradient.contiguous()
                update = native.adam_step_
            changed = parameter, self.exp_avg[name], self.exp_avg_sq[name]
            before = [] if touched is None else [tensor.clone() for tensor in changed]
            update(
                parameter,
                gradient,
                self.exp_avg[name],
                self.exp_avg_sq[name],
                lr=self.learning_rates[name],
                step=self.steps,
                beta1=self._beta1,
                beta2=self._beta2,
                eps=self._eps,
            )
            for tensor, kept in zip(changed, before, strict=False):
                # By a mask: to ask which rows they are would wait for a GPU.
                tensor.copy_(torch.where(touched.view(-1, *[1] * (tensor.ndim - 1)), tensor, kept))

    def _touched(self) -> torch.Tensor:
        """[n] which Gaussians have any gradient."""
        touched = torch.zeros(len(self.gaussians), dtype=torch.bool, device=self.gaussians.means.device)
        for tensor in self.gaussians.tensors().values():
            if tensor.grad is not None and tensor.numel():
                touched |= (tensor.grad != 0).reshape(len(tensor), -1).any(dim=1)
        return touched

    def argument(self, engine: native.Engine, *, only_touched: bool, sh_degree_grows: bool) -> native.AdamArg:
        """What ``native.backward`` needs to make the next update itself; count it in :attr:`steps` when it is done.

        engine: that makes it; everything must lie on its device.
        sh_degree_grows: the SH degree of this view is the highest so far, so that the coefficients beyond it, which
            have never had a gradient, need no visit.
        """
        fields = self.gaussians.tensors()
        pointers = [
            (c_void_p * 6)(*(engine.pointer(name, part[name], tuple(fields[name].shape)) for name in fields))
            for part in (fields, self.exp_avg, self.exp_avg_sq)
        ]
        rates = (c_double * 6)(*(self.learning_rates[name] for name in fields))
        numbers = (self._beta1, self._beta2, self._eps, self.steps + 1, only_touched, sh_degree_grows)
        return native.AdamArg(*pointers, rates, *numbers)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything but the step count, by flat names, for a checkpoint (not copied)."""
        parts = {"gaussians": self.gaussians.tensors(), "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        return {f"{part}.{name}": tensor.detach() for part, fields in parts.items() for name, tensor in fields.items()}

    def load_state(self, state: Mapping[str, torch.Tensor], steps: int) -> None:
        """Take up what :meth:`state` gave. Raises KeyError when a tensor is missing."""
        device = self.gaussians.means.device
        parts = ("gaussians", "exp_avg", "exp_avg_sq")
        self.replace(*({k: state[f"{part}.{k}"].to(device) for k in GAUSSIAN_FIELDS} for part in parts))
        self.steps = steps


def adam_step_torch_(
    parameter: torch.Tensor,
    gradient: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    *,
    lr: float,
    step: int,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """One Adam update in place: the fallback where no engine is, and the oracle of the native kernels.

    p −= lr · m̂ / (√v̂ + eps) with m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ), t = ``step`` counted from 1.
    """
    exp_avg.lerp_(gradient, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    denominator = (exp_avg_sq.sqrt() / math.sqrt(1 - beta2**step)).add_(eps)
    parameter.addcdiv_(exp_avg, denominator, value=-lr / (1 - beta1**step))
