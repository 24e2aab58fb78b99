"""COLMAP models, binary and text, read and written in numpy alone (no pycolmap).

The file layouts are those of COLMAP's documentation (colmap.github.io/format.html). Pixel centres are at +0.5, poses
are cam_from_world with quaternions wxyz: the same as ours.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadPoses, FormatError
from ..types import PointCloud, View
from .atomic import write_bytes, write_text
from .lenses import Distortion
from .text import read_lines, to_floats, to_ints

# COLMAP's models by id (those of 4.x included): name and number of parameters. All are parsed.
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}
# Those that a pinhole can replace: the number of focal lengths, and the lens, which takes the parameters after cx, cy.
LENSES = {
    "SIMPLE_PINHOLE": (1, "brown"),
    "PINHOLE": (2, "brown"),
    "SIMPLE_RADIAL": (1, "brown"),
    "RADIAL": (1, "brown"),
    "OPENCV": (2, "brown"),
    "FULL_OPENCV": (2, "rational"),
    "FOV": (2, "fov"),
    "SIMPLE_DIVISION": (1, "division"),
    "DIVISION": (2, "division"),
    "EUCM": (2, "eucm"),
    "SIMPLE_FISHEYE": (1, "fisheye"),
    "FISHEYE": (2, "fisheye"),
    "SIMPLE_RADIAL_FISHEYE": (1, "fisheye"),
    "RADIAL_FISHEYE": (1, "fisheye"),
    "OPENCV_FISHEYE": (2, "fisheye"),
    "THIN_PRISM_FISHEYE": (2, "thin_prism_fisheye"),
    "RAD_TAN_THIN_PRISM_FISHEYE": (2, "rad_tan_thin_prism_fisheye"),
}
_PARTS = ("cameras", "images", "points3D")
_NO_POINT = -1


# ------------------------------------------------------------------------------------------------------------- model
@dataclass(frozen=True)
class ColmapCamera:
    """``model`` is COLMAP's name; ``params`` [p] float64 in COLMAP's order (f or fx fy, cx, cy, coefficients)."""

    model: str
    width: int
    height: int
    params: np.ndarray

    def pinhole(self, where: str) -> tuple[np.ndarray, Distortion]:
        """K [3, 3] px and the lens. Raises FormatError for models that no pinhole can replace, and unknown ones."""
        if self.model not in LENSES:
            panorama = self.model == "EQUIRECTANGULAR"
            raise FormatError(
                f"{where}: the camera model {self.model} "
                + ("is a panorama, which no single pinhole can replace" if panorama else "is not known")
                + f"; expected one of {', '.join(LENSES)}.",
                hint="Cut it into pinhole views first (a cube map has six)."
                if panorama
                else "Undistort the scene first: colmap image_undistorter.",
            )
        focals, lens = LENSES[self.model]
        p = [float(value) for value in self.params]
        fx, fy, (cx, cy) = p[0], p[focals - 1], p[focals : focals + 2]
        K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        return K, Distortion(lens, tuple(p[focals + 2 :]))


@dataclass(frozen=True)
class ColmapImage:
    """A posed image: ``qvec`` [4] wxyz and ``tvec`` [3] of cam_from_world; ``xys`` [m, 2] px, ``point3D_ids`` [m]."""

    name: str
    camera_id: int
    qvec: np.ndarray
    tvec: np.ndarray
    xys: np.ndarray
    point3D_ids: np.ndarray

    def cam_from_world(self, where: str) -> np.ndarray:
        """[4, 4]. Raises BadPoses when the quaternion is not finite or zero."""
        with np.errstate(all="ignore"):
            norm = float(np.linalg.norm(self.qvec))
        if not (np.isfinite(norm) and norm > 1e-6 and np.isfinite(self.tvec).all()):
            raise BadPoses(f"{where}: the pose is not finite or its quaternion is zero (qvec {self.qvec}).")
        pose = np.eye(4)
        pose[:3, :3] = _rotation(self.qvec / norm)
        pose[:3, 3] = self.tvec
        return pose


@dataclass(frozen=True)
class ColmapPoints:
    """``ids`` [n] int64, ``xyz`` [n, 3] float64, ``rgb`` [n, 3] uint8, ``error`` [n] px, ``track_lengths`` [n]."""

    ids: np.ndarray
    xyz: np.ndarray
    rgb: np.ndarray
    error: np.ndarray
    track_lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def cloud(self) -> PointCloud:
        """Positions and colours, in the order of the file."""
        with np.errstate(over="ignore", invalid="ignore"):  # not finite as float32: PointCloud.check reports it
            xyz = self.xyz.astype(np.float32)
        return PointCloud(xyz=xyz, rgb=self.rgb.astype(np.float32) / 255.0)


@dataclass(frozen=True)
class ColmapModel:
    """A reconstruction: cameras and images by id, and points."""

    cameras: dict[int, ColmapCamera]
    images: dict[int, ColmapImage]
    points: ColmapPoints


def model_suffix(folder: Path) -> str | None:
    """The kind of model (cameras and images) that ``folder`` holds: ".bin" or ".txt", or None."""
    for suffix in (".bin", ".txt"):
        if all((folder / f"{part}{suffix}").is_file() for part in _PARTS[:2]):
            return suffix
    return None


def read_model(folder: Path) -> ColmapModel:
    """Read the binary model in ``folder``, or the text model where there is no binary one.

    A missing points3D file is an empty set of points.

    Raises:
        FormatError: no model, a truncated file, a count that lies, an unknown camera model, an unknown camera id.
    """
    folder = Path(folder)
    suffix = model_suffix(folder)
    if suffix is None:
        raise FormatError(f"{folder}: no COLMAP model; expected cameras, images and points3D as .bin or .txt.")
    readers: dict[str, tuple[Callable, Callable, Callable]] = {
        ".bin": (_read_cameras_bin, _read_images_bin, _read_points_bin),
        ".txt": (_read_cameras_txt, _read_images_txt, _read_points_txt),
    }
    read_cameras, read_images, read_points = readers[suffix]
    cameras = read_cameras(folder / f"cameras{suffix}")
    images = read_images(folder / f"images{suffix}")
    points_file = folder / f"points3D{suffix}"
    points = read_points(points_file) if points_file.is_file() else _points(points_file, [])
    names = {}
    for key, image in images.items():
        if image.camera_id not in cameras:
            raise FormatError(
                f"{folder / f'images{suffix}'}: image '{image.name}' has camera {image.camera_id}, which is not among "
                f"the {len(cameras)} cameras of the model."
            )
        if image.name in names:
            twice = f"'{image.name}' is there twice (images {names[image.name]} and {key})"
            raise FormatError(f"{folder / f'images{suffix}'}: {twice}.")
        names[image.name] = key
    return ColmapModel(cameras, images, points)


# ------------------------------------------------------------------------------------------------------ binary files
class _Bytes:
    """A cursor over a binary file that refuses to read, or to promise, more than there is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.data = path.read_bytes()
        except OSError as error:
            raise FormatError(f"{path}: cannot be read ({error.strerror}).", path=path) from error
        self.at = 0

    def take(self, layout: struct.Struct) -> tuple:
        self.need(layout.size)
        values = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return values

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        self.need(dtype.itemsize * count)
        values = np.frombuffer(self.data, dtype, count, self.at)
        self.at += dtype.itemsize * count
        return values

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            self.need(len(self.data))
        raw, self.at = self.data[self.at : end], end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.path}: the image name {raw[:80]!r} is not text.", path=self.path) from error

    def count(self, record: int) -> int:
        """A number of records of at least ``record`` bytes each."""
        (n,) = self.take(_U64)
        self.need(n * record, f"it promises {n} records of at least {record} bytes")
        return n

    def need(self, size: int, why: str = "") -> None:
        left = len(self.data) - self.at
        if size > left:
            raise FormatError(
                f"{self.path}: truncated or damaged at byte {self.at}: {why or f'{size} bytes are expected'}, "
                f"but {left} bytes are left.",
                hint="Copy the model again, or export it as text.",
                path=self.path,
            )

    def finish(self) -> None:
        if self.at != len(self.data):
            raise FormatError(
                f"{self.path}: {len(self.data) - self.at} bytes follow the last record; the file is damaged, or the "
                "count at its start is wrong.",
                path=self.path,
            )


