"""The second opinion: parsers that are plain, strict and independent of the readers.

Each takes the damaged files and returns the reading that stands in them, or raises Refuse for everything that it does
not fully understand. A reader that answers must agree; a reader may refuse more. A reading is a dict of numbers, texts,
arrays and tuples, of the same keys as targets.py makes from the reader's result.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Reading = dict[str, Any]


class Refuse(Exception):
    """Not a valid file in the strictest sense."""


def need(condition: bool, why: str = "") -> None:
    if not condition:
        raise Refuse(why)


@dataclass
class Cursor:
    """Reads little-endian numbers one after the other, and remembers where each stands."""

    data: bytes
    at: int = 0
    fields: list[tuple[int, str]] = field(default_factory=list)

    def take(self, kind: str) -> Any:
        layout = "<" + kind
        size = struct.calcsize(layout)
        need(self.at + size <= len(self.data), "too short")
        (value,) = struct.unpack_from(layout, self.data, self.at)
        self.fields.append((self.at, layout))
        self.at += size
        return value

    def many(self, kinds: str) -> list[Any]:
        return [self.take(kind) for kind in kinds]

    def end(self) -> None:
        need(self.at == len(self.data), "trailing bytes")


def text_of(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Refuse("not UTF-8") from None


def whole(word: str) -> int:
    need(re.fullmatch(r"[-+]?[0-9]{1,30}", word) is not None, f"no whole number: {word!r}")
    return int(word)


def real(word: str) -> float:
    need(re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", word) is not None, f"no number: {word!r}")
    return float(word)


def any_real(word: bytes) -> float:
    """A number, or what is written in the place of one that is not finite."""
    text = word.decode("ascii", "replace")
    if re.fullmatch(r"[-+]?(nan|inf|infinity)", text, re.IGNORECASE):
        return math.nan
    return real(text)


# ------------------------------------------------------------------------------------------------------------ COLMAP
_PARAMS = {0: 3, 1: 4, 2: 4, 3: 5, 4: 8, 5: 8, 6: 12, 7: 5, 8: 4, 9: 5, 10: 12, 11: 16}
_IDS = {
    "SIMPLE_PINHOLE": 0,
    "PINHOLE": 1,
    "SIMPLE_RADIAL": 2,
    "RADIAL": 3,
    "OPENCV": 4,
    "OPENCV_FISHEYE": 5,
    "FULL_OPENCV": 6,
    "FOV": 7,
    "SIMPLE_RADIAL_FISHEYE": 8,
    "RADIAL_FISHEYE": 9,
    "THIN_PRISM_FISHEYE": 10,
    "RAD_TAN_THIN_PRISM_FISHEYE": 11,
}


def colmap_cameras_bin(cursor: Cursor) -> dict[int, tuple]:
    cameras: dict[int, tuple] = {}
    for _ in range(cursor.take("Q")):
        key, model, width, height = cursor.many("iiQQ")
        need(model in _PARAMS and key not in cameras)
        cameras[key] = (model, width, height, tuple(cursor.many("d" * _PARAMS[model])))
    cursor.end()
    return cameras


def colmap_images_bin(cursor: Cursor) -> dict[int, tuple]:
    images: dict[int, tuple] = {}
    for _ in range(cursor.take("Q")):
        key, *pose = cursor.many("i7d".replace("7d", "ddddddd"))
        camera = cursor.take("i")
        name = b""
        while (byte := cursor.take("c")) != b"\0":
            name += byte
        features = [tuple(cursor.many("ddq")) for _ in range(cursor.take("Q"))]
        need(key not in images)
        images[key] = (tuple(pose), camera, text_of(name), features)
    cursor.end()
    return images


def colmap_points_bin(cursor: Cursor) -> dict[int, tuple]:
    points: dict[int, tuple] = {}
    for _ in range(cursor.take("Q")):
        key, x, y, z, r, g, b, error, track = cursor.many("qdddBBBdQ")
        for _ in range(track):
            cursor.many("ii")
        need(key not in points)
        points[key] = ((x, y, z), (r, g, b), error, track)
    cursor.end()
    return points


def _rows(data: bytes) -> list[str]:
    """The lines; comments are gone, empty lines stay."""
    lines = text_of(data.removeprefix(b"\xef\xbb\xbf")).replace("\r\n", "\n").split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    need(
        not any(ord(c) < 32 and c != "\t" or c in "\x7f\x85\u2028\u2029" for line in lines for c in line),
        "control characters",
    )
    return [line.strip(" \t") for line in lines if not line.startswith("#")]


def _words(line: str, most: int = 0) -> list[str]:
    return re.split(r"[ \t]+", line, maxsplit=most) if line else []


def colmap_cameras_txt(data: bytes) -> dict[int, tuple]:
    cameras: dict[int, tuple] = {}
    for words in map(_words, filter(None, _rows(data))):
        need(len(words) >= 4 and words[1] in _IDS)
        key, model, params = whole(words[0]), _IDS[words[1]], tuple(map(real, words[4:]))
        need(len(params) == _PARAMS[model] and key not in cameras)
        cameras[key] = (model, whole(words[2]), whole(words[3]), params)
    return cameras


def colmap_images_txt(data: bytes) -> dict[int, tuple]:
    images: dict[int, tuple] = {}
    rows = _rows(data)
    while rows:
        words = _words(rows.pop(0), 9)
        if not words:
            continue
        need(len(words) == 10)
        key, pose, camera = whole(words[0]), tuple(map(real, words[1:8])), whole(words[8])
        features = _words(rows.pop(0)) if rows else []
        need(len(features) % 3 == 0 and key not in images)
        triples = [(real(x), real(y), whole(i)) for x, y, i in zip(*[iter(features)] * 3, strict=True)]
        images[key] = (pose, camera, words[9], triples)
    return images


def colmap_points_txt(data: bytes) -> dict[int, tuple]:
    points: dict[int, tuple] = {}
    for words in map(_words, filter(None, _rows(data))):
        need(len(words) >= 8 and len(words) % 2 == 0)
        key, colour = whole(words[0]), tuple(map(whole, words[4:7]))
        for word in words[8:]:
            whole(word)
        need(all(0 <= c <= 255 for c in colour) and key not in points)
        points[key] = (tuple(map(real, words[1:4])), colour, real(words[7]), (len(words) - 8) // 2)
    return points


def colmap_files(folder: Path, suffix: str) -> tuple[dict, dict, dict]:
    data = [(folder / f"{part}{suffix}").read_bytes() for part in ("cameras", "images", "points3D")]
    if suffix == ".bin":
        cameras, images, points = map(Cursor, data)
        return colmap_cameras_bin(cameras), colmap_images_bin(images), colmap_points_bin(points)
    return colmap_cameras_txt(data[0]), colmap_images_txt(data[1]), colmap_points_txt(data[2])


def colmap_fields(name: str, data: bytes) -> list[tuple[int, str]]:
    """Where the numbers of a valid binary file stand."""
    cursor = Cursor(data)
    {"cameras": colmap_cameras_bin, "images": colmap_images_bin, "points3D": colmap_points_bin}[Path(name).stem](cursor)
    return [spot for spot in cursor.fields if spot[1] != "<c"]


def colmap(root: Path, suffix: str) -> Reading:
    """The scene in ``root/sparse/0`` with photos in ``root/images``."""
    cameras, images, points = colmap_files(root / "sparse" / "0", suffix)
    names = [image[2] for image in images.values()]
    need(len(set(names)) == len(names) and len(images) > 0)
    for model, width, height, _ in cameras.values():
        need(model in _PARAMS and width >= 1 and height >= 1)
    views = Views(root)
    for pose, camera, name, features in images.values():
        need(camera in cameras)
        need(all(math.isfinite(value) for feature in features for value in feature))
        model, width, height, params = cameras[camera]
        quaternion, translation = np.array(pose[:4]), np.array(pose[4:])
        file = views.find(root / "images", name)
        if file is None:
            continue
        with np.errstate(all="ignore"):
            norm = np.linalg.norm(quaternion)
        need(math.isfinite(norm) and norm > 1e-6)
        w, x, y, z = quaternion / norm
        R = np.eye(3) + 2 * w * _cross(x, y, z) + 2 * _cross(x, y, z) @ _cross(x, y, z)
        # f cx cy … for the models with one focal length, fx fy cx cy … for the others.
        one = model in (0, 2, 3, 8, 9)
        fx, fy, cx, cy = (params[0], params[0], params[1], params[2]) if one else params[:4]
        views.add(
            file[1], file[0], (fx, fy, cx, cy), R, translation, (width, height), _lens(model, params[3 if one else 4 :])
        )
    reading = views.reading("colmap")
    if points:
        rows = list(points.values())
        with np.errstate(over="ignore"):
            reading["xyz"] = np.array([row[0] for row in rows]).astype(np.float32)
        need(bool(np.isfinite(reading["xyz"]).all()))
        reading["rgb"] = (np.array([row[1] for row in rows]) / 255.0).astype(np.float32)
    return reading


def _cross(x: float, y: float, z: float) -> np.ndarray:
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])


def _lens(model: int, rest: tuple[float, ...]) -> Any:
    """The house's Distortion of COLMAP's coefficients. Its maths is tested elsewhere; here only the numbers count."""
    from splatinit.io.lenses import Distortion

    if model in (0, 1, 2, 3, 4):
        return Distortion("brown", rest)
    names = {5: "fisheye", 6: "rational", 7: "fov", 8: "fisheye", 9: "fisheye", 10: "thin_prism_fisheye"}
    return Distortion(names.get(model, "rad_tan_thin_prism_fisheye"), rest)


# ------------------------------------------------------------------------------------------------------------- views
class Views:
    """Collects the posed photos of a scene file, and gives them in the form of a reading."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, dict[str, Any]] = {}

    def find(self, folder: Path, relative: str) -> tuple[Path, str] | None:
        """(file, normalised name as it is written) of a path in a scene file, None where there is no file."""
        from splatinit.io.images import find_image

        path = self.path(relative)
        try:
            file = find_image(folder / path)
        except (OSError, ValueError):
            return None
        return None if file is None else (file, path)

    def path(self, relative: str) -> str:
        """A path in a scene file without its detours."""
        relative = relative.replace("\\", "/")
        need(relative != "" and "\0" not in relative and not relative.startswith("/"))
        parts: list[str] = []
        for part in relative.split("/"):
            if part == "..":
                need(bool(parts), "leaves the folder")
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        need(bool(parts))
        return "/".join(parts)

    def add(
        self,
        name: str,
        file: Path,
        intrinsics: tuple[float, float, float, float],
        R: np.ndarray,
        t: np.ndarray,
        size: tuple[int, int] | None,
        distortion: Any = None,
        **more: Any,
    ) -> None:
        from dataclasses import replace

        from PIL import Image

        from splatinit.io.images import ImageFile, undistorted

        need(name not in self.rows, "a file twice")
        with Image.open(file) as image:
            width, height = image.size
            alpha = image.mode == "RGBA"
        for_width, for_height = size or (width, height)
        need(1 <= for_width < 1e6 and 1 <= for_height < 1e6)
        need(abs(width * for_height - height * for_width) <= for_width + for_height + 0.01 * width * for_height)
        fx, fy, cx, cy = intrinsics
        need(all(map(math.isfinite, (fx, fy, cx, cy, *R.ravel(), *t))) and fx > 0 and fy > 0)
        need(float(np.abs(R @ R.T - np.eye(3)).max()) <= 1e-3 and np.linalg.det(R) > 0)
        u, _, vt = np.linalg.svd(R)
        across, down = width / for_width, height / for_height
        K = np.array([[fx * across, 0, cx * across], [0, fy * down, cy * down], [0, 0, 1.0]])
        if distortion:
            need(all(map(math.isfinite, distortion.coefficients)))
            _, K = undistorted(replace(ImageFile(name, file, width, height, alpha)), K, distortion)
        self.rows[name] = {"file": file, "size": (width, height), "K": K, "R": u @ vt, "t": t, "alpha": alpha, **more}

    def reading(self, format: str, test: tuple[str, ...] | None = None) -> Reading:
        need(len(self.rows) > 0, "no photo")
        names = tuple(sorted(self.rows))
        white = any(self.rows[name]["alpha"] for name in names)
        reading: Reading = {
            "format": format,
            "names": names,
            "test": test,
            "background": (1.0, 1.0, 1.0) if white else None,
        }
        reading |= {"xyz": None, "rgb": None}
        for name in names:
            row = self.rows[name]
            reading[f"{name}: file"] = os.path.relpath(row["file"], self.root)
            reading[f"{name}: size"] = row["size"]
            reading[f"{name}: alpha"] = row["alpha"]
            if "K" in row:
                reading[f"{name}: K"] = row["K"]
                reading[f"{name}: R"] = row["R"]
                reading[f"{name}: t"] = row["t"]
            for key in ("mask", "depth", "unit"):
                reading[f"{name}: {key}"] = row.get(key)
        return reading


