"""What a densifier is to the trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..types import Camera, RasterAux

if TYPE_CHECKING:
    import torch

    from ..optim import GaussianAdam


@dataclass(frozen=True, kw_only=True)
class Change:
    """What one refinement did: numbers of Gaussians, and whether opacities were reset."""

    cloned: int = 0
    split: int = 0
    pruned: int = 0
    opacities_reset: bool = False


class Densifier(Protocol):
    """Sees every training step and may edit the Gaussians after it. One object serves one training.

    Steps are counted from 1: the calls with ``step`` belong to the update that brings the count to ``step``. What it
    does may depend on the arguments, its config and its state, on nothing else (no clock, no global random numbers):
    a resumed training has to make the same numbers.
    """

    name: str
    config: Any  # its frozen config dataclass, or None; recorded in checkpoints, so that they are not mixed up

    def begin(self, *, steps: int, extent: float) -> None:
        """Training of ``steps`` updates in a scene of ``extent`` (scene units) begins: turn fractions into steps."""
        ...

    def replan(self, *, steps: int) -> None:
        """It will be ``steps`` updates after all (a training by time learns its pace): turn fractions anew."""
        ...

    def wants_stats(self, step: int) -> tuple[str, ...]:
        """Names of the gradients in RasterAux that :meth:`observe` will read of this step (they cost a little)."""
        ...

    def observe(self, step: int, aux: RasterAux, camera: Camera) -> None:
        """After the update. ``aux`` is of the render before it, with the statistics that were wanted, and holds until
        the next step only. Its tensors are on the Gaussians' device, which no step may wait for: nothing is read here.
        """
        ...

    def refine(
        self, step: int, adam: GaussianAdam, random: torch.Generator, *, resolution: float = 1.0
    ) -> Change | None:
        """After the update: edit the Gaussians (by :mod:`.edit`), or return None when it is not the time.

        An edit that memory cannot hold is refused by an OutOfMemory that has to go up with nothing changed: the call is
        made again, with the same arguments, when the training is resumed.

        ``random``, of the host, is seeded from the run's seed and ``step``. ``resolution`` is the share of their
        working size (of the sides) at which the photos were looked at: small photos show less, and call for fewer
        Gaussians.

        Whether there is a Change follows from ``step`` alone: processes that train together add up what each did.
        """
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """What has to be in a checkpoint besides the Gaussians."""
        ...

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up what :meth:`state` gave, after :meth:`begin`."""
        ...
