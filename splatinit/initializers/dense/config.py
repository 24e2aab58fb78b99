"""The settings of ``dense``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...config import settings_from_keywords
from ...errors import ConfigError
from ...matching import MATCHERS
from ...registry import nearest

REFERENCES = ("coverage", "kmeans")
COLOURS = ("blend", "reference", "sh1")
RADII = ("both", "footprint", "neighbours")
GAPS = ("shell", "near", "none")


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """Which photos, which matcher, which pixels, and what a point must fulfil. Pixels (px) are those of ``max_size``.

    Attributes:
        count: number of points without SfM's and those in gaps; fewer where fewer are found. None: as many as
            ``spacing`` makes room for. Training without densification keeps about that many.
        per_reference: that many points times the references instead of ``count`` in all (EDGS: 15 000 to 25 000).
        spacing: px between two points on a surface of average detail, as the photo sees it that shows it largest.
            Where ``count`` is given, the spacing follows from it.
        detail: how far the points go where the detail is. 0: all surfaces get points alike, 1: the number of points
            in a pixel is in proportion to the contrast around it, beside a fifth that all get.
        matcher: finds the pixels of a reference in its neighbours; see `splatinit list`.
        matcher_settings: of the matcher, as key=value separated by commas.
        max_size: px, the longer side at which photos are matched and their colours read.
        references: how references are chosen where there are more photos than ``max_references``. "kmeans": the photos
            nearest to the centres of clusters of poses (EDGS). "coverage": the next one sees most of what few have seen
            so far. With 6 and 12 of the 38 photos of a rendered table, the points came within 1 % of the extent of 79 %
            and 85 % of the surface by "kmeans", of 74 % and 84 % by "coverage".
        max_references: at most that many references (EDGS: 180). Their matching is nearly all the time that it takes.
        neighbours: photos that each reference is matched with (EDGS: 3); fewer where fewer see the same.
        scout: where the scene has no points, small photos are matched first: the points that come of it choose the
            neighbours and bound the depths. Off: both are guessed from the cameras alone.
        min_certainty: a match below it counts as none (EDGS: 0.05). Of 19 photos of a rendered table, with 0.05, 0.2
            and 0.4: 96.5 %, 97.7 % and 99.0 % of the points lie within 1 % of the extent of the surface, and they come
            that near to 85 %, 84 % and 81 % of it.
        min_views: photos that must agree on a point, with the reference (EDGS: 2).
        agreement: share of the neighbours with a certain match that must agree on the point.
        min_angle: degrees between the rays of the two photos that see a point most differently.
        max_error: px between a match and the projection of its point.
        cell: px, side of the squares that share the samples by their detail, so that certain matches do not take all.
        duplicates: points of different references that lie in one cube of this many px (as the photo sees it) are one,
            and the most certain stays; 0 keeps all.
        isolated: a point whose 8 nearest are on average farther than this many times half the distance of the samples
            hangs in the air, and is left out; none keeps all.
        colour: "blend": the median of all photos that agree on a point, so that a highlight of one is left out.
            "reference": the reference's pixel (EDGS). "sh1": how it changes with the direction too, as SH of degree 1
            fitted to these photos (EDGS's paper fits all degrees).
        radius: of a point. "footprint": the spacing wanted there. "neighbours": the mean distance to the 3 nearest
            points. "both": the smaller one, so that a lonely point is no blob.
        radius_factor: times that radius.
        opacity: of the points, in (0, 1). EDGS's 0.5 instead of 3DGS's 0.1: the points are on surfaces, and what is
            half opaque hides what lies behind it from the first step on.
        union_sfm: SfM's points come along; where a scene has poses only, they are triangulated first.
        gaps: where no point lies in a photo (blank walls, sky, the edges that no other photo shows), one goes into each
            square of 8 px, or 2.5 times the spacing if that is more. "near": at the depth of the points around it.
            "shell": on a sphere around the scene. "none": nowhere.
    """

    count: int | None = None
    per_reference: int | None = None
    spacing: float = 3.3
    detail: float = 0.8
    matcher: str = "planesweep"
    matcher_settings: tuple[str, ...] = ()
    max_size: int = 640
    references: str = "kmeans"
    max_references: int = 180
    neighbours: int = 4
    scout: bool = True
    min_certainty: float = 0.2
    min_views: int = 2
    agreement: float = 0.5
    min_angle: float = 1.0
    max_error: float = 1.5
    cell: int = 16
    duplicates: float = 1.0
    isolated: float | None = 4.0
    colour: str = "blend"
    radius: str = "both"
    radius_factor: float = 1.0
    opacity: float = 0.5
    union_sfm: bool = False
    gaps: str = "shell"

    def __post_init__(self) -> None:
        for name, least in (
            ("count", 1),
            ("per_reference", 1),
            ("max_size", 32),
            ("max_references", 1),
            ("neighbours", 1),
            ("min_views", 2),
            ("cell", 1),
        ):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"init.{name} is {value}; expected at least {least}.")
        for name in ("detail", "min_certainty", "agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"init.{name} is {getattr(self, name):g}; expected a share from 0 to 1.")
        if not 0 < self.opacity < 1:
            raise ConfigError(f"init.opacity is {self.opacity:g}; expected a number between 0 and 1, both excluded.")
        if not 0 < self.min_angle < 90:
            raise ConfigError(f"init.min_angle is {self.min_angle:g}; expected degrees between 0 and 90.")
        for name in ("spacing", "max_error", "radius_factor"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"init.{name} is {getattr(self, name):g}; expected a positive number.")
        if self.isolated is not None and not 0 < self.isolated < float("inf"):
            raise ConfigError(f"init.isolated is {self.isolated:g}; expected a positive factor, or none.")
        if not 0 <= self.duplicates < float("inf"):
            raise ConfigError(f"init.duplicates is {self.duplicates:g}; expected a number of px, 0 or more.")
        if self.min_views > self.neighbours + 1:
            raise ConfigError(
                f"init.min_views is {self.min_views}, but a reference and its {self.neighbours} neighbours are only "
                f"{self.neighbours + 1} photos.",
                hint=f"Use init.neighbours={self.min_views - 1} or more.",
            )
        for name, known in (("references", REFERENCES), ("colour", COLOURS), ("radius", RADII), ("gaps", GAPS)):
            if getattr(self, name) not in known:
                raise ConfigError(f"init.{name} is '{getattr(self, name)}'.", hint=nearest(getattr(self, name), known))
        self.matcher_config()

    @property
    def needs_points(self) -> bool:
        """Only the union with SfM's points needs the points of a poser."""
        return self.union_sfm

    def require_packages(self) -> None:
        """Raises MissingExtra where the matcher needs a package that is not installed."""
        MATCHERS.load(self.matcher)
        check = getattr(self.matcher_config(), "require_packages", None)
        if check is not None:
            check()

    def matcher_config(self) -> Any:
        """The config of the matcher; None for one that has none. Raises ConfigError for what it does not know."""
        keywords = {}
        for setting in self.matcher_settings:
            key, equals, value = setting.partition("=")
            if not (equals and key):
                raise ConfigError(
                    f"init.matcher_settings: '{setting}' is not a setting; expected key=value.",
                    hint="Several are separated by commas.",
                )
            keywords[key.strip()] = value.strip()
        return settings_from_keywords(MATCHERS.config_class(self.matcher), keywords, f"init.matcher={self.matcher}")
