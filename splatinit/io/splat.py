"""Trained splats as PLY in the layout of 3DGS (Kerbl et al. 2023), which every viewer reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import FormatError
from ..types import Gaussians
from .ply import columns, read_vertices, write_vertices

_REST = {0: 0, 9: 3, 24: 8, 45: 15}  # number of f_rest columns → coefficients k beyond degree 0


def _names(k: int) -> tuple[str, ...]:
    """The columns of a splat in their order."""
    rest = tuple(f"f_rest_{i}" for i in range(3 * k))
    scales, rotation = tuple(f"scale_{i}" for i in range(3)), tuple(f"rot_{i}" for i in range(4))
    return ("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity", *scales, *rotation)


def write_splat_ply(path: Path, gaussians: Gaussians) -> None:
    """Write x y z nx ny nz f_dc_* f_rest_* opacity scale_* rot_*, all float32 little endian, atomically.

    f_rest is channel-major (all of R, then G, then B); opacity is the logit, scales are logs, the rotation is wxyz and
    is written with unit length (some viewers do not normalise); normals are zero. n = 0 is a valid, empty file.
    """
    n, k = len(gaussians), gaussians.shN.shape[1]
    parts = {name: tensor.detach().to("cpu", torch.float32).numpy() for name, tensor in gaussians.tensors().items()}
    quats = parts["quats"] / np.maximum(np.linalg.norm(parts["quats"], axis=1, keepdims=True), 1e-12)
    rows = np.concatenate(
        [
            parts["means"],
            np.zeros((n, 3), np.float32),
            parts["sh0"].reshape(n, 3),
            parts["shN"].transpose(0, 2, 1).reshape(n, 3 * k),
            parts["logit_opacities"][:, None],
            parts["log_scales"],
            quats,
        ],
        axis=1,
    ).astype("<f4")
    write_vertices(path, rows.view([(name, "<f4") for name in _names(k)])[:, 0])


def read_splat_ply(path: Path) -> Gaussians:
    """Read a splat of SH degree 0 to 3, in any order of its columns.

    Raises FormatError: not a PLY file, truncated, a column is missing, an impossible number of SH coefficients, or
    rows with non-finite numbers.
    """
    path = Path(path)
    vertices = read_vertices(path)
    rest = sum(name.startswith("f_rest_") for name in vertices.dtype.names)
    if rest not in _REST:
        raise FormatError(f"{path}: has {rest} f_rest columns; expected 0, 9, 24 or 45 (SH degree 0 to 3).", path=path)
    k = _REST[rest]
    names = [name for name in _names(k) if name not in ("nx", "ny", "nz")]
    missing = [name for name in names if name not in vertices.dtype.names]
    if missing:
        raise FormatError(
            f"{path}: not a 3DGS splat, the columns {', '.join(missing[:4])} are missing.",
            hint="A point cloud is no splat: give it to an initializer instead.",
            path=path,
        )
    table = columns(vertices, tuple(names))
    bad = ~np.isfinite(table).all(axis=1)
    if bad.any():
        raise FormatError(
            f"{path}: {int(bad.sum())} of {len(table)} Gaussians have non-finite numbers "
            f"(the first is number {int(np.argmax(bad))}).",
            path=path,
        )
    sizes = (3, 3, 3 * k, 1, 3, 4)
    xyz, dc, f_rest, opacity, scales, quats = np.split(table, np.cumsum(sizes)[:-1], axis=1)

    def tensor(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values))

    n = len(table)
    return Gaussians(
        means=tensor(xyz),
        quats=tensor(quats),
        log_scales=tensor(scales),
        logit_opacities=tensor(opacity[:, 0]),
        sh0=tensor(dc.reshape(n, 1, 3)),
        shN=tensor(f_rest.reshape(n, 3, k).transpose(0, 2, 1)),
    )
