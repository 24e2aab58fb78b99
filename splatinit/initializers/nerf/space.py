"""The volume of the field: the object's box where it stands free in the photos, else all of space."""

from __future__ import annotations

import numpy as np

from ...errors import SceneError
from ...nerf import Ball, Box, Photos, Space
from ...types import Scene
from ..cuboid import CuboidConfig, find_cuboid
from ..rig import Rig

# A place belongs to the object where half of the photos show something; what a few of them alone show is added by a
# margin. Asking for 90 % cut parts of an object off (24.3 dB became 21.8).
SHARE, MARGIN = 0.5, 1.05
# Of the photos' outermost pixels, the share that is transparent where an object stands free; and where photos are cut
# out at all: by masks of the sky, or of an object larger than the photos.
FREE, CUT_OUT = 0.8, 0.01


def find_space(scene: Scene, photos: Photos) -> Space:
    """Where the field lives.

    Photos of an object that stands free: a box around what their silhouettes enclose, in which a field is finer (chair
    28.1 dB in a ball, 29.3 in its box) and nothing can hide beyond. Photos that are cut out otherwise: contracted space
    around a ball that holds what most of them show. Opaque photos: contracted space around the cameras, the ball's
    radius being the scene's extent; half and twice of it lost 0.1 to 2 dB somewhere.

    Raises SceneError where the cameras tell no depth, and what decoding the photos does.
    """
    rig = Rig.of([view.camera for view in scene.train])
    if len(rig) < 2:
        raise SceneError(
            f"{scene.root}: one training photo tells no depth; the field needs at least two.",
            hint="Take more photos, or give the points (--init file).",
        )
    middle = rig.center.mean(axis=0)
    if float(abs(rig.center - middle).max()) < 1e-8:
        raise SceneError(
            f"{scene.root}: the {len(rig)} training cameras all stand at one place, so that no depth can be told.",
            hint="Photos must be taken from different places.",
        )
    if photos.clear_rim >= CUT_OUT:
        try:
            centre, sides = find_cuboid(scene, CuboidConfig(share=SHARE, size=MARGIN))
        except SceneError:
            pass  # cameras that do not look at one place: the space around them is right for any of them
        else:
            if photos.clear_rim >= FREE:
                return Box(_three(centre - sides / 2), _three(centre + sides / 2))
            return Ball(_three(centre), float(np.linalg.norm(sides)) / 2)
    return Ball(_three(middle), float(scene.extent))


def _three(values) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
