"""Camera paths as JSON: our own list of cameras, and the file that nerfstudio's viewer exports."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadPoses, FormatError, ShapeError
from ..types import Camera
from .text import read_json, to_array

# nerfstudio: OpenGL axes (x right, y up, z back); ours: OpenCV (x right, y down, z forward).
_OPENGL_FROM_OPENCV = np.array([1.0, -1.0, -1.0])  # signs of the axes


def read_cameras(path: Path) -> list[Camera]:
    """Cameras from a JSON file, in its order.

    Either ``{"cameras": [{"width", "height", "K": 3×3, "cam_from_world": 4×4}, …]}`` (OpenCV axes), or nerfstudio's
    ``camera_path`` (``camera_to_world`` of 16 numbers, ``fov`` in degrees over the height, ``render_width/height``).
    Raises FormatError naming the camera that cannot be read, BadPoses for one that is not a rigid motion.
    """
    path = Path(path)
    if not path.exists():
        raise FormatError(f"Camera path {path} does not exist.", path=path)
    data = read_json(path)
    rows = data.get("cameras", data.get("camera_path")) if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise FormatError(
            f"Camera path {path}: expected a list called 'cameras' or nerfstudio's 'camera_path', and found none."
        )
    read = _own if "cameras" in data else _nerfstudio
    cameras = []
    for index, row in enumerate(rows):
        try:
            cameras.append(read(row, data, f"{path}: camera {index}"))
        except (KeyError, TypeError, ValueError, ArithmeticError, ShapeError) as error:
            what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
            raise FormatError(f"Camera path {path}: camera {index} cannot be read: {what}.") from None
    return cameras


def _own(row: dict[str, Any], _: dict[str, Any], where: str) -> Camera:
    K, pose = to_array(row["K"]), to_array(row["cam_from_world"])
    camera = Camera(K=K, cam_from_world=pose, width=_side(row, "width"), height=_side(row, "height"))
    camera.check(where)
    if K[[0, 1, 2, 2], [1, 0, 0, 1]].any() or K[2, 2] != 1:
        raise ValueError("'K' is not [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
    _check_last_row(pose, where)
    return camera


def _nerfstudio(row: dict[str, Any], data: dict[str, Any], where: str) -> Camera:
    width, height = _side(data, "render_width"), _side(data, "render_height")
    fov = float(to_array(row["fov"]).reshape(()))
    if not 0 < fov < 180:
        raise ValueError(f"'fov' is {fov:g}; expected degrees between 0 and 180")
    focal = 0.5 * height / math.tan(math.radians(fov) / 2)
    world_from_cam = to_array(row["camera_to_world"]).reshape(4, 4)
    _check_last_row(world_from_cam, where)
    rotation, center = world_from_cam[:3, :3], world_from_cam[:3, 3]
    pose = np.eye(4)
    with np.errstate(all="ignore"):  # what is not finite here is refused by Camera.check
        rotation = rotation * _OPENGL_FROM_OPENCV
        pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ center
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    camera = Camera(K=K, cam_from_world=pose, width=width, height=height)
    camera.check(where)
    return camera


def _side(row: dict[str, Any], key: str) -> int:
    value = row[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or not 1 <= value < 1e6:
        raise ValueError(f"'{key}' is {value!r}; expected a whole number of px")
    return int(value)


def _check_last_row(pose: np.ndarray, where: str) -> None:
    if not np.allclose(pose[3], (0, 0, 0, 1), atol=1e-6):
        raise BadPoses(f"{where}: the last row of the pose is {pose[3]}; expected 0 0 0 1.")
