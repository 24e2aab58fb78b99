"""The settings of ``random``."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import ConfigError
from ...registry import nearest

VOLUMES = ("auto", "cameras", "points", "blender", "frusta")
SAMPLINGS = ("auto", "uniform", "log_depth", "contracted")
SIZES = ("neighbours", "density")
COLOURS = ("auto", "random", "grey", "mean", "average", "consistent")
FROM_PHOTOS = ("mean", "average", "consistent")
AUTO_COLOUR = {"blender": "grey", "frusta": "average"}

# How much larger than its reference a cube is unless ``size`` says otherwise. 3 is the literature's baseline for the
# cameras' box; with 1, 3DGS loses 5 dB on Mip-NeRF 360 (3DGS-MCMC, arXiv:2404.09591, ablation of the extent).
DEFAULT_SIZE = {"cameras": 3.0, "points": 1.0, "blender": 1.0}
DEFAULT_CLEARANCE = {"frusta": 0.1}  # scene extents; the literature's cubes have none
# Scene extents. A volume that is filled evenly has nearly all of its points far out, and must end soon; the others
# thin out by themselves. At 30 extents the rig is seen under 3.5°: what is beyond shows no parallax.
DEFAULT_FAR = {"uniform": 3.0, "log_depth": 30.0, "contracted": 30.0}
NEAREST = 0.01  # scene extents; logarithms need a depth to begin at, even with no clearance


@dataclass(frozen=True, kw_only=True)
class RandomConfig:
    """Where and how many.

    Attributes:
        count: number of points (3DGS and gsplat: 100 000). Training without densification keeps that many.
        volume: what they are drawn in.
            "cameras": a cube centred on the bounding box of the training cameras, side = size × its longest side (3DGS
            §7.3; gsplat's ±3 × scene extent is nearly the same cube). "points": the same for the box of the scene's
            sparse points, without the outermost 1 % at either end of each axis. "blender": [−1.3, 1.3]³, where the
            objects of Blender's synthetic scenes are. "frusta": what at least ``min_views`` training cameras see, up
            to ``far``, without what photos show through (``see_through``). "auto": "blender" where the photos have
            transparent pixels and all training cameras stand outside that cube, look at it and see it large, else
            "cameras".
        size: factor on the cube's side, None for the literature's (cameras 3, points 1, blender 1).
        min_views: in "frusta", how many training cameras must see a place; 2 can triangulate it. None: a sixth of them,
            but from 2 to 8.
        see_through: in "frusta", of the photos that show a place the share that may be transparent there; where more
            are, nothing is. 0.1 leaves room for poses that are not exact; 1 asks no photo.
        far: in "frusta", scene extents (1.1 × the largest distance of a training camera from their mean) at which the
            volume ends: from the cameras' mean with sampling "uniform" and "contracted", from the camera that draws
            with "log_depth". None: 3 for "uniform", else 30.
        sampling: how densely it is drawn in "frusta".
            "uniform": the same everywhere, as in the cubes. "log_depth": a pixel of a training photo, at a depth whose
            logarithm is uniform from ``clearance`` (0.01 at least) to ``far``, so that each photo shows as much of
            every doubling of depth. "contracted": uniform in the contracted space of mip-NeRF 360 (arXiv:2111.12077,
            eq. 10), whose unit ball holds all training cameras around their mean; it thins out with the 4th power of
            the distance. "auto": "uniform" in the cubes, "log_depth" in "frusta".
        clearance: scene extents. No point comes nearer to a training camera, where it would cover the photo. None: 0.1
            in "frusta", 0 in the cubes, which have none in the literature.
        sizes: of the Gaussians. "neighbours": left to the seeding, which takes the mean distance to the 3 nearest
            points; it scatters as these do. "density": what that mean is expected to be at the density that was drawn
            with, so that it grows smoothly with the distance.
        colour: "random" (uniform in [0, 1]³, gsplat), "grey" (3DGS on Blender scenes), "mean": the mean colour of the
            training photos. "average": each point's mean over the pixels that show its place. "consistent": the same,
            with photos that differ from most weighing less; a place that photos do not agree on is mostly empty.
            "auto": what is published for the cubes, grey in Blender's and random elsewhere, and "average" in "frusta".
    """

    count: int = 100_000
    volume: str = "auto"
    size: float | None = None
    min_views: int | None = None
    see_through: float = 0.1
    far: float | None = None
    sampling: str = "auto"
    clearance: float | None = None
    sizes: str = "neighbours"
    colour: str = "auto"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"init.count is {self.count}; expected at least 1 point.")
        for name, known in (("volume", VOLUMES), ("sampling", SAMPLINGS), ("sizes", SIZES), ("colour", COLOURS)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"init.{name} is '{value}'.", hint=nearest(value, list(known)))
        for name in ("size", "far"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ConfigError(f"init.{name} is {value:g}; expected a positive factor.")
        if self.clearance is not None and not 0 <= self.clearance < float("inf"):
            raise ConfigError(f"init.clearance is {self.clearance:g}; expected a finite number that is not negative.")
        if self.min_views is not None and self.min_views < 1:
            raise ConfigError(f"init.min_views is {self.min_views}; expected at least 1 training camera, or none.")
        if not 0 <= self.see_through <= 1:
            raise ConfigError(f"init.see_through is {self.see_through:g}; expected a share in [0, 1].")
        if self.volume != "frusta":
            if self.sampling not in ("auto", "uniform"):
                raise ConfigError(
                    f"init.sampling is '{self.sampling}' and init.volume '{self.volume}'; a cube is drawn in evenly.",
                    hint="Add init.volume=frusta, or use init.sampling=uniform.",
                )
            return
        if self.size is not None:
            raise ConfigError(
                f"init.size is {self.size:g} and init.volume 'frusta'; expected it with a cube.",
                hint="The frusta end at init.far.",
            )
        near, far = self.depths("frusta")
        if not max(near, NEAREST) < far:
            raise ConfigError(
                f"init.far is {far:g} and init.clearance {near:g} (scene extents); expected init.far to be larger, and "
                f"larger than {NEAREST:g}.",
            )

    @property
    def needs_points(self) -> bool:
        """Only the points' box needs the points of a poser."""
        return self.volume == "points"

    @property
    def density(self) -> str:
        """The sampling that "auto" stands for, else the one chosen."""
        return self.sampling if self.sampling != "auto" else "log_depth" if self.volume == "frusta" else "uniform"

    def views_among(self, cameras: int) -> int:
        """``min_views``, or what it is by itself among so many training cameras."""
        return self.min_views if self.min_views is not None else min(8, max(2, cameras // 6))

    def colour_in(self, volume: str) -> str:
        """The colour that "auto" stands for in the volume that was chosen, else the one chosen."""
        return AUTO_COLOUR.get(volume, "random") if self.colour == "auto" else self.colour

    def depths(self, volume: str) -> tuple[float, float]:
        """Clearance and far end in scene extents, for the volume that was chosen."""
        near = DEFAULT_CLEARANCE.get(volume, 0.0) if self.clearance is None else self.clearance
        return near, DEFAULT_FAR[self.density] if self.far is None else self.far
