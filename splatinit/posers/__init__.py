"""Posers: from photos to posed photos. Each takes an ImageSet and returns a Scene, points included where it has them.

To add one: write ``posers/NAME.py`` with a frozen config dataclass and a class that fulfils
:class:`Poser`, then add its spec below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from ..progress import Progress
from ..registry import Registry, Spec
from ..types import ImageSet, Scene


class Poser(Protocol):
    """ImageSet → Scene. Built with its config."""

    def pose(self, images: ImageSet, *, work_dir: Path | None, progress: Progress) -> Scene:
        """Posed views, split into train and test.

        Args:
            work_dir: the result is kept here (``sparse/0``, a COLMAP model at the working size, and ``poser.json``)
                and taken from here when the photos and settings are the same; None keeps nothing.
        """
        ...


POSERS: Registry[Spec] = Registry("poser")
POSERS.register(
    Spec(
        name="given",
        impl="splatinit.posers.given:Given",
        config="splatinit.posers.given:GivenConfig",
        summary="the poses that came with the photos; without points, SIFT features are triangulated with them",
        source="Schönberger and Frahm 2016 (triangulation)",
    )
)
POSERS.register(
    Spec(
        name="colmap",
        impl="splatinit.posers.colmap:Colmap",
        config="splatinit.posers.colmap:ColmapConfig",
        summary="structure from motion with COLMAP on the CPU, from several focal priors where EXIF has none",
        source="Schönberger and Frahm 2016; global mapper: Pan et al. 2024 (arXiv:2407.20219)",
        needs=("pycolmap",),
    )
)


def choose_poser(images: ImageSet) -> str:
    """The poser that "auto" stands for: "given" where cameras came with the photos, else "colmap"."""
    return "given" if images.cameras else "colmap"


def make_poser(name: str, config: Any = None) -> Poser:
    """The poser ``name`` built with its ``config`` (None: its defaults). Raises MissingExtra, ConfigError."""
    impl = POSERS.load(name)
    return impl(POSERS.config_class(name)() if config is None else config)


__all__ = ["POSERS", "Poser", "choose_poser", "make_poser"]
