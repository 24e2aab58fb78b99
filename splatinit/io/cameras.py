"""Camera paths as JSON: our own list of cameras, and the file that nerfstudio's viewer exports."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError, ShapeError
from ..types import Camera

# nerfstudio: OpenGL axes (x right, y up, z back); ours: OpenCV (x right, y down, z forward).
_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def read_cameras(path: Path) -> list[Camera]:
    """Cameras from a JSON file, in its order.

    Either ``{"cameras": [{"width", "height", "K": 3×3, "cam_from_world": 4×4}, …]}`` (OpenCV axes), or nerfstudio's
    ``camera_path`` (``camera_to_world`` of 16 numbers, ``fov`` in degrees over the height, ``render_width/height``).
    Raises FormatError naming the camera that cannot be read, BadPoses for one that is not a rigid motion.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"Camera path {path} does not exist.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise FormatError(f"Camera path {path} is not valid JSON: {error}.") from None
    rows = data.get("cameras", data.get("camera_path")) if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows:
        raise FormatError(
            f"Camera path {path}: expected a list called 'cameras' or nerfstudio's 'camera_path', and found none."
        )
    read = _own if "cameras" in data else _nerfstudio
    cameras = []
    for index, row in enumerate(rows):
        try:
            cameras.append(read(row, data))
        except (KeyError, TypeError, ValueError, ShapeError) as error:
            what = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
            raise FormatError(f"Camera path {path}: camera {index} cannot be read: {what}.") from None
        cameras[-1].check(f"{path}: camera {index}")
    return cameras


def _own(row: dict[str, Any], _: dict[str, Any]) -> Camera:
    return Camera(
        K=np.array(row["K"], dtype=np.float64),
        cam_from_world=np.array(row["cam_from_world"], dtype=np.float64),
        width=int(row["width"]),
        height=int(row["height"]),
    )


def _nerfstudio(row: dict[str, Any], data: dict[str, Any]) -> Camera:
    width, height = int(data["render_width"]), int(data["render_height"])
    focal = 0.5 * height / math.tan(math.radians(float(row["fov"])) / 2)
    world_from_cam = np.array(row["camera_to_world"], dtype=np.float64).reshape(4, 4) @ _OPENGL_FROM_OPENCV
    rotation, center = world_from_cam[:3, :3], world_from_cam[:3, 3]
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ center
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Camera(K=K, cam_from_world=pose, width=width, height=height)
