"""No densification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..types import Camera, RasterAux

if TYPE_CHECKING:
    import torch

    from ..optim import GaussianAdam


class NoDensify:
    """Leaves the Gaussians alone."""

    name = "none"
    config = None

    def begin(self, *, steps: int, extent: float) -> None: ...

    def replan(self, *, steps: int) -> None: ...

    def wants_stats(self, step: int) -> tuple[str, ...]:
        return ()

    def observe(self, step: int, aux: RasterAux, camera: Camera) -> None: ...

    def refine(self, step: int, adam: GaussianAdam, random: torch.Generator, *, resolution: float = 1.0) -> None:
        return None

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None: ...