_U64 = struct.Struct("<Q")
_CAMERA = struct.Struct("<iiQQ")
_IMAGE = struct.Struct("<i7di")
_POINT = struct.Struct("<q3d3BdQ")
_OBSERVATION = np.dtype([("xy", "<f8", 2), ("id", "<i8")])
_TRACK_ELEMENT = 8  # bytes: image id and index, int32 each


def _read_cameras_bin(path: Path) -> dict[int, ColmapCamera]:
    data = _Bytes(path)
    cameras = {}
    for _ in range(data.count(_CAMERA.size)):
        key, model, width, height = data.take(_CAMERA)
        if model not in _MODELS:
            raise FormatError(f"{path}: camera {key} has the unknown model number {model}.", path=path)
        name, size = _MODELS[model]
        params = data.array(np.dtype("<f8"), size).copy()
        _refuse_twice(path, "camera", key, cameras)
        cameras[key] = _camera(path, key, name, width, height, params)
    data.finish()
    return cameras


def _read_images_bin(path: Path) -> dict[int, ColmapImage]:
    data = _Bytes(path)
    images = {}
    for _ in range(data.count(_IMAGE.size + 1 + _U64.size)):
        key, *pose, camera_id = data.take(_IMAGE)
        name = data.text()
        observations = data.array(_OBSERVATION, data.count(_OBSERVATION.itemsize))
        if not np.isfinite(observations["xy"]).all():
            raise FormatError(f"{path}: image {key} has a feature whose position is not finite.", path=path)
        _refuse_twice(path, "image", key, images)
        images[key] = ColmapImage(
            name=name,
            camera_id=camera_id,
            qvec=np.array(pose[:4]),
            tvec=np.array(pose[4:]),
            xys=observations["xy"].copy(),
            point3D_ids=observations["id"].copy(),
        )
    data.finish()
    return images


