"""A cloud in other coordinates onto the sparse points that the poser left."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import BadPoints
from ...geometry.alignment import Fit, refine, search
from ...types import Scene

# Share of the sparse points that the cloud must reach. Placed wrongly by a search, clouds of a room reached up to 47 %,
# but so did other places: what a search finds must also score so many times as well as the next.
LEAST, BETTER = 0.3, 1.25
# A share below SURE convinces only where its points lie closer than chance brings them: in the median, within CLOSE of
# the distance that counts as reached. Of 80 refinements of a room from places turned by 3° to 34° an axis (standard
# deviation), 56 came right (shares 0.72 to 0.76, or 0.33 where half of it was missing; medians of 0.05 to 0.29 with up
# to 40 mm of noise), 24 went wrong (shares up to 0.52, medians of 0.34 to 0.58).
SURE, CLOSE = 0.6, 0.33
FEW = 20  # sparse points


def aligned(xyz: np.ndarray, scene: Scene, how: str, path: Path, seed: int, notes: list[str]) -> np.ndarray:
    """The similarity [4, 4] that brings points [n, 3], placed as the settings say, onto the scene's sparse points.

    Raises BadPoints: the scene has no sparse points, or too few; the fit is not convincing, or not the only one.
    """
    target = np.zeros((0, 3)) if scene.points is None else scene.points.xyz.astype(np.float64)
    if len(target) < FEW or len(xyz) < FEW:
        raise BadPoints(
            f"{path}: init.align={how} needs sparse points of the scene to align to; it has {len(target)}, the cloud "
            f"{len(xyz)}, expected at least {FEW} of each.",
            hint="Give the place by init.pairs or init.transform, or let the points be triangulated "
            "(poser.triangulate=true).",
        )
    fit = (
        search(xyz, target, seed=seed)
        if how == "global"
        else refine(xyz, target, scaled=how == "similarity", seed=seed)
    )
    told = (
        f"{fit.share:.0%} of the scene's sparse points have one of the cloud within {fit.reach:.3g} scene units, "
        f"{fit.residual:.2g} away in the median"
    )
    near = fit.residual <= CLOSE * fit.reach
    if fit.share < LEAST or fit.share < SURE and not near:
        expected = f"{LEAST:.0%} at least, and less than {SURE:.0%} only within {CLOSE * fit.reach:.2g} in the median"
        raise BadPoints(
            f"{path}: init.align={how} found no convincing place for the cloud: {told}; expected {expected}.",
            hint="The cloud and the photos may share too little. Name three points or more that both know (init.pairs)."
            if how == "global"
            else "It must begin nearer to its place: give init.pairs or init.transform, or try init.align=global.",
        )
    if fit.score < BETTER * fit.rival:
        raise BadPoints(
            f"{path}: init.align=global found two places for the cloud that fit about equally (scores {fit.score:.2f} "
            f"and {fit.rival:.2f}): {told}.",
            hint="Its shape fits in several ways, or it shares too little with the photos. Name three points or more "
            "that both know (init.pairs).",
        )
    notes.append(f"aligned ({how}): {told}; {_moved(fit, xyz)}")
    return fit.similarity.matrix()


def _moved(fit: Fit, xyz: np.ndarray) -> str:
    centre = np.median(xyz, axis=0)
    found = fit.similarity
    angle = np.degrees(np.arccos(np.clip((np.trace(found.R) - 1) / 2, -1, 1)))
    away = np.linalg.norm(found(centre[None])[0] - centre)
    return f"its middle moved by {away:.3g}, it turned by {angle:.3g}° and grew by {found.scale:.4g}"
