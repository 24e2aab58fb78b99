"""The volume of the field: the object's box where photos are transparent, else all of space."""

from __future__ import annotations

from ...errors import SceneError
from ...nerf import Ball, Box, Space
from ...types import Scene
from ..cuboid import CuboidConfig, find_cuboid
from ..rig import Rig

# A place belongs to the object where half of the photos show something; what a few of them alone show is added by a
# margin. Asking for 90 % cut parts of an object off (24.3 dB became 21.8).
SHARE, MARGIN = 0.5, 1.05


def find_space(scene: Scene) -> Space:
    """A box around what the silhouettes enclose, where there are any; else contracted space around the cameras, with
    the scene's extent as the radius of the ball that is not contracted.

    Raises SceneError where all cameras stand at one place, and what decoding the photos does.
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
    if any(view.photo.has_alpha for view in scene.train):
        try:
            centre, sides = find_cuboid(scene, CuboidConfig(share=SHARE, size=MARGIN))
        except SceneError:
            pass  # cameras that do not look at one place: the whole of space is right for any of them
        else:
            return Box(_three(centre - sides / 2), _three(centre + sides / 2))
    return Ball(_three(middle), float(scene.extent))


def _three(values) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
