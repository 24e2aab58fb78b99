"""Every reader with a small valid input. A new reader is one more entry at the end."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from splatinit.types import ImageSet

from . import plain, raster
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


def depth(path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    steps = (np.arange(WIDTH * HEIGHT, dtype=np.uint16) * 100).reshape(HEIGHT, WIDTH)
    Image.fromarray(steps).save(path)


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
    photo(root / "masks" / "a.png", 200)
    depth(root / "depth" / "b.png")
    build_points("ascii")(root / "cloud")
    frames[0]["mask_path"], frames[1]["depth_file_path"] = "masks/a.png", "depth/b.png"
    top |= {"ply_file_path": "cloud/points.ply", "applied_scale": 2.0, "depth_unit_scale_factor": 0.001}
    (root / "transforms.json").write_text(json.dumps({**top, "frames": frames}))


def build_fisheye(root: Path) -> None:
    for i in range(2):
        photo(root / f"{i}.png", 60 + i)
    top = {"camera_model": "OPENCV_FISHEYE", "fl_x": 6.0, "fl_y": 6.0, "cx": 4.0, "cy": 3.0, "w": WIDTH, "h": HEIGHT}
    top |= {"k1": 0.05, "k2": -0.01, "k3": 0.001, "k4": 0.0}
    (root / "transforms.json").write_text(json.dumps({**top, "frames": [frame(i, f"{i}.png") for i in range(2)]}))


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
    (root / "split.json").write_text(json.dumps({"train": ["left/1.png", "right/1", "3.png"], "test": ["left/2.png"]}))


_POINT_ROWS = [
    (0.5, -1.25, 3.0, 0.0, 0.0, 1.0, 200, 100, 0, 0.25),
    (1.0, 2.0, 4.5, 0.6, 0.8, 0.0, 0, 128, 255, 0.5),
    (-2, 0, 6, 1, 0, 0, 1, 2, 3, 1),
]


def _point_header(format: str, more: str = "") -> str:
    properties = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    properties += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue")) + "property float opacity\n"
    properties = f"element vertex {len(_POINT_ROWS)}\n{properties}"
    return f"ply\nformat {format} 1.0\ncomment made by hand\n{properties}{more}end_header\n"


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


def build_points_with_sh(root: Path) -> None:
    root.mkdir(parents=True)
    names = ["x", "y", "z", "red", "green", "blue", *(f"f_rest_{i}" for i in range(9))]
    header = "ply\nformat ascii 1.0\nelement vertex 3\n" + "".join(f"property float {n}\n" for n in names)
    values = np.random.default_rng(0).random((3, len(names))).round(3)
    rows = "\n".join(" ".join(map(str, row)) for row in values.tolist())
    (root / "points.ply").write_text(f"{header}end_header\n{rows}\n")


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


def build_llff(root: Path) -> None:
    rows = []
    for i in range(2):
        photo(root / "images" / f"{i}.png", 60 + i)
        M = np.array(world_from_camera(i))
        down_right_back = np.stack([-M[:3, 1], M[:3, 0], M[:3, 2]], axis=1)
        matrix = np.concatenate([down_right_back, M[:3, 3:], [[2.0 * HEIGHT], [2.0 * WIDTH], [20.0 + i]]], axis=1)
        rows.append([*matrix.ravel(), 1.0, 9.0])
    np.save(root / "poses_bounds.npy", np.array(rows))


def build_idr(root: Path) -> None:
    arrays = {}
    for i in range(2):
        photo(root / "image" / f"{i}.png", 60 + i)
        photo(root / "mask" / f"{i}.png", 200)
        K = np.array([[9.0, 0, 3.5 + 0.1 * i], [0, 9.5, 2.5], [0, 0, 1]])
        P = np.eye(4)
        P[:3] = K @ np.concatenate([rotation(i), [[0.5], [0.25], [2.0 + i]]], axis=1)
        arrays[f"world_mat_{i}"], arrays[f"scale_mat_{i}"] = P, np.eye(4)
    np.savez(root / "cameras_sphere.npz", **arrays)


def _matrix_text(path: Path, matrix: np.ndarray, newline: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(newline.join(" ".join(map(str, row)) for row in matrix.tolist()) + "\n")


def _opencv_pose(i: int) -> np.ndarray:
    return np.array(world_from_camera(i)) @ np.diag([1.0, -1.0, -1.0, 1.0])


def build_nerfpp(root: Path) -> None:
    K = np.diag([9.0, 9.5, 1, 1])
    K[:2, 2] = 4, 3
    for i, (part, name) in enumerate((("train", "a"), ("train", "b"), ("test", "c"))):
        photo(root / part / "rgb" / f"{name}.png", 60 + i)
        _matrix_text(root / part / "pose" / f"{name}.txt", _opencv_pose(i), " ")
        _matrix_text(root / part / "intrinsics" / f"{name}.txt", K, " ")


def build_nsvf(root: Path) -> None:
    for i, name in enumerate(("0_a", "0_b", "2_c")):
        photo(root / "rgb" / f"{name}.png", 60 + i)
        _matrix_text(root / "pose" / f"{name}.txt", _opencv_pose(i))
    (root / "intrinsics.txt").write_text(f"20.0 8.0 6.0 0.\n0. 0. 0.\n0.\n1.\n{2 * HEIGHT} {2 * WIDTH}\n")


def build_polycam(root: Path) -> None:
    folder = root / "keyframes"
    (folder / "cameras").mkdir(parents=True)
    for i in range(2):
        photo(folder / "images" / f"{i}.png", 60 + i)
        M = world_from_camera(i)
        data = {f"t_{row}{column}": M[row][column] for row in range(3) for column in range(4)}
        data |= {"fx": 9.0, "fy": 9.5, "cx": 4.0, "cy": 3.0, "width": WIDTH, "height": HEIGHT, "timestamp": 7 + i}
        (folder / "cameras" / f"{i}.json").write_text(json.dumps(data))
    depth(folder / "depth" / "0.png")


def build_record3d(per_frame: bool) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        poses = []
        for i in range(3):
            photo(root / "rgb" / f"{i}.png", 60 + i)
            w, x, y, z = map(float, _quaternion(rotation(i)))
            poses.append([x, y, z, w, 0.5 * i, 1.0, -2.0])
        data: dict[str, Any] = {
            "w": WIDTH,
            "h": HEIGHT,
            "fps": 30,
            "poses": poses,
            "K": [9.0, 0, 0, 0, 9.5, 0, 4.0, 3.0, 1],
        }
        if per_frame:
            data["perFrameIntrinsicCoeffs"] = [[9.0 + i, 9.5, 4.0, 3.0] for i in range(3)]
        (root / "metadata.json").write_text(json.dumps(data))

    return build


def _smooth(width: int = 12, height: int = 10, channels: int = 3) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    bands = [40 + 10 * x + 3 * y, 200 - 8 * x, 20 + 15 * y, 60 + 12 * x]
    return np.stack([band.clip(0, 255) for band in bands[:channels]], axis=2).astype(np.uint8)


def build_png(root: Path) -> None:
    from PIL import Image

    root.mkdir(parents=True)
    colour = Image.fromarray(_smooth())
    colour.save(root / "a.png")
    Image.fromarray(_smooth(channels=4)).save(root / "b.png")
    palette = colour.quantize(60)
    palette.putpalette(palette.getpalette() + [0] * (768 - len(palette.getpalette())))
    palette.save(root / "c.png", transparency=bytes([255] * 7 + [0]), bits=8)
    Image.fromarray(_smooth(channels=1)[..., 0].astype(np.uint16) * 257).save(root / "d.png")


def build_images(suffix: str, **settings: Any) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        from PIL import Image

        root.mkdir(parents=True)
        Image.fromarray(_smooth()).save(root / f"a{suffix}", **settings)
        Image.fromarray(_smooth(9, 17)).save(root / f"b{suffix}", **settings)

    return build


def build_companions(root: Path) -> None:
    """A photo with a mask, one with a depth map as PNG, one as array and one as TIFF."""
    from PIL import Image

    for name in "abcd":
        photo(root / f"{name}.png")
    photo(root / "mask.png", 200)
    depth(root / "depth.png")
    values = (np.arange(WIDTH * HEIGHT, dtype=np.float32) / 7).reshape(HEIGHT, WIDTH)
    np.save(root / "depth.npy", values)
    Image.fromarray(values).save(root / "depth.tif")


def build_start(root: Path) -> None:
    """A run's folder after its start."""
    from splatinit.io.runs import RunFolder
    from splatinit.types import DepthPrior, Initialization, PointCloud

    run = RunFolder(root)
    cloud = PointCloud(np.arange(9.0).reshape(3, 3), np.linspace(0, 1, 9).reshape(3, 3))
    prior = DepthPrior("a.png", np.full((2, 3), 1.5, np.float32), np.full((2, 3), 0.5, np.float32))
    start = Initialization(cloud, {"a.png": prior}, {"match": 1.5}, 100.5, {"name": "random", "count": 3}, ("a note",))
    run.finish_stage("init", run.write_start(start), points=3)


