"""Record3D's exports: EXR + JPG (``metadata.json`` and ``rgb/``) and an unzipped .r3d (``metadata`` and ``rgbd/``).

As its maker describes it (github.com/marek-simonik/record3d, issues 33, 36, 64 and 83): frame N is ``N.jpg``;
``poses`` are rows qx qy qz qw x y z, camera-to-world in OpenGL's axes, metres; ``K`` has the nine numbers of the first
frame's matrix column by column, ``perFrameIntrinsicCoeffs`` fx fy cx cy of each, in px of ``w`` × ``h``. Its depth is
not read: EXR and LZFSE need libraries of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadPoses, FormatError
from ..types import Camera, ImageSet
from .images import ImageFile, list_images, missing_images, probe_image
from .lenses import Distortion
from .nerfstudio import opencv_from_opengl
from .read import ReadConfig, assemble, read_json
from .scenefiles import posed

# It is a video of 30 or 60 photos a second; nerfstudio's importer takes as many.
MOST = 300


def _metadata(path: Path) -> Path | None:
    return next((path / name for name in ("metadata.json", "metadata") if (path / name).is_file()), None)


def _folder(path: Path) -> Path | None:
    return next((path / name for name in ("rgb", "rgbd") if (path / name).is_dir()), None)


def detect(path: Path) -> bool:
    return _metadata(path) is not None and _folder(path) is not None


def read(path: Path, config: ReadConfig) -> ImageSet:
    """Read the export in ``path``: ``config.frames`` (or ``config.fps``) of its photos, at most 300 if not given,
    evenly over time. Where all poses are the same (the selfie camera has none), the photos come without cameras.

    Raises:
        NoImages: no photo called by a number.
        BadPoses: a pose is not finite, or no rotation.
        FormatError: metadata that is damaged, or has fewer poses than there are photos.
    """
    file, folder = _metadata(path), _folder(path)
    if file is None or folder is None:
        raise FormatError(
            f"{path}: not an export of Record3D; expected metadata.json and rgb/, or metadata and rgbd/.", path=path
        )
    data = read_json(file)
    # Copies that the system made are called "12(3).jpg".
    files = {int(image.stem): image for image in list_images(folder) if image.stem.isascii() and image.stem.isdigit()}
    if not files:
        raise missing_images(str(folder), ["0.jpg"], 1)
    poses = _table(data, "poses", 7, file)
    coefficients = _table(data, "perFrameIntrinsicCoeffs", 4, file) if "perFrameIntrinsicCoeffs" in data else None
    if coefficients is None:
        K = _table({"K": [data.get("K")]}, "K", 9, file)[0].reshape(3, 3).T
        coefficients = np.tile([K[0, 0], K[1, 1], K[0, 2], K[1, 2]], (len(poses), 1))
    width, height = (_positive(data, key, file) for key in ("w", "h"))
    last = max(files)
    if last >= len(poses) or len(coefficients) != len(poses):
        raise FormatError(
            f"{file}: {len(poses)} poses and {len(coefficients)} intrinsics, but photos up to {files[last].name}; "
            "expected one of each a photo.",
            path=file,
        )
    chosen = _evenly(sorted(files), data, config, file)
    still = bool((poses == poses[0]).all()) and len(poses) > 1
    photos: list[ImageFile] = []
    cameras: dict[str, Camera] = {}
    for index in chosen:
        where = f"{file}, frame {index}"
        photo = probe_image(files[index], f"{folder.name}/{files[index].name}")
        fx, fy, cx, cy = coefficients[index]
        if still:
            photos.append(replace(photo, focal_px=float(fx) * photo.width / width if fx > 0 else None))
            continue
        K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        pose = opencv_from_opengl(_matrix(poses[index], where), where)
        photo, camera = posed(photo, K, pose, (round(width), round(height)), Distortion("brown", ()), where)
        photos.append(photo)
        cameras[photo.name] = camera
    notes = [f"read as Record3D: {file.name} and {folder.name}/, {len(photos)} photos; its depth is not read"]
    if len(chosen) < len(files):
        notes.append(f"{len(chosen)} of {len(files)} photos, evenly over time (data.frames=N takes N)")
    if still:
        notes.append("all its poses are the same (the selfie camera has none): the photos count as without poses")
    return assemble(root=path, format="record3d", photos=photos, cameras=cameras, config=config, notes=notes)


def _evenly(numbers: list[int], data: Mapping[str, Any], config: ReadConfig, file: Path) -> list[int]:
    """The frames that are taken."""
    count = min(len(numbers), MOST if config.frames is None else config.frames)
    if config.fps is not None:
        count = min(len(numbers), max(2, round(len(numbers) * config.fps / _positive(data, "fps", file))))
    return [numbers[int((place + 0.5) * len(numbers) / count)] for place in range(count)]


def _table(data: Mapping[str, Any], key: str, columns: int, file: Path) -> np.ndarray:
    """[n ≥ 1, columns] float64 of finite numbers."""
    value = data.get(key)
    rows = value if isinstance(value, list) else [None]
    sound = all(
        isinstance(row, list)
        and len(row) == columns
        and all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e30 for x in row)
        for row in rows
    )
    if not sound or not rows:
        raise FormatError(f"{file}: '{key}' is not a list of {columns} finite numbers each.", path=file, key=key)
    return np.array(rows, dtype=np.float64)


def _positive(data: Mapping[str, Any], key: str, file: Path) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise FormatError(f"{file}: '{key}' is {value!r}; expected a positive number.", path=file, key=key)
    return float(value)


def _matrix(pose: np.ndarray, where: str) -> list[list[float]]:
    """[3, 4] camera-to-world of qx qy qz qw x y z."""
    length = float(np.linalg.norm(pose[:4]))
    if not 0.99 < length < 1.01:
        raise BadPoses(f"{where}: its quaternion has length {length:.3g}; expected 1.")
    x, y, z, w = pose[:4] / length
    R = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.column_stack([R, pose[4:]]).tolist()
