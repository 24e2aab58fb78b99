"""The cubes of the literature."""

from __future__ import annotations

import numpy as np

from ...errors import BadPoints, SceneError
from ...geometry.rigid import transform
from ...types import Scene

BLENDER_HALF_SIDE = 1.3  # scene units, 3DGS's reader of Blender scenes
# Least share of a photo's longer side that half of the cube fills where the cube may be the scene: 0.45 in Blender's.
# The photos of DTU, in millimetres, are transparent, too, and show the cube as a dot in the air.
BLENDER_LEAST = 0.1
# SfM leaves a few points far outside the scene; each axis of the points' box ignores this share at either end.
POINTS_TRIM = 0.01


def choose_volume(scene: Scene) -> str:
    """What the volume "auto" stands for; see RandomConfig."""
    if scene.background is None:
        return "cameras"
    corners = BLENDER_HALF_SIDE * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
    for view in scene.train:
        outside = np.abs(view.camera.center).max() > BLENDER_HALF_SIDE
        depths = transform(view.camera.cam_from_world, corners)[:, 2]
        if not (outside and (depths > 0).all()):
            return "cameras"
        half = BLENDER_HALF_SIDE * max(view.camera.fx, view.camera.fy) / depths.mean()
        if half < BLENDER_LEAST * max(view.camera.width, view.camera.height):
            return "cameras"
    return "blender"


def cube(scene: Scene, volume: str) -> tuple[np.ndarray, float]:
    """Centre [3] and side (scene units) of the cube that ``volume`` names, before ``size``."""
    if volume == "blender":
        return np.zeros(3), 2 * BLENDER_HALF_SIDE
    if volume == "cameras":
        xyz = np.stack([view.camera.center for view in scene.train])
        low, high = xyz.min(axis=0), xyz.max(axis=0)
        if (high - low).max() < 1e-8:
            raise SceneError(
                f"{scene.root}: the {len(scene.train)} training cameras all stand at one place, so that their box has "
                "no size to draw random points in.",
                hint="Use init.volume=blender, or init.volume=points where the scene has points.",
            )
    else:
        where = f"{scene.root}: init.volume=points"
        if scene.points is None:
            raise BadPoints(
                f"{where} needs sparse points, and poser '{scene.poser}' left none.", hint="Use init.volume=cameras."
            )
        scene.points.check(where)
        low, high = np.quantile(scene.points.xyz.astype(np.float64), [POINTS_TRIM, 1 - POINTS_TRIM], axis=0)
        if (high - low).max() < 1e-8:
            raise BadPoints(f"{where}: the {len(scene.points)} points span no volume.", hint="Use init.volume=cameras.")
    return (low + high) / 2, float((high - low).max())
