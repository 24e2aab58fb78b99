"""IDR's, NeuS's and VolSDF's scenes: projection matrices in cameras_sphere.npz or cameras.npz, photos and masks.

``world_mat_i`` = K [R | t] belongs to photo i in order of the photos' names, with integer pixel centres (those of
OpenCV: 0.5 is added to the principal point). The world is that of world_mat, which for DTU is the scanner's, in mm.
``scale_mat_i``, the sphere around the object that those programs compute in, is not applied: nothing here depends on
the scene's scale, and so cameras, points and splats lie on the data set's own ground truth and on the meshes that
those programs export.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import BadPoses, FormatError, NoImages
from ..types import ImageSet
from .arrays import read_npz
from .images import list_images, probe_image
from .lenses import Distortion
from .masks import masks_beside
from .read import ReadConfig, assemble
from .scenefiles import photo_folder, posed, without_skew

FILES = ("cameras_sphere.npz", "cameras.npz")
_KEY = "world_mat_"


def _camera_file(path: Path) -> Path | None:
    if path.is_file():
        return path if path.name in FILES else None
    return next((path / name for name in FILES if (path / name).is_file()), None)


def detect(path: Path) -> bool:
    return _camera_file(path) is not None


def read(path: Path, config: ReadConfig) -> ImageSet:
    """Read the matrices, the photos of ``image/``, ``images/`` or ``rgb/``, and the masks of ``mask/`` or ``masks/``.

    Masks belong to the photos by name, or, where no name fits, in order; they say what the object is, so that it stands
    alone (``config.masks`` "auto" means "alpha").

    Raises:
        NoImages: no photos.
        BadPoses: a matrix is not finite, singular, or its camera has a skew.
        FormatError: not such an archive, a missing or an extra ``world_mat_i``, another number of masks than photos.
    """
    file = _camera_file(path)
    if file is None:
        raise FormatError(f"{path}: has neither {' nor '.join(FILES)}; IDR's cameras stand there.")
    root = file.parent
    matrices = read_npz(file)
    folder, left_to_do, notes = photo_folder(root, config)
    files = list_images(folder) if folder is not None else []
    if folder is None or not files:
        raise NoImages(
            f"{root}: {file.name} has poses, but there are no photos in image/, images/ or rgb/.",
            hint="Put the photos into image/ beside it.",
        )
    _check_keys(file, matrices, len(files), folder.name)
    photos = [probe_image(image) for image in files]
    decomposed = [
        decompose(matrices[f"{_KEY}{index}"], f"{file}, '{_KEY}{index}' ({photo.name})")
        for index, photo in enumerate(photos)
    ]
    sizes = np.array([(photo.width, photo.height) for photo in photos])
    factor = _size_factor(2 * np.array([K[:2, 2] for K, _ in decomposed]) / sizes)
    cameras = {}
    for index, (K, pose) in enumerate(decomposed):
        photo = photos[index]
        size = (max(1, round(photo.width * factor)), max(1, round(photo.height * factor)))
        where = f"{file}, '{_KEY}{index}' ({photo.name})"
        K = without_skew(K, size[1], where)
        photos[index], cameras[photo.name] = posed(photo, K, pose, size, Distortion("brown", ()), where)
    photos, mask_notes = masks_beside(photos, root, folder, config, default="alpha", by_order=True)
    notes.insert(0, f"read as IDR: {folder.name} + {file.name}, {len(photos)} photos")
    if factor != 1:
        width, height = round(photos[0].width * factor), round(photos[0].height * factor)
        notes.append(
            f"{file.name} is for photos of {width}×{height} px (twice its principal point), and is scaled to "
            f"{photos[0].width}×{photos[0].height} px"
        )
    return assemble(
        root=root, format="idr", photos=photos, cameras=cameras, config=left_to_do, notes=notes + mask_notes
    )


def _check_keys(file: Path, matrices: dict[str, np.ndarray], n: int, folder: str) -> None:
    expected = {f"{_KEY}{index}" for index in range(n)}
    there = {name for name in matrices if name.startswith(_KEY) and name[len(_KEY) :].isdecimal()}
    if there != expected:
        missing, extra = sorted(expected - there, key=_number), sorted(there - expected, key=_number)
        more = f"'{missing[0]}' is missing" if missing else f"'{extra[0]}' is one too many"
        raise FormatError(
            f"{file}: {len(there)} matrices '{_KEY}N' for the {n} photos of {folder}/ ({more}); expected one a photo, "
            "counted from 0 in order of their names.",
            hint="Remove the photos without a matrix, or restore the missing ones.",
            path=file,
            missing=tuple(missing),
            extra=tuple(extra),
        )


def _number(name: str) -> int:
    return int(name[len(_KEY) :])


def decompose(matrix: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """K [3, 3] px with K[2, 2] = 1, its principal point moved to our pixel centres, and cam_from_world [4, 4].

    Args:
        matrix: [4, 4] or [3, 4], K [R | t] up to a factor, with integer pixel centres.

    Raises:
        BadPoses, naming ``where``: another shape, not finite, or not a camera (singular, an affine projection).
    """
    if matrix.shape not in ((4, 4), (3, 4)):
        raise BadPoses(f"{where}: has shape {list(matrix.shape)}; expected [4, 4] or [3, 4].")
    if not np.isfinite(matrix).all():
        raise BadPoses(f"{where}: not finite.", hint="Re-export the poses of this image.")
    if matrix.shape == (4, 4) and not np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6):
        raise BadPoses(f"{where}: the last row is {matrix[3]}; expected 0 0 0 1.")
    singular = BadPoses(
        f"{where}: not a projection of a camera (its left 3×3 block has no inverse); expected K [R | t].",
        hint="Re-export the poses of this image.",
    )
    with np.errstate(all="ignore"):  # absurdly large numbers overflow, and are then refused
        P = matrix[:3] / np.linalg.norm(matrix[2, :3])
        if not np.isfinite(P).all() or abs(np.linalg.det(P[:, :3])) < 1e-6:
            raise singular
        # A projection is known up to a factor; of its two signs, one gives a right-handed camera.
        P = P * np.sign(np.linalg.det(P[:, :3]))
        # RQ by the QR of the rows in reverse order.
        q, r = np.linalg.qr(P[::-1, :3].T)
        K, R = r.T[::-1, ::-1], q.T[::-1]
        signs = np.sign(np.diag(K))
        K, R = K * signs, R * signs[:, None]
        K = np.triu(K / K[2, 2])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = R, np.linalg.solve(K, P[:, 3])
        residual = np.abs(K @ pose[:3] - P).max() / np.abs(P).max()
    if not residual < 1e-6:
        raise singular
    K[:2, 2] += 0.5
    return K, pose


def _size_factor(ratios: np.ndarray) -> float:
    """How many times larger than the files the images are that the matrices were made for.

    Copies of DTU come with reduced photos and the matrices of the full size, and nothing in the archive says so; but a
    principal point stands near the centre. A whole factor (or one over one) is taken where the principal points say it
    along both axes; else the matrices are taken to be for the files, which may be cropped.

    Args:
        ratios: [n, 2] 2 cx / width and 2 cy / height.
    """
    x, y = np.median(ratios, axis=0)
    if not (x > 0 and y > 0 and max(x, y) < 64):
        return 1.0
    middle = float(np.sqrt(x * y))
    factor = float(round(middle)) if middle >= 1 else 1.0 / round(1.0 / middle)
    fits = all(abs(each / factor - 1.0) < 0.15 for each in (x, y))
    return factor if fits else 1.0
