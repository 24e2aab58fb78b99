"""The settings of ``file``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import ConfigError
from ...io.clouds import require_package, require_reader
from ...io.mesh import OPEN3D_MESHES
from ...io.transforms import as_affine, read_affine
from ...registry import nearest

SAMPLES = ("auto", "surface", "vertices")
ALIGNMENTS = ("none", "rigid", "similarity", "global")


@dataclass(frozen=True, kw_only=True)
class FileConfig:
    """Which points, how many, and how they are brought into the coordinates of the scene's cameras.

    x_scene = alignment · transform · axes · scale · (x_file − offset), in double precision; or by pairs of points.

    Attributes:
        path: a point cloud (.ply .pcd .xyz .pts .las .laz), a mesh (.ply .obj .glb .gltf .stl .off), or a folder with a
            COLMAP model.
        count: number of points drawn on a mesh, and the most that are taken of a cloud, at random where it has more;
            none: 100 000 on a mesh, and at most 1 000 000 of a cloud.
        sample: of a mesh. "surface": points drawn evenly by area (ShapeSplat), coloured by its texture or vertices.
            "vertices": its vertices. "auto": the surface where the file has faces.
        offset: x,y,z that is subtracted first (units of the file), such as the shift that the photogrammetry tool
            took. none: nothing, but where the cloud is in coordinates of its own, far from the cameras (UTM), and no
            transform is given, its centre, which is said.
        scale: factor from the file's units to the scene's.
        axes: which axes of the file become the scene's x, y, z: x,-z,y turns a file with y up into one with z up,
            x,z,-y the reverse.
        transform: scene from file, 4×4: 16 numbers (or 12) row by row, or a text file with them.
        pairs: text file of points that both know, in place of the four above: a line each of x y z in the file and
            x y z in the scene, 3 lines at least; the similarity with the least squared distances.
        align: onto the scene's sparse points, after that placement. "rigid": turned and moved a little, by trimmed
            closest points; "similarity": scaled, too; "global": from any place, turn and size, for clouds that share
            more than half with these points. "none": as placed.
    """

    path: Path | None = None
    count: int | None = None
    sample: str = "auto"
    offset: tuple[float, float, float] | None = None
    scale: float = 1.0
    axes: tuple[str, str, str] = ("x", "y", "z")
    transform: tuple[float, ...] | Path | None = None
    pairs: Path | None = None
    align: str = "none"

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ConfigError(f"init.count is {self.count}; expected at least 1 point, or none.")
        if self.sample not in SAMPLES:
            raise ConfigError(f"init.sample is '{self.sample}'.", hint=nearest(self.sample, list(SAMPLES)))
        if self.offset is not None and not np.isfinite(self.offset).all():
            raise ConfigError(f"init.offset is {self.offset}; expected three finite numbers.")
        if not 0 < self.scale < float("inf"):
            raise ConfigError(f"init.scale is {self.scale:g}; expected a positive factor.")
        letters = sorted(axis.lower().lstrip("+-") for axis in self.axes)
        if letters != ["x", "y", "z"] or any(len(axis) > 2 for axis in self.axes):
            raise ConfigError(
                f"init.axes is {','.join(self.axes)}; expected x, y and z once each, in any order, with or without a "
                "minus.",
                hint="For example init.axes=x,-z,y for a file with y up.",
            )
        if isinstance(self.transform, tuple):
            as_affine(self.transform, "init.transform")
        if self.align not in ALIGNMENTS:
            raise ConfigError(f"init.align is '{self.align}'.", hint=nearest(self.align, list(ALIGNMENTS)))
        plain = FileConfig.__dataclass_fields__
        others = [
            name for name in ("offset", "scale", "axes", "transform") if getattr(self, name) != plain[name].default
        ]
        if self.pairs is not None and others:
            raise ConfigError(
                f"init.pairs and init.{others[0]} both say where the points belong; expected one of them.",
                hint=f"Leave init.{others[0]} out: the pairs are of the file's coordinates as they are.",
            )

    @property
    def needs_points(self) -> bool:
        """Whether the cloud is aligned to the points that the poser leaves."""
        return self.align != "none"

    def require_packages(self) -> None:
        """Raises MissingExtra where the package that reads such a file is absent."""
        if self.path is None or self.path.is_dir():
            return
        if self.path.suffix.lower() in OPEN3D_MESHES:
            require_package("open3d", "open3d", f"{self.path}: reading {self.path.suffix.lower()} files")
        require_reader(self.path)

    def matrix(self) -> np.ndarray:
        """[4, 4] that takes the file's coordinates, less the offset, to the scene's."""
        turn = np.eye(4)
        turn[:3, :3] = 0.0
        for row, axis in enumerate(self.axes):
            turn[row, "xyz".index(axis[-1].lower())] = -self.scale if axis.startswith("-") else self.scale
        if self.transform is None:
            return turn
        given = self.transform
        return (read_affine(given) if isinstance(given, Path) else as_affine(given, "init.transform")) @ turn
