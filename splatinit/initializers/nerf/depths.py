"""What the training views see of the field: depth maps, which say which points photos agree on, and guide training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...nerf import Field, SamplingConfig, picture
from ...progress import Progress
from ...types import DepthPrior, Scene
from ..rig import Rig
from .photos import fit_camera

# px, longer side of the maps, and rays of all of them: 50 maps take 0.7 million, a tenth of what a fit costs.
SIZE, RAYS = 160, 1_500_000
# A point lies on what a view sees where its depth is that of the map but for this share of it.
TOLERANCE = 0.1
# Share of the depth: rays whose end is known this well have half of the confidence.
SPREAD = 0.05


@dataclass(frozen=True)
class Depths:
    """Depth maps of all training views.

    Attributes:
        rig: the cameras, at the size of the maps.
        depth: per view [h, w] along z, scene units, of where half of the light ends; 0 where rays meet nothing.
        confidence: per view [h, w] in [0, 1]: opacity, less where a ray's end is spread.
    """

    rig: Rig
    depth: list[np.ndarray]
    confidence: list[np.ndarray]

    def agree(self, xyz: np.ndarray) -> np.ndarray:
        """In how many views [n] the points [n, 3] lie on what is seen: not behind it, not in the air before it."""
        count = np.zeros(len(xyz), np.int64)
        for part in self.rig.parts(len(xyz), len(self.rig)):
            px, z, seen = self.rig.look(np.arange(len(self.rig)), xyz[part])
            within = count[part]
            for view, depth in enumerate(self.depth):
                here = seen[view].nonzero()[0]
                column, row = px[view, here].astype(np.int64).T
                known = depth[row, column]
                within[here] += np.abs(z[view, here] - known) <= TOLERANCE * known
        return count

    def priors(self, scene: Scene) -> dict[str, DepthPrior]:
        views = zip(scene.train, self.depth, self.confidence, strict=True)
        return {view.name: DepthPrior(view.name, depth, confidence) for view, depth, confidence in views}


def field_depths(field: Field, sampling: SamplingConfig, scene: Scene, progress: Progress) -> Depths:
    """The maps of all training views of ``scene``."""
    each = max(256, RAYS // len(scene.train))
    cameras = [fit_camera(fit_camera(view.camera, SIZE, 0), None, each) for view in scene.train]
    depth, confidence = [], []
    progress.start("depths of the field", len(cameras))
    for done, camera in enumerate(cameras, start=1):
        image = picture(field, camera, sampling)
        median, spread, opacity = (array.numpy() for array in (image.median, image.spread, image.opacity))
        share = spread / np.maximum(SPREAD * median, 1e-12)
        depth.append((median * _along_z(camera)).astype(np.float32))
        confidence.append(np.where(median > 0, opacity.clip(0, 1) / (1 + share**2), 0).astype(np.float32))
        progress.advance(done)
    progress.finish()
    return Depths(Rig.of(cameras), depth, confidence)


def _along_z(camera) -> np.ndarray:
    """[h, w] what a step along the ray of each pixel adds to the depth z."""
    x = (np.arange(camera.width) + 0.5 - camera.K[0, 2]) / camera.fx
    y = (np.arange(camera.height) + 0.5 - camera.K[1, 2]) / camera.fy
    return 1 / np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)
