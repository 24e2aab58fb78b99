"""What the field costs, and how points are drawn from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError
from ...registry import nearest

DEPTHS = ("sample", "median", "expected")
COLOURS = ("field", "photo")
DEFAULT_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class NerfConfig:
    """How long the field is fitted, and which points are drawn from it.

    The paper's own constants were never published (arXiv:2404.12547): those here are ours, measured on a CPU; ConeGS
    (arXiv:2511.06810, section 4.1) has a published recipe of the same kind: median depths, scales by the neighbours.

    Attributes:
        count: number of points; fewer where the field holds fewer that several photos agree on.
        fit_steps: updates of the field; none: 1000, or as many as ``fit_seconds`` allow.
        fit_seconds: after which the fit ends (`--nerf-seconds`). The clock ends no two fits at the same step: for
            numbers that can be made again, give steps.
        rays: of a step.      samples: of a ray.
        size: px, longer side of the photos that the field is fitted to; none: as large as all of them together have
            16 million pixels.
        levels, finest, log2_rows: of the hash grid, see splatinit.nerf.HashFieldConfig.
        distortion: weight of mip-NeRF 360's distortion loss.
        exposure: fit a factor for each photo's colours.
        depth: where on its ray a point lies. "sample": drawn from the weights along the ray. "median": where half of
            the light has ended. "expected": the mean of the distances, which between two surfaces lies in the air.
        colour: "field": what the field shows there, along the ray. "photo": the pixel's.
        clearance: scene extents. No point comes nearer to a camera, and no ray of the fit begins nearer.
        min_views: photos, that of the ray among them, in which a point must lie on what the field shows there. 1 keeps
            what a single photo shows: floaters.
        prior: the depths that training views see of the field go to the trainer (train.depth_weight): the paper's
            structure distillation.
        field: a field that was saved (field.safetensors in the init folder of a run), in place of a fit.
    """

    count: int = 100_000
    fit_steps: int | None = None
    fit_seconds: float | None = None
    rays: int = 2048
    samples: int = 16
    size: int | None = None
    levels: int = 8
    finest: int = 512
    log2_rows: int = 16
    distortion: float = 1e-3
    exposure: bool = False
    depth: str = "median"
    colour: str = "field"
    clearance: float = 0.05
    min_views: int = 2
    prior: bool = False
    field: Path | None = None

    def __post_init__(self) -> None:
        least_of = {"count": 1, "fit_steps": 1, "rays": 1, "samples": 2, "size": 16, "min_views": 1}
        for name, least in least_of.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"init.{name} is {value}; expected at least {least}.")
        if self.fit_seconds is not None and not 0 < self.fit_seconds < math.inf:
            raise ConfigError(
                f"init.fit_seconds is {self.fit_seconds:g}; expected a positive number of seconds to fit the field in.",
                hint="20 s are enough for small photos on two cores, 60 s are better.",
            )
        for name, low, high in (("levels", 1, 16), ("finest", 16, 8192), ("log2_rows", 4, 24)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"init.{name} is {getattr(self, name)}; expected {low} to {high}.")
        for name in ("distortion", "clearance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"init.{name} is {getattr(self, name):g}; expected 0 or more.")
        if self.depth not in DEPTHS:
            raise ConfigError(f"init.depth is '{self.depth}'.", hint=nearest(self.depth, list(DEPTHS)))
        if self.colour not in COLOURS:
            raise ConfigError(f"init.colour is '{self.colour}'.", hint=nearest(self.colour, list(COLOURS)))
