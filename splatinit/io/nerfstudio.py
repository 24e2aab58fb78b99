"""nerfstudio's and instant-ngp's transforms.json: OpenGL camera-to-world matrices, lens distortion, frames to skip.

Poses stay in the file's world: ``applied_transform`` and ``applied_scale`` say what was done to it already, and are not
undone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadPoses, FormatError
from ..types import Camera, ImageSet
from .images import ImageFile, missing_images
from .lenses import Distortion
from .read import ReadConfig, apply_split, assemble, read_json, string_list
from .scenefiles import find_photo, inside, posed, reduced_folder

FILE = "transforms.json"
# All of these are the Brown–Conrady model with some coefficients absent.
_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE")


def detect(path: Path) -> bool:
    return (path / FILE).is_file() or (path.is_file() and path.suffix == ".json" and not _is_blender(path))


def _is_blender(path: Path) -> bool:
    return path.name in ("transforms_train.json", "transforms_test.json", "transforms_val.json")


def read(path: Path, config: ReadConfig) -> ImageSet:
    """Read ``transforms.json`` in ``path`` (or the file itself), its frames and its split.

    Raises:
        NoImages: no frame, or none whose file exists.
        BadPoses: a matrix is not finite, singular, scaled or mirrored.
        FormatError: not valid JSON, an unknown camera model, a number that is none, a file named twice.
        SceneError: a file path leaves the folder.
    """
    file = path if path.is_file() else path / FILE
    root = file.parent
    data = read_json(file)
    reduced = reduced_folder(root, config.downscale)
    photos, cameras, missing = read_frames(root, file, data, reduced)
    total = len(photos) + len(missing)
    if not photos:
        raise missing_images(str(file), missing, total)
    lenses = sum(bool(photo.lenses) for photo in photos)
    notes = [
        f"read as nerfstudio: {file.name}, {len(photos)} frames"
        + (f" from {reduced}/" if reduced else "")
        + (", lens distortion removed" if lenses else "")
    ]
    if missing:
        notes.append(f"{len(missing)} of {total} frames have no file and were skipped")
    images = assemble(
        root=root,
        format="nerfstudio",
        photos=photos,
        cameras=cameras,
        config=config,
        notes=notes,
        reduced=reduced is not None,
    )
    train, validation, test = (string_list(data, f"{kind}_filenames", file) for kind in ("train", "val", "test"))
    if train is None and validation is None and test is None:
        return images
    return apply_split(images, train, test if test else validation, file.name)


def read_frames(
    root: Path, file: Path, data: Mapping[str, Any], reduced: str | None = None
) -> tuple[list[ImageFile], dict[str, Camera], list[str]]:
    """Photos, cameras at full size by name, and the paths of frames without a file.

    Intrinsics of a frame count before those of the file; where there is no focal length, ``camera_angle_x`` gives it.

    Args:
        root: the folder that paths are relative to.
        reduced: folder name to use in place of a leading ``images``.
    """
    frames = data.get("frames")
    if not isinstance(frames, list):
        raise FormatError(f"{file}: has no list 'frames'.", hint="Is this a camera file?", path=file)
    photos: list[ImageFile] = []
    cameras: dict[str, Camera] = {}
    missing: list[str] = []
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise FormatError(f"{file}, frame {index}: has no text 'file_path'.", path=file)
        where = f"{file}, frame {index} ({frame['file_path']})"
        relative = inside(root, frame["file_path"], where)
        actual = relative
        if reduced and relative.parts[0] == "images":
            actual = type(relative)(reduced, *relative.parts[1:])
        photo = find_photo(root, actual)
        if photo is None:
            missing.append(frame["file_path"])
            continue
        if actual != relative:
            photo = replace(photo, name=str(relative.with_name(photo.path.name)))
        settings = {**data, **frame}
        pose = opencv_from_opengl(frame.get("transform_matrix"), where)
        size, K, distortion = _intrinsics(settings, photo, where)
        photo, camera = posed(photo, K, pose, size, distortion, where)
        if photo.name in cameras:
            raise FormatError(f"{where}: this file has a frame already; expected one frame a file.", path=file)
        photos.append(photo)
        cameras[photo.name] = camera
    return photos, cameras, missing


def opencv_from_opengl(matrix: Any, where: str) -> np.ndarray:
    """[4, 4] cam_from_world in OpenCV axes from a camera-to-world in OpenGL axes (y up, z backward).

    The rotation is inverted by transposing it, so that a scaled or mirrored matrix is still recognised as such by
    ``Camera.check``. Raises BadPoses when ``matrix`` is not 4×4 or 3×4 numbers.
    """
    try:
        world_from_cam = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadPoses(f"{where}: 'transform_matrix' is not a matrix of numbers.") from error
    if world_from_cam.shape not in ((4, 4), (3, 4)):
        raise BadPoses(
            f"{where}: 'transform_matrix' has shape {list(world_from_cam.shape)}; expected [4, 4] or [3, 4]."
        )
    if world_from_cam.shape == (4, 4) and not np.allclose(world_from_cam[3], (0, 0, 0, 1), atol=1e-6):
        raise BadPoses(f"{where}: the last row of 'transform_matrix' is {world_from_cam[3]}; expected 0 0 0 1.")
    R = world_from_cam[:3, :3] * np.array([1.0, -1.0, -1.0])
    pose = np.eye(4)
    pose[:3, :3] = R.T
    with np.errstate(all="ignore"):  # what is not finite here is refused by Camera.check
        pose[:3, 3] = -R.T @ world_from_cam[:3, 3]
    return pose


def _intrinsics(
    settings: Mapping[str, Any], photo: ImageFile, where: str
) -> tuple[tuple[int, int] | None, np.ndarray, Distortion]:
    """Size in px that K belongs to (None: the photo's own), K [3, 3], and the lens."""

    def number(key: str) -> float | None:
        value = settings.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FormatError(f"{where}: '{key}' is {value!r}; expected a number.")
        try:
            return float(value)
        except OverflowError:
            return math.inf

    model = settings.get("camera_model", "OPENCV")
    if not isinstance(model, str) or model.upper() not in _MODELS or settings.get("is_fisheye"):
        named = "a fisheye" if settings.get("is_fisheye") else f"'{model}'"
        raise FormatError(
            f"{where}: the camera model is {named}; read are {', '.join(_MODELS)}.",
            hint="Undistort the images to a pinhole camera first.",
        )
    if number("k4"):
        raise FormatError(f"{where}: k4 = {number('k4'):g} is a fisheye coefficient; read are k1 k2 p1 p2 k3.")

    w, h = number("w"), number("h")
    size = None
    if w is not None and h is not None:
        if not (math.isfinite(w) and math.isfinite(h) and 1 <= w < 1e6 and 1 <= h < 1e6):
            raise BadPoses(f"{where}: the image size is {w:g}×{h:g} px; expected positive whole numbers.")
        size = (round(w), round(h))
    width, height = size if size is not None else (photo.as_stored().width, photo.as_stored().height)

    def focal(key: str, angle_key: str, pixels: int) -> float | None:
        value, angle = number(key), number(angle_key)
        if value is not None:
            return value
        if angle is None:
            return None
        if not 0 < angle < math.pi:
            raise BadPoses(f"{where}: '{angle_key}' is {angle:g}; expected radians between 0 and π.")
        return 0.5 * pixels / math.tan(0.5 * angle)

    fx, fy = focal("fl_x", "camera_angle_x", width), focal("fl_y", "camera_angle_y", height)
    fx, fy = (fx if fx is not None else fy), (fy if fy is not None else fx)
    if fx is None or fy is None:
        raise BadPoses(f"{where}: no focal length; expected 'fl_x' (px) or 'camera_angle_x' (radians).")
    cx, cy = number("cx"), number("cy")
    K = np.array(
        [[fx, 0.0, width / 2 if cx is None else cx], [0.0, fy, height / 2 if cy is None else cy], [0.0, 0.0, 1.0]]
    )
    return size, K, Distortion("brown", tuple(number(key) or 0.0 for key in ("k1", "k2", "p1", "p2", "k3")))
