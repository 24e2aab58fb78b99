"""How the world is laid into the unit cube of a hash grid: a box, or all of space by contraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


def contract(points: torch.Tensor) -> torch.Tensor:
    """Points [n, 3] with ‖x‖ ≤ 1 stay, all others come to lie between the spheres of radius 1 and 2.

    (2 − 1/‖x‖) x/‖x‖ outside: Barron et al. 2022 (mip-NeRF 360), eq. 10.
    """
    norm = points.norm(dim=-1, keepdim=True)
    outside = norm.clamp(min=1)
    return torch.where(norm > 1, (2 - 1 / outside) * (points / outside), points)


class Space(Protocol):
    """Where a field lives."""

    @property
    def size(self) -> float:
        """Scene units: a length that is typical of it."""
        ...

    def unit(self, points: torch.Tensor) -> torch.Tensor:
        """World points [n, 3] → [n, 3] in the unit cube."""
        ...

    def holds(self, points: torch.Tensor) -> torch.Tensor:
        """[n] bool: where there can be anything."""
        ...

    def distances(self, origins: torch.Tensor, directions: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Scene units from the origins [n, 3] along unit directions [n, 3], at s [n, m] in [0, 1], ascending in s."""
        ...


@dataclass(frozen=True)
class Box:
    """From corner ``low`` to corner ``high``, scene units; empty outside. For objects."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @property
    def size(self) -> float:
        return max(b - a for a, b in zip(self.low, self.high, strict=True))

    def unit(self, points: torch.Tensor) -> torch.Tensor:
        low, high = (torch.tensor(corner, dtype=points.dtype) for corner in (self.low, self.high))
        return ((points - low) / (high - low)).clamp(0, 1)

    def holds(self, points: torch.Tensor) -> torch.Tensor:
        low, high = (torch.tensor(corner, dtype=points.dtype) for corner in (self.low, self.high))
        return ((points >= low) & (points <= high)).all(-1)

    def distances(self, origins: torch.Tensor, directions: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Evenly from where the ray enters the box, or from its origin inside, to where it leaves; 0 if it misses."""
        low, high = (torch.tensor(corner, dtype=origins.dtype) for corner in (self.low, self.high))
        safe = torch.where(directions.abs() < 1e-12, 1e-12, directions)
        one, other = (low - origins) / safe, (high - origins) / safe
        near = torch.minimum(one, other).amax(-1, keepdim=True).clamp(min=0)
        far = torch.maximum(one, other).amin(-1, keepdim=True)
        return torch.where(far > near, near + s * (far - near), 0.0)


@dataclass(frozen=True)
class Ball:
    """All of space, contracted outside a ball. Half of the unit cube's side is the ball's diameter."""

    centre: tuple[float, float, float]
    radius: float  # scene units

    @property
    def size(self) -> float:
        return 2 * self.radius

    def unit(self, points: torch.Tensor) -> torch.Tensor:
        centre = torch.tensor(self.centre, dtype=points.dtype)
        return (contract((points - centre) / self.radius) + 2) / 4

    def holds(self, points: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(points), dtype=torch.bool)

    def distances(self, origins: torch.Tensor, directions: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """Half of s evenly to twice the radius, the other half evenly in inverse distance, to 1000 radii."""
        s = s.clamp(0, 1)
        beyond = 1 / torch.lerp(torch.tensor(1.0), torch.tensor(2e-3), (2 * s - 1).clamp(0, 1))
        return 2 * self.radius * torch.where(s < 0.5, 2 * s, beyond)
