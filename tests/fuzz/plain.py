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
    from splatinit.io.colmap_model import ColmapCamera

    names = {number: name for name, number in _IDS.items()}
    lead = {5: 4, 6: 4, 7: 4, 8: 3, 9: 3, 10: 4, 11: 4}[model]
    return ColmapCamera(names[model], 10, 10, np.array([5.0] * lead + list(rest))).pinhole("plain")[1]


# ------------------------------------------------------------------------------------------------------------- views
class Views:
    """Collects the posed photos of a scene file, and gives them in the form of a reading."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: dict[str, dict[str, Any]] = {}

    def find(self, folder: Path, relative: str) -> tuple[Path, str] | None:
        """(file, normalised name as it is written) of a path in a scene file, None where there is no file."""
        from splatinit.io.images import find_image

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
        try:
            file = find_image(folder.joinpath(*parts))
        except (OSError, ValueError):
            return None
        return None if file is None else (file, "/".join(parts))

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
            for key in ("mask", "depth"):
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

        model = both.get("camera_model", "OPENCV")
        need(isinstance(model, str) and not both.get("is_fisheye") and not value("k4"))
        need(model.upper() in ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE"))
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

        lens = Distortion("brown", tuple(value(key) or 0.0 for key in ("k1", "k2", "p1", "p2", "k3")))
        views.add(view, file, (fx, fy, cx, cy), R, t, given, lens)
        added.append(view)
    return data, added


def nerfstudio(root: Path) -> Reading:
    views = Views(root)
    data, _ = frames(root, "transforms.json", views)
    lists = {key: data.get(f"{key}_filenames") for key in ("train", "val", "test")}
    if all(value is None for value in lists.values()):
        return views.reading("nerfstudio")
    for value in lists.values():
        need(value is None or isinstance(value, list) and all(isinstance(item, str) for item in value))
    return split(views, "nerfstudio", lists["train"], lists["test"] or lists["val"])


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
    need(not any(ord(c) < 32 or c in "\x7f\x85\u2028\u2029" for line in lines for c in line))
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