# -------------------------------------------------------------------------------------------------------------- JSON
def json_of(data: bytes) -> Any:
    """Strict JSON: UTF-8 (a BOM is allowed), no key twice. NaN is no number (see ``number``), but may stand there."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        need(len({key for key, _ in pairs}) == len(pairs), "a key twice")
        return dict(pairs)

    try:
        return json.loads(text_of(data.removeprefix(b"\xef\xbb\xbf")), object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise Refuse("not JSON") from None


def number(value: Any) -> float:
    need(isinstance(value, int | float) and not isinstance(value, bool), f"no number: {value!r:.80}")
    need(abs(value) < 1e309, "huge")  # neither NaN
    return float(value)


def matrix(value: Any, shapes: tuple[tuple[int, ...], ...]) -> np.ndarray:
    need(isinstance(value, list))
    rows = [[number(cell) for cell in row] for row in value if isinstance(row, list) or need(False)]
    need(len({len(row) for row in rows}) == 1 and (len(rows), len(rows[0])) in shapes)
    return np.array(rows)


def opengl(value: Any) -> tuple[np.ndarray, np.ndarray]:
    """R, t of cam_from_world in OpenCV axes, of a camera-to-world in OpenGL axes."""
    M = matrix(value, ((4, 4), (3, 4)))
    need(len(M) == 3 or bool(np.allclose(M[3], (0, 0, 0, 1), atol=1e-6)))
    R = (M[:3, :3] @ np.diag([1.0, -1.0, -1.0])).T
    with np.errstate(all="ignore"):
        return R, -R @ M[:3, 3]


# -------------------------------------------------------------------------------------------- nerfstudio and Blender
def frames(root: Path, name: str, views: Views) -> tuple[dict[str, Any], list[str]]:
    """Adds the frames of a transforms file; its data and the names that were added."""
    data = json_of((root / name).read_bytes())
    need(isinstance(data, dict) and isinstance(data.get("frames"), list))
    added = []
    for frame in data["frames"]:
        need(isinstance(frame, dict) and isinstance(frame.get("file_path"), str))
        found = views.find(root, frame["file_path"])
        if found is None:
            continue
        file, relative = found
        both = {**data, **frame}
        view = str(Path(relative).with_name(file.name))

        def value(key: str, both: dict = both) -> float | None:
            return None if both.get(key) is None else number(both[key])

        lens, names = _nerfstudio_lens(both)
        listed = both.get("distortion_params")
        if listed is not None:
            order = names if lens == "rad_tan_thin_prism_fisheye" else ("k1", "k2", "k3", "k4", "p1", "p2")
            need(isinstance(listed, list) and len(listed) == len(order))
            both |= dict(zip(order, listed, strict=True))
        if lens == "brown" and (value("k5") or value("k6")):
            lens, names = "rational", ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
        for key in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2"):
            need(key in names or not value(key))
        from PIL import Image

        with Image.open(file) as image:
            size = image.size
        given = None
        if value("w") is not None and value("h") is not None:
            need(1 <= value("w") < 1e6 and 1 <= value("h") < 1e6)
            given = size = (round(value("w")), round(value("h")))
        focal = []
        for key, angle, pixels in (("fl_x", "camera_angle_x", size[0]), ("fl_y", "camera_angle_y", size[1])):
            if value(key) is not None:
                focal.append(value(key))
            elif value(angle) is not None:
                need(0 < value(angle) < math.pi)
                focal.append(pixels / 2 / math.tan(value(angle) / 2))
            else:
                focal.append(None)
        need(focal != [None, None])
        fx, fy = focal[0] or focal[1], focal[1] or focal[0]
        cx = size[0] / 2 if value("cx") is None else value("cx")
        cy = size[1] / 2 if value("cy") is None else value("cy")
        R, t = opengl(frame.get("transform_matrix"))
        from splatinit.io.lenses import Distortion

        distortion = Distortion(lens, tuple(value(key) or 0.0 for key in names))
        extras: dict[str, Any] = {}
        for key, name in (("mask_path", "mask"), ("depth_file_path", "depth")):
            if frame.get(key) is None:
                continue
            need(isinstance(frame[key], str))
            found = views.find(root, frame[key])
            if found is None:
                continue
            with Image.open(found[0]) as image:
                wide, high = image.size
            with Image.open(file) as image:
                need(abs(wide * image.height - high * image.width) <= image.width + image.height)
            extras[name] = os.path.relpath(found[0], root)
            if name == "depth":
                extras["unit"] = _positive(both, "depth_unit_scale_factor", 0.001) * _positive(
                    data, "applied_scale", 1.0
                )
        views.add(view, file, (fx, fy, cx, cy), R, t, given, distortion, **extras)
        added.append(view)
    return data, added


def _positive(data: dict[str, Any], key: str, default: float) -> float:
    value = default if data.get(key) is None else number(data[key])
    need(0 < value < 1e30)
    return value


def _nerfstudio_lens(both: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The house's name of the lens, and the keys of its coefficients."""
    fisheye = both.get("is_fisheye")
    need(
        fisheye in (None, True, False)
        and not any(both.get(key) for key in ("latlong", "equirectangular", "orthographic"))
    )
    model = both.get("camera_model")
    if model is None:
        model = "OPENCV_FISHEYE" if fisheye else "OPENCV"
    need(isinstance(model, str))
    brown = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")
    if model.upper() in brown and not fisheye:
        return "brown", ("k1", "k2", "p1", "p2", "k3")
    need(model.upper() in (*brown, "OPENCV_FISHEYE", "FISHEYE"))
    return "fisheye", ("k1", "k2", "k3", "k4")


