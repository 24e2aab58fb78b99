"""LLFF's poses_bounds.npy: one row a photo, in order of the photos' names.

A row is a [3, 5] matrix and two numbers. The matrix: camera-to-world with the axes down, right, back; the camera's
place; height, width and focal length in px of the full size. The numbers: the nearest and the farthest depth seen. The
principal point is the image's centre, and the world stays the file's (loaders centre and scale it, each its own way).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import BadPoses, FormatError, NoImages
from ..types import ImageSet
from .arrays import read_npy
from .images import list_images, probe_image, same_proportions
from .lenses import Distortion
from .masks import masks_beside
from .read import ReadConfig, assemble
from .scenefiles import opencv_pose, photo_folder, posed

FILE = "poses_bounds.npy"


def detect(path: Path) -> bool:
    return (path / FILE).is_file() or (path.is_file() and path.name == FILE)


def read(path: Path, config: ReadConfig) -> ImageSet:
    """Read ``poses_bounds.npy`` in ``path`` (or the file itself) and the photos beside it.

    Photos are those of ``images_N`` for ``config.downscale`` = N, else of ``images``, else of the largest ``images_N``;
    the focal length is scaled, per axis, from the file's size to theirs. Names are relative to that folder.

    Raises:
        NoImages: no such folder, or no photo in it.
        BadPoses: a number is not finite, or a matrix is no rotation.
        FormatError: not an array [n, 17], another number of rows than photos, or photos of other proportions.
    """
    file = path if path.is_file() else path / FILE
    root = file.parent
    if not file.is_file():
        raise FormatError(f"{file}: no such file; LLFF's poses stand there.", path=file)
    rows = read_npy(file)
    if rows.ndim != 2 or rows.shape[1] != 17 or len(rows) == 0:
        raise FormatError(f"{file}: holds {list(rows.shape)} numbers; expected [photos, 17].", path=file)
    folder, left_to_do, notes = photo_folder(root, config)
    files = list_images(folder) if folder is not None else []
    if folder is None or not files:
        raise NoImages(
            f"{root}: {FILE} has poses of {len(rows)} photos, but there are none in images/ or images_N/.",
            hint="Put the photos into images/ beside it.",
        )
    if len(files) != len(rows):
        raise FormatError(
            f"{file}: {len(rows)} rows, but {folder.name}/ holds {len(files)} photos; expected one row a photo, in "
            "order of their names.",
            hint="Remove the photos that structure from motion left out, or restore the missing ones.",
            path=file,
            rows=len(rows),
            photos=len(files),
        )

    photos, cameras, swapped = [], {}, 0
    for index, (row, image) in enumerate(zip(rows, files, strict=True)):
        where = f"{file}, row {index} ({image.name})"
        if not np.isfinite(row).all():
            raise BadPoses(f"{where}: not finite.", hint="Re-export the poses of this image.")
        matrix = row[:15].reshape(3, 5)
        height, width, focal = matrix[:, 4]
        if not (1 <= width < 1e6 and 1 <= height < 1e6):
            raise BadPoses(f"{where}: the image size is {width:g}×{height:g} px; expected positive whole numbers.")
        photo = probe_image(image)
        size = (round(width), round(height))
        shapes = [(each.width, each.height) for each in (photo, photo.as_stored())]
        if not any(same_proportions(*shape, *size) for shape in shapes):
            # The usual loaders do not look at the file's height and width, so that nobody notices an exchange.
            turned = (size[1], size[0])
            if any(same_proportions(*shape, *turned) for shape in shapes):
                size, swapped = turned, swapped + 1
        K = np.array([[focal, 0.0, size[0] / 2], [0.0, focal, size[1] / 2], [0.0, 0.0, 1.0]])
        photo, cameras[photo.name] = posed(photo, K, _pose(matrix, where), size, Distortion("brown", ()), where)
        photos.append(photo)
    photos, mask_notes = masks_beside(photos, root, folder, config)

    notes.insert(0, f"read as LLFF: {folder.name} + {FILE}, {len(photos)} photos")
    if swapped:
        notes.append(
            f"{FILE} has height and width of {swapped} photos the other way round, and is taken to mean the photos as "
            "they are (if renders come out blurred, the photos were turned after their poses were made)"
        )
    return assemble(
        root=root, format="llff", photos=photos, cameras=cameras, config=left_to_do, notes=notes + mask_notes
    )


def _pose(matrix: np.ndarray, where: str) -> np.ndarray:
    """[4, 4] cam_from_world in OpenCV axes of camera-to-world columns (down, right, back, place)."""
    down, right, back, place = matrix[:, :4].T
    return opencv_pose(np.stack([right, down, -back, place], axis=1), where)
