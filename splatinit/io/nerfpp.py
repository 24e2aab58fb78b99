"""NeRF++'s folders (its Tanks and Temples among them): ``train`` and ``test`` with ``rgb``, ``pose``, ``intrinsics``.

For each photo two text files of 16 numbers: its camera-to-world in OpenCV axes, and K as a [4, 4] matrix in px of the
photo, pixel centres at one half.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import BadPoses, FormatError, NoImages
from ..types import Camera, ImageSet
from .images import ImageFile, list_images, probe_image
from .lenses import Distortion
from .read import ReadConfig, assemble
from .scenefiles import opencv_pose, posed, without_skew

SPLITS = ("train", "test")
_MAX_BYTES = 1 << 16  # of a text file with one matrix


def detect(path: Path) -> bool:
    return all((path / "train" / name).is_dir() for name in ("rgb", "pose", "intrinsics"))


def read(path: Path, config: ReadConfig) -> ImageSet:
    """Read the photos of ``train/rgb`` and ``test/rgb``; those of ``test`` are the test views.

    Names are relative to the scene's folder. ``validation`` and ``camera_path`` are not used.

    Raises:
        NoImages: no photo with a pose in ``train``.
        BadPoses: a matrix is not finite, or its pose no rotation.
        FormatError: a text file is not 16 numbers.
    """
    photos: list[ImageFile] = []
    cameras: dict[str, Camera] = {}
    counts: dict[str, int] = {}
    notes: list[str] = []
    for split in SPLITS:
        files = list_images(path / split / "rgb")
        having = [file for file in files if _beside(file, "pose").is_file() and _beside(file, "intrinsics").is_file()]
        if len(having) < len(files):
            notes.append(f"{len(files) - len(having)} of {len(files)} photos of {split} have no pose and are left out")
        for file in having:
            photo = probe_image(file, file.relative_to(path).as_posix())
            pose = opencv_pose(read_matrix(_beside(file, "pose")), str(_beside(file, "pose")))
            where = str(_beside(file, "intrinsics"))
            K = pinhole(read_matrix(_beside(file, "intrinsics")), photo.height, where)
            photo, cameras[photo.name] = posed(photo, K, pose, None, Distortion("brown", ()), where)
            photos.append(photo)
        counts[split] = len(having)
    if not counts["train"]:
        raise NoImages(
            f"{path}: no photo in train/rgb has a file of its name in train/pose and train/intrinsics.",
            hint="For train/rgb/NAME.png there must be train/pose/NAME.txt and train/intrinsics/NAME.txt.",
        )
    notes.insert(0, f"read as NeRF++: {counts['train']} train and {counts['test']} test photos")
    test = frozenset(photo.name for photo in photos if photo.name.startswith("test/"))
    images = assemble(root=path, format="nerfpp", photos=photos, cameras=cameras, config=config, notes=notes)
    return replace(images, test_names=test or None)


def _beside(photo: Path, kind: str) -> Path:
    return photo.parent.parent / kind / f"{photo.stem}.txt"


def read_matrix(path: Path) -> np.ndarray:
    """[4, 4] finite numbers of a text file, over any number of lines. Raises as :func:`read_numbers` does."""
    values = read_numbers(path)
    if len(values) != 16:
        raise FormatError(f"{path}: {len(values)} numbers; expected the 16 of a 4×4 matrix.", path=path)
    return values.reshape(4, 4)


def read_numbers(path: Path) -> np.ndarray:
    """[n] finite numbers of a small text file.

    Raises:
        FormatError, naming the file: not to be read, large, or something in it is no number.
        BadPoses: one of them is not finite.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise FormatError(f"{path}: {path.stat().st_size} bytes; expected a few numbers as text.", path=path)
        words = path.read_bytes().decode("ascii").split()
        if any("_" in word for word in words):  # Python alone takes 1_000 for a number
            raise ValueError("an underscore in a number")
        values = np.array([float(word) for word in words])
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: cannot be read as numbers ({error}).", path=path) from error
    if not np.isfinite(values).all():
        raise BadPoses(f"{path}: not finite.", hint="Re-export the cameras.")
    return values


def pinhole(matrix: np.ndarray, height: int, where: str) -> np.ndarray:
    """K [3, 3] of the K that a file gives as [4, 4], for an image ``height`` px high.

    Raises BadPoses, naming ``where``: its third row is not 0 0 1, or see :func:`without_skew`.
    """
    K = matrix[:3, :3]
    if not np.allclose(K[2], (0, 0, 1), atol=1e-6) or K[1, 0] != 0:
        raise BadPoses(f"{where}: the rows of K are {K[0]}, {K[1]}, {K[2]}; expected fx 0 cx, 0 fy cy, 0 0 1.")
    return without_skew(K, height, where)