def nerfstudio(root: Path) -> Reading:
    views = Views(root)
    data, _ = frames(root, "transforms.json", views)
    lists = {key: data.get(f"{key}_filenames") for key in ("train", "val", "test")}
    if all(value is None for value in lists.values()):
        reading = views.reading("nerfstudio")
    else:
        for value in lists.values():
            need(value is None or isinstance(value, list) and all(isinstance(item, str) for item in value))
        reading = split(views, "nerfstudio", lists["train"], lists["test"] or lists["val"])
    if data.get("ply_file_path") is not None:
        need(isinstance(data["ply_file_path"], str))
        file = root / views.path(data["ply_file_path"])
        if os.path.isfile(file):
            points = ply_points(file.read_bytes())
            scale = np.float32(_positive(data, "applied_scale", 1.0))
            reading |= {"xyz": points["xyz"] * scale, "rgb": points["rgb"]}
            need(bool(np.isfinite(reading["xyz"]).all()))
    return reading


def blender(root: Path) -> Reading:
    views = Views(root)
    _, train = frames(root, "transforms_train.json", views)
    _, test = frames(root, "transforms_test.json", views)
    need(bool(train) and bool(test))
    return views.reading("blender", tuple(sorted(test)))


# ------------------------------------------------------------------------------------------------------------ splits
def split(views: Views, format: str, train: list[str] | None, test: list[str] | None) -> Reading:
    """The reading of a scene after its lists of train and test names; images in neither are left out."""
    names = set(views.rows)
    sets = []
    for listed in (train, test):
        found = None if listed is None else set().union(*(_meant(entry, names) for entry in listed))
        need(not listed or bool(found))
        sets.append(found)
    in_train, in_test = sets
    in_test = names - (in_train or set()) if in_test is None else in_test
    in_train = names - in_test if in_train is None else in_train
    need(not in_train & in_test)
    views.rows = {name: row for name, row in views.rows.items() if name in in_train | in_test}
    return views.reading(format, tuple(sorted(in_test)) if in_test else None)


def _meant(entry: str, names: set[str]) -> set[str]:
    """The name that an entry means: the longest agreement wins, folders may be missing on either side."""
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".")]
    if len(parts) > 64:
        return set()
    absolute = entry.replace("\\", "/").startswith("/")

    def bare(path: str) -> str:
        head, _, last = path.rpartition("/")
        return f"{head}/{last.rsplit('.', 1)[0] if '.' in last[1:] else last}".lstrip("/")

    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        hits = {name for name in names if tail in (name, bare(name))}
        if not hits and start == 0 and not absolute:
            hits = {name for name in names if name.endswith("/" + tail) or bare(name).endswith("/" + tail)}
        need(len(hits) <= 1, "could mean several")
        if hits:
            return hits
    return set()


def listed(data: bytes) -> list[str]:
    """The names of a split file: one a line, # starts a comment."""
    lines = [line.split("#", 1)[0].strip(" \t\r") for line in text_of(data.removeprefix(b"\xef\xbb\xbf")).split("\n")]
    need(not any(ord(c) < 32 and c != "\t" or c in "\x7f\x85\u2028\u2029" for line in lines for c in line))
    return [line for line in lines if line]


# --------------------------------------------------------------------------------------------------------------- PLY
_PLY = {
    "char": "b",
    "int8": "b",
    "uchar": "B",
    "uint8": "B",
    "short": "h",
    "int16": "h",
    "ushort": "H",
    "uint16": "H",
    "int": "i",
    "int32": "i",
    "uint": "I",
    "uint32": "I",
    "float": "f",
    "float32": "f",
    "double": "d",
    "float64": "d",
}
_LIMIT = {
    "b": (-128, 127),
    "B": (0, 255),
    "h": (-32768, 32767),
    "H": (0, 65535),
    "i": (-(2**31), 2**31 - 1),
    "I": (0, 2**32 - 1),
}


