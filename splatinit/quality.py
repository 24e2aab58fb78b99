"""How good a start is before any training: what the training views and, where it is known, the true surface say.

Cheap, and bounded whatever the scene: an even sample of the training views and of the points, 2 to 4 seconds on one
core. The numbers of two starts of one scene compare; of two scenes they do not.

Where there are no depth maps, coverage is not measured but unknown. What else could stand in for the true depth comes
from a start itself: structure from motion's own points make its start complete by definition, stereo's depth the dense
one. ``filled`` says where points are, at whatever depth.

The true surface is ``gt/mesh.ply`` in the scene's folder, in the coordinates of its poses, and what of it must be
covered ``gt/points_visible.ply`` where that exists. Where the poses were computed here, they are in other coordinates,
and the surface says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .errors import SplatinitError
from .types import PointCloud, Scene, StartQuality

if TYPE_CHECKING:
    from .geometry.scoring import CloudScore

VIEWS = 16  # of the training views, evenly spread; decoding them is most of the cost
POINTS = 200_000  # for the views
# For the surface: a share of so many has a standard error of at most 0.004.
SURFACE_POINTS = 20_000
THRESHOLD = 0.01  # of the scene's extent, for the F-score


def measure(scene: Scene, points: PointCloud) -> tuple[StartQuality, tuple[str, ...]]:
    """The quality of ``points`` as a start for ``scene``, and notes on what could not be measured.

    Raises SceneError or FormatError where a photo is gone or damaged, BadPoints for a point that is not finite.
    """
    began = time.perf_counter()
    some = _sample(points, POINTS)
    views = [scene.train[k] for k in np.unique(np.linspace(0, len(scene.train) - 1, VIEWS).round().astype(int))]
    by_view = _by_view(views, some)
    notes: tuple[str, ...] = ()
    score = None
    try:
        score = _against_truth(scene, _sample(points, SURFACE_POINTS))
    except SplatinitError as error:
        notes = (f"The start was not compared with the true surface: {error.message}",)
    truth = {}
    if score is not None and score.n:  # no points are infinitely far from everything
        at = score.thresholds[0]
        truth = {
            "accuracy": score.accuracy,
            "completeness": score.completeness,
            "fscore": at.fscore,
            "threshold": at.threshold,
        }
    quality = StartQuality(
        points=len(some),
        views=tuple(view.name for view in views),
        **by_view,
        **truth,
        seconds=time.perf_counter() - began,
    )
    return quality, notes


def summary(quality: StartQuality) -> str:
    """The means in one line."""
    texts = {
        "filled": "points in {:.0%} of the image",
        "coverage": "right depth in {:.0%}",
        "photoconsistency": "colours off by {:.3f}",
    }
    parts = [text.format(quality.mean(name)) for name, text in texts.items() if quality.mean(name) is not None]
    if quality.fscore is not None:
        parts.append(f"F-score {quality.fscore:.3f}")
    return ", ".join(parts)


def _by_view(views: Sequence, points: PointCloud) -> dict[str, tuple[float | None, ...]]:
    from .decoding import each_decoded
    from .geometry.coverage import colour_difference, coverage, filled

    found: dict[str, list[float | None]] = {"filled": [], "coverage": [], "photoconsistency": []}
    for view, pixels in each_decoded(views):
        counts = np.ones(pixels.rgb.shape[:2], dtype=bool)
        if pixels.mask is not None:
            counts &= pixels.mask > 0
        if pixels.alpha is not None:  # nothing is there, or half of something
            counts &= pixels.alpha >= 128
        found["filled"].append(_known(filled(points.xyz, [(view.camera, counts)])))
        off = colour_difference(points.xyz, points.rgb, [(view.camera, pixels.rgb, counts)])
        found["photoconsistency"].append(_known(off))
        depth = view.depth() if view.photo.has_depth else None
        right = None if depth is None else coverage(points.xyz, [(view.camera, np.where(counts, depth, 0.0))])
        found["coverage"].append(None if right is None else _known(right))
    return {name: tuple(values) for name, values in found.items()}


def _known(values: np.ndarray) -> float | None:
    return float(values[0]) if np.isfinite(values[0]) else None


def _against_truth(scene: Scene, points: PointCloud) -> CloudScore | None:
    from .geometry.scoring import score_cloud
    from .geometry.surface import Surface
    from .io.mesh import read_ply_mesh
    from .io.pointcloud import read_ply_points

    mesh, visible = scene.root / "gt" / "mesh.ply", scene.root / "gt" / "points_visible.ply"
    if scene.poser != "given" or not mesh.is_file():
        return None
    surface = Surface(*read_ply_mesh(mesh))
    if visible.is_file():
        samples = _sample(read_ply_points(visible), SURFACE_POINTS).xyz
    else:
        samples = surface.sample(SURFACE_POINTS)
    return score_cloud(points.xyz, surface, (THRESHOLD * scene.extent,), samples=samples)


def _sample(points: PointCloud, most: int) -> PointCloud:
    """``points``, or ``most`` of them, drawn the same way every time."""
    if len(points) <= most:
        return points
    return points.select(np.sort(np.random.default_rng(0).choice(len(points), most, replace=False)))
