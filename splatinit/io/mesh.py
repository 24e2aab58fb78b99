"""Triangle meshes as PLY: ground truth that a scene was rendered from, or a scanner's surface."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import FormatError
from .ply import columns, read_triangles, read_vertices


def read_ply_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [n, 3] float32 (scene units) and triangles [m, 3] int64 of a PLY mesh, ASCII or binary.

    Polygons of more than three corners are cut into fans. Raises FormatError: not a PLY file, truncated, without
    x y z, without faces, or with a face that names no vertex.
    """
    path = Path(path)
    vertices = read_vertices(path)
    xyz = columns(vertices, ("x", "y", "z"))
    if xyz is None:
        raise FormatError(f"{path}: the vertices have no x y z (found {', '.join(vertices.dtype.names)}).", path=path)
    return xyz, read_triangles(path)
