"""What comes of one reference: its matches, sampled, triangulated and coloured. And of all: one cloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ...geometry.rigid import transform
from ...matching import Matcher, Matches, MatchView
from ..base import CostMeter
from ..colour import bilinear, blend, fit_sh1
from ..rig import Rig
from .config import DenseConfig
from .detail import contrast, worth
from .photos import Photos
from .plan import Task
from .sampling import sample
from .triangulation import KEPT, triangulate


@dataclass(frozen=True)
class Part:
    """Points of one reference. float32, for there are many.

    Attributes:
        xyz: [n, 3] scene units.      rgb: [n, 3] in [0, 1].      normal: [n, 3], or None.
        pitch: [n] size of a pixel of the reference at the point, scene units.
        worth: [n] > 0, points wanted per area there, see :func:`splatinit.initializers.dense.detail.worth`.
        apart: [n] px between the points of the reference's square.
        angle: [n] degrees.      error: [n] px.      confidence: [n].
        sh: [n, 3, 3] as PointCloud's, or None.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    pitch: np.ndarray
    worth: np.ndarray
    apart: np.ndarray
    angle: np.ndarray
    error: np.ndarray
    confidence: np.ndarray
    normal: np.ndarray | None = None
    sh: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.xyz)

    def select(self, index: np.ndarray | slice) -> Part:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Part(**{name: None if value is None else value[index] for name, value in values.items()})


def join(parts: Sequence[Part]) -> Part:
    """All points of ``parts``, at least one; normals and SH only where all have them."""
    joined = {}
    for field in fields(Part):
        values = [getattr(part, field.name) for part in parts]
        joined[field.name] = None if any(value is None for value in values) else np.concatenate(values)
    return Part(**joined)


@dataclass(frozen=True)
class Harvest:
    """What one reference brought.

    Attributes:
        part: its points.      outcomes: how many samples were kept or refused, by the numbers of triangulation.
        matches: how many pixels of it were matched with certainty.
    """

    part: Part
    outcomes: Counter[int]
    matches: int


def harvest(
    matcher: Matcher,
    photos: Photos,
    rig: Rig,
    task: Task,
    config: DenseConfig,
    *,
    count: int,
    rng: np.random.Generator,
    cost: CostMeter,
) -> Harvest:
    """Match, sample at most ``count`` matches, triangulate and colour one reference."""
    with cost.stage("load"):
        reference = photos[task.reference]
        neighbours = [photos[k] for k in task.neighbours]
    with cost.stage("match"):
        matches = matcher.match(reference, neighbours, depth_range=task.depth_range)
    with cost.stage("sample"):
        certainty = certain(matches, reference, neighbours, config.min_certainty)
        best = certainty.max(axis=0, initial=0.0)
        column, row = _pixels(matches.points, reference)
        wanted = worth(contrast(reference.rgb)[row, column], config.detail)
        pick = sample(matches.points, best, wanted, cell=config.cell, count=count, rng=rng)
        wanted = wanted[pick]
    with cost.stage("triangulate"):
        px = np.concatenate([matches.points[None, pick], matches.targets[:, pick]]).astype(np.float64)
        which = [task.reference, *task.neighbours]
        found = triangulate(
            rig.K[which],
            rig.pose[which],
            px,
            np.concatenate([np.ones((1, len(pick))), certainty[:, pick]]),
            max_error=config.max_error,
            min_angle=config.min_angle,
            min_views=config.min_views,
            agreement=config.agreement,
        )
        keep = found.outcome == KEPT
    with cost.stage("colour"):
        px, used = px[:, keep], found.used[:, keep]
        rgb, sh = bilinear(reference.rgb, px[0]), None
        if config.colour != "reference":
            others = [
                bilinear(view.rgb, np.where(use[:, None], at, np.nan))
                for view, at, use in zip(neighbours, px[1:], used[1:], strict=True)
            ]
            shown = np.stack([rgb, *others])
            if config.colour == "blend":
                rgb = blend(shown)
            else:
                towards = found.xyz[keep] - rig.center[which][:, None]
                rgb, sh = fit_sh1(shown, towards / np.linalg.norm(towards, axis=2, keepdims=True))
    z = transform(rig.pose[task.reference], found.xyz[keep])[:, 2]
    pitch = z / rig.focal[task.reference]
    # How many agree, how well, and how well their rays fix the depth.
    support = np.where(used[1:], certainty[:, pick][:, keep], 0.0).sum(axis=0)
    confidence = support / (1 + found.error[keep]) * pitch / np.maximum(found.sigma[keep], 1e-6 * pitch)
    _, square, members = np.unique(np.floor(px[0] / config.cell), axis=0, return_inverse=True, return_counts=True)
    float32 = {
        "xyz": found.xyz[keep],
        "rgb": rgb,
        "pitch": pitch,
        "worth": wanted[keep],
        "apart": config.cell / np.sqrt(members[square.ravel()]),
        "angle": found.angle[keep],
        "error": found.error[keep],
        "confidence": confidence,
        "normal": None if matches.normals is None else matches.normals[pick][keep],
        "sh": sh,
    }
    part = Part(**{name: None if value is None else value.astype(np.float32) for name, value in float32.items()})
    return Harvest(
        part,
        Counter(found.outcome.tolist()),
        int((best > 0).sum()),
    )


def certain(matches: Matches, reference: MatchView, neighbours: Sequence[MatchView], least: float) -> np.ndarray:
    """[v, m] certainty, 0 below ``least`` and where either pixel is unknown, outside of its photo or not usable.

    Matchers are told which pixels are usable; that none of the others slips through is not left to them.
    """
    certainty = np.where(np.isfinite(matches.certainty), matches.certainty, 0.0)
    certainty = np.where(certainty >= max(least, 1e-6), certainty, 0.0)
    certainty *= _inside(matches.points, reference)
    for row, targets, view in zip(certainty, matches.targets, neighbours, strict=True):
        row *= _inside(targets, view)
    return certainty


def _pixels(px: np.ndarray, view: MatchView) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows [m] of the pixels in which ``px`` [m, 2] lie; the nearest ones for those beyond the photo."""
    height, width = view.rgb.shape[:2]
    at = np.nan_to_num(px, nan=0.0, posinf=0.0, neginf=0.0).clip(0, [width - 1, height - 1]).astype(np.int64)
    return at[:, 0], at[:, 1]


def _inside(px: np.ndarray, view: MatchView) -> np.ndarray:
    """[m] whether pixels [m, 2] lie on a usable pixel of the photo."""
    height, width = view.rgb.shape[:2]
    with np.errstate(invalid="ignore"):
        inside = ((px >= 0) & (px < [width, height])).all(axis=1)
    if view.usable is not None:
        column, row = np.where(inside[:, None], px, 0).astype(np.int64).T
        inside &= view.usable[row, column]
    return inside
