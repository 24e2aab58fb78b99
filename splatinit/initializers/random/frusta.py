"""What the cameras see, how densely places are drawn in it, and which of them are kept.

Places are proposed by a density that is known in closed form, and kept where they are in the volume: what is kept is
drawn from the same density, cut off at the volume's border and divided by the share that was kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from ...errors import SceneError
from ...geometry.neighbours import nearest_distance
from ...types import Scene
from ..rig import BORDER, Rig
from ..silhouettes import count_views, on_cells, silhouettes
from .config import NEAREST, RandomConfig

LOOKS = 8  # cameras that are asked at once whether a place is empty; most places need no more
ROUND, SMALL_ROUND = 2**17, 2**14  # places proposed at once: at most, and at least where some are not kept
# Proposals after which the share that is kept is asked for, and the share below which drawing on would take minutes.
ASKED_AFTER, RAREST = 100_000, 1e-3
# The mean distance to the 3 nearest of evenly drawn points, times the cube root of their number per volume: the k-th
# nearest is at Γ(k + 1/3) / Γ(k) · (4π/3)^(−1/3) on average (Chandrasekhar 1943, ch. VII, for k = 1).
SPACING = sum(math.gamma(k + 1 / 3) / math.gamma(k) for k in (1, 2, 3)) / 3 / (4 * math.pi / 3) ** (1 / 3)


class Places(Protocol):
    """A density to draw from."""

    def propose(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """[count, 3] places, scene units."""
        ...

    def at(self, xyz: np.ndarray) -> np.ndarray:
        """The probability density [n] of :meth:`propose` at places [n, 3], 1 / scene units³."""
        ...


@dataclass(frozen=True)
class Box:
    """Even in an axis-aligned box, from ``center`` [3] with ``sides`` [3] (scene units)."""

    center: np.ndarray
    sides: np.ndarray

    def propose(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return self.center + self.sides * (rng.random((count, 3)) - 0.5)

    def at(self, xyz: np.ndarray) -> np.ndarray:
        return np.full(len(xyz), 1.0 / self.sides.prod())


@dataclass(frozen=True)
class LogDepth:
    """Pixels of the photos, each as likely, at depths z from ``near`` to ``far`` whose logarithm is even.

    A camera's density at depth z is fx · fy / (area · z³ · ln(far / near)), area in px² being that of the pixels from
    which is drawn; the mean of all cameras' is the density. With silhouettes, pixels in their cells are drawn from, and
    photos without any are left out.
    """

    rig: Rig
    near: float
    far: float
    silhouettes: Sequence[np.ndarray | None] | None = None

    @cached_property
    def _cells(self) -> dict[int, np.ndarray]:
        """Camera → its silhouette without the cells that touch the photo's border; only cameras that have one."""
        found = {}
        for camera, silhouette in enumerate(self.silhouettes or ()):
            if silhouette is not None:
                column, row = (
                    (np.arange(n) * size / n >= BORDER) & ((np.arange(n) + 1) * size / n <= size - BORDER)
                    for n, size in zip(silhouette.shape[::-1], self.rig.size[camera], strict=True)
                )
                found[camera] = silhouette & row[:, None] & column
        return found

    @cached_property
    def _area(self) -> np.ndarray:
        """[cameras] px² that are drawn from."""
        area = (self.rig.size - 2 * BORDER).prod(axis=1)
        for camera, cells in self._cells.items():
            area[camera] = self.rig.size[camera].prod() * cells.mean()
        return area

    def propose(self, rng: np.random.Generator, count: int) -> np.ndarray:
        rig, drawn = self.rig, self._area.nonzero()[0]
        index, share = drawn[rng.integers(len(drawn), size=count)], rng.random((count, 2))
        px = BORDER + (rig.size[index] - 2 * BORDER) * share
        for camera, cells in self._cells.items():
            here, known = (index == camera).nonzero()[0], np.argwhere(cells)
            place = share[here, 0] * len(known)
            row, column = known[place.astype(np.int64)].T
            inner = np.stack([column + place % 1, row + share[here, 1]], axis=1)
            px[here] = inner * rig.size[camera] / cells.shape[::-1]
        z = self.near * (self.far / self.near) ** rng.random(count)
        focal = np.stack([rig.K[index, 0, 0], rig.K[index, 1, 1]], axis=1)
        cam = np.column_stack([(px - rig.K[index, :2, 2]) / focal, np.ones(count)]) * z[:, None]
        return rig.center[index] + np.einsum("nji,nj->ni", rig.pose[index, :3, :3], cam)

    def at(self, xyz: np.ndarray) -> np.ndarray:
        rig, density = self.rig, np.zeros(len(xyz))
        area = np.where(self._area > 0, self._area, np.inf) * np.count_nonzero(self._area)
        peak = rig.K[:, 0, 0] * rig.K[:, 1, 1] / (area * math.log(self.far / self.near))
        for part in rig.parts(len(xyz)):
            px, z, seen = rig.look(np.arange(len(rig)), xyz[part])
            on_cells(rig.size, self._cells, px, seen)
            drawn = seen & (z >= self.near) & (z <= self.far)
            density[part] = np.where(drawn, peak[:, None] / np.where(drawn, z, 1.0) ** 3, 0.0).sum(axis=0)
        return density


