"""How the world is laid into the unit cube of a hash grid: a box, or all of space by contraction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from .. import native

BEYOND = 500.0  # a ray in contracted space ends at so many times the ball's diameter


def contract(points: torch.Tensor) -> torch.Tensor:
    """Points [n, 3] with ‖x‖ ≤ 1 stay, all others come to lie between the spheres of radius 1 and 2.

    (2 − 1/‖x‖) x/‖x‖ outside: Barron et al. 2022 (mip-NeRF 360), eq. 10.
    """
    norm = points.norm(dim=-1, keepdim=True)
    outside = norm.clamp(min=1)
    return torch.where(norm > 1, (2 - 1 / outside) * (points / outside), points)


def expand(points: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`contract` for points [n, 3] with ‖x‖ < 2; those beyond count as just inside."""
    norm = points.norm(dim=-1, keepdim=True)
    outside = norm.clamp(min=1)
    return torch.where(norm > 1, points / outside / (2 - outside).clamp(min=1e-3), points)


class Space(Protocol):
    """Where a field lives."""

    @property
    def size(self) -> float:
        """Scene units: a length that is typical of it."""
        ...

    @property
    def arg(self) -> native.SpaceArg:
        """It as the native engine takes it."""
        ...

    def unit(self, points: torch.Tensor) -> torch.Tensor:
        """World points [n, 3] → [n, 3] in the unit cube."""
        ...

    def world(self, unit: torch.Tensor) -> torch.Tensor:
        """Places [n, 3] of the unit cube → world points [n, 3], scene units."""
        ...

    def holds(self, points: torch.Tensor) -> torch.Tensor:
        """[n] bool: where there can be anything."""
        ...

    def distances(
        self, origins: torch.Tensor, directions: torch.Tensor, s: torch.Tensor, near: float = 0.0
    ) -> torch.Tensor:
        """Scene units from the origins [n, 3] along unit directions [n, 3], at s [n, m] in [0, 1], ascending in s; from
        ``near`` on."""
        ...


def in_unit_cube(space: Space, points: torch.Tensor) -> torch.Tensor:
    """``space.unit`` by the native engine where that takes the points: ten times as fast."""
    if native.available() and points.dtype == torch.float32 and points.device.type == "cpu":
        return native.space_unit(space.arg, points.contiguous())
    return space.unit(points)


@dataclass(frozen=True)
class Box:
    """From corner ``low`` to corner ``high``, scene units; empty outside. For objects."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @property
    def size(self) -> float:
        return max(b - a for a, b in zip(self.low, self.high, strict=True))

    @cached_property
    def arg(self) -> native.SpaceArg:
        return native.SpaceArg(0, self.low, self.high)

    def _corners(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = (torch.tensor(corner, dtype=like.dtype) for corner in (self.low, self.high))
        return low, high

    def unit(self, points: torch.Tensor) -> torch.Tensor:
        low, high = self._corners(points)
        return ((points - low) / (high - low)).clamp(0, 1)

    def world(self, unit: torch.Tensor) -> torch.Tensor:
        return torch.lerp(*self._corners(unit), unit)

    def holds(self, points: torch.Tensor) -> torch.Tensor:
        low, high = self._corners(points)
        return ((points >= low) & (points <= high)).all(-1)

    def distances(
        self, origins: torch.Tensor, directions: torch.Tensor, s: torch.Tensor, near: float = 0.0
    ) -> torch.Tensor:
        """Evenly from where the ray enters the box, or from ``near`` inside, to where it leaves; 0 if it misses."""
        low, high = self._corners(origins)
        safe = torch.where(directions.abs() < 1e-12, 1e-12, directions)
        one, other = (low - origins) / safe, (high - origins) / safe
        enters = torch.minimum(one, other).amax(-1, keepdim=True).clamp(min=near)
        leaves = torch.maximum(one, other).amin(-1, keepdim=True)
        return torch.where(leaves > enters, enters + s * (leaves - enters), 0.0)


@dataclass(frozen=True)
class Ball:
    """All of space, contracted outside a ball. Half of the unit cube's side is the ball's diameter."""

    centre: tuple[float, float, float]
    radius: float  # scene units

    @property
    def size(self) -> float:
        return 2 * self.radius

    @cached_property
    def arg(self) -> native.SpaceArg:
        return native.SpaceArg(1, self.centre, (self.radius,) * 3)

    def unit(self, points: torch.Tensor) -> torch.Tensor:
        centre = torch.tensor(self.centre, dtype=points.dtype)
        return (contract((points - centre) / self.radius) + 2) / 4

    def world(self, unit: torch.Tensor) -> torch.Tensor:
        return expand(4 * unit - 2) * self.radius + torch.tensor(self.centre, dtype=unit.dtype)

    def holds(self, points: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(points), dtype=torch.bool)

    def distances(
        self, origins: torch.Tensor, directions: torch.Tensor, s: torch.Tensor, near: float = 0.0
    ) -> torch.Tensor:
        """Half of s evenly to twice the radius, the other half evenly in inverse distance, to 1000 radii."""
        s, turn = s.clamp(0, 1), 2 * max(self.radius, near)
        beyond = turn / (1 + (2 * s - 1).clamp(0, 1) * (1 / BEYOND - 1))
        return torch.where(s < 0.5, near + (turn - near) * 2 * s, beyond)