def ply(data: bytes) -> tuple[list[tuple[str, str]], list[tuple]]:
    """(property, struct letter) and the rows of the vertices. Elements other than vertices are walked through."""
    match = re.match(rb"ply\r?\n(.*?\n)end_header[ \t]*\r?\n", data, re.DOTALL)
    need(match is not None)
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    format = None
    for line in match[1].decode("ascii", "replace").replace("\r\n", "\n").split("\n")[:-1]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format":
            need(format is None and len(words) == 3 and words[2] == "1.0")
            format = words[1]
        elif words[0] == "element":
            need(len(words) == 3)
            elements.append((words[1], whole(words[2]), []))
            need(elements[-1][1] >= 0)
        else:
            need(words[0] == "property" and bool(elements))
            if words[1:2] == ["list"]:
                need(len(words) == 5 and words[2] in _PLY and words[3] in _PLY)
                elements[-1][2].append((words[4], _PLY[words[2]] + _PLY[words[3]]))
            else:
                need(len(words) == 3 and words[1] in _PLY)
                elements[-1][2].append((words[2], _PLY[words[1]]))
            need(len({name for name, _ in elements[-1][2]}) == len(elements[-1][2]))
    need(format in ("ascii", "binary_little_endian", "binary_big_endian"))
    need([element[0] for element in elements].count("vertex") == 1)
    body = data[match.end() :]
    lines = [line.split() for line in text_of(body).split("\n") if line.strip()] if format == "ascii" else []
    at, found = 0, None
    order = ">" if format == "binary_big_endian" else "<"
    for name, count, properties in elements:
        need(name == "vertex" or count < 10_000)
        rows = []
        for _ in range(count):
            if format == "ascii":
                need(bool(lines))
                row, words = [], lines.pop(0)
                for _, kind in properties:
                    need(bool(words))
                    if len(kind) == 2:
                        length = whole(words.pop(0))
                        need(0 <= length <= len(words))
                        words = words[length:]
                        continue
                    word = words.pop(0)
                    value = real(word)
                    need(kind in "fd" or value.is_integer() and _LIMIT[kind][0] <= value <= _LIMIT[kind][1])
                    row.append(value)
                need(not words)
            else:
                row = []
                for _, kind in properties:
                    if len(kind) == 2:
                        need(at + struct.calcsize(order + kind[0]) <= len(body))
                        (length,) = struct.unpack_from(order + kind[0], body, at)
                        need(float(length).is_integer() and 0 <= length <= len(body))
                        at += struct.calcsize(order + kind[0]) + int(length) * struct.calcsize(order + kind[1])
                        continue
                    need(at + struct.calcsize(order + kind) <= len(body))
                    (value,) = struct.unpack_from(order + kind, body, at)
                    at += struct.calcsize(order + kind)
                    row.append(value)
            rows.append(tuple(row))
        if name == "vertex":
            need(all(len(kind) == 1 for _, kind in properties))
            found = (properties, rows)
    need(not lines and (format == "ascii" or at == len(body)), "trailing data")
    return found


def _column(properties: list[tuple[str, str]], rows: list[tuple], name: str) -> np.ndarray | None:
    for index, (each, _) in enumerate(properties):
        if each == name:
            values = np.array([row[index] for row in rows], dtype=np.float64)
            with np.errstate(over="ignore"):
                return values.astype(np.float32)
    return None


def _columns(properties: list[tuple[str, str]], rows: list[tuple], names: tuple[str, ...]) -> np.ndarray | None:
    found = [_column(properties, rows, name) for name in names]
    return None if any(each is None for each in found) else np.stack(found, axis=1)


def ply_points(data: bytes) -> Reading:
    properties, rows = ply(data)
    need(len(rows) > 0 and "f_dc_0" not in dict(properties))
    reading: Reading = {
        "xyz": _columns(properties, rows, ("x", "y", "z")),
        "rgb": np.full((len(rows), 3), np.float32(0.5)),
    }
    need(reading["xyz"] is not None)
    for names in (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")):
        found = _columns(properties, rows, names)
        if found is not None:
            # Each channel of its own type's scale.
            scales = [1.0 if dict(properties)[name] in "fd" else _LIMIT[dict(properties)[name]][1] for name in names]
            reading["rgb"] = (found.astype(np.float64) / scales).astype(np.float32)
            break
    need(bool(reading["rgb"].min() >= 0 and reading["rgb"].max() <= 1))
    normal = _columns(properties, rows, ("nx", "ny", "nz"))
    reading["normal"] = normal if normal is not None and normal.any() else None
    for name in ("radius", "opacity", "confidence"):
        reading[name] = _column(properties, rows, name)
    k = sum(name.startswith("f_rest_") for name, _ in properties) // 3
    need(sum(name.startswith("f_rest_") for name, _ in properties) in (0, 9, 24, 45))
    reading["sh"] = np.zeros((len(rows), k, 3), np.float32) if k else None
    for channel, index in np.ndindex(3, k):
        column = _column(properties, rows, f"f_rest_{channel * k + index}")
        need(column is not None)
        reading["sh"][:, index, channel] = column
    need(all(value is None or bool(np.isfinite(value).all()) for value in reading.values()))
    return reading


def splat(data: bytes) -> Reading:
    properties, rows = ply(data)
    names = [name for name, _ in properties]
    rest = sum(name.startswith("f_rest_") for name in names)
    need(rest in (0, 9, 24, 45))
    k, n = rest // 3, len(rows)

    def columns(*wanted: str) -> np.ndarray:
        found = _columns(properties, rows, wanted)
        need(found is not None and bool(np.isfinite(found).all()))
        return found.reshape(n, len(wanted))

    sh = np.zeros((n, k, 3), np.float32)
    for channel in range(3):
        for index in range(k):
            sh[:, index, channel] = columns(f"f_rest_{channel * k + index}")[:, 0]
    return {
        "means": columns("x", "y", "z"),
        "quats": columns("rot_0", "rot_1", "rot_2", "rot_3"),
        "log_scales": columns("scale_0", "scale_1", "scale_2"),
        "logit_opacities": columns("opacity")[:, 0],
        "sh0": columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None],
        "shN": sh,
    }


# ------------------------------------------------------------------------------------------------------ camera paths
def camera_path(data: bytes) -> Reading:
    tree = json_of(data)
    need(isinstance(tree, dict))
    own = "cameras" in tree
    rows = tree.get("cameras" if own else "camera_path")
    need(isinstance(rows, list) and bool(rows))
    reading: Reading = {"count": len(rows)}
    for index, row in enumerate(rows):
        need(isinstance(row, dict))
        source = row if own else tree
        keys = ("width", "height") if own else ("render_width", "render_height")
        size = [number(source.get(key)) for key in keys]
        need(all(side.is_integer() and 1 <= side < 1e6 for side in size))
        width, height = map(int, size)
        if own:
            K, pose = matrix(row.get("K"), ((3, 3),)), matrix(row.get("cam_from_world"), ((4, 4),))
        else:
            fov = number(row.get("fov"))
            need(0 < fov < 180)
            focal = height / 2 / math.tan(math.radians(fov) / 2)
            K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
            flat = row.get("camera_to_world")
            need(isinstance(flat, list))
            if flat and not isinstance(flat[0], list):
                need(len(flat) == 16)
                flat = [flat[i : i + 4] for i in range(0, 16, 4)]
            R, t = opengl(flat)
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = R, t
        need(bool(np.isfinite(K).all() and np.isfinite(pose).all()) and K[0, 0] > 0 and K[1, 1] > 0)
        need(np.abs(K[[0, 1, 2, 2], [1, 0, 0, 1]]).max() == 0 and K[2, 2] == 1)
        need(bool(np.allclose(pose[3], (0, 0, 0, 1), atol=1e-6)))
        R = pose[:3, :3]
        need(float(np.abs(R @ R.T - np.eye(3)).max()) <= 1e-3 and np.linalg.det(R) > 0)
        reading |= {f"{index}: size": (width, height), f"{index}: K": K, f"{index}: pose": pose}
    return reading


