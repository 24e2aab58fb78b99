"""``file``: points or a mesh that the user brings: a laser scan, dense stereo, another tool's cloud, a saved start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import plain
from ..errors import BadPoints, ConfigError, FormatError
from ..geometry.rigid import project, transform
from ..geometry.surface import Surface
from ..io.clouds import CLOUDS, read_cloud, require_package, require_reader
from ..io.colmap_model import read_model
from ..io.mesh import OPEN3D_MESHES, Mesh, read_mesh
from ..io.ply import has_faces
from ..io.pointcloud import RawPoints
from ..io.transforms import as_affine, read_affine
from ..memory import spaced
from ..progress import Progress
from ..registry import nearest
from ..types import POINT_FIELDS, Initialization, PointCloud, Scene
from .base import CostMeter

SAMPLES = ("auto", "surface", "vertices")
MOST = 1_000_000  # points of a cloud where no number is asked for: what 1.3 GB of memory can train
ON_MESH = 100_000  # points on a mesh where no number is asked for, as ``random`` and ``depth`` draw
# A cloud whose centre is so many times farther from the cameras than both are large is in coordinates of its own.
FAR = 20.0
# Share of the extent that the steps of float32 may be, before they are said: a thousandth of a pixel of 1000.
COARSE = 1e-6
LOOKED_AT = 10_000  # points that are projected to see whether the cameras see any
SEEN = 0.01  # a smaller share of them is said


@dataclass(frozen=True, kw_only=True)
class FileConfig:
    """Which points, how many, and how they are brought into the coordinates of the scene's cameras.

    x_scene = transform · axes · scale · (x_file − offset), in double precision.

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
    """

    path: Path | None = None
    count: int | None = None
    sample: str = "auto"
    offset: tuple[float, float, float] | None = None
    scale: float = 1.0
    axes: tuple[str, str, str] = ("x", "y", "z")
    transform: tuple[float, ...] | Path | None = None

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


class File:
    """The points of a file, or points on its mesh, in the coordinates of the scene."""

    def __init__(self, config: FileConfig = FileConfig()) -> None:
        self.config = config

    def initialize(
        self, scene: Scene, *, seed: int, progress: Progress, work_dir: Path | None = None
    ) -> Initialization:
        """Raises ConfigError without a path, FormatError for a file that is none, BadPoints for unusable points."""
        config, path = self.config, self.config.path
        if path is None:
            raise ConfigError("init.name=file needs the file.", hint="Add init.path=points.ply.")
        if not path.exists():
            raise BadPoints(
                f"{path} does not exist.", hint="init.path is a point cloud, a mesh or a COLMAP model folder."
            )
        notes: list[str] = []
        with CostMeter() as cost:
            matrix = config.matrix()
            with cost.stage("read"):
                raw = self._read(path, seed, notes)
                raw = _finite(path, raw, notes)
            with cost.stage("place"):
                offset = self._offset(raw.xyz, matrix, scene, notes)
                points = _placed(raw, offset, matrix, notes)
                points.check(str(path))
                _look(points.xyz, scene, notes)
        for text in notes:
            progress.note(f"{path.name}: {text}")
        return Initialization(
            points=points,
            seconds=cost.seconds,
            peak_memory_mb=cost.peak_memory_mb,
            recipe={
                "initializer": "file",
                **{name: plain(value) for name, value in vars(config).items()},
                "offset": offset.tolist(),
                "matrix": matrix.tolist(),
                "seed": seed,
            },
            notes=tuple(notes),
        )

    # ------------------------------------------------------------------------------------------------------- reading
    def _read(self, path: Path, seed: int, notes: list[str]) -> RawPoints:
        config, most = self.config, self.config.count or MOST

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
        if config.sample == "vertices":
            raw = RawPoints(mesh.vertices, len(mesh.vertices), rgb=mesh.rgb)
            index = pick(len(mesh.vertices))
            return raw if index is None else raw.select(index)
        return self._sampled(mesh, seed, notes)

    def _sampled(self, mesh: Mesh, seed: int, notes: list[str]) -> RawPoints:
        count = self.config.count or ON_MESH
        # Less a point of the mesh, so that far coordinates cost the areas no digits.
        origin = np.where(np.isfinite(mesh.vertices[0]), mesh.vertices[0], 0.0)
        surface = Surface(mesh.vertices - origin, mesh.triangles)
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

    # ------------------------------------------------------------------------------------------------------- placing
    def _offset(self, xyz: np.ndarray, matrix: np.ndarray, scene: Scene, notes: list[str]) -> np.ndarray:
        """What is subtracted from the file's coordinates [3]; see ``FileConfig.offset``."""
        config = self.config
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


def _finite(path: Path, raw: RawPoints, notes: list[str]) -> RawPoints:
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


def _placed(raw: RawPoints, offset: np.ndarray, matrix: np.ndarray, notes: list[str]) -> PointCloud:
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


def _look(xyz: np.ndarray, scene: Scene, notes: list[str]) -> None:
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
