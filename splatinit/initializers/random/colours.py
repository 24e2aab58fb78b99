"""What photos show at places in space. Nothing is known of what hides what: a place in the photo counts as seen."""

from __future__ import annotations

import numpy as np

from ...decoding import each_decoded
from ...progress import Progress
from ...types import Pixels, Scene
from ..colour import NOISE, bilinear
from ..rig import Rig

OPAQUE = 128  # of 255: a more transparent pixel shows the background
AGREE = 3 * NOISE  # distance from the others at which a photo weighs half, of a colour in [0, 1]
ROUNDS = 2  # of weighing anew, after the plain mean


def colours_at(scene: Scene, xyz: np.ndarray, how: str, progress: Progress) -> tuple[np.ndarray, int]:
    """Colours [n, 3] in [0, 1] of places [n, 3] after the training photos, and how many places no pixel shows.

    ``how``: "mean", the mean colour of all pixels; "average", the mean over the photos of the pixel that the place
    projects to; "consistent", the same with Cauchy weights 1 / (1 + (e / AGREE)²), e being the distance of a photo's
    colour from the weighted mean of the round before. Places that no pixel shows have the mean colour. Transparent and
    masked pixels count nowhere. Memory does not grow with the number of photos; each is decoded once a round.

    Raises what :func:`splatinit.decoding.decoded` does.
    """
    rig = Rig.of([view.camera for view in scene.train])
    rounds = {"mean": 0, "average": 1, "consistent": 1 + ROUNDS}[how]
    progress.start("colours", max(1, rounds) * len(scene.train))
    colour, overall, seen = np.zeros((len(xyz), 3)), np.full(3, 0.5), np.zeros(len(xyz), bool)
    for number in range(max(1, rounds)):
        total, weights = np.zeros((len(xyz), 3)), np.zeros(len(xyz))
        all_pixels, sums = 0, np.zeros(3)
        for index, (_, pixels) in enumerate(each_decoded(scene.train)):
            usable = _usable(pixels)
            if number == 0:
                all_pixels += int(usable.sum())
                sums += pixels.rgb[usable].sum(axis=0, dtype=np.int64) / 255.0
            if rounds:
                here, shown = _shown(rig, index, xyz, pixels, usable)
                off = ((shown - colour[here]) ** 2).sum(axis=1) if number else 0.0
                weight = 1 / (1 + off / AGREE**2) * np.ones(len(here))
                total[here] += weight[:, None] * shown
                weights[here] += weight
            progress.advance(number * len(scene.train) + index + 1)
        if number == 0:
            overall = sums / all_pixels if all_pixels else overall
            seen = weights > 0
        colour = np.where(seen[:, None], total / np.where(seen, weights, 1.0)[:, None], overall)
    progress.finish()
    return colour, int((~seen).sum()) if rounds else 0


def _usable(pixels: Pixels) -> np.ndarray:
    usable = np.ones(pixels.rgb.shape[:2], bool)
    if pixels.alpha is not None:
        usable &= pixels.alpha >= OPAQUE
    if pixels.mask is not None:
        usable &= pixels.mask == 255
    return usable


def _shown(rig: Rig, index: int, xyz: np.ndarray, pixels: Pixels, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which places [m] usable pixels of photo ``index`` show, and their colours [m, 3]."""
    px, _, seen = (found[0] for found in rig.look(np.array([index]), xyz))
    here = seen.nonzero()[0]
    column, row = px[here].astype(np.int64).T
    here = here[usable[row, column]]
    return here, bilinear(pixels.rgb, px[here])
