"""Camera paths for rendering, as pure functions: cameras in, cameras out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from .errors import ConfigError
from .types import Camera, Gaussians


def interpolate(cameras: Sequence[Camera], frames: int, *, closed: bool = False) -> list[Camera]:
    """A smooth path of ``frames`` ≥ 1 cameras through ``cameras``, in their order.

    Centres follow a cubic spline over the distance travelled, rotations a quaternion slerp over the same parameter, so
    that the speed is even where the key cameras are not; focal lengths are interpolated linearly. All frames have the
    size of the first camera. ``closed`` leads back to the first one (which is then not repeated at the end).
    """
    from scipy.interpolate import CubicSpline, PchipInterpolator
    from scipy.spatial.transform import Rotation, Slerp

    _check_frames(frames)
    if not cameras:
        raise ConfigError("A camera path needs at least one camera to go through, got none.")
    first = cameras[0]
    keys = [camera.resized(first.width, first.height) for camera in cameras]
    if closed:
        keys.append(keys[0])
    centers = np.stack([camera.center for camera in keys])
    moved = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    # A camera that only turns still needs time to do so.
    moved = np.maximum(moved, 1e-3 * (moved.mean() if moved.size and moved.max() > 0 else 1.0))
    at = np.concatenate([[0.0], np.cumsum(moved)])
    if len(keys) == 1:
        return [keys[0]] * frames
    times = np.linspace(0, at[-1], frames, endpoint=not closed)
    smooth = CubicSpline(at, centers, bc_type="periodic" if closed else "natural")
    turned = Slerp(at, Rotation.from_matrix([camera.world_from_cam[:3, :3] for camera in keys]))
    lens = PchipInterpolator(at, np.stack([camera.K for camera in keys]))
    return [
        dataclasses.replace(first, K=lens(t), cam_from_world=_look(smooth(t), turned(t).as_matrix())) for t in times
    ]


def orbit(cameras: Sequence[Camera], frames: int) -> list[Camera]:
    """One turn of ``frames`` ≥ 1 cameras around what ``cameras`` look at.

    The centre is the point nearest to all optical axes, up is the mean of the cameras' up directions, radius and
    height are the cameras' medians; the lens is that of the first camera. The turn begins at the first camera's side.
    """
    _check_frames(frames)
    if not cameras:
        raise ConfigError("An orbit needs at least one camera to take radius and lens from, got none.")
    target = focus(cameras)
    up = _unit(np.mean([-camera.world_from_cam[:3, 1] for camera in cameras], axis=0), np.array([0.0, -1.0, 0.0]))
    offsets = np.stack([camera.center for camera in cameras]) - target
    height = float(np.median(offsets @ up))
    flat = offsets - np.outer(offsets @ up, up)
    radius = float(np.median(np.linalg.norm(flat, axis=1)))
    if radius < 1e-9:  # all cameras look straight down at the target
        radius = max(float(np.median(np.linalg.norm(offsets, axis=1))), 1e-3)
    ahead = _unit(flat[0], _any_perpendicular(up))
    side = np.cross(up, ahead)
    angles = 2 * np.pi * np.arange(frames) / frames
    centers = target + height * up + radius * (np.outer(np.cos(angles), ahead) + np.outer(np.sin(angles), side))
    return [_aim(cameras[0], center, target, up) for center in centers]


def focus(cameras: Sequence[Camera]) -> np.ndarray:
    """[3] the point with the least squared distance to all optical axes; in front of one camera if there is no other.

    Parallel axes have no such point: then it lies ahead of the mean camera, as far as the cameras are spread.
    """
    centers = np.stack([camera.center for camera in cameras])
    ahead = np.stack([camera.world_from_cam[:3, 2] for camera in cameras])
    across = np.eye(3) - ahead[:, :, None] * ahead[:, None, :]
    system = across.sum(axis=0)
    spread = max(float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).max()), 1e-3)
    if np.linalg.cond(system) > 1e4:
        return centers.mean(axis=0) + spread * _unit(ahead.mean(axis=0), ahead[0])
    return np.linalg.solve(system, np.einsum("nij,nj->i", across, centers))


def around_gaussians(gaussians: Gaussians, frames: int, *, width: int, height: int) -> list[Camera]:
    """An orbit around a splat of which nothing else is known: −y up (as COLMAP and phones leave it), 50° wide."""
    _check_frames(frames)
    means = gaussians.means.detach().cpu().numpy().astype(np.float64)
    if len(means) == 0:
        raise ConfigError("There are no Gaussians to look at.")
    target = np.median(means, axis=0)
    radius = max(float(np.quantile(np.linalg.norm(means - target, axis=1), 0.8)), 1e-3)
    focal = 0.5 * width / np.tan(np.deg2rad(25.0))
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    lens = Camera(K=K, cam_from_world=np.eye(4), width=width, height=height)
    up = np.array([0.0, -1.0, 0.0])
    angles = 2 * np.pi * np.arange(frames) / frames
    ring = np.stack([np.sin(angles), np.full(frames, -0.3), -np.cos(angles)], axis=1)
    return [_aim(lens, target + 2.2 * radius * offset, target, up) for offset in ring]


def _aim(lens: Camera, center: np.ndarray, target: np.ndarray, up: np.ndarray) -> Camera:
    """A camera at ``center`` that looks at ``target``."""
    ahead = _unit(target - center, np.array([0.0, 0.0, 1.0]))
    right = _unit(np.cross(ahead, up), _any_perpendicular(ahead))
    rotation = np.stack([right, np.cross(ahead, right), ahead], axis=1)
    return dataclasses.replace(lens, cam_from_world=_look(center, rotation))


def _look(center: np.ndarray, world_from_cam: np.ndarray) -> np.ndarray:
    """[4, 4] cam_from_world of a camera at ``center`` with rotation ``world_from_cam`` [3, 3]."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = world_from_cam.T, -world_from_cam.T @ center
    return pose


def _unit(vector: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-9 else otherwise


def _any_perpendicular(vector: np.ndarray) -> np.ndarray:
    axis = np.eye(3)[int(np.argmin(np.abs(vector)))]
    return _unit(np.cross(vector, axis), np.array([1.0, 0.0, 0.0]))


def _check_frames(frames: int) -> None:
    if frames < 1:
        raise ConfigError(f"A camera path of {frames} frames; expected at least 1.")
