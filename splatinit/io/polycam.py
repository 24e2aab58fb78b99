"""Polycam's raw export: ``keyframes/`` with photos, a JSON camera each, and the LiDAR's depth and confidence.

As its makers describe it (github.com/PolyCam/polyform, README): ``t_00`` to ``t_23`` are the rows of a camera-to-world
matrix in ARKit's axes (x right, y up, z backward; world y up, metres), ``fx fy cx cy`` are px of ``width`` ×
``height``; depth is 16 bit in millimetres along z, confidence 0 (low), 127 or 255. Where the app has optimised the
poses of the whole capture, ``corrected_cameras`` and the undistorted ``corrected_images`` are there too, and taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadPoses, FormatError
from ..types import Camera, ImageSet
from .depths import with_depth
from .images import ImageFile, list_images, missing_images, probe_image
from .lenses import Distortion, Lens
from .nerfstudio import opencv_from_opengl
from .read import ReadConfig, assemble, read_json
from .scenefiles import posed

FOLDER = "keyframes"
# Undistorting leaves the corrected images black at their borders; nerfstudio's importer cuts 15 of their 1024 px off
# each side, and so do we, of either side's length.
BORDER = 15 / 1024
DEPTH_UNIT = 0.001  # metres


def detect(path: Path) -> bool:
    return any((path / FOLDER / name).is_dir() for name in ("cameras", "corrected_cameras"))


def read(path: Path, config: ReadConfig) -> ImageSet:
    """Read the export in ``path``. A photo without a camera file, and a camera without a photo, are counted.

    Raises:
        NoImages: no camera whose photo exists.
        BadPoses: a pose or focal length is not finite or not usable.
        FormatError: a camera file is damaged, or a photo has other proportions than its camera.
    """
    root = path
    folder = root / FOLDER
    corrected = all((folder / f"corrected_{kind}").is_dir() for kind in ("cameras", "images"))
    prefix = "corrected_" if corrected else ""
    names = sorted(file.stem for file in (folder / f"{prefix}cameras").glob("*.json") if not file.name.startswith("."))
    files = {file.stem: file for file in list_images(folder / f"{prefix}images")}
    photos: list[ImageFile] = []
    cameras: dict[str, Camera] = {}
    for name in names:
        if name not in files:
            continue
        photo, camera = _keyframe(root, files[name], folder / f"{prefix}cameras" / f"{name}.json", corrected)
        depth, confidence = (folder / kind / f"{name}.png" for kind in ("depth", "confidence"))
        if depth.is_file():
            photo = with_depth(photo, depth, DEPTH_UNIT, config, confidence if confidence.is_file() else None)
        photos.append(photo)
        cameras[photo.name] = camera
    if not photos:
        raise missing_images(str(folder / f"{prefix}cameras"), [f"{name}.jpg" for name in names], len(names))
    notes = [f"read as Polycam: {FOLDER}/{prefix}cameras, {len(photos)} photos"]
    if not corrected:
        notes.append("the export has no corrected cameras: ARKit's own poses are taken, lens distortion stays")
    deep = sum(photo.has_depth for photo in photos)
    if deep:
        notes.append(f"depth maps: {deep} of {len(photos)} photos have one (--init depth starts from them)")
    for what, lost in (
        ("cameras have no photo", set(names) - set(files)),
        ("photos have no camera", set(files) - set(names)),
    ):
        if lost:
            notes.append(f"{len(lost)} {what} and are left out")
    return assemble(root=root, format="polycam", photos=photos, cameras=cameras, config=config, notes=notes)


def _keyframe(root: Path, image: Path, file: Path, corrected: bool) -> tuple[ImageFile, Camera]:
    data = read_json(file)
    rows = [[_number(data, f"t_{row}{column}", file) for column in range(4)] for row in range(3)]
    fx, fy, cx, cy, width, height = (_number(data, key, file) for key in ("fx", "fy", "cx", "cy", "width", "height"))
    if not (1 <= width < 1e6 and 1 <= height < 1e6):
        raise BadPoses(f"{file}: the image size is {width:g}×{height:g} px; expected positive whole numbers.")
    photo = probe_image(image, image.relative_to(root).as_posix())
    K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
    pose = opencv_from_opengl(rows, str(file))
    photo, camera = posed(photo, K, pose, (round(width), round(height)), Distortion("brown", ()), str(file))
    return _without_border(photo, camera) if corrected else (photo, camera)


def _without_border(photo: ImageFile, camera: Camera) -> tuple[ImageFile, Camera]:
    """The inner part of a photo, stretched to its size: a lens that bends nothing, seen through a longer one."""
    K = camera.K.copy()
    K[:2, 2] -= BORDER * np.array([photo.width, photo.height])
    K[:2] /= 1 - 2 * BORDER
    seen = (float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))
    old = camera.K
    lens = Lens(camera.fx, camera.fy, float(old[0, 2]), float(old[1, 2]), Distortion("brown", ()), pinhole=seen)
    return replace(photo, lenses=(*photo.lenses, lens)), replace(camera, K=K)


def _number(data: Mapping[str, Any], key: str, file: Path) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FormatError(f"{file}: '{key}' is {value!r}; expected a number.", path=file, key=key)
    try:
        return float(value)
    except OverflowError:
        return float("inf")
