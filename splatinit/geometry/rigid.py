"""Rigid motions and similarities in float64 numpy. A pose is ``b_from_a`` [4, 4]: x_b = R x_a + t."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ShapeError


def inverse(pose: np.ndarray) -> np.ndarray:
    """The inverse of a rigid motion [..., 4, 4], by transposing its rotation (exact where np.linalg.inv rounds)."""
    R, t = pose[..., :3, :3], pose[..., :3, 3]
    Rt = np.swapaxes(R, -1, -2)
    result = np.zeros_like(pose, dtype=np.float64)
    result[..., :3, :3] = Rt
    result[..., :3, 3] = -(Rt @ t[..., None])[..., 0]
    result[..., 3, 3] = 1.0
    return result


def transform(pose: np.ndarray, xyz: np.ndarray) -> np.ndarray:
    """Points [n, 3] moved by ``pose`` [4, 4]: R x + t."""
    return xyz @ pose[:3, :3].T + pose[:3, 3]


def project(K: np.ndarray, cam_from_world: np.ndarray, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pinhole projection of world points [n, 3].

    Returns:
        px [n, 2] (the centre of pixel (0, 0) is (0.5, 0.5)) and depth z [n] in scene units. Where z ≤ 0 the pixel
        coordinates are NaN: such a point has no image.
    """
    p = transform(cam_from_world, np.asarray(xyz, dtype=np.float64))
    z = p[:, 2]
    safe = np.where(z > 0, z, np.nan)
    px = np.stack([K[0, 0] * p[:, 0] / safe + K[0, 2], K[1, 1] * p[:, 1] / safe + K[1, 2]], axis=1)
    return px, z


def unproject(K: np.ndarray, world_from_cam: np.ndarray, px: np.ndarray, z: np.ndarray) -> np.ndarray:
    """World points [n, 3] at depth z [n] behind pixel coordinates px [n, 2]: the inverse of :func:`project`."""
    rays = (np.asarray(px, dtype=np.float64) - K[:2, 2]) / np.array([K[0, 0], K[1, 1]])
    return transform(world_from_cam, np.concatenate([rays * z[:, None], z[:, None]], axis=1))


@dataclass(frozen=True)
class Similarity:
    """x_b = scale · R x_a + t."""

    scale: float
    R: np.ndarray  # [3, 3]
    t: np.ndarray  # [3]

    def __call__(self, xyz: np.ndarray) -> np.ndarray:
        return self.scale * xyz @ self.R.T + self.t

    def matrix(self) -> np.ndarray:
        """[4, 4], for :func:`transform`."""
        result = np.eye(4)
        result[:3, :3], result[:3, 3] = self.scale * self.R, self.t
        return result

    def inverse(self) -> Similarity:
        """The similarity that undoes it."""
        return Similarity(1 / self.scale, self.R.T, -(self.R.T @ self.t) / self.scale)


def align_similarity(a: np.ndarray, b: np.ndarray) -> Similarity:
    """The similarity that takes points ``a`` [n, 3] to ``b`` [n, 3] with the least sum of squared distances.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, eq. 40–42.
    Raises ShapeError unless there are n ≥ 3 pairs that span at least a line.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 3 or len(a) < 3:
        raise ShapeError(f"A similarity needs n ≥ 3 pairs of points [n, 3], got {a.shape} and {b.shape}.")
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    variance = ((a - mean_a) ** 2).sum() / len(a)
    if variance == 0:
        raise ShapeError(f"A similarity needs points that differ, got {len(a)} times the same one.")
    U, D, Vt = np.linalg.svd((b - mean_b).T @ (a - mean_a) / len(a))
    sign = np.array([1.0, 1.0, 1.0 if np.linalg.det(U) * np.linalg.det(Vt) > 0 else -1.0])
    R = U @ np.diag(sign) @ Vt
    scale = float((D * sign).sum() / variance)
    return Similarity(scale, R, mean_b - scale * R @ mean_a)
