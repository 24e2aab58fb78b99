"""From the file's coordinates to the scene's."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...geometry.alignment import from_pairs
from ...geometry.rigid import project, transform
from ...io.pointcloud import RawPoints
from ...io.transforms import read_pairs
from ...types import PointCloud, Scene
from .config import FileConfig

# A cloud whose centre is so many times farther from the cameras than both are large is in coordinates of its own.
FAR = 20.0
# Share of the extent that the steps of float32 may be, before they are said: a thousandth of a pixel of 1000.
COARSE = 1e-6
LOOKED_AT = 10_000  # points that are projected to see whether the cameras see any
SEEN = 0.01  # a smaller share of them is said


def by_pairs(path: Path, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Offset [3] and matrix [4, 4] that bring the first points of the pairs in ``path`` to the second ones.

    Raises FormatError for a file that is none, BadPoints for fewer than three pairs, or pairs on a line.
    """
    a, b = read_pairs(path)
    offset = np.rint(a.mean(axis=0))  # so that far coordinates cost no digits
    found, residuals = from_pairs(a - offset, b, str(path))
    worst = int(residuals.argmax())
    notes.append(
        f"{len(a)} pairs of points fit with a scale of {found.scale:.6g} within {np.sqrt((residuals**2).mean()):.3g} "
        f"scene units (root mean square), pair {worst + 1} the worst with {residuals[worst]:.3g}"
    )
    return offset, found.matrix()


def offset_of(config: FileConfig, xyz: np.ndarray, matrix: np.ndarray, scene: Scene, notes: list[str]) -> np.ndarray:
    """What is subtracted from the file's coordinates [3]; see ``FileConfig.offset``."""
    if config.offset is not None:
        return np.array(config.offset)
    if config.transform is not None or len(xyz) == 0:
        return np.zeros(3)
    low, high = np.quantile(xyz, (0.01, 0.99), axis=0)
    centre, size = (low + high) / 2, config.scale * float(np.linalg.norm(high - low))
    cameras = np.stack([view.camera.center for view in scene.train]).mean(axis=0)
    away = float(np.linalg.norm(transform(matrix, centre[None])[0] - cameras))
    if away <= FAR * (size + scene.extent):
        return np.zeros(3)
    # A number that a person can type again.
    unit = 10.0 ** np.floor(np.log10(size / config.scale)) if size > 0 else 1.0
    offset = np.rint(centre / unit) * unit
    shown = ",".join(f"{value:.12g}" for value in offset)
    notes.append(
        f"its points are {away:.3g} scene units from the cameras, in coordinates of their own, so that their "
        f"centre was subtracted (init.offset={shown}); check that the cameras see them, or give init.transform"
    )
    return offset


def placed(raw: RawPoints, offset: np.ndarray, matrix: np.ndarray, notes: list[str]) -> PointCloud:
    """The cloud in the scene's coordinates; only here do the numbers become float32."""
    A = matrix[:3, :3]
    still = not offset.any() and np.array_equal(matrix, np.eye(4))
    xyz = raw.xyz if still else transform(matrix, raw.xyz - offset)
    with np.errstate(over="ignore"):  # beyond float32 becomes inf, which PointCloud.check reports
        xyz = xyz.astype(np.float32)
    determinant = float(np.linalg.det(A))
    factor = abs(determinant) ** (1 / 3)
    if determinant < 0:
        notes.append("the axes or the transform mirror it")
    rgb = raw.rgb
    if rgb is None:
        notes.append("it has no colours: the points start grey")
        rgb = np.full((len(raw), 3), 0.5, np.float32)
    normal, sh = raw.normal, raw.sh
    if normal is not None and not still:
        normal = normal.astype(np.float64) @ np.linalg.inv(A)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    if sh is not None and not np.allclose(A, factor * np.eye(3), atol=1e-6 * factor):
        notes.append("its SH coefficients are not used: they belong to the axes of the file")
        sh = None
    if len(xyz) > 1 and np.isfinite(xyz).all():
        low, high = np.quantile(xyz, (0.01, 0.99), axis=0)
        step, extent = float(np.spacing(np.abs((low + high) / 2).max().astype(np.float32))), float((high - low).max())
        if step > COARSE * extent:
            notes.append(
                f"at coordinates of {np.abs((low + high) / 2).max():.3g}, float32 keeps steps of {step:.2g} scene "
                f"units, of an extent of {extent:.3g}: move the scene nearer to its origin"
            )
    return PointCloud(
        xyz=xyz,
        rgb=rgb,
        radius=None if raw.radius is None else factor * raw.radius,
        opacity=raw.opacity,
        normal=normal,
        confidence=raw.confidence,
        sh=sh,
    )


def look(xyz: np.ndarray, scene: Scene, notes: list[str]) -> None:
    """Say so where the cameras see next to nothing of the points: then they are not in the cameras' coordinates."""
    some = xyz[:: max(1, len(xyz) // LOOKED_AT)]
    seen = np.zeros(len(some), bool)
    for view in scene.train:
        px, _ = project(view.camera.K, view.camera.cam_from_world, some)
        with np.errstate(invalid="ignore"):  # NaN behind the camera: outside
            seen |= ((px >= 0) & (px < (view.camera.width, view.camera.height))).all(axis=1)
    if seen.mean() < SEEN:
        notes.append(
            f"only {seen.mean():.1%} of the points are in the view of a camera: they are probably not in the cameras' "
            "coordinates (init.offset, init.scale, init.axes, init.transform)"
        )
