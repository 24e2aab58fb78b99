"""All training cameras as arrays, at the size at which an initializer looks at their photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..types import Camera

# A point seen with less than this many px of an edge is left out of overlaps: a window around it would leave the photo.
BORDER = 2.0
PAIRS = 2**19  # cameras × places that are projected at once: about 60 MB


@dataclass(frozen=True)
class Rig:
    """n cameras.

    Attributes:
        K: [n, 3, 3] px.     pose: [n, 4, 4] cam_from_world.     size: [n, 2] width and height, px.
    """

    K: np.ndarray
    pose: np.ndarray
    size: np.ndarray

    @classmethod
    def of(cls, cameras: Sequence[Camera]) -> Rig:
        """``cameras``, n ≥ 1."""
        return cls(
            np.stack([camera.K for camera in cameras]),
            np.stack([camera.cam_from_world for camera in cameras]),
            np.array([[camera.width, camera.height] for camera in cameras], dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.K)

    @cached_property
    def center(self) -> np.ndarray:
        """[n, 3] camera centres."""
        return -np.einsum("nji,nj->ni", self.pose[:, :3, :3], self.pose[:, :3, 3])

    @property
    def axis(self) -> np.ndarray:
        """[n, 3] unit directions in which the cameras look."""
        return self.pose[:, 2, :3]

    @property
    def focal(self) -> np.ndarray:
        """[n] px, geometric mean of both axes."""
        return np.sqrt(self.K[:, 0, 0] * self.K[:, 1, 1])

    @cached_property
    def extent(self) -> float:
        """Largest distance of a camera from their mean, 1 where all stand at one place."""
        radius = float(np.linalg.norm(self.center - self.center.mean(axis=0), axis=1).max())
        return radius if radius > 1e-8 else 1.0

    def parts(self, count: int, cameras: int | None = None) -> list[slice]:
        """``count`` places, so many at a time that all cameras (or so many) may look at them at once."""
        step = max(1, PAIRS // (cameras or len(self)))
        return [slice(start, start + step) for start in range(0, count, step)]

    def look(self, which: np.ndarray, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points [p, 3] in the cameras ``which`` [c]: px [c, p, 2], depth z [c, p], which it sees [c, p]."""
        cam = np.einsum("cij,pj->cpi", self.pose[which, :3, :3], xyz) + self.pose[which, None, :3, 3]
        z = cam[..., 2]
        safe = np.where(z > 0, z, np.nan)[..., None]
        K = self.K[which, None]
        px = cam[..., :2] / safe * np.stack([K[..., 0, 0], K[..., 1, 1]], axis=-1) + K[..., :2, 2]
        with np.errstate(invalid="ignore"):
            seen = ((px >= BORDER) & (px <= self.size[which, None] - BORDER)).all(axis=-1)
        return px, z, seen
