"""The initializer: plan, then one reference after the other, then one cloud of all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ...draws import hash64
from ...errors import BadPoints, SceneError
from ...geometry.neighbours import nearest_distance
from ...matching import MATCHERS
from ...matching.base import Matcher
from ...memory import require_points, room
from ...progress import Progress
from ...types import Initialization, PointCloud, Scene
from ..base import CostMeter
from ..rig import Rig
from .config import DenseConfig
from .gaps import fill_gaps
from .gathering import Harvest, Part, harvest, join
from .neighbours import sparse_or_none
from .pace import Pace
from .photos import Photos
from .plan import Plan, choose_references, make_plan
from .radius import radii
from .suppression import alone, most_certain, thinned
from .triangulation import KEPT, REASONS

# How many times its share of ``count`` a reference samples: some fail a gate or are duplicates, some have few.
SPARE = 3
# Without ``count``: all references together, where there is memory for so many.
MOST_CANDIDATES = 2_000_000
FEWEST_CANDIDATES = 20_000  # with memory for less it is not worth beginning
# Peak per candidate: 52 bytes, twice while they are joined, and sorting them. Measured: eight references of 640×480 px
# with normals took 562 MB for 600 000 candidates and 842 MB for 1 200 000.
CANDIDATE_BYTES = 470
SH_BYTES = 80  # of a candidate that brings SH: 36 more, twice
# The scout: photos of this size (px), so many of them, each with so many neighbours and samples.
SCOUT_SIZE, SCOUT_REFERENCES, SCOUT_NEIGHBOURS, SCOUT_SAMPLES = 128, 16, 3, 500
SCOUT_ENOUGH = 200  # points; with fewer the cameras are the better guess
GAP_OPACITY = 0.1  # 3DGS's: unlike the other points it is a guess
_NAMES = 3  # that a note lists


class Dense:
    """Dense matches of reference photos, triangulated."""

    def __init__(self, config: DenseConfig | None = None) -> None:
        """Raises MissingExtra when the matcher needs a package that is not installed."""
        self.config = config = DenseConfig() if config is None else config
        settings = config.matcher_config()
        make = MATCHERS.load(config.matcher)
        self._matcher: Matcher = make() if settings is None else make(settings)

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises SceneError when there is one photo or none has a neighbour with a baseline, BadPoints when no match
        becomes a point, OutOfMemory when there is no room for so many points, and what reading a photo and the
        matcher raise."""
        config = self.config
        views = scene.train
        if len(views) < 2:
            raise SceneError(
                f"{scene.root}: there is one training photo; a dense match is triangulated from two.",
                hint="Add photos, or leave more of them to training in the split file, or start with --init random.",
            )
        each = CANDIDATE_BYTES + (SH_BYTES if config.colour == "sh1" else 0)
        if config.count is not None or config.per_reference is not None:
            references = min(config.max_references, len(views)) if config.per_reference else 1
            require_points((config.per_reference or config.count) * references, SPARE * each)
            most = None
        else:
            require_points(FEWEST_CANDIDATES, each)
            most = int(min(MOST_CANDIDATES, room() // each))
            if most < MOST_CANDIDATES:
                progress.note(f"There is memory for {most} candidates of points; with more, others might be chosen.")
        pace = Pace(self._matcher, progress)
        with CostMeter() as cost:
            sparse = sparse_or_none(None if scene.points is None else scene.points.xyz)
            known = sparse is not None
            if sparse is None and config.scout:
                sparse = self._scout(scene, seed, progress, cost, pace)
            with cost.stage("references"):
                photos = Photos(views, config.max_size)
                rig = Rig.of(photos.cameras)
                rng = np.random.default_rng(hash64(seed, "dense references", 0))
                references = choose_references(rig, config, sparse, rng)
                plan = make_plan(rig, references, config.neighbours, sparse)
            if not plan.tasks:
                raise SceneError(
                    f"{scene.root}: none of the {len(views)} training photos has a neighbour that sees the same from "
                    "another place; dense matches can only be triangulated with a baseline between two photos.",
                    hint="Photos turned on the spot hold no depth: take them from several places. Or check the poses "
                    "(`splatinit check`), or start with --init random.",
                )
            total = config.count if config.per_reference is None else config.per_reference * len(plan.tasks)
            # With a number to reach, some to choose from; without one, what the spacing makes room for.
            samples = -(-(most if total is None else SPARE * total) // len(plan.tasks))
            harvests = self._harvest_all(plan, photos, rig, samples, total is None, seed, progress, cost, pace)
            outcomes = sum((each.outcomes for each in harvests), Counter())
            if outcomes[KEPT] == 0:
                raise self._nothing(scene, plan, harvests, outcomes)
            with cost.stage("merge"):
                points, spacing, left_out = self._merge(harvests, total, seed)
                cloud, extras = self._cloud(scene, photos, rig, points, spacing)
        notes = self._notes(scene, plan, harvests, outcomes, points, left_out, total, extras)
        return Initialization(
            points=cloud,
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={
                "initializer": "dense",
                **asdict(config),
                "seed": seed,
                "references_used": len(plan.tasks),
                "depths_from": "points" if known else "scout" if sparse is not None else "cameras",
            },
            notes=notes,
        )

    # --------------------------------------------------------------------------------------------------------- scout
    def _scout(self, scene: Scene, seed: int, progress: Progress, cost: CostMeter, pace: Pace) -> np.ndarray | None:
        """[p, 3] points from small photos, or None where too few come of them."""
        with cost.stage("scout"):
            photos = Photos(scene.train, SCOUT_SIZE)
            rig = Rig.of(photos.cameras)
            every = np.linspace(0, len(rig) - 1, min(len(rig), SCOUT_REFERENCES)).round().astype(int)
            plan = make_plan(rig, np.unique(every).tolist(), SCOUT_NEIGHBOURS, None)
            progress.start("scout", len(plan.tasks))
            pace.begin(plan)
            found = []
            for done, task in enumerate(plan.tasks, start=1):
                rng = np.random.default_rng(hash64(seed, "dense scout", task.reference))
                # Its stages are all the scout's.
                with CostMeter() as own:
                    brought = harvest(
                        self._matcher,
                        photos,
                        rig,
                        task,
                        self.config,
                        count=SCOUT_SAMPLES,
                        rng=rng,
                        cost=own,
                    )
                found.append(brought.part.xyz)
                pace.done(plan, done)
                progress.advance(done)
            xyz = np.concatenate(found) if found else np.zeros((0, 3))
            progress.finish(f"{len(xyz)} points")
        return xyz.astype(np.float64) if len(xyz) >= SCOUT_ENOUGH else None

    # ----------------------------------------------------------------------------------------------------- references
    def _harvest_all(
        self,
        plan: Plan,
        photos: Photos,
        rig: Rig,
        samples: int,
        spaced: bool,
        seed: int,
        progress: Progress,
        cost: CostMeter,
        pace: Pace,
    ) -> list[Harvest]:
        """At most ``samples`` of each reference; ``spaced``: and at most as many as fit it at the spacing."""
        config = self.config
        progress.start("dense", len(plan.tasks))
        pace.begin(plan)
        harvests, points = [], 0
        for done, task in enumerate(plan.tasks, start=1):
            rng = np.random.default_rng(hash64(seed, "dense", task.reference))
            width, height = rig.size[task.reference]
            count = min(samples, math.ceil(width * height / config.spacing**2)) if spaced else samples
            harvests.append(harvest(self._matcher, photos, rig, task, config, count=count, rng=rng, cost=cost))
            points += len(harvests[-1].part)
            pace.done(plan, done)
            progress.advance(done, candidates=points)
        progress.finish(f"{points} candidates from {len(plan.tasks)} references")
        return harvests

    # ----------------------------------------------------------------------------------------------------------- merge
    def _merge(
        self, harvests: Sequence[Harvest], total: int | None, seed: int
    ) -> tuple[Part, np.ndarray, dict[str, int]]:
        """The points that stay, px between the points around each [n], and how many were left out for what reason."""
        config = self.config
        points = join([each.part for each in harvests])
        left_out = dict.fromkeys(("duplicates", "far from all others"), 0)
        if config.duplicates > 0:
            size = config.duplicates * points.pitch.astype(np.float64)
            kept = most_certain(points.xyz.astype(np.float64), size, points.confidence)
            left_out["duplicates"] = len(points) - len(kept)
            points = points.select(kept)
        if config.isolated is not None:
            lonely = alone(points.xyz, 0.5 * points.apart * points.pitch, config.isolated)
            if not lonely.all():
                left_out["far from all others"] = int(lonely.sum())
                points = points.select(~lonely)
        spacing = config.spacing / np.sqrt(points.worth.astype(np.float64))
        xyz, size = points.xyz.astype(np.float64), spacing * points.pitch
        if total is None:
            kept = most_certain(xyz, size, points.confidence)
        else:
            rng = np.random.default_rng(hash64(seed, "dense thinning", 0))
            kept, factor = thinned(xyz, size, points.confidence, total, rng)
            spacing *= factor
        left_out["nearer to another than the spacing"] = len(points) - len(kept)
        return points.select(kept), spacing[kept], left_out

    def _cloud(
        self,
        scene: Scene,
        photos: Photos,
        rig: Rig,
        points: Part,
        spacing: np.ndarray,
    ) -> tuple[PointCloud, dict[str, int]]:
        """The start, and how many points came from elsewhere."""
        config = self.config
        xyz, rgb, pitch, confidence = points.xyz, points.rgb, points.pitch, points.confidence
        normal, extras = points.normal, {}
        if config.union_sfm and scene.points is not None and len(scene.points):
            sfm = scene.points.xyz
            extras["SfM's"] = len(sfm)
            pitch = np.concatenate([pitch, nearest_distance(sfm, rig.center) / np.median(rig.focal)])
            spacing = np.concatenate([spacing, np.full(len(sfm), np.median(spacing))])
            xyz, rgb = np.concatenate([xyz, sfm]), np.concatenate([rgb, scene.points.rgb])
            confidence = np.concatenate([confidence, np.full(len(sfm), np.median(confidence))])
            normal = None  # nothing is known of theirs, and a cloud has them for all points or for none
        radius = radii(xyz, pitch, spacing, rule=config.radius, factor=config.radius_factor)
        opacity = np.full(len(xyz), config.opacity)
        if config.gaps != "none":
            every = (photos[k] for k in range(len(rig)))
            fill = fill_gaps(rig, every, xyz, spacing=float(np.quantile(spacing, 0.9)), rule=config.gaps)
            extras["in gaps"] = len(fill)
            xyz, rgb = np.concatenate([xyz, fill.xyz]), np.concatenate([rgb, fill.rgb])
            radius = np.concatenate([radius, config.radius_factor * fill.radius])
            opacity = np.concatenate([opacity, np.full(len(fill), GAP_OPACITY)])
            confidence = np.concatenate([confidence, np.zeros(len(fill))])
            normal = None if normal is None else np.concatenate([normal, fill.normal])
        sh = points.sh
        if sh is not None:  # SfM's points and those in gaps look the same from everywhere
            sh = np.concatenate([sh, np.zeros((len(xyz) - len(sh), *sh.shape[1:]), np.float32)])
        cloud = PointCloud(
            xyz=xyz, rgb=rgb.clip(0, 1), radius=radius, opacity=opacity, normal=normal, confidence=confidence, sh=sh
        )
        return cloud, extras

    # ------------------------------------------------------------------------------------------------------------ words
    def _nothing(self, scene: Scene, plan: Plan, harvests: Sequence[Harvest], outcomes: Counter[int]) -> BadPoints:
        config = self.config
        matches, sampled = sum(each.matches for each in harvests), sum(outcomes.values())
        refused = ", ".join(f"{outcomes[k]} for {why}" for k, why in REASONS.items() if outcomes[k])
        tried = f"{len(plan.tasks)} photos with up to {config.neighbours} neighbours each at {config.max_size} px"
        came = f"{matches} certain matches"
        if sampled:
            came += f"; {sampled} of them were triangulated and all refused ({refused})"
        return BadPoints(
            f"{scene.root}: no dense match became a point. Matcher '{config.matcher}' tried {tried} and found {came}.",
            hint="Check the poses (`splatinit check`): wrong ones look like this. Else try another init.matcher, a "
            "larger init.max_error or a smaller init.min_angle, or start with --init sfm.",
        )

    def _notes(
        self,
        scene: Scene,
        plan: Plan,
        harvests: Sequence[Harvest],
        outcomes: Counter[int],
        points: Part,
        left_out: dict[str, int],
        total: int | None,
        extras: dict[str, int],
    ) -> tuple[str, ...]:
        names = [view.name for view in scene.train]
        notes = [
            f"{len(points)} points from {len(plan.tasks)} references of {len(names)} training photos, matched by "
            f"'{self.config.matcher}'; median angle {np.median(points.angle):.1f}°, median reprojection error "
            f"{np.median(points.error):.2f} px at {self.config.max_size} px"
        ]
        sampled = sum(outcomes.values())
        shares = [f"{outcomes[k] / sampled:.0%} for {why}" for k, why in REASONS.items() if outcomes[k]]
        refused = f"; refused: {', '.join(shares)}" if shares else ""
        notes.append(
            f"{outcomes[KEPT] / sampled:.0%} of {sampled} samples became points{refused}. Left out after that: "
            + ", ".join(f"{count} {why}" for why, count in left_out.items())
        )
        notes += [f"{count} more points are {where}" for where, count in extras.items() if count]
        if plan.alone:
            notes.append(f"no neighbour with a baseline for {_listed([names[k] for k in plan.alone])}")
        empty = [names[t.reference] for t, each in zip(plan.tasks, harvests, strict=True) if each.matches == 0]
        if empty:
            notes.append(f"'{self.config.matcher}' found nothing in {_listed(empty)}")
        if total is not None and len(points) < total:
            notes.append(f"{total} points were asked for, {len(points)} were found")
        return tuple(notes)


def _listed(names: Sequence[str]) -> str:
    """How many, and the first ones."""
    more = ", ..." if len(names) > _NAMES else ""
    return f"{len(names)} references ({', '.join(names[:_NAMES])}{more})"
