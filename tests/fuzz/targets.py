"""Every reader with a small valid input. A new reader is one more entry at the end."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from splatinit.types import ImageSet

from . import plain
from .engine import Target
from .plain import Reading, Refuse, Views

WIDTH, HEIGHT = 8, 6  # px of all photos


# ------------------------------------------------------------------------------------------------------ small inputs
def photo(path: Path, value: int = 90, alpha: bool = False, width: int = WIDTH, height: int = HEIGHT) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 4 if alpha else 3), value, np.uint8)
    pixels[::2, :, 0] += 40
    pixels[0, 0] = 0
    Image.fromarray(pixels).save(path)


def rotation(i: int) -> np.ndarray:
    """[3, 3], another one for each i."""
    a, b = 0.4 * i, 0.2 - 0.1 * i
    turn = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    tilt = np.array([[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]])
    return tilt @ turn


def _quaternion(R: np.ndarray) -> np.ndarray:
    w = 0.5 * math.sqrt(1 + np.trace(R))
    return np.array([w, (R[2, 1] - R[1, 2]) / (4 * w), (R[0, 2] - R[2, 0]) / (4 * w), (R[1, 0] - R[0, 1]) / (4 * w)])


def world_from_camera(i: int) -> list[list[float]]:
    """[4, 4] in OpenGL axes."""
    M = np.eye(4)
    M[:3, :3], M[:3, 3] = rotation(i), (i, 0.5, 3.0)
    return M.tolist()


_NAMES = ("a.png", "deep/b.png", "c 1.png")
_FEATURES = ((1.5, 2.25, 7), (3.0, 4.5, -1))
_POINTS = {
    7: ((0.5, -1.25, 3.0), (200, 100, 0), 0.75),
    9: ((1.0, 2.0, 4.5), (0, 128, 255), 1.5),
    12: ((-2.0, 0.0, 6.0), (1, 2, 3), -1.0),
}


def colmap_photos(root: Path) -> Path:
    for i, name in enumerate(_NAMES):
        photo(root / "images" / name, 60 + i)
    photo(root / "secret.png")
    folder = root / "sparse" / "0"
    folder.mkdir(parents=True)
    return folder


def build_colmap_bin(root: Path) -> None:
    folder = colmap_photos(root)
    cameras = struct.pack("<QiiQQ4d", 2, 1, 1, WIDTH, HEIGHT, 9.0, 10.0, 4.0, 3.0)
    cameras += struct.pack("<iiQQ8d", 5, 4, 2 * WIDTH, 2 * HEIGHT, 20.0, 21.0, 8.0, 6.0, 0.01, -0.005, 0.001, 0.0005)
    images = struct.pack("<Q", len(_NAMES))
    for i, name in enumerate(_NAMES):
        images += (
            struct.pack("<i7di", i + 3, *_quaternion(rotation(i)), 0.25 * i, -1.0, 2.0, (1, 5, 1)[i])
            + name.encode()
            + b"\0"
        )
        images += struct.pack("<Q", len(_FEATURES)) + b"".join(struct.pack("<ddq", *f) for f in _FEATURES)
    points = struct.pack("<Q", len(_POINTS))
    for key, (xyz, rgb, error) in _POINTS.items():
        points += struct.pack("<q3d3BdQ4i", key, *xyz, *rgb, error, 2, 3, 0, 4, 1)
    for part, data in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{part}.bin").write_bytes(data)


def build_colmap_txt(root: Path) -> None:
    folder = colmap_photos(root)
    cameras = ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]", f"1 PINHOLE {WIDTH} {HEIGHT} 9 10 4 3"]
    cameras += [f"5 OPENCV {2 * WIDTH} {2 * HEIGHT} 20 21 8 6 0.01 -0.005 0.001 0.0005"]
    images = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"]
    for i, name in enumerate(_NAMES):
        images += [
            " ".join(map(repr, [i + 3, *map(float, _quaternion(rotation(i))), 0.25 * i, -1.0, 2.0, (1, 5, 1)[i]]))
            + " "
            + name
        ]
        images += [" ".join(f"{x} {y} {key}" for x, y, key in _FEATURES) if i else ""]
    points = [f"{key} {' '.join(map(str, (*xyz, *rgb, error)))} 3 0 4 1" for key, (xyz, rgb, error) in _POINTS.items()]
    for part, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")


def frame(i: int, path: str, **more: Any) -> dict[str, Any]:
    return {"file_path": path, "transform_matrix": world_from_camera(i), **more}


def build_nerfstudio(root: Path) -> None:
    names = ("images/a.png", "images/b.png", "images/c.png")
    for i, name in enumerate(names):
        photo(root / name, 60 + i)
    photo(root.parent / "secret.png")
    frames = [
        frame(0, names[0]),
        frame(1, "./" + names[1], fl_x=8.5, k1=0.01, w=2 * WIDTH, h=2 * HEIGHT),
        frame(2, "images/c"),
    ]
    top = {
        "camera_model": "OPENCV",
        "fl_x": 9.0,
        "fl_y": 9.5,
        "cx": 4.0,
        "cy": 3.0,
        "w": WIDTH,
        "h": HEIGHT,
        "k2": 0.001,
        "p1": 0.0,
    }
    (root / "transforms.json").write_text(json.dumps({**top, "frames": frames, "applied_scale": 1.0}))


def build_blender(root: Path) -> None:
    for part, count in (("train", 2), ("test", 1)):
        for i in range(count):
            photo(root / part / f"r_{i}.png", 50 + i, alpha=True)
        frames = [frame(i, f"./{part}/r_{i}", rotation=0.1) for i in range(count)]
        (root / f"transforms_{part}.json").write_text(json.dumps({"camera_angle_x": 0.8, "frames": frames}))


def build_split(root: Path) -> None:
    for name in ("images/left/1.png", "images/left/2.png", "images/right/1.png", "images/right/3.png"):
        photo(root / name)
    (root / "train.txt").write_text("# names\nleft/1.png\nright/1\n\nimages/right/3.png\n")
    (root / "test.txt").write_text("left/2.png # the only one\n")


def build_split_json(root: Path) -> None:
    for name in ("images/left/1.png", "images/left/2.png", "images/right/1.png", "images/right/3.png"):
        photo(root / name)
    (root / "split.json").write_text(
        json.dumps({"train": ["left/1.png", "right/1", "3.png"], "test": ["left/2.png"]})
    )


_POINT_ROWS = [
    (0.5, -1.25, 3.0, 0.0, 0.0, 1.0, 200, 100, 0, 0.25),
    (1.0, 2.0, 4.5, 0.6, 0.8, 0.0, 0, 128, 255, 0.5),
    (-2, 0, 6, 1, 0, 0, 1, 2, 3, 1),
]


def _point_header(format: str, more: str = "") -> str:
    properties = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    properties += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue")) + "property float opacity\n"
    return f"ply\nformat {format} 1.0\ncomment made by hand\nelement vertex {len(_POINT_ROWS)}\n{properties}{more}end_header\n"


def build_points(format: str, faces: bool = False) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        root.mkdir(parents=True)
        more = "element face 1\nproperty list uchar int vertex_indices\n" if faces else ""
        header = _point_header(format, more).encode()
        if format == "ascii":
            body = "".join(" ".join(map(str, row)) + "\n" for row in _POINT_ROWS).encode() + (
                b"3 0 1 2\n" if faces else b""
            )
        else:
            order = ">" if format == "binary_big_endian" else "<"
            body = b"".join(struct.pack(order + "6f3Bf", *row) for row in _POINT_ROWS)
            body += struct.pack(order + "B3i", 3, 0, 1, 2) if faces else b""
        (root / "points.ply").write_bytes(header + body)

    return build


def build_splat(root: Path) -> None:
    root.mkdir(parents=True)
    names = [
        "x",
        "y",
        "z",
        "nx",
        "ny",
        "nz",
        "f_dc_0",
        "f_dc_1",
        "f_dc_2",
        *(f"f_rest_{i}" for i in range(9)),
        "opacity",
    ]
    names += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    header = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 3\n"
        + "".join(f"property float {n}\n" for n in names)
        + "end_header\n"
    )
    values = np.random.default_rng(0).normal(size=(3, len(names))).astype("<f4")
    (root / "splat.ply").write_bytes(header.encode() + values.tobytes())


def build_cameras(root: Path) -> None:
    root.mkdir(parents=True)
    pose = np.eye(4)
    pose[:3, :3] = rotation(1)
    row = {"width": 8, "height": 6, "K": [[9.0, 0, 4.0], [0, 9.5, 3.0], [0, 0, 1.0]], "cam_from_world": pose.tolist()}
    (root / "path.json").write_text(json.dumps({"cameras": [row, {**row, "width": 16}], "fps": 24}))


def build_camera_path(root: Path) -> None:
    root.mkdir(parents=True)
    rows = [
        {"camera_to_world": np.array(world_from_camera(i)).ravel().tolist(), "fov": 50.0 + i, "aspect": 1.5}
        for i in range(2)
    ]
    (root / "path.json").write_text(
        json.dumps({"camera_path": rows, "render_width": 8, "render_height": 6, "fps": 24, "seconds": 2})
    )


def build_checkpoint(root: Path) -> None:
    import torch

    from splatinit.io.checkpoints import save_checkpoint

    tensors = {
        "means": torch.arange(6.0).reshape(2, 3),
        "step": torch.tensor([3]),
        "state": torch.zeros(2, dtype=torch.uint8),
    }
    save_checkpoint(root, 3, tensors, {"seed": 0, "names": ["a", "b"], "loss": 0.5})


# ----------------------------------------------------------------------------------------------------------- readings
def scene_reading(images: ImageSet, root: Path) -> Reading:
    """An ImageSet as a reading (see plain.Views.reading), with its promises checked."""
    names = tuple(photo.name for photo in images.photos)
    assert names == tuple(sorted(set(names))), names
    assert set(images.sizes) == set(names) and set(images.cameras) <= set(names)
    assert images.test_names is None or (images.test_names and images.test_names <= set(names))
    reading: Reading = {
        "format": images.format,
        "names": names,
        "test": None if images.test_names is None else tuple(sorted(images.test_names)),
        "background": images.background,
        "xyz": None if images.points is None else images.points.xyz,
        "rgb": None if images.points is None else images.points.rgb,
    }
    for each in images.photos:
        reading[f"{each.name}: file"] = os.path.relpath(each.path, root)
        reading[f"{each.name}: size"] = images.sizes[each.name]
        reading[f"{each.name}: alpha"] = each.has_alpha
        camera = images.cameras.get(each.name)
        if camera is not None:
            camera.check(each.name)
            assert (camera.width, camera.height) == images.sizes[each.name]
            reading[f"{each.name}: K"] = camera.K
            reading[f"{each.name}: R"] = camera.cam_from_world[:3, :3]
            reading[f"{each.name}: t"] = camera.cam_from_world[:3, 3]
        for key, extra in (("mask", each.mask), ("depth", each.depth)):
            reading[f"{each.name}: {key}"] = None if extra is None else os.path.relpath(extra.path, root)
    return reading


def read_scene(format: str) -> Callable[[Path], Reading]:
    def read(root: Path) -> Reading:
        from splatinit.io.read import ReadConfig, read_images

        return scene_reading(read_images(root, ReadConfig(format=format)), root)

    return read


def read_points(root: Path) -> Reading:
    from splatinit.io.pointcloud import read_ply_points

    cloud = read_ply_points(root / "points.ply")
    return {name: getattr(cloud, name) for name in ("xyz", "rgb", "normal", "radius", "opacity", "confidence")}


def read_splat(root: Path) -> Reading:
    from splatinit.io.splat import read_splat_ply

    return {name: tensor.numpy() for name, tensor in read_splat_ply(root / "splat.ply").tensors().items()}


def read_cameras(root: Path) -> Reading:
    from splatinit.io.cameras import read_cameras as read

    cameras = read(root / "path.json")
    reading: Reading = {"count": len(cameras)}
    for index, camera in enumerate(cameras):
        reading |= {
            f"{index}: size": (camera.width, camera.height),
            f"{index}: K": camera.K,
            f"{index}: pose": camera.cam_from_world,
        }
    return reading


def read_checkpoint(root: Path) -> Reading:
    from splatinit.io.checkpoints import load_checkpoint

    found = load_checkpoint(root / "step_00000003.safetensors")
    return {
        "step": found.step,
        "meta": json.dumps(found.meta),
        **{name: tensor.numpy() for name, tensor in found.tensors.items()},
    }


# ------------------------------------------------------------------------------------------------------- expectations
def expect_split(lists: Callable[[Path], tuple[list[str] | None, list[str] | None]]) -> Callable[[Path], Reading]:
    def expect(root: Path) -> Reading:
        views = Views(root)
        for file in sorted((root / "images").rglob("*.png")):
            views.rows[file.relative_to(root).as_posix()] = {"file": file, "size": (WIDTH, HEIGHT), "alpha": False}
        return plain.split(views, "photos", *lists(root))

    return expect


def _split_texts(root: Path) -> tuple[list[str], list[str]]:
    return plain.listed((root / "train.txt").read_bytes()), plain.listed((root / "test.txt").read_bytes())


def _split_json(root: Path) -> tuple[list[str] | None, list[str] | None]:
    data = plain.json_of((root / "split.json").read_bytes())
    plain.need(isinstance(data, dict) and (data.get("train") is not None or data.get("test") is not None))
    for kind in ("train", "test"):
        listed = data.get(kind)
        plain.need(listed is None or isinstance(listed, list) and all(isinstance(item, str) for item in listed))
    return data.get("train"), data.get("test")


def sealed(before: Callable[[Path], Reading]) -> Callable[[Path], Reading]:
    """For files with a checksum: the whole file, or none."""
    first: list[Reading] = []

    def expect(root: Path) -> Reading:
        if not first:
            first.append(before(root))
            return first[0]
        raise Refuse("the checksum cannot fit")

    return expect


def expect_file(parse: Callable[[bytes], Reading], name: str) -> Callable[[Path], Reading]:
    return lambda root: parse((root / name).read_bytes())


# ------------------------------------------------------------------------------------------------------------ targets
_MODEL = ("cameras", "images", "points3D")
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target(
            "colmap-bin",
            build_colmap_bin,
            tuple(f"sparse/0/{part}.bin" for part in _MODEL),
            read_scene("colmap"),
            lambda root: plain.colmap(root, ".bin"),
            plain.colmap_fields,
        ),
        Target(
            "colmap-txt",
            build_colmap_txt,
            tuple(f"sparse/0/{part}.txt" for part in _MODEL),
            read_scene("colmap"),
            lambda root: plain.colmap(root, ".txt"),
        ),
        Target("nerfstudio", build_nerfstudio, ("transforms.json",), read_scene("nerfstudio"), plain.nerfstudio),
        Target(
            "blender",
            build_blender,
            ("transforms_train.json", "transforms_test.json"),
            read_scene("blender"),
            plain.blender,
        ),
        Target("split-txt", build_split, ("train.txt", "test.txt"), read_scene("photos"), expect_split(_split_texts)),
        Target("split-json", build_split_json, ("split.json",), read_scene("photos"), expect_split(_split_json)),
        Target(
            "ply-ascii",
            build_points("ascii"),
            ("points.ply",),
            read_points,
            expect_file(plain.ply_points, "points.ply"),
            tolerance=1e-6,
        ),
        Target(
            "ply-little",
            build_points("binary_little_endian"),
            ("points.ply",),
            read_points,
            expect_file(plain.ply_points, "points.ply"),
            tolerance=1e-6,
        ),
        Target(
            "ply-big",
            build_points("binary_big_endian"),
            ("points.ply",),
            read_points,
            expect_file(plain.ply_points, "points.ply"),
            tolerance=1e-6,
        ),
        Target(
            "ply-faces",
            build_points("binary_little_endian", True),
            ("points.ply",),
            read_points,
            expect_file(plain.ply_points, "points.ply"),
            tolerance=1e-6,
        ),
        Target("splat", build_splat, ("splat.ply",), read_splat, expect_file(plain.splat, "splat.ply")),
        Target("cameras", build_cameras, ("path.json",), read_cameras, expect_file(plain.camera_path, "path.json")),
        Target(
            "camera-path", build_camera_path, ("path.json",), read_cameras, expect_file(plain.camera_path, "path.json")
        ),
        Target(
            "checkpoint", build_checkpoint, ("step_00000003.safetensors",), read_checkpoint, sealed(read_checkpoint)
        ),
    )
}
