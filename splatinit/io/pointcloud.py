"""Point clouds as PLY: the file that other trainers start from (graphdeco's points3D.ply), plus our optional fields."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import FormatError
from ..types import POINT_FIELDS, PointCloud
from .ply import Pick, columns, every, read_vertices, write_vertices

_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))
_OPTIONAL = ("radius", "opacity", "confidence")
_SH = {9: 3, 24: 8, 45: 15}  # number of f_rest columns → coefficients k


@dataclass(frozen=True)
class RawPoints:
    """Points as a file holds them, before anything is decided about them.

    In double precision, because what surveyors' files hold (metres from the equator) has no room in float32.

    Attributes:
        xyz: [n, 3] float64, not finite where the file has it so.
        total: number of points in the file, of which these n were picked.
        rgb: [n, 3] float32 in [0, 1] where finite; None where the file has no colours.
        normal: [n, 3] float32; None where the file has none, or zeros only.
        radius, opacity, confidence: [n] float32, or None.
        sh: [n, k, 3] float32, or None.
    """

    xyz: np.ndarray
    total: int
    rgb: np.ndarray | None = None
    normal: np.ndarray | None = None
    radius: np.ndarray | None = None
    opacity: np.ndarray | None = None
    confidence: np.ndarray | None = None
    sh: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.xyz)

    def select(self, index: np.ndarray) -> RawPoints:
        """The points that ``index`` (mask or integers) picks, with all their fields."""
        fields = {name: getattr(self, name) for name in POINT_FIELDS}
        return RawPoints(
            total=self.total, **{name: None if value is None else value[index] for name, value in fields.items()}
        )


def read_ply_points(path: Path) -> PointCloud:
    """Read a PLY point cloud, ASCII or binary; mid-grey where it has no colours (see :func:`read_ply_raw`).

    Raises:
        FormatError: as :func:`read_ply_raw`.
        BadPoints: empty, or something is not finite.
    """
    raw = read_ply_raw(path)
    with np.errstate(over="ignore", invalid="ignore"):  # not finite as float32: the check below reports it
        xyz = raw.xyz.astype(np.float32)
    rgb = np.full((len(raw), 3), 0.5, np.float32) if raw.rgb is None else raw.rgb
    more = {name: getattr(raw, name) for name in POINT_FIELDS if name not in ("xyz", "rgb")}
    cloud = PointCloud(xyz=xyz, rgb=rgb, **more)
    cloud.check(str(path))
    return cloud


def read_ply_raw(path: Path, pick: Pick = every) -> RawPoints:
    """The points of a PLY file, ASCII or binary; ``pick`` chooses among them.

    Colours are integers scaled by their type's largest value, or floats in [0, 1]. SH coefficients beyond degree 0 are
    f_rest columns as in a splat (channel-major). Normals that are all zero (writers fill the columns so) are dropped;
    faces are ignored.

    Raises FormatError: not a PLY file, truncated, without x y z, colours out of range, an impossible number of SH
    coefficients, or a trained splat.
    """
    path = Path(path)
    counted = []

    def counting(total: int) -> np.ndarray | None:
        counted.append(total)
        return pick(total)

    vertices = read_vertices(path, counting)
    xyz = columns(vertices, ("x", "y", "z"), np.float64)
    if xyz is None:
        raise FormatError(f"{path}: the vertices have no x y z (found {', '.join(vertices.dtype.names)}).", path=path)
    if "f_dc_0" in vertices.dtype.names:
        raise FormatError(
            f"{path}: this is a trained splat (it has f_dc_0), not a point cloud.",
            hint="Export points with red green blue columns.",
            path=path,
        )
    rgb = None
    for names in _COLOURS:
        found = columns(vertices, names)
        if found is not None:
            kinds = [vertices.dtype[name] for name in names]
            rgb = found / np.float32([np.iinfo(kind).max if kind.kind in "iu" else 1 for kind in kinds])
            break
    finite = () if rgb is None else rgb[np.isfinite(rgb)]
    if len(finite) and not (finite.min() >= 0 and finite.max() <= 1):
        raise FormatError(
            f"{path}: colours range from {finite.min():g} to {finite.max():g}; expected 0 to 255 as uchar, or 0 to 1 "
            "as float.",
            path=path,
        )
    normal = columns(vertices, ("nx", "ny", "nz"))
    with np.errstate(invalid="ignore"):  # of a signalling NaN, which the check below reports
        if normal is not None and not normal.any():
            normal = None
    optional = {name: columns(vertices, (name,)) for name in _OPTIONAL}
    rest = sum(name.startswith("f_rest_") for name in vertices.dtype.names)
    sh = columns(vertices, _rest_names(_SH[rest])) if rest in _SH else None
    if rest and sh is None:
        raise FormatError(
            f"{path}: has {rest} f_rest columns; expected f_rest_0 to f_rest_8, _23 or _44 (SH degree 1 to 3), or "
            "none.",
            path=path,
        )
    return RawPoints(
        xyz=xyz,
        total=counted[0],
        rgb=rgb,
        normal=normal,
        sh=None if sh is None else sh.reshape(len(sh), 3, -1).transpose(0, 2, 1),
        **{name: None if value is None else value[:, 0] for name, value in optional.items()},
    )


def write_ply_points(path: Path, points: PointCloud) -> None:
    """Write x y z nx ny nz (float) red green blue (uchar), and radius opacity confidence f_rest_* (float) where known.

    Absent normals are zero, as graphdeco's reader expects the columns. Written atomically.

    Raises BadPoints for a cloud that is empty or not finite.
    """
    points.check(f"writing {path}")
    optional = [name for name in _OPTIONAL if getattr(points, name) is not None]
    dtype = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    dtype += [(name, "u1") for name in ("red", "green", "blue")] + [(name, "<f4") for name in optional]
    rest = _rest_names(0 if points.sh is None else points.sh.shape[1])
    dtype += [(name, "<f4") for name in rest]
    table = np.zeros(len(points), dtype)
    for axis, letter in enumerate("xyz"):
        table[letter] = points.xyz[:, axis]
        if points.normal is not None:
            table[f"n{letter}"] = points.normal[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        table[name] = np.rint(np.clip(points.rgb[:, channel], 0.0, 1.0) * 255.0)
    for name in optional:
        table[name] = getattr(points, name)
    for name, (channel, k) in zip(rest, np.ndindex(3, len(rest) // 3), strict=True):
        table[name] = points.sh[:, k, channel]
    write_vertices(path, table)


def _rest_names(k: int) -> tuple[str, ...]:
    return tuple(f"f_rest_{i}" for i in range(3 * k))
