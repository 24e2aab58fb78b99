"""Masks beside photos: what they mean (the one place where ``data.masks`` is interpreted), and which file masks which
photo.

A reader asks :func:`mask_role` once; where it answers a role, it gives each photo its mask: :func:`with_mask` where a
scene file names it, :func:`masks_beside` where masks stand in a folder of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from ..errors import FormatError
from .images import ImageFile, MaskFile, list_images, probe_image, same_proportions
from .read import ReadConfig

Role = Literal["ignore", "alpha"]
FOLDERS = ("masks", "mask")
_MEANING = {"ignore": "masked pixels do not count", "alpha": "masked pixels are transparent"}


def mask_role(config: ReadConfig, default: Role = "ignore") -> Role | None:
    """What the masks of a scene mean, or None where they are not to be read.

    Args:
        default: what they mean in this format where the user leaves it to us.
    """
    if config.masks == "off":
        return None
    return default if config.masks == "auto" else config.masks


def with_mask(photo: ImageFile, path: Path, role: Role, config: ReadConfig) -> ImageFile:
    """The photo with a mask; its header is read now, so that a mask that cannot fit is known before any work is done.

    Raises FormatError, naming the mask: not an image, too large, or not of the photo's proportions.
    """
    mask = probe_image(path).as_stored()
    config.check_pixels(path, mask.width, mask.height)
    sizes = [(photo.width, photo.height), (photo.as_stored().width, photo.as_stored().height)]
    if not any(same_proportions(mask.width, mask.height, *size) for size in sizes):
        raise FormatError(
            f"{path}: the mask is {mask.width}×{mask.height} px, its photo {photo.name} {photo.width}×{photo.height} "
            "px; expected the same proportions.",
            hint="Remove the mask, or read the scene without masks: data.masks=off.",
            path=path,
        )
    return replace(photo, mask=MaskFile(path, role))


def mask_note(masked: int, total: int, where: str, role: Role) -> str:
    """The remark of a reader on the masks it found."""
    return f"masks: {masked} of {total} photos have one in {where}; {_MEANING[role]}"


def mask_folder(root: Path) -> Path | None:
    """``masks`` or ``mask`` in ``root``, where it holds images."""
    for name in FOLDERS:
        if (root / name).is_dir() and list_images(root / name, recursive=True):
            return root / name
    return None


def masks_beside(
    photos: Sequence[ImageFile],
    root: Path,
    image_folder: Path,
    config: ReadConfig,
    default: Role = "ignore",
    by_order: bool = False,
) -> tuple[list[ImageFile], list[str]]:
    """Photos with the masks that stand in ``masks/`` or ``mask/`` of the scene, and remarks on them.

    A mask has the photo's path below ``image_folder``, with ``.png`` (or another image suffix) added, as COLMAP names
    masks, or in place of the photo's own. Photos without a mask count in full.

    Args:
        root: the scene's folder.
        image_folder: the folder that holds the photos.
        by_order: where no mask is named like a photo, the i-th mask is that of the i-th photo (IDR, NeuS).

    Raises:
        FormatError: see :func:`with_mask`; by order, another number of masks than of photos.
    """
    role, folder = mask_role(config, default), mask_folder(root)
    if role is None or folder is None:
        return list(photos), []
    files = {file.relative_to(folder).as_posix(): file for file in list_images(folder, recursive=True)}
    by_stem: dict[str, Path] = {}
    for name, file in files.items():
        by_stem.setdefault(str(PurePosixPath(name).with_suffix("")), file)
    found: list[Path | None] = []
    for photo in photos:
        inside = photo.path.is_relative_to(image_folder)
        name = PurePosixPath(photo.path.relative_to(image_folder).as_posix() if inside else photo.path.name)
        found.append(by_stem.get(str(name)) or by_stem.get(str(name.with_suffix(""))))
    count = sum(file is not None for file in found)
    if not count and by_order:
        if len(files) != len(photos):
            raise FormatError(
                f"{folder}: {len(files)} masks for {len(photos)} photos, and none is named like a photo; expected one "
                "a photo, in the same order.",
                hint="Restore the missing files, or read the scene without masks: data.masks=off.",
                path=folder,
            )
        found, count = list(files.values()), len(files)
    if not count:
        return list(photos), [f"{folder.name}/ holds {len(files)} images, none of them named like a photo: no masks"]
    masked = [
        photo if file is None else with_mask(photo, file, role, config)
        for photo, file in zip(photos, found, strict=True)
    ]
    return masked, [mask_note(count, len(photos), f"{folder.name}/", role)]