# ------------------------------------------------------------------------------------------------------ npy and npz
def npy(data: bytes) -> np.ndarray:
    """An array of numbers of exactly as many bytes as its header says (NumPy's format 1 to 3)."""
    need(data[:6] == b"\x93NUMPY" and len(data) > 12 and data[6] in (1, 2, 3))
    size = 2 if data[6] == 1 else 4
    start = 8 + size
    length = int.from_bytes(data[8:start], "little")
    need(length < 10_001 and start + length <= len(data))
    text = data[start : start + length].decode("latin-1")
    match = re.fullmatch(r"\{(.*)\}", re.sub("#.*", "", text).strip(), re.DOTALL)
    need(match is not None)
    found = dict(re.findall(r"'(\w+)': ('[^']*'|True|False|\([^)]*\))", match[1]))
    need(set(found) >= {"descr", "fortran_order", "shape"})
    kind = re.fullmatch(r"'([<>|=]?)([iufb])([1248])'", found["descr"])
    need(kind is not None and kind[2] in "iuf")
    shape = tuple(int(side) for side in re.findall(r"\d+", found["shape"]))
    letter = {
        "i1": "b",
        "i2": "h",
        "i4": "i",
        "i8": "q",
        "u1": "B",
        "u2": "H",
        "u4": "I",
        "u8": "Q",
        "f2": "e",
        "f4": "f",
        "f8": "d",
    }
    letters = letter[kind[2] + kind[3]]
    need(math.prod(shape) * int(kind[3]) == len(data) - start - length)
    order = ">" if kind[1] == ">" else "<"
    values = [value for (value,) in struct.iter_unpack(order + letters, data[start + length :])]
    array = np.array(values, dtype=np.float64)
    return array.reshape(shape, order="F" if found["fortran_order"] == "True" else "C")


def npz(data: bytes) -> dict[str, np.ndarray]:
    """Arrays by name; names once."""
    import io
    import zipfile

    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        for info in file.infolist():
            need(info.file_size < 1 << 20)
            name = info.filename.removesuffix(".npy")
            need(name not in arrays)
            arrays[name] = npy(file.read(info))
    return arrays


