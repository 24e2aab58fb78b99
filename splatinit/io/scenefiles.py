"""What the readers of posed scenes share: names that stay inside the scene's folder, cameras that fit the photos."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from ..errors import BadPoses, FormatError, SceneError
from ..types import Camera
from .images import ImageFile, find_image, is_image, probe_image, same_proportions, undistorted
from .lenses import Distortion
from .read import ReadConfig

# px by which dropping a skew may move a pixel at the image's border; features are not matched better than that.
_SKEW_LIMIT = 0.25
# Where tools keep the photos of a scene when they are not in the folder itself.
IMAGE_FOLDERS = ("images", "image", "rgb", "input")


def inside(root: Path, relative: str, where: str, config: ReadConfig) -> PurePosixPath:
    """A path from a scene file, normalised relative to ``root``; absolute where it leads out of it and may.

    Only the *text* of the path is restricted: links in the folder are followed wherever they lead, because people link
    their photos into scenes, and because a file cannot make a link (an archive can: look into those of strangers).

    Raises:
        FormatError: an empty path, or one that no system has.
        SceneError: it leaves the folder, and ``config.allow_outside`` is off: what a downloaded file says must not make
            us open other files.
    """
    text = relative.replace("\\", "/")
    if not text or "\0" in text:
        raise FormatError(f"{where}: an image has an empty or impossible file name {relative!r}.")
    full = Path(os.path.normpath(os.path.join(os.path.abspath(root), text)))
    base = Path(os.path.abspath(root))
    if full == base:
        raise SceneError(f"{where}: the path '{relative}' is the scene folder itself; expected a file in it.")
    if full.is_relative_to(base):
        return PurePosixPath(full.relative_to(base).as_posix())
    if not config.allow_outside:
        raise SceneError(
            f"{where}: the path '{relative}' leads out of the scene folder {root}.",
            hint="If you trust the file, allow it with --allow-outside; else move (or link) the images into the folder "
            "and write their paths relative to it.",
        )
    return PurePosixPath(full.as_posix())


def name_of(relative: PurePosixPath) -> str:
    """The name of a photo at a path of :func:`inside`: relative for files outside too, because outputs are named so."""
    if not relative.is_absolute():
        return str(relative)
    return str(PurePosixPath("outside", *relative.parts[1:]))


def reduced_folder(root: Path, downscale: float | None) -> str | None:
    """``images_N`` for a whole factor N > 1, where that folder exists beside ``images``."""
    if downscale is None or downscale <= 1 or downscale != int(downscale):
        return None
    name = f"images_{int(downscale)}"
    return name if (root / name).is_dir() else None


def photo_folder(root: Path, config: ReadConfig) -> tuple[Path | None, ReadConfig, list[str]]:
    """Where the photos of a benchmark's scene stand, how they are still to be reduced, and remarks.

    ``images_N`` for ``config.downscale`` = N; else ``images`` (or ``image``, ``rgb``, ``input``); else the largest
    ``images_N`` there is, of which ``config.downscale`` counts as done what N did.

    Returns:
        The folder, or None where there is none; the config that is left to do with the photos in it.
    """
    exact = reduced_folder(root, config.downscale)
    if exact:
        return root / exact, replace(config, downscale=1.0), []
    for name in IMAGE_FOLDERS:
        if _holds_images(root / name):
            return root / name, config, []
    factors = [int(path.name[7:]) for path in root.glob("images_*") if path.name[7:].isdecimal() and path.is_dir()]
    factor = min((each for each in factors if each > 0 and _holds_images(root / f"images_{each}")), default=None)
    if factor is None:
        return None, config, []
    if config.downscale is None:
        return root / f"images_{factor}", config, []
    left = config.downscale / factor
    notes = [] if left >= 1 else [f"no photos reduced by {config.downscale:g} only: images_{factor} is taken as it is"]
    return root / f"images_{factor}", replace(config, downscale=max(1.0, left)), notes


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(is_image(path) for path in folder.rglob("*"))


def find_photo(root: Path, relative: PurePosixPath, name: str | None = None) -> ImageFile | None:
    """The probed photo of a scene file's path, or None where there is no such file.

    Its name is ``name``, or that of its path (:func:`name_of`) with the suffix that the file really has.
    """
    path = find_image(root / relative)
    if path is None:
        return None
    return probe_image(path, name if name is not None else name_of(relative.with_name(path.name)))


def without_skew(K: np.ndarray, height: int, where: str) -> np.ndarray:
    """K [3, 3] px of an image ``height`` px high, its skew set to 0 where it is of the size of rounding.

    Raises BadPoses, naming ``where``, when that would move pixels visibly.
    """
    with np.errstate(all="ignore"):  # absurdly large numbers overflow, and are then refused
        moved = abs(K[0, 1]) * height / (2 * max(abs(K[1, 1]), 1e-12))
    if not moved <= _SKEW_LIMIT:
        raise BadPoses(
            f"{where}: a skew of {K[0, 1]:.3g} px, which moves pixels by up to {moved:.2g} px; expected a camera with "
            f"square pixels (up to {_SKEW_LIMIT:g} px are ignored).",
            hint="Is this the camera of a photo as it was taken, or of one that was rectified or turned?",
        )
    K = K.copy()
    K[0, 1] = 0.0
    return K


def opencv_pose(world_from_cam: np.ndarray, where: str) -> np.ndarray:
    """[4, 4] cam_from_world of a camera-to-world [4, 4] or [3, 4], both in OpenCV axes.

    The rotation is inverted by transposing it, so that a scaled or mirrored matrix is still recognised as such by
    ``Camera.check``. Raises BadPoses, naming ``where``, when the last row is not 0 0 0 1.
    """
    if world_from_cam.shape == (4, 4) and not np.allclose(world_from_cam[3], (0, 0, 0, 1), atol=1e-6):
        raise BadPoses(f"{where}: the last row of the pose is {world_from_cam[3]}; expected 0 0 0 1.")
    R = world_from_cam[:3, :3].T
    pose = np.eye(4)
    pose[:3, :3] = R
    with np.errstate(all="ignore"):  # what is not finite here is refused by Camera.check
        pose[:3, 3] = -R @ world_from_cam[:3, 3]
    return pose


def posed(
    photo: ImageFile,
    K: np.ndarray,
    cam_from_world: np.ndarray,
    size: tuple[int, int] | None,
    distortion: Distortion,
    where: str,
) -> tuple[ImageFile, Camera]:
    """Fit a camera of a scene file to its photo: orientation, true size, lens.

    Args:
        K: [3, 3] px for an image of ``size`` (None: of the photo's own size).

    Returns:
        The photo that ``load`` undistorts, and its pinhole Camera at the photo's full size. The rotation is made
        orthonormal to rounding (files write six digits).

    Raises:
        BadPoses: see Camera.check.
        FormatError: the photo's proportions are not the camera's, or the distortion cannot be inverted.
    """
    stored = photo.as_stored()
    width, height = size if size is not None else (stored.width, stored.height)
    # Structure from motion and 3DGS ignore EXIF orientation, so the stored grid is tried first; tools that turn the
    # photos before they compute poses are recognised by the proportions.
    fitting = [each for each in (stored, photo) if _same_shape(each, width, height)]
    if not fitting:
        raise FormatError(
            f"{where}: the camera is for {width}×{height} px, but {photo.path} has {stored.width}×{stored.height} px; "
            "expected the same proportions.",
            hint="Cropped or turned images need cameras made for them.",
        )
    photo = fitting[0]
    camera = Camera(K=K, cam_from_world=cam_from_world, width=width, height=height)
    with np.errstate(all="ignore"):  # absurdly large numbers overflow, and are then refused
        camera.check(where)
    pose = camera.cam_from_world.copy()
    u, _, vt = np.linalg.svd(pose[:3, :3])
    pose[:3, :3] = u @ vt
    camera = replace(camera, cam_from_world=pose).resized(photo.width, photo.height)
    with np.errstate(all="ignore"):
        camera.check(where)  # again: a tiny focal length of a reduced image is 0
        photo, new_K = undistorted(photo, camera.K, distortion)
    return photo, replace(camera, K=new_K)


def _same_shape(photo: ImageFile, width: int, height: int) -> bool:
    # Camera.check says what is wrong with an impossible size.
    return width < 1 or height < 1 or same_proportions(photo.width, photo.height, width, height)
