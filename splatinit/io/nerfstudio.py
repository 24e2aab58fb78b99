"""nerfstudio's and instant-ngp's transforms.json: OpenGL camera-to-world matrices, lens distortion, frames to skip,
masks, depth maps and points.

Poses stay in the file's world: ``applied_transform`` and ``applied_scale`` say what was done to it already, and are not
undone. The points of ``ply_file_path`` are in that world too, but for ``applied_scale``, which nerfstudio applies to
them and to depth when it loads them; so do we. (As ``ns-process-data`` writes them, and as nerfstudio 1.1's
``nerfstudio_dataparser`` and ``depth_dataset`` read them.)
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import BadPoses, FormatError
from ..types import Camera, ImageSet, PointCloud
from .colmap_model import LENSES
from .depths import with_depth
from .images import ImageFile, find_image, missing_images
from .lenses import MODELS, Distortion, lens_note
from .masks import mask_note, mask_role, with_mask
from .pointcloud import read_ply_points
from .read import ReadConfig, apply_split, assemble, read_json, string_list
from .scenefiles import find_photo, inside, name_of, posed, reduced_folder
from .text import to_array

FILE = "transforms.json"
DEPTH_UNIT = 0.001  # metres a step, nerfstudio's default: millimetres
# Values of ``camera_model``, and the lens whose coefficients are then keys (k1, p1, ...): COLMAP's names, and others.
_MODELS = {
    **{name: lens for name, (_, lens) in LENSES.items()},
    "PERSPECTIVE": "brown",
    "FISHEYE624": "rad_tan_thin_prism_fisheye",
}
_LISTED = ("k1", "k2", "k3", "k4", "p1", "p2")  # nerfstudio's order of ``distortion_params``, but for FISHEYE624
_NO_PINHOLE = ("latlong", "equirectangular", "orthographic", "ftheta_p0")  # keys of instant-ngp's other cameras


def detect(path: Path) -> bool:
    return (path / FILE).is_file() or (path.is_file() and path.suffix == ".json" and not _is_blender(path))


@dataclass(frozen=True)
class Frames:
    """The frames of one file.

    Attributes:
        photos: those whose file exists, with their masks and depth maps.
        cameras: name → Camera at the photo's full size.
        missing: ``file_path`` of the others.
        notes: remarks on masks and depth maps.
    """

    photos: list[ImageFile]
    cameras: dict[str, Camera]
    missing: list[str]
    notes: list[str]


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
    frames = read_frames(root, file, data, config, reduced)
    photos, missing = frames.photos, frames.missing
    total = len(photos) + len(missing)
    if not photos:
        raise missing_images(str(file), missing, total)
    notes = [
        f"read as nerfstudio: {file.name}, {len(photos)} frames"
        + (f" from {reduced}/" if reduced else "")
        + lens_note(photo.lenses for photo in photos)
    ]
    if missing:
        notes.append(f"{len(missing)} of {total} frames have no file and were skipped")
    notes += frames.notes
    points = _points(root, file, data, config, notes)
    images = assemble(
        root=root,
        format="nerfstudio",
        photos=photos,
        cameras=frames.cameras,
        config=config,
        notes=notes,
        points=points,
        reduced=reduced is not None,
    )
    train, validation, test = (string_list(data, f"{kind}_filenames", file) for kind in ("train", "val", "test"))
    if train is None and validation is None and test is None:
        return images
    return apply_split(images, train, test if test else validation, file.name)


def read_frames(
    root: Path, file: Path, data: Mapping[str, Any], config: ReadConfig, reduced: str | None = None
) -> Frames:
    """The frames of a file whose photos exist.

    Intrinsics of a frame count before those of the file; where there is no focal length, ``camera_angle_x`` gives it.
    Masks (``mask_path``, black is ignored) and depth maps (``depth_file_path``, z in steps of
    ``depth_unit_scale_factor`` metres) that are absent are counted in the notes, and the photo is used without.

    Args:
        root: the folder that paths are relative to.
        reduced: folder name to use in place of a leading ``images``; masks and depth maps are then looked for in
            ``masks_N`` and ``depths_N`` first, as nerfstudio writes them.
    """
    frames = data.get("frames")
    if not isinstance(frames, list):
        raise FormatError(f"{file}: has no list 'frames'.", hint="Is this a camera file?", path=file)
    role = mask_role(config)
    photos: list[ImageFile] = []
    cameras: dict[str, Camera] = {}
    missing: list[str] = []
    lost: dict[str, list[str]] = {"mask": [], "depth map": []}
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise FormatError(f"{file}, frame {index}: has no text 'file_path'.", path=file)
        where = f"{file}, frame {index} ({frame['file_path']})"
        relative = inside(root, frame["file_path"], where, config)
        actual = relative
        if reduced and relative.parts[0] == "images":
            actual = type(relative)(reduced, *relative.parts[1:])
        photo = find_photo(root, actual)
        if photo is None:
            missing.append(frame["file_path"])
            continue
        if actual != relative:
            photo = replace(photo, name=name_of(relative.with_name(photo.path.name)))
        settings = {**data, **frame}
        pose = opencv_from_opengl(frame.get("transform_matrix"), where)
        size, K, distortion = _intrinsics(settings, photo, where)
        photo, camera = posed(photo, K, pose, size, distortion, where)
        if photo.name in cameras:
            raise FormatError(f"{where}: this file has a frame already; expected one frame a file.", path=file)
        if role is not None and frame.get("mask_path") is not None:
            path = _beside(root, frame, "mask_path", reduced, "masks", where, config)
            if path is None:
                lost["mask"].append(frame["mask_path"])
            else:
                photo = with_mask(photo, path, role, config)
        if frame.get("depth_file_path") is not None:
            path = _beside(root, frame, "depth_file_path", reduced, "depths", where, config)
            if path is None:
                lost["depth map"].append(frame["depth_file_path"])
            else:
                unit = _positive(settings, "depth_unit_scale_factor", DEPTH_UNIT, where)
                photo = with_depth(photo, path, unit * _positive(data, "applied_scale", 1.0, str(file)), config)
        photos.append(photo)
        cameras[photo.name] = camera
    notes = []
    masked, deep = sum(photo.mask is not None for photo in photos), sum(photo.has_depth for photo in photos)
    if masked and role is not None:
        notes.append(mask_note(masked, len(photos), file.name, role))
    if deep:
        notes.append(f"depth maps: {deep} of {len(photos)} photos have one (--init depth starts from them)")
    for what, names in lost.items():
        if names:
            notes.append(f"{len(names)} photos have a {what} in {file.name} whose file is missing ('{names[0]}')")
    return Frames(photos, cameras, missing, notes)


def _beside(
    root: Path, frame: Mapping[str, Any], key: str, reduced: str | None, folder: str, where: str, config: ReadConfig
) -> Path | None:
    """The mask or depth map that a frame names under ``key``, or None where there is no such file."""
    if not isinstance(frame[key], str):
        raise FormatError(f"{where}: '{key}' is {frame[key]!r}; expected the path of an image.")
    relative = inside(root, frame[key], where, config)
    candidates = [relative]
    if reduced:
        candidates.insert(0, PurePosixPath(reduced.replace("images", folder), relative.name))
    return next(filter(None, (find_image(root / candidate) for candidate in candidates)), None)


def _positive(settings: Mapping[str, Any], key: str, default: float, where: str) -> float:
    value = settings.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise FormatError(f"{where}: '{key}' is {value!r}; expected a positive number.")
    return float(value)


def _points(root: Path, file: Path, data: Mapping[str, Any], config: ReadConfig, notes: list[str]) -> PointCloud | None:
    """The points of ``ply_file_path`` in the world of the poses; what is to be said of them goes to ``notes``."""
    text = data.get("ply_file_path")
    if text is None:
        return None
    if not isinstance(text, str):
        raise FormatError(f"{file}: 'ply_file_path' is {text!r}; expected the path of a .ply file.", path=file)
    path = root / inside(root, text, f"{file}, ply_file_path", config)
    if not os.path.isfile(path):  # no name is too long for it, unlike for Path.is_file
        notes.append(f"the points of ply_file_path ('{text}') have no file and were skipped")
        return None
    points = read_ply_points(path)
    scale = _positive(data, "applied_scale", 1.0, str(file))
    notes.append(f"{len(points)} points from {text}" + (f", times applied_scale {scale:g}" if scale != 1 else ""))
    if scale != 1:
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            points = replace(
                points,
                xyz=points.xyz * np.float32(scale),
                radius=None if points.radius is None else points.radius * np.float32(scale),
            )
        points.check(f"{path}, times applied_scale {scale:g}")
    return points


def opencv_from_opengl(matrix: Any, where: str) -> np.ndarray:
    """[4, 4] cam_from_world in OpenCV axes from a camera-to-world in OpenGL axes (y up, z backward).

    The rotation is inverted by transposing it, so that a scaled or mirrored matrix is still recognised as such by
    ``Camera.check``. Raises BadPoses when ``matrix`` is not 4×4 or 3×4 numbers.
    """
    try:
        world_from_cam = to_array(matrix)
    except ValueError as error:
        raise BadPoses(f"{where}: 'transform_matrix' is not a matrix of numbers ({error}).") from error
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

    lens = _lens(settings, where)
    names = MODELS[lens].names
    listed = settings.get("distortion_params")
    if listed is not None:
        order = names if lens == "rad_tan_thin_prism_fisheye" else _LISTED
        if not isinstance(listed, list) or len(listed) != len(order):
            raise FormatError(
                f"{where}: 'distortion_params' is {listed!r}; expected the {len(order)} numbers {' '.join(order)}."
            )
        settings = {**settings, **dict(zip(order, listed, strict=True))}
    if lens == "brown" and (number("k5") or number("k6")):
        lens, names = "rational", MODELS["rational"].names
    for key in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2"):
        if key not in names and number(key):
            raise FormatError(
                f"{where}: {key} = {number(key):g} is no coefficient of the lens '{lens}'; expected {' '.join(names)}.",
                hint="Set 'camera_model' to what the coefficients belong to: OPENCV, OPENCV_FISHEYE, FULL_OPENCV, ...",
            )

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
        if not 1e-9 < angle < math.pi:  # the tangent of less can be 0
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
    return size, K, Distortion(lens, tuple(number(key) or 0.0 for key in names))


def _lens(settings: Mapping[str, Any], where: str) -> str:
    """The name of the lens in :data:`splatinit.io.lenses.MODELS`. Raises FormatError for cameras that have none."""
    fisheye = settings.get("is_fisheye")
    if fisheye not in (None, True, False):
        raise FormatError(f"{where}: 'is_fisheye' is {fisheye!r}; expected true or false.")
    model = settings.get("camera_model")
    if model is None:
        model = "OPENCV_FISHEYE" if fisheye else "OPENCV"
    other = [key for key in _NO_PINHOLE if settings.get(key)]
    if other or not isinstance(model, str) or model.upper() not in _MODELS:
        raise FormatError(
            f"{where}: the camera model is '{other[0] if other else model}'; expected one that a pinhole can replace: "
            f"{', '.join(_MODELS)}.",
            hint="Cut panoramas into pinhole views first (a cube map has six); undistort others.",
        )
    lens = _MODELS[model.upper()]
    return "fisheye" if fisheye and lens == "brown" else lens
