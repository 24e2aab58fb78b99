"""``union``: the points of several initializers together, without those that say again what is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..config import renamed
from ..errors import ConfigError, SplatinitError
from ..geometry.neighbours import mean_neighbour_distance, nearest_distance
from ..memory import spaced
from ..progress import Progress
from ..types import DepthPrior, Initialization, PointCloud, Scene
from .base import CostMeter

# What 3DGS starts with (Kerbl et al. 2023): of points that say nothing, beside others that bring their opacity.
OPACITY = 0.1
# Radii that are measured are capped as the seeding caps them: an isolated point would start as a blob.
CAP = 0.99


@dataclass(frozen=True, kw_only=True)
class UnionConfig:
    """Which initializers, and when two points are one.

    Attributes:
        of: two or more initializers, the most trusted first. The settings of each go under its name:
            init.random.count=5000.
        overlap: a point goes where one of an initializer before its own lies nearer than so many times its own spacing:
            the mean distance to its 3 nearest neighbours in its own cloud, or a pixel at the nearest camera where that
            is more. 0 keeps all.
        count: the most points that stay, drawn at random from all; none keeps all.
        parts: the settings of each by its name; those that are absent have their defaults.
    """

    of: tuple[str, ...] = ("sfm", "random")
    overlap: float = 0.5
    count: int | None = None
    parts: Mapping[str, Any] = field(default_factory=dict, metadata={"parts": True})

    def __post_init__(self) -> None:
        if len(self.of) < 2 or len(set(self.of)) < len(self.of):
            raise ConfigError(
                f"init.of is {','.join(self.of) or 'empty'}; expected two or more initializers, each once.",
                hint="For example --init sfm+random.",
            )
        if not 0 <= self.overlap < float("inf"):
            raise ConfigError(f"init.overlap is {self.overlap:g}; expected a factor of the spacing, 0 or more.")
        if self.count is not None and self.count < 1:
            raise ConfigError(f"init.count is {self.count}; expected at least 1 point, or none.")

    @property
    def needs_points(self) -> bool:
        """Whether one of them does."""
        from . import needs_points

        return any(needs_points(name, self.parts.get(name)) for name in self.of)

    def require_packages(self) -> None:
        """Raises MissingExtra where one of them lacks a package."""
        from . import require_packages

        for name in self.of:
            require_packages(name, self.parts.get(name))


class Union:
    """Each of the initializers in turn, with the same seed as alone; then one cloud of all."""

    def __init__(self, config: UnionConfig = UnionConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises what the parts raise, with their settings called as they are here (init.random.count)."""
        config = self.config
        starts = [self._start(name, scene, seed, progress, work_dir) for name in config.of]
        seconds = {
            f"{name}/{stage}": value
            for name, start in zip(config.of, starts, strict=True)
            for stage, value in start.seconds.items()
        }
        notes = [
            f"{name}: {renamed(text, name)}"
            for name, start in zip(config.of, starts, strict=True)
            for text in start.notes
        ]
        with CostMeter() as cost, cost.stage("union"):
            clouds = [start.points for start in starts]
            kept = _without_repeats(clouds, scene, config.overlap)
            told = [
                f"{spaced(len(index))} of the {spaced(len(cloud))} points of {name}"
                for name, cloud, index in zip(config.of, clouds, kept, strict=True)
            ]
            if sum(map(len, kept)) < sum(map(len, clouds)):
                notes.append(f"{', '.join(told)} stay; the others repeat what was there before them (init.overlap)")
            points = _joined([cloud.select(index) for cloud, index in zip(clouds, kept, strict=True)], clouds, kept)
            if config.count is not None and len(points) > config.count:
                chosen = np.random.default_rng(seed).choice(len(points), config.count, replace=False, shuffle=False)
                notes.append(
                    f"{spaced(config.count)} of its {spaced(len(points))} points were drawn at random (init.count)"
                )
                points = points.select(np.sort(chosen))
        priors: dict[str, DepthPrior] = {}
        for start in reversed(starts):  # of a view that several know, the most trusted says the depth
            priors |= start.depth_priors
        return Initialization(
            points=points,
            depth_priors=priors,
            seconds={**seconds, **cost.seconds},
            peak_memory_mb=max([cost.peak_memory_mb, *(start.peak_memory_mb for start in starts)]),
            recipe={
                "initializer": "union",
                "of": list(config.of),
                "overlap": config.overlap,
                "count": config.count,
                "parts": [dict(start.recipe) for start in starts],
            },
            notes=tuple(notes),
            attachments={
                f"{name}-{file}": attached
                for name, start in zip(config.of, starts, strict=True)
                for file, attached in start.attachments.items()
            },
        )

    def _start(self, name: str, scene: Scene, seed: int, progress: Progress, work_dir: Path | None) -> Initialization:
        from . import make_initializer

        own = None if work_dir is None else work_dir / name
        try:
            start = make_initializer(name, self.config.parts.get(name)).initialize(
                scene, seed=seed, progress=progress, work_dir=own
            )
            start.points.check(f"the part '{name}' of the union")
        except SplatinitError as error:
            hint = None if error.hint is None else renamed(error.hint, name)
            raise type(error)(renamed(error.message, name), hint=hint, **error.context) from error
        return start


