"""Depth maps beside photos: attached by the readers whose formats have them, decoded when somebody asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import FormatError
from .arrays import npy_shape
from .images import DepthFile, ImageFile, probe_image, same_proportions
from .read import ReadConfig


def with_depth(
    photo: ImageFile, path: Path, unit: float, config: ReadConfig, confidence: Path | None = None
) -> ImageFile:
    """The photo with a depth map; its header is read now, so that a map that cannot fit is known before any work.

    Args:
        path: a 16-bit PNG or TIFF, a float TIFF or an array (.npy), along z; 0 or not finite is unknown.
        unit: scene units of one step of the file.
        confidence: see :class:`splatinit.io.images.DepthFile`.

    Raises FormatError, naming the file: not a depth map, too large, or not of the photo's proportions.
    """
    for file in (path,) if confidence is None else (path, confidence):
        width, height = map_size(file)
        config.check_pixels(file, width, height)
        stored = photo.as_stored()
        sizes = [(photo.width, photo.height), (stored.width, stored.height)]
        if not any(same_proportions(width, height, *size) for size in sizes):
            raise FormatError(
                f"{file}: the depth map is {width}×{height} px, its photo {photo.name} {photo.width}×{photo.height} "
                "px; expected the same proportions.",
                hint="Depth is on the pixel grid of its photo, at any resolution.",
                path=file,
            )
    return replace(photo, depth=DepthFile(path, unit, confidence))


def map_size(path: Path) -> tuple[int, int]:
    """Width and height of a depth map in px, from its header."""
    if path.suffix.lower() != ".npy":
        stored = probe_image(path).as_stored()
        return stored.width, stored.height
    shape = npy_shape(path)
    if len(shape) not in (2, 3) or 0 in shape or shape[2:] not in ((), (1,)):
        raise FormatError(f"{path}: the depth map has shape {list(shape)}; expected [height, width].", path=path)
    return shape[1], shape[0]
