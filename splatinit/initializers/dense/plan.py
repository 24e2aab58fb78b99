"""What will be matched with what, between which depths: decided before the first photo is matched at full size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..rig import Rig
from .config import DenseConfig
from .depths import depth_range
from .neighbours import choose_neighbours, proxies, seen_points, typical_depths
from .references import by_coverage, by_kmeans

MOST_COVERED = 5000  # points by which coverage is judged: enough for 1 % of a photo to be told from nothing


@dataclass(frozen=True)
class Task:
    """One reference: index of its view, of its neighbours (best first), and (nearest, farthest) camera z."""

    reference: int
    neighbours: tuple[int, ...]
    depth_range: tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """The references in order, and those that have no neighbour with a baseline."""

    tasks: tuple[Task, ...]
    alone: tuple[int, ...]


def choose_references(rig: Rig, config: DenseConfig, points: np.ndarray | None, rng: np.random.Generator) -> list[int]:
    """All views, or ``max_references`` of them by the rule of the config; ascending."""
    if len(rig) <= config.max_references:
        return list(range(len(rig)))
    if config.references == "kmeans":
        return by_kmeans(rig, config.max_references, rng)
    if points is None:
        depth = typical_depths(rig)
        points = np.concatenate([proxies(rig, k, depth[k]) for k in range(len(rig))])
    return by_coverage(rig, config.max_references, rng.permutation(points)[:MOST_COVERED])


def make_plan(rig: Rig, references: Sequence[int], count: int, points: np.ndarray | None) -> Plan:
    """``count`` neighbours and the depths of each reference; ``points`` [p, 3] of the scene, or None."""
    depth = typical_depths(rig)
    tasks, alone = [], []
    for k in references:
        neighbours = choose_neighbours(rig, k, seen_points(rig, k, points, depth[k]), count)
        if neighbours:
            tasks.append(Task(k, tuple(neighbours), depth_range(rig, k, neighbours, points)))
        else:
            alone.append(k)
    return Plan(tuple(tasks), tuple(alone))