def _spacing(cloud: PointCloud) -> np.ndarray:
    """[n] mean distance to the 3 nearest others; 0 for a point that has none."""
    return np.nan_to_num(mean_neighbour_distance(cloud.xyz), nan=0.0)


def _without_repeats(clouds: Sequence[PointCloud], scene: Scene, overlap: float) -> list[np.ndarray]:
    """Of each cloud the indices, ascending, of the points that stay (see ``UnionConfig.overlap``)."""
    kept = [np.arange(len(clouds[0]))]
    if overlap == 0:
        return [np.arange(len(cloud)) for cloud in clouds]
    centres = np.stack([view.camera.center for view in scene.train])
    focal = float(np.median([view.camera.fx for view in scene.train]))
    before = clouds[0].xyz
    for cloud in clouds[1:]:
        pixel = nearest_distance(cloud.xyz, centres) / focal
        reach = overlap * np.maximum(_spacing(cloud), pixel)
        index = np.nonzero(nearest_distance(cloud.xyz, before) >= reach)[0]
        kept.append(index)
        before = np.concatenate([before, cloud.xyz[index]])
    return kept


def _joined(parts: Sequence[PointCloud], clouds: Sequence[PointCloud], kept: Sequence[np.ndarray]) -> PointCloud:
    """One cloud; what only some of the parts bring is filled up for the others, as the seeding would, or dropped.

    A radius is filled up by the neighbour distance in the part's own cloud, an opacity by 3DGS's, a confidence by the
    median of the known ones, and SH coefficients by 0. A normal has no such default: it stays where all bring it.
    """
    full = [part for part in parts if len(part)]

    def have(name: str) -> list[np.ndarray]:
        return [value for part in full if (value := getattr(part, name)) is not None]

    def column(name: str, default: Any) -> np.ndarray | None:
        if not have(name):
            return None
        return np.concatenate(
            [
                getattr(part, name) if getattr(part, name) is not None else default(number)
                for number, part in enumerate(parts)
            ]
        )

    def radius(number: int) -> np.ndarray:
        distance = _spacing(clouds[number])
        different = distance[distance > 0]
        usual = float(np.median(np.concatenate(have("radius")))) if len(different) == 0 else float(np.median(different))
        cap = np.quantile(different, CAP, method="higher") if len(different) else usual
        return np.where(distance > 0, distance, 1e-3 * usual).clip(max=cap)[kept[number]]

    confident = have("confidence")
    usual_confidence = float(np.median(np.concatenate(confident))) if confident else 0.0
    bands = max((value.shape[1] for value in have("sh")), default=0)
    sh = None
    if bands:
        sh = np.zeros((sum(map(len, parts)), bands, 3), np.float32)
        place = 0
        for part in parts:
            if part.sh is not None:
                sh[place : place + len(part), : part.sh.shape[1]] = part.sh
            place += len(part)
    return PointCloud(
        xyz=np.concatenate([part.xyz for part in parts]),
        rgb=np.concatenate([part.rgb for part in parts]),
        radius=column("radius", radius),
        opacity=column("opacity", lambda number: np.full(len(parts[number]), OPACITY)),
        confidence=column("confidence", lambda number: np.full(len(parts[number]), usual_confidence)),
        normal=np.concatenate(have("normal")) if len(have("normal")) == len(full) else None,
        sh=sh,
    )
