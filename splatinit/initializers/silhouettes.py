"""Where photos show nothing: their transparent pixels, and their masked ones where these count as nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..decoding import each_decoded
from ..types import Scene
from .rig import Rig

OPAQUE = 128  # of 255: a more transparent pixel shows the background
LONGER_SIDE = 200  # px at which silhouettes are kept: 30 kB a photo


def silhouettes(scene: Scene, *, masked: bool) -> list[np.ndarray | None]:
    """What of each training photo shows something: [h, w] bool, every so many pixels; None where all does.

    masked: whether masked pixels show nothing, too.

    Raises what decoding the photos does, where they have transparent (or masked) pixels.
    """
    if not any(view.photo.has_alpha or (masked and view.photo.has_mask) for view in scene.train):
        return [None] * len(scene.train)
    found: list[np.ndarray | None] = []
    for view, pixels in each_decoded(scene.train):
        stride = math.ceil(max(view.camera.width, view.camera.height) / LONGER_SIDE)
        usable: np.ndarray | None = None
        for layer, least in ((pixels.alpha, OPAQUE), (pixels.mask if masked else None, 255)):
            if layer is not None:
                shown = layer[stride // 2 :: stride, stride // 2 :: stride] >= least
                usable = shown if usable is None else usable & shown
        found.append(usable)
    return found


def count_views(
    rig: Rig, found: list[np.ndarray | None], xyz: np.ndarray, which: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """In how many photos [n] the places [n, 3] are (without the outermost 2 px), and in how many they fall on what
    :func:`silhouettes` found; of all cameras, or of ``which`` [c]. Nothing is known of what hides what."""
    which = np.arange(len(rig)) if which is None else which
    seen_by, shown_by = np.zeros(len(xyz), np.int64), np.zeros(len(xyz), np.int64)
    for part in rig.parts(len(xyz), len(which)):
        px, _, seen = rig.look(which, xyz[part])
        seen_by[part] = seen.sum(axis=0)
        known = {number: cells for number, index in enumerate(which) if (cells := found[index]) is not None}
        on_cells(rig.size[which], known, px, seen)
        shown_by[part] = seen.sum(axis=0)
    return seen_by, shown_by


def on_cells(size: np.ndarray, cells: Mapping[int, np.ndarray], px: np.ndarray, seen: np.ndarray) -> None:
    """Clear in ``seen`` [c, n] the places that a camera sees at ``px`` [c, n, 2] beside its ``cells``.

    These [h, w] bool cover its photo of ``size`` [c, 2] px; cameras without cells keep what they see.
    """
    for camera, known in cells.items():
        here = seen[camera].nonzero()[0]
        column, row = (px[camera, here] / size[camera] * known.shape[::-1]).astype(np.int64).T
        seen[camera, here] = known[row, column]