# ------------------------------------------------------------------------------------------- LLFF, IDR, NeRF++, NSVF
def _photos(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def llff(root: Path) -> Reading:
    rows = npy((root / "poses_bounds.npy").read_bytes())
    files = _photos(root / "images")
    need(rows.shape == (len(files), 17) and bool(np.isfinite(rows).all()))
    views = Views(root)
    for row, file in zip(rows, files, strict=True):
        M = row[:15].reshape(3, 5)
        size = (round(M[1, 4]), round(M[0, 4]))
        need(min(size) >= 1)
        if abs(8 * size[1] - 6 * size[0]) > sum(size) + 0.01 * 8 * size[1]:
            size = size[::-1]  # height and width the other way round, as the usual loaders would not notice
        columns = np.stack([M[:, 1], M[:, 0], -M[:, 2]], axis=1)  # down right back → right down front
        focal = M[2, 4]
        with np.errstate(all="ignore"):
            t = -columns.T @ M[:, 3]
        views.add(file.name, file, (focal, focal, size[0] / 2, size[1] / 2), columns.T, t, size)
    return views.reading("llff")


def idr(root: Path) -> Reading:
    arrays = npz((root / "cameras_sphere.npz").read_bytes())
    files = _photos(root / "image")
    names = {name for name in arrays if re.fullmatch(r"world_mat_\d+", name)}
    need(names == {f"world_mat_{i}" for i in range(len(files))})
    views = Views(root)
    for i, file in enumerate(files):
        P = arrays[f"world_mat_{i}"]
        need(P.shape in ((4, 4), (3, 4)) and bool(np.isfinite(P).all()))
        need(len(P) == 3 or bool(np.allclose(P[3], (0, 0, 0, 1), atol=1e-6)))
        M = P[:3, :3]
        M, p = M / np.linalg.norm(M[2]), P[:3, 3] / np.linalg.norm(M[2])
        if np.linalg.det(M) < 0:
            M, p = -M, -p
        # K of M Mᵀ = K Kᵀ: upper triangular with a positive diagonal, by Cholesky from the lower right.
        S = (M @ M.T)[::-1, ::-1]
        K = np.linalg.cholesky(S)[::-1, ::-1]
        K = K / K[2, 2]
        R = np.linalg.solve(K, M)
        t = np.linalg.solve(K, p)
        need(abs(K[0, 1]) * HEIGHT / (2 * K[1, 1]) <= 0.25)
        views.add(
            file.name, file, (K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5), R, t, None, mask=f"mask/{file.name}"
        )
        views.rows[file.name]["alpha"] = True
    return views.reading("idr")


HEIGHT = 6  # px of all photos; see targets.py


def _matrix_text(path: Path) -> np.ndarray:
    words = text_of(path.read_bytes()).split()
    need(len(words) == 16)
    return np.array([real(word) for word in words]).reshape(4, 4)


def _k_of(M: np.ndarray) -> tuple[float, float, float, float]:
    need(
        bool(np.allclose(M[2, :3], (0, 0, 1), atol=1e-6))
        and M[1, 0] == 0
        and abs(M[0, 1]) * HEIGHT / (2 * abs(M[1, 1])) <= 0.25
    )
    return M[0, 0], M[1, 1], M[0, 2], M[1, 2]


def _opencv(M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    need(bool(np.allclose(M[3], (0, 0, 0, 1), atol=1e-6)))
    with np.errstate(all="ignore"):
        return M[:3, :3].T, -M[:3, :3].T @ M[:3, 3]


def nerfpp(root: Path) -> Reading:
    views, test = Views(root), []
    for part in ("train", "test"):
        for file in _photos(root / part / "rgb"):
            R, t = _opencv(_matrix_text(root / part / "pose" / f"{file.stem}.txt"))
            K = _k_of(_matrix_text(root / part / "intrinsics" / f"{file.stem}.txt"))
            name = file.relative_to(root).as_posix()
            views.add(name, file, K, R, t, None)
            if part == "test":
                test.append(name)
    return views.reading("nerfpp", tuple(test))


def nsvf(root: Path) -> Reading:
    views = Views(root)
    words = [real(word) for word in text_of((root / "intrinsics.txt").read_bytes()).split()]
    need(all(map(math.isfinite, words)))
    if len(words) == 16:
        size, K = None, _k_of(np.array(words).reshape(4, 4))
    else:
        need(len(words) >= 6 and all(1 <= side < 1e6 for side in words[-2:]))
        size, K = (round(words[-1]), round(words[-2])), (words[0], words[0], words[1], words[2])
    for file in _photos(root / "rgb"):
        R, t = _opencv(_matrix_text(root / "pose" / f"{file.stem}.txt"))
        views.add(file.name, file, K, R, t, size)
    return views.reading("nsvf", tuple(sorted(name for name in views.rows if name.startswith("2_"))))


# ----------------------------------------------------------------------------------------------- Polycam and Record3D
def polycam(root: Path) -> Reading:
    views, folder = Views(root), root / "keyframes"
    for file in sorted((folder / "cameras").glob("*.json")):
        data = json_of(file.read_bytes())
        need(isinstance(data, dict))
        rows = [[number(data.get(f"t_{row}{column}")) for column in range(4)] for row in range(3)]
        fx, fy, cx, cy, width, height = (number(data.get(key)) for key in ("fx", "fy", "cx", "cy", "width", "height"))
        need(1 <= width < 1e6 and 1 <= height < 1e6)
        R, t = opengl(rows)
        image = folder / "images" / f"{file.stem}.png"
        depth = folder / "depth" / f"{file.stem}.png"
        extras = {"depth": os.path.relpath(depth, root), "unit": 0.001} if depth.is_file() else {}
        name = image.relative_to(root).as_posix()
        views.add(name, image, (fx, fy, cx, cy), R, t, (round(width), round(height)), **extras)
    return views.reading("polycam")


def record3d(root: Path) -> Reading:
    data = json_of((root / "metadata.json").read_bytes())
    need(isinstance(data, dict))
    files = sorted((root / "rgb").glob("*.png"), key=lambda file: int(file.stem))

    def table(key: str, columns: int) -> list[list[float]]:
        need(
            isinstance(data.get(key), list) and all(isinstance(row, list) and len(row) == columns for row in data[key])
        )
        return [[number(value) for value in row] for row in data[key]]

    poses = table("poses", 7)
    if "perFrameIntrinsicCoeffs" in data:
        intrinsics = table("perFrameIntrinsicCoeffs", 4)
    else:
        data["K"] = [data.get("K")]
        K = table("K", 9)[0]
        intrinsics = [[K[0], K[4], K[6], K[7]]] * len(poses)
    width, height = number(data.get("w")), number(data.get("h"))
    need(len(intrinsics) == len(poses) >= len(files) and 0 < width < 1e6 and 0 < height < 1e6)
    need(any(pose != poses[0] for pose in poses))
    views = Views(root)
    for pose, values, file in zip(poses, intrinsics, files, strict=False):
        length = math.hypot(*pose[:4])
        need(0.99 < length < 1.01)
        x, y, z, w = (value / length for value in pose[:4])
        R = np.eye(3) + 2 * w * _cross(x, y, z) + 2 * _cross(x, y, z) @ _cross(x, y, z)
        rows = np.concatenate([R, np.array(pose[4:])[:, None]], axis=1).tolist()
        turned, t = opengl(rows)
        name = file.relative_to(root).as_posix()
        views.add(name, file, tuple(values), turned, t, (round(width), round(height)))
    return views.reading("record3d")


# ------------------------------------------------------------------------------------------------------------ images
def png(data: bytes) -> tuple[np.ndarray, bool]:
    """[h, w, 4] uint8 of a PNG that is not interlaced, and whether it has alpha; every checksum must be right."""
    import zlib

    need(data[:8] == b"\x89PNG\r\n\x1a\n")
    at, chunks = 8, []
    while at < len(data):
        need(at + 12 <= len(data))
        (length,) = struct.unpack_from(">I", data, at)
        body, kind = data[at + 8 : at + 8 + length], data[at + 4 : at + 8]
        need(kind == b"IEND" or len(body) == length and at + 12 + length <= len(data))
        if kind == b"IEND":
            chunks.append((kind, b""))
            break  # what follows belongs to other programs
        true = zlib.crc32(kind + body) == struct.unpack_from(">I", data, at + 8 + length)[0]
        need(true or kind not in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"), "checksum")
        chunks.append((kind, body))
        at += 12 + length
    kinds = [kind for kind, _ in chunks]
    need(
        kinds.count(b"PLTE") < 2
        and kinds.count(b"tRNS") < 2
        and kinds[:1] == [b"IHDR"]
        and kinds[-1:] == [b"IEND"]
        and kinds.count(b"IHDR") == 1
        and len(chunks[0][1]) == 13
    )
    width, height, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", chunks[0][1])
    need(1 <= width < 100_000 and 1 <= height < 100_000 and compression == filtering == interlace == 0)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 0)
    need(channels > 0 and (depth == 8 or depth == 16 and colour != 3 or depth in (1, 2, 4) and colour in (0, 3)))
    step = max(1, channels * depth // 8)
    row = (width * channels * depth + 7) // 8
    # What follows the last row is no picture (a header that was made smaller, its checksum made right: who can tell?).
    compressed = b"".join(body for kind, body in chunks if kind == b"IDAT")
    raw = zlib.decompressobj().decompress(compressed, height * (row + 1))
    need(len(raw) == height * (row + 1), "fewer pixels than the header says")
    rows, before = [], [0] * row
    for y in range(height):
        how, *line = raw[y * (row + 1) : (y + 1) * (row + 1)]
        need(how <= 4)
        for x in range(row):
            left, up, corner = line[x - step] if x >= step else 0, before[x], before[x - step] if x >= step else 0
            line[x] = (line[x] + (0, left, up, (left + up) // 2, _paeth(left, up, corner))[how]) & 255
        rows.append(line)
        before = line
    if depth < 8:
        rows = np.unpackbits(np.array(rows, np.uint8), axis=1).reshape(height, -1, depth) @ (
            1 << np.arange(depth)[::-1]
        )
        rows = rows[:, :width] * (255 // ((1 << depth) - 1) if colour == 0 else 1)
    pixels = np.array(rows, np.uint8).reshape(height, width, channels, max(1, depth // 8))
    # 16 bits to 8, rounded as 65535 → 255.
    values = pixels.astype(np.uint32)
    full = (values[..., 0] * 256 + values[..., 1]) * 255 if depth == 16 else None
    pixels = pixels[..., 0] if full is None else ((full + 32767) // 65535).astype(np.uint8)
    transparent = dict(reversed(chunks[: kinds.index(b"IDAT")])).get(b"tRNS")
    if colour == 3:
        palette = dict(reversed(chunks)).get(b"PLTE", b"")
        need(len(palette) % 3 == 0 and 0 < len(palette) <= 768 and int(pixels.max()) < len(palette) // 3)
        table = np.full((256, 4), 255, np.uint8)
        table[: len(palette) // 3, :3] = np.frombuffer(palette, np.uint8).reshape(-1, 3)
        if transparent is not None:
            table[: len(transparent), 3] = np.frombuffer(transparent, np.uint8)
        return table[pixels[..., 0]], transparent is not None
    out = np.full((height, width, 4), 255, np.uint8)
    out[..., :3] = pixels[..., :3] if channels >= 3 else pixels[..., :1]
    if channels in (2, 4):
        out[..., 3] = pixels[..., -1]
    elif transparent is not None and depth == 8:  # a colour that is transparent; of 16 bits, nobody reads it
        wanted = [transparent[2 * i + 1] for i in range(channels)] if len(transparent) >= 2 * channels else []
        need(bool(wanted))
        out[..., 3] = np.where((pixels == wanted).all(axis=2), 0, 255)
    return out, channels in (2, 4) or transparent is not None


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def by_opencv(data: bytes) -> np.ndarray:
    """[h, w, 3] uint8 as another decoder reads it (JPEG, TIFF, WebP have no checksums; whoever decodes them agrees)."""
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    need(pixels is not None)
    return pixels[..., ::-1]


_TIFF_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}


def tiff(data: bytes) -> np.ndarray:
    """[h, w, 3] uint8 of a TIFF in strips of 8-bit RGB, as they are or packed with LZW."""
    need(data[:4] in (b"II*\0", b"MM\0*"))
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags: dict[int, tuple[int, ...]] = {}
    for i in range(min(count, (len(data) - at - 2) // 12)):
        tag, kind, number_, value = struct.unpack_from(order + "HHI4s", data, at + 2 + 12 * i)
        if kind not in _TIFF_TYPES or number_ > 1000:
            continue
        layout = f"{order}{number_}{_TIFF_TYPES[kind]}"
        size = struct.calcsize(layout)
        offset = struct.unpack(order + "I", value)[0]
        if size > 4 and offset + size > len(data):
            continue
        # Of a tag that stands twice, the first counts.
        tags.setdefault(
            tag, struct.unpack(layout, value[:size]) if size <= 4 else struct.unpack_from(layout, data, offset)
        )
    one = {tag: values[0] for tag, values in tags.items() if values}
    width, height = one[256], one[257]
    # Colours that a decoder may do without are what they are by default.
    need(
        width >= 1
        and height >= 1
        and tags[258][:3] == (8, 8, 8)
        and one[262] == 2
        and one[277] == 3
        and one.get(284, 1) == 1
    )
    need(
        one[259] in (1, 5)
        and one.get(317, 1) in (1, 2)
        and one.get(266, 1) == 1
        and 322 not in tags
        and 338 not in tags
    )
    per_strip = min(one.get(278, height), height)
    offsets, lengths = tags[273], tags.get(279)
    need(len(offsets) >= -(-height // per_strip))
    rows = b""
    for i in range(-(-height // per_strip)):
        needed = width * 3 * min(per_strip, height - i * per_strip)
        if one[259] == 1:
            strip = data[offsets[i] : offsets[i] + needed]
        else:
            strip = _lzw(data[offsets[i] : offsets[i] + lengths[i]], needed)
        need(len(strip) == needed)
        rows += strip
    pixels = np.frombuffer(rows, np.uint8).reshape(height, width, 3)
    if one.get(317, 1) == 2:  # differences along the row
        pixels = np.cumsum(pixels, axis=1, dtype=np.uint64).astype(np.uint8)
    return pixels


def _lzw(data: bytes, needed: int) -> bytes:
    """TIFF's LZW: codes from the most significant bit, wider one code early."""
    out, table, before = b"", [], None
    bits, width, value = 0, 9, 0
    for byte in data:
        value, bits = (value << 8 | byte) & 0xFFFFFF, bits + 8
        if bits < width:
            continue
        code = value >> (bits - width) & ((1 << width) - 1)
        bits -= width
        if code == 257 or len(out) >= needed:
            break
        if code == 256:
            table, before, width = [bytes([i]) for i in range(256)] + [b"", b""], None, 9
            continue
        need(bool(table))
        if before is None:
            need(code < 256)
            entry = table[code]
        else:
            need(code <= len(table) and len(table) < 4096)
            entry = table[code] if code < len(table) else before + before[:1]
            table.append(before + entry[:1])
        out, before = out + entry, entry
        width = next(w for w in (9, 10, 11, 12, 13) if len(table) < (1 << w) - 1 or w == 13)
        need(width <= 12)
    return out[:needed]


# ------------------------------------------------------------------------------------------------- points of one's own
def _finite_rows(xyz: np.ndarray, rgb: np.ndarray | None, normal: np.ndarray | None) -> Reading:
    """What is left of points [n, 3] in float64 without those that are not finite."""
    rgb, normal = (None if each is None else each.astype(np.float32) for each in (rgb, normal))
    good = np.isfinite(xyz).all(axis=1)
    good &= True if rgb is None else np.isfinite(rgb).all(axis=1)
    need(len(xyz) == 0 or bool(good.any()))
    xyz, rgb, normal = (None if each is None else each[good] for each in (xyz, rgb, normal))
    if normal is not None and not (np.isfinite(normal).all() and normal.any(axis=1).all()):
        normal = None
    return {"xyz": xyz, "rgb": rgb, "normal": normal}


_NOT_FINITE = (b"nan", b"inf", b"infinity")


def text_cloud(data: bytes) -> Reading:
    rows = [line.replace(b",", b" ").replace(b";", b" ").split() for line in data.split(b"\n")]
    rows = [words for words in rows if words and not words[0].startswith((b"#", b"//"))]
    if rows and len(rows[0]) == 1 and rows[0][0].isdigit():
        need(int(rows[0][0]) == len(rows) - 1)
        rows = rows[1:]
    elif rows and all(re.fullmatch(rb'["/A-Z_a-z][!-~]*', w) and w.lower() not in _NOT_FINITE for w in rows[0]):
        rows = rows[1:]
    if not rows:
        return {"xyz": np.zeros((0, 3)), "rgb": None, "normal": None}
    need(len(rows[0]) in (3, 4, 6, 7) and all(len(words) == len(rows[0]) for words in rows))
    table = np.array([[any_real(word) for word in words] for words in rows])
    if len(rows[0]) < 6:
        return _finite_rows(table[:, :3], None, None)
    more = table[:, -3:]
    known = more[np.isfinite(more).all(axis=1)]
    if len(known) and known.min() >= -1.001 and known.max() <= 1.001:
        unit = np.abs(np.linalg.norm(known, axis=1) - 1) < 1e-3
        if known.min() < 0 or unit.all():
            return _finite_rows(table[:, :3], None, more)
    need(len(known) == 0 or (known.min() >= 0 and known.max() <= 255))
    scale = 255.0 if len(known) and known.max() > 1 else 1.0
    return _finite_rows(table[:, :3], more / scale, None)


def las_fields(name: str, data: bytes) -> list[tuple[int, str]]:
    """Of a header of version 1.2 and points of format 2: sizes, counts, scales, offsets, and the points."""
    header = [(24, "<B"), (25, "<B"), (94, "<H"), (96, "<I"), (100, "<I"), (104, "<B"), (105, "<H"), (107, "<I")]
    header += [(131 + 8 * k, "<d") for k in range(6)]
    return header + [(at, "<i") for at in range(227, len(data) - 4, 26) for _ in range(2)]


def las(data: bytes) -> Reading:
    """Versions 1.0 to 1.2, point formats 0 to 3, perhaps with bytes of their own behind each point."""
    need(len(data) >= 227 and data[:4] == b"LASF" and data[24] == 1 and data[25] <= 2)
    size, start, extra = struct.unpack_from("<HII", data, 94)
    kind, each, count = struct.unpack_from("<BHI", data, 104)
    need(size >= 227 and kind <= 3 and each >= (20, 28, 26, 34)[kind] and 54 * extra <= start - size)
    need(len(data) >= start + count * each)
    numbers = struct.unpack_from("<6d", data, 131)
    rows = [struct.unpack_from("<3i", data, start + k * each) for k in range(count)]
    with np.errstate(all="ignore"):
        xyz = np.array(rows, np.float64).reshape(-1, 3) * numbers[:3] + numbers[3:]
    rgb = None
    if kind in (2, 3):
        place = 20 if kind == 2 else 28
        rgb = np.array([struct.unpack_from("<3H", data, start + k * each + place) for k in range(count)], np.float64)
        rgb = rgb.reshape(-1, 3) / (65535.0 if rgb.max(initial=0) > 255 else 255.0) if rgb.any() else None
    return _finite_rows(xyz, rgb, None)


def laz_fields(name: str, data: bytes) -> list[tuple[int, str]]:
    """Of the header and the record of LASzip, and the table of chunks: sizes, counts, kinds, places."""
    fields = [(24, "<B"), (25, "<B"), (94, "<H"), (96, "<I"), (100, "<I"), (104, "<B"), (105, "<H"), (107, "<I")]
    fields += [(247, "<Q")] if data[25] == 4 else []
    record, (start,) = data.index(b"laszip encoded") + 52, struct.unpack_from("<I", data, 96)
    (items,) = struct.unpack_from("<H", data, record + 32)
    fields += [(record - 34, "<H"), (record, "<H"), (record + 12, "<I"), (record + 32, "<H")]
    fields += [(record + 34 + 2 * k, "<H") for k in range(3 * items)]
    (table,) = struct.unpack_from("<q", data, start)
    # After a point that is not packed, layers have the number of points, and the length of each.
    first = start + 8 + struct.unpack_from("<H", data, 105)[0]
    layers = [(first + 4 * k, "<I") for k in range(11)] if data[25] == 4 else []
    return fields + [(start, "<q"), (table, "<I"), (table + 4, "<I"), *layers]


_PCD_KEYS = ["VERSION", "FIELDS", "SIZE", "TYPE", "COUNT", "WIDTH", "HEIGHT", "VIEWPOINT", "POINTS", "DATA"]


def pcd(data: bytes) -> Reading:
    """Of fields x y z, rgb and normals, as it is written here."""
    lines, at, keys = {}, 0, []
    while "DATA" not in lines:
        end = data.find(b"\n", at)
        need(end >= 0)
        words = data[at:end].decode("ascii", "replace").split()
        at = end + 1
        if words and not words[0].startswith("#"):
            keys.append(words[0])
            lines[words[0]] = words[1:]
    need(set(keys) <= set(_PCD_KEYS))
    fields, total = lines["FIELDS"], whole(lines["POINTS"][0])
    need(len(lines["DATA"]) == 1 and total == whole(lines["WIDTH"][0]) * whole(lines["HEIGHT"][0]) and total >= 0)
    need(len(lines["SIZE"]) == len(lines["TYPE"]) == len(fields) == len(set(fields)))
    counts = [whole(word) for word in lines.get("COUNT", ["1"] * len(fields))]
    need(counts == [1] * len(fields))
    letters = {
        "F4": "f",
        "F8": "d",
        "U1": "B",
        "U2": "H",
        "U4": "I",
        "U8": "Q",
        "I1": "b",
        "I2": "h",
        "I4": "i",
        "I8": "q",
    }
    sizes = [str(whole(size)) for size in lines["SIZE"]]
    need(all(kind + size in letters for kind, size in zip(lines["TYPE"], sizes, strict=True)))
    kinds = [letters[kind + size] for kind, size in zip(lines["TYPE"], sizes, strict=True)]
    body, encoding = data[at:], lines["DATA"][0]
    columns: dict[str, list] = {name: [] for name in fields}
    if encoding == "ascii":
        rows = [line.split() for line in body.split(b"\n") if line.split()]
        need(len(rows) == total and all(len(row) == len(fields) for row in rows))
        for name, kind, words in zip(fields, kinds, zip(*rows, strict=True), strict=False):
            for word in words:
                value = any_real(word) if kind in "fd" else whole(word.decode("ascii", "replace"))
                need(kind in "fd" or _INTEGERS[kind][0] <= value <= _INTEGERS[kind][1])
                columns[name].append(float(np.float32(value)) if kind == "f" else value)
    else:
        each = struct.calcsize("<" + "".join(kinds))
        if encoding == "binary":
            need(not body[total * each :].strip(b"\0") and len(body) >= total * each)
            for k in range(total):
                for name, value in zip(fields, struct.unpack_from("<" + "".join(kinds), body, k * each), strict=True):
                    columns[name].append(value)
        else:
            need(encoding == "binary_compressed" and len(body) >= 8)
            packed, size = struct.unpack_from("<II", body)
            need(size == total * each and len(body) >= 8 + packed)
            whole_body, place = _lzf(body[8 : 8 + packed]), 0
            need(len(whole_body) == size)
            for name, kind in zip(fields, kinds, strict=True):
                columns[name] = list(struct.unpack_from(f"<{total}{kind}", whole_body, place))
                place += total * struct.calcsize("<" + kind)
    need(all(name in columns for name in "xyz"))
    if total == 0:
        return {"xyz": np.zeros((0, 3)), "rgb": None, "normal": None}
    rgb = normal = None
    name = next((name for name in ("rgb", "rgba") if name in columns), None)
    if name is not None and (kind := kinds[fields.index(name)]) in "fiI":
        bits = [struct.unpack("<I", struct.pack("<" + kind, value))[0] for value in columns[name]]
        rgb = np.array([[each >> 16 & 255, each >> 8 & 255, each & 255] for each in bits]) / 255.0
    if all(f"normal_{axis}" in columns for axis in "xyz"):
        normal = np.array([columns[f"normal_{axis}"] for axis in "xyz"], np.float64).T
        normal = normal if normal.any() else None
    return _finite_rows(np.array([columns[axis] for axis in "xyz"], np.float64).T, rgb, normal)


_INTEGERS = {"B": (0, 255), "H": (0, 65535), "I": (0, 2**32 - 1), "Q": (0, 2**64 - 1)}
_INTEGERS |= {"b": (-128, 127), "h": (-(2**15), 2**15 - 1), "i": (-(2**31), 2**31 - 1), "q": (-(2**63), 2**63 - 1)}


def _lzf(data: bytes) -> bytes:
    """One byte after the other."""
    out, at = [], 0
    while at < len(data):
        control, at = data[at], at + 1
        if control < 32:
            need(at + control < len(data))
            out += data[at : at + control + 1]
            at += control + 1
        else:
            length = control // 32
            if length == 7:
                need(at < len(data))
                length, at = length + data[at], at + 1
            need(at < len(data))
            distance, at = control % 32 * 256 + data[at] + 1, at + 1
            need(distance <= len(out))
            for _ in range(length + 2):
                out.append(out[-distance])
        need(len(out) < 10**6)
    return bytes(out)


def affine(data: bytes) -> Reading:
    text = data.decode("ascii", "replace")
    numbers = [real(word) for word in re.split(r"[\s,;\[\]()]+", text) if word]
    need(len(numbers) in (12, 16))
    M = np.array([*numbers, *([0.0, 0, 0, 1] if len(numbers) == 12 else [])]).reshape(4, 4)
    need(bool(np.isfinite(M).all()) and np.allclose(M[3], (0, 0, 0, 1), atol=1e-9))
    size = np.abs(M[:3, :3]).max()
    need(size > 0 and abs(np.linalg.det(M[:3, :3] / size)) >= 1e-9)
    return {"matrix": M}


def pairs(data: bytes) -> Reading:
    rows = []
    for line in data.decode("utf-8", "replace").removeprefix("\ufeff").split("\n"):
        words = line.partition("#")[0].replace(",", " ").replace(";", " ").split()
        need(len(words) in (0, 6))
        if words:
            rows.append([real(word) for word in words])
    table = np.array(rows, np.float64).reshape(-1, 6)
    need(bool(np.isfinite(table).all()))
    return {"a": table[:, :3], "b": table[:, 3:]}