@dataclass(frozen=True)
class Contracted:
    """Even in the ball of the contracted space of mip-NeRF 360 (Barron et al. 2022, arXiv:2111.12077, eq. 10).

    With r the distance from ``center`` in units of ``radius``, the contraction keeps places of r ≤ 1 and takes others
    to the distance 2 − 1/r. ``far`` is the largest r.
    """

    center: np.ndarray
    radius: float
    far: float

    @property
    def _end(self) -> float:
        """Radius of the ball in contracted space."""
        return self.far if self.far <= 1 else 2 - 1 / self.far

    def propose(self, rng: np.random.Generator, count: int) -> np.ndarray:
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        contracted = self._end * np.cbrt(rng.random(count))
        r = np.where(contracted <= 1, contracted, 1 / (2 - contracted.clip(1, None)))
        return self.center + self.radius * r[:, None] * direction

    def at(self, xyz: np.ndarray) -> np.ndarray:
        r = np.linalg.norm(xyz - self.center, axis=1) / self.radius
        outer = r.clip(1, None)
        # The contraction shrinks volume by its slope 1/r² along the ray and ((2 − 1/r) / r)² across it.
        shrink = ((2 - 1 / outer) / outer**2) ** 2
        return np.where(r <= self.far, shrink, 0.0) / (4 / 3 * math.pi * (self._end * self.radius) ** 3)


def places_in_frusta(scene: Scene, config: RandomConfig) -> tuple[Places, Callable[[np.ndarray], np.ndarray]]:
    """What to draw from, and which places [n, 3] of it are in the volume: [n] bool, without the clearance.

    Raises SceneError where fewer cameras are there than have to see a place, and where all stand at one place; and what
    decoding the photos does where they have transparent pixels.
    """
    rig = Rig.of([view.camera for view in scene.train])
    where = f"{scene.root}: init.volume=frusta"
    views = config.views_among(len(rig))
    if views > len(rig):
        raise SceneError(
            f"{where} wants places that {views} training cameras see, and the scene has {len(rig)}.",
            hint=f"Use init.min_views={len(rig)} or fewer.",
        )
    middle = rig.center.mean(axis=0)
    distance = np.linalg.norm(rig.center - middle, axis=1)
    if distance.max() < 1e-8:
        raise SceneError(
            f"{where}: the training cameras ({len(rig)}) all stand at one place, so that no depth can be told from "
            "another and the volume has no scale.",
            hint="Photos must be taken from different places. For an object at the origin: init.volume=blender.",
        )
    near, far = (share * scene.extent for share in config.depths("frusta"))
    # A masked pixel hides what is there; only a transparent one tells that nothing is.
    known = silhouettes(scene, masked=False) if config.see_through < 1 else [None] * len(rig)
    turns = 1 if all(silhouette is None for silhouette in known) else math.ceil(len(rig) / LOOKS)
    if config.density == "log_depth":
        some = any(silhouette is None or silhouette.any() for silhouette in known)
        places: Places = LogDepth(rig, max(near, NEAREST * scene.extent), far, known if some else None)
        end = math.inf
    elif config.density == "contracted":
        places, end = Contracted(middle, rig.extent, far / rig.extent), math.inf
    else:
        places, end = _box_around(rig, middle, distance, far), far

    def inside(xyz: np.ndarray) -> np.ndarray:
        seen, empty = np.zeros(len(xyz), np.int64), np.zeros(len(xyz), np.int64)
        left = (np.linalg.norm(xyz - middle, axis=1) <= end).nonzero()[0]
        for turn in range(turns):
            more, shown = count_views(rig, known, xyz[left], np.arange(turn, len(rig), turns))
            seen[left] += more
            empty[left] += more - shown
            left = left[empty[left] <= config.see_through * len(rig)]  # the others are lost, whoever else sees them
        kept = np.zeros(len(xyz), bool)
        kept[left] = (seen[left] >= views) & (empty[left] <= config.see_through * seen[left] + 1e-9)
        return kept

    return places, inside


