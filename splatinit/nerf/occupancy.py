"""Densities that a fit remembers, so that the next rays are sampled where something is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .. import native

if TYPE_CHECKING:
    from .field import Field

CELLS = 128  # along each side of the unit cube: 8 MB
UNKNOWN = 0.5  # density times the space's size, before anything is known: light passes, and all of a ray is looked at


@dataclass(frozen=True)
class Occupancy:
    """Attributes: density [c, c, c] per scene unit, of the cells (z, y, x) of the unit cube of a field.

    In place of instant-ngp's occupancy bits (Müller et al. 2022, section 5.4): these skip what is empty, densities also
    say which of what is not empty hides the rest, so that a ray needs no pass through the field to be sampled by
    weight.
    """

    density: torch.Tensor

    @classmethod
    def unknown(cls, size: float, cells: int = CELLS) -> Occupancy:
        """Of a field of which nothing is known, in a space of ``size`` scene units."""
        return cls(torch.full((cells, cells, cells), UNKNOWN / size))

    def remember(self, field: Field, points: torch.Tensor, density: torch.Tensor, rate: float) -> None:
        """Move what is known of the cells of points [n, 3] towards ``density`` [n]; each moves it by ``rate``."""
        native.occupancy_put_(field.space.arg, self.density, points, density.detach(), rate)

    def explore(self, field: Field, count: int, rate: float, generator: torch.Generator) -> None:
        """Look at ``count`` random cells, that what no ray meets is not believed for good."""
        cells = self.density.shape[0]
        at = torch.randint(self.density.numel(), (count,), generator=generator)
        corner = torch.stack([at % cells, at // cells % cells, at // cells**2], dim=-1)
        unit = (corner + torch.rand(count, 3, generator=generator)) / cells
        with torch.no_grad():
            points = field.space.world(unit)
            self.remember(field, points, field.density(points), rate)
