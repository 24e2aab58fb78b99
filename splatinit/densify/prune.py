"""Pruning without growth: what EDGS (Kotovenko et al. 2025, arXiv:2504.13204) leaves of density control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..types import Camera, RasterAux
from .adc import logit
from .base import Change

if TYPE_CHECKING:
    import torch

    from ..optim import GaussianAdam


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """When and which Gaussians are removed. Times are fractions of the training's ``steps``.

    Attributes:
        prune_opacity: opacity below which a Gaussian is removed. EDGS: 0.005.
        end: nothing happens from here on. EDGS: 15 000 of 30 000.
        every: between two removals, but at least ``min_every_steps``; another one is after the last step before
            ``end``. EDGS removes after every step.
        min_every_steps: steps. A Gaussian that is fainter than 1/255 is not drawn and gets no gradient: it hardly comes
            back, so that it may as well wait. Making 200 000 Gaussians of SH degree 3 anew takes 44 to 78 ms of CPU
            time, which would be more than many a step.
        fade: the odds o / (1 − o) of every opacity o are multiplied by this, again and again: what the photos do not
            ask for dies. EDGS: 0.99. 1 is off.
        fade_every: between two such fadings, but at least ``min_fade_steps``. EDGS: 10 of 30 000.
        min_fade_steps: steps. Fading pulls against the gradient, which acts at every step: with a shorter interval, a
            shorter training would not fade sooner, but stronger.

    EDGS's are ``prune_opacity``, ``end``, ``fade``, and 10 steps between two fadings. Ours are the interval of removals
    and the minima in steps.
    """

    prune_opacity: float = 0.005
    end: float = 0.5
    every: float = 100 / 30000
    min_every_steps: int = 100
    fade: float = 0.99
    fade_every: float = 10 / 30000
    min_fade_steps: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.prune_opacity < 1:
            raise ConfigError(
                f"densify.prune_opacity must be between 0 and 1, both excluded, got {self.prune_opacity:g}."
            )
        if not 0 <= self.end <= 1:
            raise ConfigError(f"densify.end is a fraction of the steps: expected 0 to 1, got {self.end:g}.")
        if not 0 < self.fade <= 1:
            raise ConfigError(
                f"densify.fade multiplies the odds of the opacities: expected above 0 and at most 1, got {self.fade:g}."
            )
        for name in ("every", "fade_every"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"densify.{name} is a fraction of the steps: expected above 0 and at most 1, got "
                    f"{getattr(self, name):g}."
                )
        for name in ("min_every_steps", "min_fade_steps"):
            if getattr(self, name) < 1:
                raise ConfigError(f"densify.{name} must be at least 1 step, got {getattr(self, name)}.")


class Prune:
    """Removes faint Gaussians and lets all fade a little, never adds one. See :class:`PruneConfig` for the rules.

    All follows from the step and the Gaussians, so that there is no state of its own to save.
    """

    name = "prune"

    def __init__(self, config: PruneConfig = PruneConfig()) -> None:
        self.config = config

    def begin(self, *, steps: int, extent: float) -> None:
        self.replan(steps=steps)

    def replan(self, *, steps: int) -> None:
        config = self.config
        self._end = config.end * steps
        self._last = math.ceil(self._end) - 1
        self._every = max(config.min_every_steps, round(config.every * steps))
        self._fade_every = max(config.min_fade_steps, round(config.fade_every * steps))

    def wants_stats(self, step: int) -> tuple[str, ...]:
        return ()

    def observe(self, step: int, aux: RasterAux, camera: Camera) -> None: ...

    def refine(
        self, step: int, adam: GaussianAdam, random: torch.Generator, *, resolution: float = 1.0
    ) -> Change | None:
        """Of the two, only a removal is reported as a Change: fading is a schedule, its settings say all."""
        if step >= self._end:
            return None
        change = None
        # Removal first: it alone may be refused, and then nothing may have changed.
        if step % self._every == 0 or step == self._last:
            change = Change(pruned=remove_faint(adam, logit(self.config.prune_opacity)))
        if self.config.fade < 1 and step % self._fade_every == 0:
            adam.gaussians.logit_opacities.detach().add_(math.log(self.config.fade))
        return change

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None: ...


def remove_faint(adam: GaussianAdam, min_logit: float) -> int:
    """Remove the Gaussians whose logit opacity is not at least ``min_logit`` (so NaN, too). Returns how many."""
    import torch

    from .edit import rebuild

    fields = adam.gaussians.tensors()
    keep = (fields["logit_opacities"].detach() >= min_logit).nonzero()[:, 0]
    count = len(adam.gaussians)
    if len(keep) < count:
        nothing = {name: torch.empty_like(tensor[:0]) for name, tensor in fields.items()}
        del fields  # or the old Gaussians could not be freed while the new ones are made
        rebuild(adam, keep, nothing)
    return count - len(keep)
