"""The points of a file, or points on its mesh, in the file's own coordinates."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import BadPoints, FormatError
from ...geometry.surface import Surface
from ...io.clouds import CLOUDS, read_cloud
from ...io.colmap_model import read_model
from ...io.mesh import OPEN3D_MESHES, Mesh, read_mesh
from ...io.ply import has_faces
from ...io.pointcloud import RawPoints
from ...memory import spaced
from ...types import POINT_FIELDS
from .config import FileConfig

MOST = 1_000_000  # points of a cloud where no number is asked for: what 1.3 GB of memory can train
ON_MESH = 100_000  # points on a mesh where no number is asked for, as ``random`` and ``depth`` draw


def read_points(config: FileConfig, path: Path, seed: int, notes: list[str]) -> RawPoints:
    """The points that ``config`` asks for; what was left out or drawn is added to ``notes``.

    Raises FormatError for a file that is none, BadPoints for a surface that is asked for and not there.
    """
    most = config.count or MOST

    def pick(total: int) -> np.ndarray | None:
        if total <= most:
            return None
        notes.append(f"{spaced(most)} of its {spaced(total)} points were drawn at random (init.count)")
        return np.sort(np.random.default_rng(seed).choice(total, most, replace=False, shuffle=False))

    if path.is_dir():
        cloud = read_model(path).points.cloud()
        fields = {name: getattr(cloud, name) for name in POINT_FIELDS}
        raw = RawPoints(total=len(cloud), **{**fields, "xyz": cloud.xyz.astype(np.float64)})
        index = pick(len(cloud))
        return raw if index is None else raw.select(index)
    suffix = path.suffix.lower()
    if suffix not in CLOUDS and suffix not in OPEN3D_MESHES:
        raise FormatError(
            f"{path}: neither a point cloud nor a mesh is known by the ending '{suffix}'; expected one of "
            f"{', '.join([*CLOUDS, *OPEN3D_MESHES])}, or a COLMAP model folder.",
            path=path,
        )
    is_mesh = suffix in OPEN3D_MESHES or (suffix == ".ply" and has_faces(path))
    if config.sample == "surface" and not is_mesh:
        raise BadPoints(
            f"{path}: has no faces, so that it has no surface to sample (init.sample=surface).",
            hint="init.sample=auto takes its points as they are.",
        )
    if not is_mesh or (suffix == ".ply" and config.sample == "vertices"):
        return read_cloud(path, pick)
    mesh = read_mesh(path)
    notes += mesh.notes
    if config.sample == "vertices":
        raw = RawPoints(mesh.vertices, len(mesh.vertices), rgb=mesh.rgb)
        index = pick(len(mesh.vertices))
        return raw if index is None else raw.select(index)
    return _sampled(mesh, path, config.count or ON_MESH, seed, notes)


def _sampled(mesh: Mesh, path: Path, count: int, seed: int, notes: list[str]) -> RawPoints:
    whole = np.isfinite(mesh.vertices[mesh.triangles]).all(axis=(1, 2))
    if not whole.any():
        raise BadPoints(
            f"{path}: none of its {len(whole)} triangles has finite corners.", hint="Export the mesh again."
        )
    if not whole.all():
        notes.append(
            f"{spaced(int((~whole).sum()))} of {spaced(len(whole))} triangles have corners that are not finite and "
            "were left out"
        )
        mesh = mesh.select(whole)
    # Less a point of the mesh, so that far coordinates cost the areas no digits.
    origin = mesh.vertices[mesh.triangles[0, 0]]
    used, triangles = np.unique(mesh.triangles, return_inverse=True)
    surface = Surface(mesh.vertices[used] - origin, triangles.reshape(-1, 3))
    triangle, weights = surface.places(count, seed)
    corners = surface.corners[triangle]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    notes.append(f"{spaced(count)} points on the surface of {spaced(len(mesh.triangles))} triangles")
    return RawPoints(
        np.einsum("nc,nca->na", weights, corners) + origin,
        count,
        rgb=mesh.colours(triangle, weights),
        normal=(normal / length).astype(np.float32) if (length > 0).all() else None,
    )


def finite(path: Path, raw: RawPoints, notes: list[str]) -> RawPoints:
    """The points whose place and colour are finite; normals of which one is not are dropped."""
    good = np.isfinite(raw.xyz).all(axis=1)
    for name in ("rgb", "radius", "opacity", "confidence", "sh"):
        value = getattr(raw, name)
        if value is not None:
            good &= np.isfinite(value.reshape(len(raw), -1)).all(axis=1)
    if len(raw) and not good.any():
        raise BadPoints(
            f"{path}: none of its {len(raw)} points has a finite place and colour.", hint="Export the file again."
        )
    if not good.all():
        notes.append(f"{spaced(int((~good).sum()))} of {spaced(len(raw))} points are not finite and were left out")
        raw = raw.select(good)
    if raw.normal is not None and not (np.isfinite(raw.normal).all() and raw.normal.any(axis=1).all()):
        notes.append("its normals are not used: some are not finite or have no direction")
        raw = _without(raw, "normal")
    return raw


def _without(raw: RawPoints, name: str) -> RawPoints:
    fields = {field: getattr(raw, field) for field in POINT_FIELDS if field != name}
    return RawPoints(total=raw.total, **fields)