def build_video(root: Path) -> None:
    import cv2

    root.mkdir(parents=True)
    writer = cv2.VideoWriter(str(root / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    noise = np.random.default_rng(0).integers(0, 255, (48, 96, 3), np.uint8)
    for i in range(6):
        writer.write(np.ascontiguousarray(cv2.blur(noise, (5, 5))[:, 5 * i : 5 * i + 64]))
    writer.release()


def build_text_cloud(name: str, text: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        root.mkdir(parents=True)
        (root / name).write_text(text)

    return build


def build_las(name: str, kind: int = 2, version: str = "1.2") -> Callable[[Path], None]:
    def build(root: Path) -> None:
        import laspy

        root.mkdir(parents=True)
        header = laspy.LasHeader(point_format=kind, version=version)
        header.offsets, header.scales = [500_000.0, 5_000_000.0, 400.0], [0.001] * 3
        cloud, rng = laspy.LasData(header), np.random.default_rng(0)
        cloud.x, cloud.y, cloud.z = (header.offsets + rng.random((9, 3)).round(3)).T
        cloud.red, cloud.green, cloud.blue = rng.integers(0, 65536, (3, 9))
        cloud.write(str(root / name))

    return build


def build_pcd(encoding: str) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        root.mkdir(parents=True)
        names = ("x", "y", "z", "rgb", "normal_x", "normal_y", "normal_z")
        kinds = "dffIfff"
        head = f"# .PCD v0.7\nVERSION 0.7\nFIELDS {' '.join(names)}\nSIZE 8 4 4 4 4 4 4\nTYPE F F F U F F F\n"
        head += "COUNT 1 1 1 1 1 1 1\nWIDTH 6\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS 6\n"
        rows = [(5e6 + 0.25 * k, 0.5 * k, -1.0, 0xFF3300 + k, 0.0, 0.0, 1.0) for k in range(6)]
        if encoding == "ascii":
            body = "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
        elif encoding == "binary":
            body = b"".join(struct.pack("<" + kinds, *row) for row in rows)
        else:
            columns = [
                struct.pack(f"<6{kind}", *column) for kind, column in zip(kinds, zip(*rows, strict=True), strict=True)
            ]
            body, size = b"", sum(map(len, columns))
            for column in columns:
                first, rest = column[:8], column[8:]
                # The first bytes as they are; a column that repeats itself as a copy of these, any other in runs.
                if column == first[:4] * (len(column) // 4):
                    body += bytes([3]) + first[:4] + bytes([7 << 5, len(column) - 4 - 9, 3])
                else:
                    body += bytes([7]) + first
                    body += b"".join(
                        bytes([len(rest[k : k + 32]) - 1]) + rest[k : k + 32] for k in range(0, len(rest), 32)
                    )
            body = struct.pack("<II", len(body), size) + body
        (root / "scan.pcd").write_bytes(f"{head}DATA {encoding}\n".encode() + body)

    return build


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
        reading[f"{each.name}: unit"] = None if each.depth is None else float(each.depth.unit)
    return reading


def read_scene(format: str) -> Callable[[Path], Reading]:
    def read(root: Path) -> Reading:
        from splatinit.io.read import ReadConfig, read_images

        return scene_reading(read_images(root, ReadConfig(format=format)), root)

    return read


def read_points(root: Path) -> Reading:
    from splatinit.io.pointcloud import read_ply_points
    from splatinit.types import POINT_FIELDS

    cloud = read_ply_points(root / "points.ply")
    return {name: getattr(cloud, name) for name in POINT_FIELDS}


def read_own(name: str) -> Callable[[Path], Reading]:
    """A cloud as the initializer ``file`` takes it."""

    def read(root: Path) -> Reading:
        from splatinit.initializers.file.reading import finite
        from splatinit.io.clouds import read_cloud

        raw = finite(root / name, read_cloud(root / name), [])
        return {"xyz": raw.xyz, "rgb": raw.rgb, "normal": raw.normal}

    return read


def read_transform(root: Path) -> Reading:
    from splatinit.io.transforms import read_affine

    return {"matrix": read_affine(root / "m.txt")}


def read_pairs(root: Path) -> Reading:
    from splatinit.io.transforms import read_pairs

    a, b = read_pairs(root / "p.txt")
    return {"a": a, "b": b}


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


def read_pictures(root: Path) -> Reading:
    """All images of a folder, probed and decoded."""
    from splatinit.io.images import probe_image
    from splatinit.io.read import ReadConfig

    reading: Reading = {}
    for path in sorted(root.iterdir()):
        found = probe_image(path)
        ReadConfig(max_megapixels=4.0).check_pixels(path, found.width, found.height)
        pixels = found.load(found.width, found.height)
        assert pixels.rgb.shape == (found.height, found.width, 3) and pixels.rgb.dtype == np.uint8
        reading |= {f"{path.name}: rgb": pixels.rgb, f"{path.name}: alpha": _seen(pixels.alpha)}
    return reading


def _seen(alpha: np.ndarray | None) -> np.ndarray | None:
    """None for an alpha of an opaque picture, which says no more."""
    return None if alpha is None or (alpha == 255).all() else alpha


def read_companions(root: Path) -> Reading:
    from splatinit.io.depths import map_size, with_depth
    from splatinit.io.images import probe_image
    from splatinit.io.masks import with_mask
    from splatinit.io.read import ReadConfig

    config = ReadConfig(max_megapixels=4.0)
    masked = with_mask(probe_image(root / "a.png"), root / "mask.png", "ignore", config)
    reading: Reading = {"mask": masked.load(WIDTH, HEIGHT).mask}
    for name, file in (("b", "depth.png"), ("c", "depth.npy"), ("d", "depth.tif")):
        measured = with_depth(probe_image(root / f"{name}.png"), root / file, 0.5, config)
        # At its own resolution, where nothing is interpolated.
        reading[file] = measured.load_depth(*map_size(root / file))
    return reading


def read_video(root: Path) -> Reading:
    from splatinit.io.read import ReadConfig, read_images

    cache = root.parent / "cache"
    os.environ["SPLATINIT_CACHE"] = str(cache)
    try:
        images = read_images(root / "a.mp4", ReadConfig(format="video", frames=3, max_megapixels=4.0))
        reading = scene_reading(images, cache)
        for each in images.photos:
            reading[f"{each.name}: rgb"] = each.load(each.width, each.height).rgb
            reading[f"{each.name}: file"] = each.path.name
        return reading
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        del os.environ["SPLATINIT_CACHE"]


def read_start(root: Path) -> Reading:
    """As the pipeline does it: what is not as it was left is computed again, which counts as refused."""
    from splatinit.errors import FormatError
    from splatinit.io.runs import RunFolder

    run = RunFolder(root)
    if "init" not in run.record() or run.damage("init") is not None:
        raise FormatError(f"{root}: the start is computed again.")
    return start_reading(root)


def start_reading(root: Path) -> Reading:
    from splatinit.io.runs import RunFolder

    start = RunFolder(root).read_start()
    reading: Reading = {"xyz": start.points.xyz, "rgb": start.points.rgb, "notes": start.notes}
    reading |= {
        "seconds": json.dumps(start.seconds),
        "memory": float(start.peak_memory_mb),
        "recipe": json.dumps(start.recipe),
    }
    for view, prior in start.depth_priors.items():
        reading |= {f"{view}: depth": prior.depth, f"{view}: confidence": prior.confidence}
    return reading


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


def expect_png(root: Path) -> Reading:
    reading: Reading = {}
    for path in sorted(root.iterdir()):
        pixels, has_alpha = plain.png(path.read_bytes())
        alpha = _seen(pixels[..., 3]) if has_alpha else None
        reading |= {f"{path.name}: rgb": pixels[..., :3], f"{path.name}: alpha": alpha}
    return reading


def expect_pictures(root: Path) -> Reading:
    reading: Reading = {}
    for path in sorted(root.iterdir()):
        reading |= {f"{path.name}: rgb": plain.by_opencv(path.read_bytes()), f"{path.name}: alpha": None}
    return reading


def expect_tiff(root: Path) -> Reading:
    reading: Reading = {}
    for path in sorted(root.iterdir()):
        data = path.read_bytes()
        try:
            pixels = plain.tiff(data)
        except Refuse:  # tags that no picture needs, damaged: what do others make of it?
            pixels = plain.by_opencv(data)
        reading |= {f"{path.name}: rgb": pixels, f"{path.name}: alpha": None}
    return reading


def expect_companions(root: Path) -> Reading:
    kept, alpha = plain.png((root / "mask.png").read_bytes())
    grey = kept[..., 3] if alpha else kept[..., :3].max(axis=2)
    import cv2

    def fitted(values: np.ndarray) -> np.ndarray:
        """Any resolution of the photo's proportions."""
        height, width = values.shape
        plain.need(abs(height * WIDTH - width * HEIGHT) <= WIDTH + HEIGHT + 0.01 * width * HEIGHT)
        size = (WIDTH, HEIGHT)
        return values if (width, height) == size else cv2.resize(values, size, interpolation=cv2.INTER_NEAREST_EXACT)

    reading: Reading = {"mask": fitted(np.where(grey > (127 if grey.max() > 1 else 0), 255, 0).astype(np.uint8))}
    for name in ("depth.png", "depth.npy", "depth.tif"):
        data = (root / name).read_bytes()
        if name == "depth.npy":
            values = plain.npy(data)
            values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
        else:
            if name == "depth.png":
                plain.png(data)
            values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        values = values.astype(np.float32)
        values = np.where(np.isfinite(values) & (values > 0), values, np.float32(0)) * np.float32(0.5)
        fitted(values)
        reading[name] = values
    return reading


def expect_start(root: Path) -> Reading:
    stats = plain.json_of((root / "init" / "stats.json").read_bytes())
    points = plain.ply_points((root / "init" / "points.ply").read_bytes())
    reading: Reading = {"xyz": points["xyz"], "rgb": points["rgb"], "notes": tuple(map(str, stats["notes"]))}
    reading |= {
        "seconds": json.dumps(stats["seconds"]),
        "memory": float(stats["peak_memory_mb"]),
        "recipe": json.dumps(stats["recipe"]),
    }
    for view, name in stats["depth_priors"].items():
        arrays = plain.npz((root / "init" / "depths" / Path(str(name)).name).read_bytes())
        plain.need(arrays["depth"].ndim == 2 and arrays["depth"].shape == arrays["confidence"].shape)
        reading |= {f"{view}: {key}": arrays[key].astype(np.float32) for key in ("depth", "confidence")}
    return reading


# ------------------------------------------------------------------------------------------------------------ targets
_MODEL = ("cameras", "images", "points3D")
_NERFPP = ("train/pose/a.txt", "train/intrinsics/b.txt", "test/pose/c.txt")
_POLYCAM = ("keyframes/cameras/0.json", "keyframes/cameras/1.json")
_COMPANIONS = ("mask.png", "depth.png", "depth.npy", "depth.tif")
_START = ("init/stats.json", "init/points.ply", "init/depths/00000.npz")
_IMAGES = (
    ("jpeg", ".jpg", {"quality": 90}, expect_pictures),
    ("jpeg-progressive", ".jpg", {"progressive": True, "subsampling": 0}, expect_pictures),
    ("tiff", ".tif", {}, expect_tiff),
    ("tiff-lzw", ".tif", {"compression": "tiff_lzw"}, expect_tiff),
    ("webp", ".webp", {"lossless": True}, expect_pictures),
    ("webp-lossy", ".webp", {"quality": 80}, expect_pictures),
)
_XYZ = "# a scan\nx y z red green blue\n500000.123 5000000.25 1 255 0 51\n1,2;3\t0 0 0\n-1.5 .5 3e2 7 8 9\n"
_PTS = "4\n1 2 3 77 0 0 1\n4 5 6 78 0 1 0\n7 8 9 -79 0.6 0 0.8\n1 1 1 0 -1 0 0\n"
_AFFINE = "[[0, -2, 0, 5.5],\n [2, 0, 0, 6],\n [0, 0, 2, 7e3],\n [0, 0, 0, 1]]\n"
_PAIRS = "# file, scene\n500000 5000000 10 0 0 0\n500001.5,5000000,10,1.5,0,0 # a corner\n500000 5000002 11;0 2 1\n"
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
        Target("nerfstudio-fisheye", build_fisheye, ("transforms.json",), read_scene("nerfstudio"), plain.nerfstudio),
        Target("llff", build_llff, ("poses_bounds.npy",), read_scene("llff"), plain.llff),
        Target("idr", build_idr, ("cameras_sphere.npz",), read_scene("idr"), plain.idr, tolerance=1e-6),
        Target("nerfpp", build_nerfpp, _NERFPP, read_scene("nerfpp"), plain.nerfpp),
        Target("nsvf", build_nsvf, ("pose/0_a.txt", "intrinsics.txt"), read_scene("nsvf"), plain.nsvf),
        Target("polycam", build_polycam, _POLYCAM, read_scene("polycam"), plain.polycam),
        Target("record3d", build_record3d(False), ("metadata.json",), read_scene("record3d"), plain.record3d),
        Target("record3d-each", build_record3d(True), ("metadata.json",), read_scene("record3d"), plain.record3d),
        Target("video", build_video, ("a.mp4",), read_video, None),
        Target("image-png", build_png, ("a.png", "b.png", "c.png", "d.png"), read_pictures, expect_png),
        *(
            Target(f"image-{name}", build_images(suffix, **how), (f"a{suffix}", f"b{suffix}"), read_pictures, expect)
            for name, suffix, how, expect in _IMAGES
        ),
        Target("companions", build_companions, _COMPANIONS, read_companions, expect_companions, tolerance=1e-6),
        Target("run-start", build_start, ("stages.json", *_START), read_start, expect_start),
        Target("run-start-unsealed", build_start, _START, start_reading, expect_start),
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
        Target(
            "ply-sh",
            build_points_with_sh,
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
        Target(
            "cloud-xyz",
            build_text_cloud("scan.xyz", _XYZ),
            ("scan.xyz",),
            read_own("scan.xyz"),
            expect_file(plain.text_cloud, "scan.xyz"),
            tolerance=1e-6,
        ),
        Target(
            "cloud-pts",
            build_text_cloud("scan.pts", _PTS),
            ("scan.pts",),
            read_own("scan.pts"),
            expect_file(plain.text_cloud, "scan.pts"),
            tolerance=1e-6,
        ),
        Target(
            "cloud-las",
            build_las("scan.las"),
            ("scan.las",),
            read_own("scan.las"),
            expect_file(plain.las, "scan.las"),
            plain.las_fields,
            tolerance=1e-6,
        ),
        *(
            Target(name, build_las("scan.laz", *kind), ("scan.laz",), read_own("scan.laz"), None, plain.laz_fields)
            for name, kind in (("cloud-laz", (2, "1.2")), ("cloud-laz-layers", (7, "1.4")))
        ),
        *(
            Target(
                f"cloud-pcd-{name}",
                build_pcd(encoding),
                ("scan.pcd",),
                read_own("scan.pcd"),
                expect_file(plain.pcd, "scan.pcd"),
                tolerance=1e-6,
            )
            for name, encoding in (("ascii", "ascii"), ("binary", "binary"), ("packed", "binary_compressed"))
        ),
        Target(
            "transform",
            build_text_cloud("m.txt", _AFFINE),
            ("m.txt",),
            read_transform,
            expect_file(plain.affine, "m.txt"),
        ),
        Target("pairs", build_text_cloud("p.txt", _PAIRS), ("p.txt",), read_pairs, expect_file(plain.pairs, "p.txt")),
        Target("raster", raster.build, (raster.FILE,), raster.read, None, draw=raster.draw),
    )
}
