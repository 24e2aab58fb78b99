"""The training photos at the size at which the field is fitted to them."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from ...decoding import each_decoded
from ...nerf import FitView, Photos
from ...progress import Progress
from ...types import Camera, Scene

# Of all photos together, where no size is asked for: a fit draws 4 million rays, and more pixels than rays are of no
# use.
PIXELS = 16_000_000


def fit_camera(camera: Camera, size: int | None, pixels: int) -> Camera:
    """``camera`` for a photo with ``size`` px on its longer side, or ``pixels`` px in all; never larger than it is."""
    if size is None:
        factor = math.sqrt(pixels / (camera.width * camera.height))
    else:
        factor = size / max(camera.width, camera.height)
    if factor >= 1:
        return camera
    return camera.resized(max(1, round(camera.width * factor)), max(1, round(camera.height * factor)))


def fit_photos(scene: Scene, size: int | None, progress: Progress) -> Photos:
    """Raises what decoding the photos does, and TrainingError where none has a pixel that can be fitted."""
    each = max(256, PIXELS // len(scene.train))
    views = [replace(view, camera=fit_camera(view.camera, size, each)) for view in scene.train]
    found = []
    progress.start("photos", len(views))
    for done, (view, pixels) in enumerate(each_decoded(views), start=1):
        alpha = None if pixels.alpha is None else torch.from_numpy(pixels.alpha)
        counts = None if pixels.mask is None else torch.from_numpy(pixels.mask == 255)
        found.append(FitView(view.camera, torch.from_numpy(pixels.rgb), alpha, counts))
        progress.advance(done)
    progress.finish()
    return Photos(found)