def _read_points_bin(path: Path) -> ColmapPoints:
    data = _Bytes(path)
    rows = []
    for _ in range(data.count(_POINT.size)):
        *row, track = data.take(_POINT)
        data.need(track * _TRACK_ELEMENT, f"point {row[0]} promises a track of {track}")
        data.at += track * _TRACK_ELEMENT
        rows.append((*row, track))
    data.finish()
    return _points(path, rows)


def _points(path: Path, rows: Sequence[tuple]) -> ColmapPoints:
    ids = {row[0] for row in rows}
    if len(ids) < len(rows):
        raise FormatError(
            f"{path}: {len(rows) - len(ids)} of {len(rows)} points have the number of another one; expected one each.",
            path=path,
        )
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 9)
    return ColmapPoints(
        ids=np.array([row[0] for row in rows], dtype=np.int64),
        xyz=table[:, 1:4],
        rgb=table[:, 4:7].astype(np.uint8),
        error=table[:, 7],
        track_lengths=table[:, 8].astype(np.int64),
    )


def _camera(path: Path, key: int, model: str, width: int, height: int, params: np.ndarray) -> ColmapCamera:
    if not (1 <= width < 1_000_000 and 1 <= height < 1_000_000):
        raise FormatError(f"{path}: camera {key} is {width}×{height} px; expected a possible image size.", path=path)
    return ColmapCamera(model, int(width), int(height), params)


