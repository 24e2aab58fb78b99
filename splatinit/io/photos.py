"""Plain folders of photos: no poses, but EXIF orientation and focal length where the camera wrote them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..errors import NoImages
from ..types import ImageSet
from .images import list_images, probe_image
from .masks import masks_beside
from .read import ReadConfig, assemble
from .scenefiles import IMAGE_FOLDERS


def detect(path: Path) -> bool:
    """Any folder: this reader is the last to be asked, and says itself when there is nothing to read."""
    return path.is_dir()


def read(path: Path, config: ReadConfig) -> ImageSet:
    """Read the photos directly in ``path``; where there are none, those in and below images/, image/, rgb/ or input/.

    Masks are those of masks/ or mask/ in ``path`` (see :func:`splatinit.io.masks.masks_beside`).

    Raises:
        NoImages: none there; says what is there instead.
        FormatError: a file with the suffix of an image is not one, or a mask does not fit its photo.
        MissingExtra: a HEIC photo, and pillow-heif is not installed.
    """
    if not path.is_dir():
        raise NoImages(f"{path}: not a folder.", hint="Give the folder that holds your photos.")
    folder, files = path, list_images(path)
    for name in IMAGE_FOLDERS:
        if files:
            break
        if (path / name).is_dir():
            folder, files = path / name, list_images(path / name, recursive=True)
    if not files:
        raise _none_found(path)
    photos = [probe_image(file, file.relative_to(path).as_posix()) for file in files]
    place = "" if folder == path else f" from {folder.name}/"
    focals = sum(photo.focal_px is not None for photo in photos)
    notes = [f"read as a plain folder: {len(photos)} photos{place}, {focals} with a focal length from EXIF"]
    photos, mask_notes = masks_beside(photos, path, folder, config)
    return assemble(root=path, format="photos", photos=photos, cameras={}, config=config, notes=notes + mask_notes)


def _none_found(path: Path) -> NoImages:
    below = Counter(str(file.relative_to(path).parent) for file in list_images(path, recursive=True))
    if below:
        there = ", ".join(f"{folder}/ ({count})" for folder, count in sorted(below.items())[:5])
        return NoImages(
            f"{path}: no photos in the folder itself, nor in {', '.join(f'{name}/' for name in IMAGE_FOLDERS)}; "
            f"other folders below it hold images: {there}.",
            hint="Give one of these folders.",
        )
    suffixes = Counter(file.suffix.lower() or "no suffix" for file in path.iterdir() if file.is_file())
    there = ", ".join(f"{count} × {suffix}" for suffix, count in suffixes.most_common(5)) or "nothing"
    return NoImages(
        f"{path}: no photos found (files there: {there}); expected JPEG, PNG, TIFF, WebP, HEIC or AVIF.",
        hint="Give the folder that holds your photos; convert raw files to JPEG first.",
    )