def _box_around(rig: Rig, middle: np.ndarray, distance: np.ndarray, far: float) -> Box:
    """A box around what the cameras see of the ball of radius ``far`` around ``middle``."""
    low, high = rig.center.min(axis=0), rig.center.max(axis=0)
    for u in (0.0, 1.0):
        for v in (0.0, 1.0):
            # The camera is at most ``distance`` from the middle, so that nothing of the ball is deeper than this.
            px = rig.size * np.array([u, v])
            rays = (px - rig.K[:, :2, 2]) / np.stack([rig.K[:, 0, 0], rig.K[:, 1, 1]], axis=1)
            cam = np.column_stack([rays, np.ones(len(rig))]) * (far + distance)[:, None]
            corner = rig.center + np.einsum("nji,nj->ni", rig.pose[:, :3, :3], cam)
            low, high = np.minimum(low, corner.min(axis=0)), np.maximum(high, corner.max(axis=0))
    low, high = np.maximum(low, middle - far), np.minimum(high, middle + far)
    return Box((low + high) / 2, high - low)


def draw(
    places: Places,
    inside: Callable[[np.ndarray], np.ndarray] | None,
    cameras: np.ndarray,
    clearance: float,
    count: int,
    rng: np.random.Generator,
    where: str,
) -> tuple[np.ndarray, float]:
    """``count`` places [count, 3] that are ``inside`` and no nearer than ``clearance`` to a camera, and the share of
    all proposals that was.

    Args:
        inside: places [n, 3] → [n] bool; None: all are.
        cameras: [c, 3] centres, scene units as ``clearance``.
        where: for the error.

    Raises:
        SceneError: less than a thousandth of the proposals can be kept.
    """
    kept: list[np.ndarray] = []
    have = proposed = 0
    some_go = inside is not None or clearance > 0
    while have < count:
        xyz = places.propose(rng, min(ROUND, max(count - have, SMALL_ROUND if some_go else 0)))
        proposed += len(xyz)
        if clearance > 0:
            xyz = xyz[nearest_distance(xyz, cameras) >= clearance]
        if inside is not None:
            xyz = xyz[inside(xyz)]
        kept.append(xyz)
        have += len(xyz)
        if proposed >= ASKED_AFTER and have < RAREST * proposed:
            raise SceneError(
                f"{where}: of {proposed} places that were drawn, {have} are in the volume: enough cameras see them, "
                f"none is nearer than {clearance:.3g} scene units; expected one in {round(1 / RAREST)}.",
                hint="Look at the poses, and at what is transparent (`splatinit check`): photos that overlap are "
                "needed. Otherwise lower init.min_views or init.clearance, raise init.see_through, change init.far or "
                "init.sampling, or use init.volume=cameras.",
            )
    return np.concatenate(kept)[:count], have / proposed