# -------------------------------------------------------------------------------------------------------- text files
def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, stripped text) of all lines that are not comments; empty lines are kept."""
    for number, line in enumerate(read_lines(path), start=1):
        if not line.startswith("#"):
            yield number, line.strip()


def _bad_line(path: Path, number: int, expected: str) -> FormatError:
    return FormatError(f"{path}, line {number}: damaged; expected {expected}.", path=path)


def _read_cameras_txt(path: Path) -> dict[int, ColmapCamera]:
    sizes = dict(_MODELS.values())
    cameras = {}
    for number, line in _text_lines(path):
        if not line:
            continue
        try:
            words = line.split()
            key, width, height = to_ints((words[0], *words[2:4]))
            model, params = words[1], np.array(to_floats(words[4:]))
            if model in sizes and len(params) != sizes[model]:
                raise ValueError
        except (ValueError, IndexError) as error:
            raise _bad_line(path, number, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]") from error
        _refuse_twice(path, "camera", key, cameras)
        cameras[key] = _camera(path, key, model, width, height, params)
    return cameras


def _read_images_txt(path: Path) -> dict[int, ColmapImage]:
    images = {}
    lines = _text_lines(path)
    for number, line in lines:
        if not line:
            continue
        try:
            key, *pose, camera_id, name = line.split(maxsplit=9)
            numbers = to_floats(pose)
            if len(numbers) != 7:
                raise ValueError
            image_id, camera = to_ints((key, camera_id))
        except ValueError as error:
            raise _bad_line(path, number, "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME") from error
        # The second line of an image holds its features, and is empty when it has none.
        number, features = next(lines, (number, ""))
        try:
            words = features.split()
            xs, ys, ids = to_floats(words[0::3]), to_floats(words[1::3]), to_ints(words[2::3])
            xys = np.stack([xs, ys], axis=1) if xs else np.empty((0, 2))
            point_ids = np.array(ids, dtype=np.int64)
            if len(words) % 3 or not np.isfinite(xys).all():
                raise ValueError
        except (ValueError, OverflowError) as error:
            raise _bad_line(path, number, "triples X Y POINT3D_ID") from error
        _refuse_twice(path, "image", image_id, images)
        images[image_id] = ColmapImage(
            name=name,
            camera_id=camera,
            qvec=np.array(numbers[:4]),
            tvec=np.array(numbers[4:]),
            xys=xys,
            point3D_ids=point_ids,
        )
    return images


def _read_points_txt(path: Path) -> ColmapPoints:
    rows = []
    for number, line in _text_lines(path):
        if not line:
            continue
        fields = line.split()
        try:
            key, *colour = to_ints((fields[0], *fields[4:7]))
            if len(fields) < 8 or len(fields) % 2 or not all(0 <= value <= 255 for value in colour):
                raise ValueError
            *xyz, error_px = to_floats((*fields[1:4], fields[7]))
            # The track is not kept; but a number that is none shows that lines were joined or cut.
            if not 0 <= key < 2**63 or not all(word.isascii() and word.isdecimal() for word in fields[8:]):
                raise ValueError
            rows.append((key, *xyz, *colour, error_px, (len(fields) - 8) // 2))
        except ValueError as error:
            raise _bad_line(path, number, "POINT3D_ID X Y Z R G B ERROR TRACK[] as (IMAGE_ID, POINT2D_IDX)") from error
    return _points(path, rows)


def _refuse_twice(path: Path, what: str, key: int, known: Container[int]) -> None:
    if key in known:
        raise FormatError(f"{path}: {what} {key} is there twice; expected one record for each number.", path=path)


# ----------------------------------------------------------------------------------------------------------- writing
def write_model(folder: Path, views: Sequence[View], points: PointCloud | None, binary: bool = True) -> None:
    """Write a COLMAP model that other trainers can start from.

    Views become PINHOLE cameras at their working size (equal ones are shared) and images numbered from 1 in the order
    given, without features; points have no tracks and error 0. Radius, opacity and the like have no place in it.

    Args:
        folder: for example ``scene/sparse/0``; made if absent. Each file is written atomically.
        points: colours are rounded to 8 bits; None writes an empty points3D.
        binary: .bin, else .txt.
    """
    folder = Path(folder)
    camera_ids: dict[tuple, int] = {}
    images = []
    for index, view in enumerate(views, start=1):
        camera = view.camera
        key = (camera.width, camera.height, camera.fx, camera.fy, float(camera.K[0, 2]), float(camera.K[1, 2]))
        camera_id = camera_ids.setdefault(key, len(camera_ids) + 1)
        pose = camera.cam_from_world
        images.append((index, (*_quaternion(pose[:3, :3]), *pose[:3, 3].tolist()), camera_id, view.name))
    xyz = np.zeros((0, 3)) if points is None else points.xyz.astype(np.float64)
    rgb = np.zeros((0, 3), np.uint8) if points is None else _rgb8(points.rgb)

    if binary:
        cameras_data = _U64.pack(len(camera_ids)) + b"".join(
            _CAMERA.pack(camera_id, 1, key[0], key[1]) + struct.pack("<4d", *key[2:])
            for key, camera_id in camera_ids.items()
        )
        images_data = _U64.pack(len(images)) + b"".join(
            _IMAGE.pack(index, *pose, camera_id) + name.encode() + b"\0" + _U64.pack(0)
            for index, pose, camera_id, name in images
        )
        table = np.zeros(len(xyz), np.dtype("<u8, (3,)<f8, (3,)u1, <f8, <u8"))
        table["f0"], table["f1"], table["f2"] = np.arange(1, len(xyz) + 1), xyz, rgb
        write_bytes(folder / "cameras.bin", cameras_data)
        write_bytes(folder / "images.bin", images_data)
        write_bytes(folder / "points3D.bin", _U64.pack(len(table)) + table.tobytes())
        return
    # repr keeps every bit of a float64.
    cameras_text = ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"]
    cameras_text += [f"{i} PINHOLE {k[0]} {k[1]} {' '.join(map(repr, k[2:]))}" for k, i in camera_ids.items()]
    images_text = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME", "# POINTS2D[] as (X, Y, POINT3D_ID)"]
    for index, pose, camera_id, name in images:
        images_text += [f"{index} {' '.join(repr(float(value)) for value in pose)} {camera_id} {name}", ""]
    points_text = ["# POINT3D_ID X Y Z R G B ERROR TRACK[] as (IMAGE_ID, POINT2D_IDX)"]
    points_text += [
        f"{index} {x!r} {y!r} {z!r} {r} {g} {b} 0"
        for index, ((x, y, z), (r, g, b)) in enumerate(zip(xyz.tolist(), rgb.tolist(), strict=True), start=1)
    ]
    for part, lines in zip(_PARTS, (cameras_text, images_text, points_text), strict=True):
        write_text(folder / f"{part}.txt", "\n".join(lines) + "\n")


def _rgb8(rgb: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(rgb, 0.0, 1.0) * 255.0).astype(np.uint8)


def _rotation(q: np.ndarray) -> np.ndarray:
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _quaternion(R: np.ndarray) -> tuple[float, float, float, float]:
    """Unit wxyz, w ≥ 0, of a rotation: the leading eigenvector of Bar-Itzhack's matrix (2000), stable everywhere."""
    a, b, c = R
    K = np.array(
        [
            [a[0] - b[1] - c[2], 0.0, 0.0, 0.0],
            [b[0] + a[1], b[1] - a[0] - c[2], 0.0, 0.0],
            [c[0] + a[2], c[1] + b[2], c[2] - a[0] - b[1], 0.0],
            [c[1] - b[2], a[2] - c[0], b[0] - a[1], a[0] + b[1] + c[2]],
        ]
    )
    x, y, z, w = np.linalg.eigh(K / 3.0, UPLO="L")[1][:, 3]
    sign = 1.0 if w >= 0 else -1.0
    return float(sign * w), float(sign * x), float(sign * y), float(sign * z)
