"""A small world with known surfaces, photographed from known places, and a matcher that knows every depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tiny

from splatinit.geometry.rigid import project, unproject
from splatinit.matching import MATCHERS, Matches, MatchView
from splatinit.registry import Spec
from splatinit.types import Camera, Pixels, PointCloud, Scene, View

RADIUS = 1.0  # of the ball around the origin
WALL = 3.0  # z of the wall behind it


def camera(center: Sequence[float], target: Sequence[float] = (0, 0, 0), *, size=(96, 72), focal=90.0) -> Camera:
    """At ``center``, looking at ``target``, upright (y down)."""
    center, target = np.asarray(center, float), np.asarray(target, float)
    z = (target - center) / np.linalg.norm(target - center)
    x = np.cross([0.0, 1.0, 0.0], z)
    x /= np.linalg.norm(x)
    R = np.stack([x, np.cross(z, x), z])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = R, -R @ center
    return Camera(np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]]), pose, *size)


def depth(cam: Camera, px: np.ndarray) -> np.ndarray:
    """Camera z [m] of the first surface behind ``px`` [m, 2]; NaN where there is none (cameras stand at z < WALL)."""
    direction = unproject(cam.K, cam.world_from_cam, px, np.ones(len(px))) - cam.center
    o = cam.center
    with np.errstate(divide="ignore", invalid="ignore"):
        wall = (WALL - o[2]) / direction[:, 2]
        a, b, c = (direction**2).sum(axis=1), direction @ o, o @ o - RADIUS**2
        ball = (-b - np.sqrt(b**2 - a * c)) / a
    return np.fmin(np.where(wall > 0, wall, np.nan), np.where(ball > 0, ball, np.nan))


def distance_to_surface(xyz: np.ndarray) -> np.ndarray:
    """[n] scene units."""
    return np.minimum(np.abs(np.linalg.norm(xyz, axis=1) - RADIUS), np.abs(xyz[:, 2] - WALL))


def paint(xyz: np.ndarray) -> np.ndarray:
    """Colour [n, 3] in [0, 1] of surface points: smooth, and different everywhere."""
    return 0.5 + 0.4 * np.sin(xyz @ np.array([[1.0, 0.3, 2.0], [0.7, 1.9, 0.2], [1.1, 0.5, 0.9]]))


def pixel_centers(width: int, height: int) -> np.ndarray:
    """[h · w, 2] px, row by row."""
    return np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1).reshape(-1, 2)


def photograph(cam: Camera) -> np.ndarray:
    """[h, w, 3] uint8; grey where there is no surface."""
    px = pixel_centers(cam.width, cam.height)
    z = depth(cam, px)
    rgb = paint(unproject(cam.K, cam.world_from_cam, px, z))
    rgb = np.where(np.isfinite(z)[:, None], rgb, 0.5)
    return (rgb * 255).round().astype(np.uint8).reshape(cam.height, cam.width, 3)


@dataclass(frozen=True)
class Snapshot(tiny.MemoryPhoto):
    """Taken by a camera, at any size."""

    cam: Camera | None = None

    def load(self, width: int, height: int) -> Pixels:
        if (width, height) == (self.width, self.height):
            return self.pixels
        return Pixels(photograph(self.cam.resized(width, height)))


def scene(cameras: Sequence[Camera], *, points: np.ndarray | None = None, mask: np.ndarray | None = None) -> Scene:
    """All are training views. ``mask`` [h, w] uint8 of every photo."""
    views = []
    for k, cam in enumerate(cameras):
        photo = Snapshot(f"{k:02d}.png", Pixels(photograph(cam), mask=mask), cam)
        views.append(View(photo.name, cam, photo))
    cloud = None if points is None else PointCloud(points, paint(points))
    return Scene(Path("ball"), tuple(views), (), cloud)


def row(count: int = 4, *, step: float = 0.5, away: float = 5.0, **size) -> list[Camera]:
    """Cameras beside each other before the ball, all looking at it."""
    offset = (np.arange(count) - (count - 1) / 2) * step
    return [camera((x, 0.1 * k, -away), **size) for k, x in enumerate(offset)]


# --------------------------------------------------------------------------------------------------------- the matcher
@dataclass(frozen=True, kw_only=True)
class KnowingConfig:
    """How wrong the matcher is.

    Attributes:
        noise: px, standard deviation of each coordinate of a target.
        outliers: share of targets that lie anywhere in the photo.
        every: px between the reference's pixels.
        blind: names of references, in which nothing is found.
        normals: tell those of the surface.
    """

    noise: float = 0.0
    outliers: float = 0.0
    every: int = 1
    blind: tuple[str, ...] = ()
    normals: bool = False


class Knowing:
    """Casts the ray of every pixel, and finds the surface where a neighbour sees it, too."""

    name = "knowing"
    network_on_cpu = False

    def __init__(self, config: KnowingConfig = KnowingConfig()) -> None:
        self.config, self.seen = config, []

    def match(
        self,
        reference: MatchView,
        neighbours: Sequence[MatchView],
        *,
        depth_range: tuple[float, float] | None = None,
    ) -> Matches:
        config, cam = self.config, reference.camera
        self.seen.append((reference.name, [view.name for view in neighbours], depth_range))
        if reference.name in config.blind:
            return Matches(np.zeros((0, 2)), np.zeros((len(neighbours), 0, 2)), np.zeros((len(neighbours), 0)))
        rng = np.random.default_rng([len(neighbours), *reference.name.encode()])
        px = pixel_centers(cam.width, cam.height).reshape(cam.height, cam.width, 2)
        px = px[:: config.every, :: config.every].reshape(-1, 2)
        z = depth(cam, px)
        px, z = px[np.isfinite(z)], z[np.isfinite(z)]
        xyz = unproject(cam.K, cam.world_from_cam, px, z)
        targets = np.full((len(neighbours), len(px), 2), np.nan)
        for at, view in zip(targets, neighbours, strict=True):
            where, far = project(view.camera.K, view.camera.cam_from_world, xyz)
            inside = (
                (far > 0) & (where >= 0).all(axis=1) & (where < [view.camera.width, view.camera.height]).all(axis=1)
            )
            inside[inside] = np.abs(depth(view.camera, where[inside]) - far[inside]) < 1e-6
            at[inside] = where[inside] + config.noise * rng.normal(size=(int(inside.sum()), 2))
            wrong = inside & (rng.random(len(px)) < config.outliers)
            at[wrong] = rng.random((int(wrong.sum()), 2)) * [view.camera.width, view.camera.height]
        normals = None
        if config.normals:
            on_ball = np.abs(np.linalg.norm(xyz, axis=1) - RADIUS) < 1e-6
            normals = np.where(on_ball[:, None], xyz, [0.0, 0.0, -1.0])
        return Matches(px, targets, np.where(np.isfinite(targets).all(axis=2), 0.9, 0.0), normals)


@contextmanager
def registered(impl: str = "stereo:Knowing", config: str | None = "stereo:KnowingConfig") -> Iterator[str]:
    """A matcher under its name in the registry, for as long as the block runs."""
    spec = Spec(name="knowing", impl=impl, config=config, summary="")
    MATCHERS.register(spec)
    try:
        yield spec.name
    finally:
        del MATCHERS._specs[spec.name]


__all__ = ["Knowing", "KnowingConfig", "registered", "replace", "row", "scene"]
