"""NSVF's folders (Synthetic-NSVF, its Tanks and Temples and BlendedMVS): ``rgb``, ``pose`` and one ``intrinsics.txt``.

A pose is a text file of 16 numbers, camera-to-world in OpenCV axes. The split is the first letter of a photo's name:
0 is train, 2 is test, or 1 where nothing is 2 (as in Tanks and Temples; else 1 is for validation and not used).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import FormatError, NoImages
from ..types import Camera, ImageSet
from .images import ImageFile, list_images, probe_image
from .lenses import Distortion
from .nerfpp import pinhole, read_matrix, read_numbers
from .read import ReadConfig, assemble
from .scenefiles import opencv_pose, posed

FILE = "intrinsics.txt"


def detect(path: Path) -> bool:
    return (path / FILE).is_file() and all((path / name).is_dir() for name in ("rgb", "pose"))


def read(path: Path, config: ReadConfig) -> ImageSet:
    """Read the photos of ``rgb`` that have a pose; names are relative to that folder.

    Raises:
        NoImages: no photo has a pose.
        BadPoses: a number is not finite, or a pose no rotation.
        FormatError: a text file is not what it should be.
    """
    files = list_images(path / "rgb")
    having = [file for file in files if _pose_file(file).is_file()]
    if not having:
        raise NoImages(
            f"{path}: none of the {len(files)} photos in rgb/ has a file of its name in pose/.",
            hint="For rgb/NAME.png there must be pose/NAME.txt.",
        )
    test_letter = "2" if any(file.name.startswith("2_") for file in having) else "1"
    used = [file for file in having if not (test_letter == "2" and file.name.startswith("1_"))]
    size, matrix = _intrinsics(path / FILE)
    photos: list[ImageFile] = []
    cameras: dict[str, Camera] = {}
    for file in used:
        photo = probe_image(file)
        where = str(_pose_file(file))
        K = pinhole(matrix, size[1] if size else photo.height, str(path / FILE))
        pose = opencv_pose(read_matrix(_pose_file(file)), where)
        photo, cameras[photo.name] = posed(photo, K, pose, size, Distortion("brown", ()), where)
        photos.append(photo)
    notes = [f"read as NSVF: rgb + pose + {FILE}, {len(photos)} photos"]
    if len(having) < len(files):
        notes.append(f"{len(files) - len(having)} of {len(files)} photos have no pose and are left out")
    if len(used) < len(having):
        notes.append(f"{len(having) - len(used)} photos for validation (1_…) are not used")
    images = assemble(root=path, format="nsvf", photos=photos, cameras=cameras, config=config, notes=notes)
    test = frozenset(photo.name for photo in photos if photo.name.startswith(f"{test_letter}_"))
    return replace(images, test_names=test if 0 < len(test) < len(photos) else None)


def _pose_file(photo: Path) -> Path:
    return photo.parent.parent / "pose" / f"{photo.stem}.txt"


def _intrinsics(path: Path) -> tuple[tuple[int, int] | None, np.ndarray]:
    """Size in px that K belongs to (None: the photos' own) and K as [4, 4].

    The file is a 4×4 matrix; or, for the synthetic scenes, ``f cx cy 0``, three numbers of a grid, two more, and last
    the height and the width.
    """
    values = read_numbers(path)
    if len(values) == 16:
        return None, values.reshape(4, 4)
    if len(values) < 6 or not all(1 <= each < 1e6 for each in values[-2:]):
        raise FormatError(
            f"{path}: {len(values)} numbers; expected the 16 of a 4×4 matrix, or f cx cy 0 … height width.",
            path=path,
        )
    focal, cx, cy = values[:3]
    K = np.array([[focal, 0, cx, 0], [0, focal, cy, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    return (round(values[-1]), round(values[-2])), K
