"""Photos: probing without decoding, decoding on demand at the working size, removing lens distortion, writing PNG.

Decoding answers grey, palette, CMYK, 16-bit and transparent files with the same thing: ``Pixels`` of 8 bits, upright as
the camera model expects them, not premultiplied. Colours stay the file's numbers (no ICC conversion, no linearisation),
as everywhere in the field.
"""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import FormatError, NoImages, ShapeError
from ..types import Pixels
from .atomic import atomic_path

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")

_EXIF_IFD = 0x8769
_ORIENTATION = 0x0112
_FOCAL_MM, _FOCAL_35MM = 0x920A, 0xA405
_PLANE_X_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_EXIF_WIDTH, _EXIF_HEIGHT = 0xA002, 0xA003
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit: inch, cm, mm, µm
_DIAGONAL_35MM = math.hypot(36.0, 24.0)  # mm; "35 mm equivalent" keeps the diagonal angle (CIPA DCG-001)

# What Pillow raises on damaged files, depending on where it notices.
_UNREADABLE = (OSError, ValueError, SyntaxError, TypeError, struct.error, Image.DecompressionBombError)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# -------------------------------------------------------------------------------------------------------------- lens
@dataclass(frozen=True)
class Lens:
    """Brown–Conrady distortion of a photo, and the pinhole camera that replaces it.

    Attributes:
        fx, fy, cx, cy: px at the photo's full size, centre of pixel (0, 0) at (0.5, 0.5): the lens camera.
        k1, k2, p1, p2, k3: coefficients, in OpenCV's and COLMAP's definition (no unit).
        pinhole: (fx, fy, cx, cy) in px of the undistorted image, which has the same size.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    k1: float
    k2: float
    p1: float
    p2: float
    k3: float
    pinhole: tuple[float, float, float, float]

    def distort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where normalised pinhole coordinates land behind the lens (normalised coordinates too)."""
        r2 = x * x + y * y
        radial = 1.0 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
        xy2 = 2.0 * x * y
        return (
            x * radial + self.p1 * xy2 + self.p2 * (r2 + 2.0 * x * x),
            y * radial + self.p2 * xy2 + self.p1 * (r2 + 2.0 * y * y),
        )

    def undistort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of :meth:`distort`, by fixed-point iteration; NaN where it does not converge."""
        u, v = x.copy(), y.copy()
        with np.errstate(all="ignore"):
            for _ in range(200):
                du, dv = self.distort(u, v)
                step_u, step_v = x - du, y - dv
                u, v = u + step_u, v + step_v
                if not max(np.abs(step_u).max(), np.abs(step_v).max()) > 1e-12:
                    break
            du, dv = self.distort(u, v)
            good = np.hypot(du - x, dv - y) < 1e-7
        return np.where(good, u, np.nan), np.where(good, v, np.nan)


@lru_cache(maxsize=4)
def _maps(lens: Lens, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of the undistorted image, the float32 position (cv2's integer pixel centres) in the photo."""
    fx, fy, cx, cy = lens.pinhole
    x = (np.arange(width) + 0.5 - cx) / fx
    y = (np.arange(height) + 0.5 - cy) / fy
    u, v = lens.distort(*np.meshgrid(x, y))
    return (
        (lens.fx * u + lens.cx - 0.5).astype(np.float32),
        (lens.fy * v + lens.cy - 0.5).astype(np.float32),
    )


def undistorted(photo: ImageFile, K: np.ndarray, distortion: Sequence[float]) -> tuple[ImageFile, np.ndarray]:
    """The photo with its lens distortion removed when it is loaded, and the K of the pinhole that remains.

    The pinhole shows the largest axis-aligned rectangle that is filled everywhere (no black border), stretched to the
    photo's own size; so fx/fy changes a little, and the principal point moves with the rectangle. It is what
    ``cv2.getOptimalNewCameraMatrix(alpha=0)`` computes, from the whole border instead of 9 samples a side.

    Args:
        photo: its width × height are the size that K belongs to.
        K: [3, 3] px at the photo's full size.
        distortion: k1, k2, p1, p2[, k3] (OpenCV's order).

    Raises:
        FormatError: the distortion folds over inside the image, so it cannot be inverted there.
    """
    k1, k2, p1, p2, k3 = (*map(float, distortion), 0.0)[:5]
    fx, fy, cx, cy = float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
    if not any((k1, k2, p1, p2, k3)):
        return photo, np.array(K, dtype=np.float64)
    width, height = photo.width, photo.height
    lens = Lens(fx, fy, cx, cy, k1, k2, p1, p2, k3, pinhole=(fx, fy, cx, cy))

    along_x, along_y = np.linspace(0, width, width + 1), np.linspace(0, height, height + 1)

    def edge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return lens.undistort((x - cx) / fx, (y - cy) / fy)

    left = edge(np.zeros_like(along_y), along_y)[0].max()
    right = edge(np.full_like(along_y, width), along_y)[0].min()
    top = edge(along_x, np.zeros_like(along_x))[1].max()
    bottom = edge(along_x, np.full_like(along_x, height))[1].min()
    # A NaN (not invertible) fails both comparisons.
    if not (right > left and bottom > top):
        raise FormatError(
            f"{photo.name}: the lens distortion (k1 {k1:g}, k2 {k2:g}, p1 {p1:g}, p2 {p2:g}, k3 {k3:g} at focal "
            f"{fx:g} px) folds over inside the {width}×{height} px image, so it cannot be removed.",
            hint="Check the coefficients and their order (k1 k2 p1 p2), and that the focal length fits the image size.",
        )
    new_fx, new_fy = width / (right - left), height / (bottom - top)
    pinhole = (float(new_fx), float(new_fy), float(-left * new_fx), float(-top * new_fy))
    new_K = np.array([[pinhole[0], 0.0, pinhole[2]], [0.0, pinhole[1], pinhole[3]], [0.0, 0.0, 1.0]])
    return replace(photo, lenses=(*photo.lenses, replace(lens, pinhole=pinhole))), new_K


# ------------------------------------------------------------------------------------------------------------- files
@dataclass(frozen=True)
class ImageFile:
    """One image file: the :class:`splatinit.types.Photo` of all readers. Small and picklable; holds no pixels.

    Attributes:
        name: unique in its set, '/'-separated.
        path: the file.
        width, height: px, full size, after ``orientation``.
        has_alpha: the file has a transparency channel (or a transparent palette entry).
        orientation: EXIF orientation (1–8) that ``load`` applies to the decoded pixels.
        focal_px: focal length in px at the full size as EXIF tells it, or None.
        lenses: distortions that ``load`` removes, in this order.
    """

    name: str
    path: Path
    width: int
    height: int
    has_alpha: bool
    orientation: int = 1
    focal_px: float | None = None
    lenses: tuple[Lens, ...] = ()

    def as_stored(self) -> ImageFile:
        """The same file on its stored pixel grid, EXIF orientation ignored (as COLMAP and 3DGS read files)."""
        turned = self.orientation >= 5
        size = (self.height, self.width) if turned else (self.width, self.height)
        return replace(self, width=size[0], height=size[1], orientation=1)

    def load(self, width: int, height: int) -> Pixels:
        """The image at ``width`` × ``height`` px: area-averaged when it shrinks, weighted by alpha where it has one.

        Raises FormatError, naming the file, when it cannot be decoded.
        """
        if width < 1 or height < 1:
            raise ShapeError(f"{self.name}: asked for {width}×{height} px; expected at least 1×1.")
        pixels = _decode(self.path, self.orientation, self.has_alpha)
        if pixels.shape[:2] != (self.height, self.width):
            raise FormatError(
                f"{self.path}: decoded to {pixels.shape[1]}×{pixels.shape[0]} px, but its header said "
                f"{self.width}×{self.height} px.",
                hint="The file changed while it was being used, or it is damaged.",
            )
        resized = (width, height) != (self.width, self.height)
        if not self.has_alpha:
            for lens in self.lenses:
                pixels = _remap(pixels, lens)
            return Pixels(np.ascontiguousarray(_resize(pixels, width, height) if resized else pixels))
        if not (resized or self.lenses):
            return Pixels(np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3]))
        # Averaging colours unweighted would bleed the (arbitrary) colour of transparent pixels into the edges.
        premultiplied = pixels.astype(np.float32)
        premultiplied[..., :3] *= premultiplied[..., 3:] / 255.0
        for lens in self.lenses:
            premultiplied = _remap(premultiplied, lens)
        if resized:
            premultiplied = _resize(premultiplied, width, height)
        alpha = np.clip(premultiplied[..., 3], 0.0, 255.0)
        rgb = premultiplied[..., :3] / np.maximum(alpha, 1e-3)[..., None] * 255.0
        return Pixels(to_uint8(rgb / 255.0), to_uint8(alpha / 255.0))


def probe_image(path: Path, name: str | None = None) -> ImageFile:
    """What the header of an image file says; no pixel is decoded. Upright: EXIF orientation will be applied.

    Raises FormatError, naming the file, when it is not an image that can be read.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            width, height = image.size
            has_alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
            exif, camera_exif = _exif(image)
            # Pillow turns TIFF files by itself while it decodes them, and image.size is already upright.
            orientation = 1 if image.format == "TIFF" else exif.get(_ORIENTATION, 1)
            orientation = orientation if orientation in _TRANSPOSE else 1
            if orientation >= 5:
                width, height = height, width
            focal = _exif_focal_px(camera_exif, width, height)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    return ImageFile(
        name=name if name is not None else path.name,
        path=path,
        width=width,
        height=height,
        has_alpha=has_alpha,
        orientation=orientation,
        focal_px=focal,
    )


def _exif(image: Image.Image) -> tuple[Mapping[int, Any], Mapping[int, Any]]:
    """The general and the camera's EXIF tags; empty where they are damaged, which does not make the photo unusable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif = image.getexif()
            return exif, exif.get_ifd(_EXIF_IFD)
    except (*_UNREADABLE, KeyError):
        return {}, {}


def _exif_focal_px(exif: Mapping[int, Any], width: int, height: int) -> float | None:
    """Focal length in px from EXIF: the 35 mm equivalent, else mm with the resolution of the focal plane."""

    def number(tag: int) -> float:
        # Cameras write 0, 0/0 and text into these tags; all of them mean "not known".
        try:
            value = float(exif.get(tag, 0))
        except (TypeError, ValueError, ZeroDivisionError):
            return 0.0
        return value if math.isfinite(value) and value > 0 else 0.0

    if number(_FOCAL_35MM):
        return number(_FOCAL_35MM) / _DIAGONAL_35MM * math.hypot(width, height)
    longer = max(number(_EXIF_WIDTH), number(_EXIF_HEIGHT))
    unit = _MM_PER_UNIT.get(int(number(_PLANE_UNIT)), 25.4)
    px = number(_FOCAL_MM) * number(_PLANE_X_RESOLUTION) / unit
    # The resolution counts pixels of the picture as taken; the file may have been resized since.
    return px * max(width, height) / longer if px and longer else px or None


def _unreadable(path: Path, error: BaseException) -> FormatError:
    reason = "not an image of a known format" if isinstance(error, UnidentifiedImageError) else str(error)
    return FormatError(
        f"{path}: the image cannot be read ({reason}).",
        hint="Replace or remove this file; JPEG, PNG, TIFF and WebP with 8 or 16 bits are read.",
        path=path,
    )


def _decode(path: Path, orientation: int, with_alpha: bool) -> np.ndarray:
    """[h, w, 3] or, with alpha, [h, w, 4] uint8."""
    try:
        with Image.open(path) as image:
            if _is_deep(image):
                pixels = _decode_deep(path)
                if image.format != "TIFF" and orientation in _TRANSPOSE:
                    pixels = _turn(pixels, orientation)
            else:
                if orientation in _TRANSPOSE:
                    image = image.transpose(_TRANSPOSE[orientation])
                pixels = np.asarray(image.convert("RGBA" if with_alpha else "RGB"))
    except (*_UNREADABLE, cv2.error) as error:
        raise _unreadable(path, error) from error
    if with_alpha and pixels.shape[2] == 3:
        pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    return pixels if with_alpha else pixels[..., :3]


def _is_deep(image: Image.Image) -> bool:
    """More than 8 bits a channel, which Pillow would cut off (colour) or clip (grey)."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return True
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,))) > 8
    if image.format == "PNG":
        with open(image.filename, "rb") as file:
            header = file.read(25)
        return len(header) == 25 and header[24] == 16  # IHDR: bit depth
    return False


def _decode_deep(path: Path) -> np.ndarray:
    """A 16-bit file as [h, w, 3|4] uint8, 65535 → 255."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("damaged, or an unusual encoding")
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(f"{pixels.dtype} samples; expected 8 or 16 bits")
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).transpose(_TRANSPOSE[orientation]))


def _remap(pixels: np.ndarray, lens: Lens) -> np.ndarray:
    maps = _maps(lens, pixels.shape[1], pixels.shape[0])
    # The outermost half pixel lies beyond the last pixel centre; replicating it is exact to half a pixel.
    return cv2.remap(pixels, *maps, interpolation=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def _resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = width <= pixels.shape[1] and height <= pixels.shape[0]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


# ----------------------------------------------------------------------------------------------------- finding files
def is_image(path: Path) -> bool:
    """Has the suffix of an image and is not hidden (macOS leaves ``._name.jpg`` beside each photo)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """The image files of a folder, sorted by their '/'-separated relative path."""
    found = (path for path in (folder.rglob("*") if recursive else folder.glob("*")) if is_image(path))
    visible = (p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return sorted((p for p in visible if p.is_file()), key=lambda p: p.relative_to(folder).as_posix())


def find_image(path: Path) -> Path | None:
    """``path`` if it is a file, else a file of the same name with an image suffix (added, or in place of its own).

    Scene files often name images without a suffix (Blender), or with the suffix of the full-size originals.
    """
    if path.is_file():
        return path
    stems = [path.name]
    if path.suffix.lower() in SUFFIXES:
        stems.append(path.name[: -len(path.suffix)])
    for stem in stems:
        for suffix in SUFFIXES:
            for candidate in (path.with_name(stem + suffix), path.with_name(stem + suffix.upper())):
                if candidate.is_file():
                    return candidate
    return None


def missing_images(where: str, missing: Sequence[str], total: int) -> NoImages:
    """The error of a scene file whose images are all absent."""
    return NoImages(
        f"{where}: none of the {total} images it names exists (the first is '{missing[0]}')."
        if missing
        else f"{where}: names no images.",
        hint="Put the image files where the scene file expects them, relative to its folder.",
        missing=tuple(missing),
    )


# ----------------------------------------------------------------------------------------------------------- writing
def to_uint8(values: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] as uint8: clamped, rounded to nearest; NaN becomes 0."""
    return (np.clip(np.nan_to_num(values, nan=0.0), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG atomically.

    Args:
        path: ends in ``.png``.
        pixels: [h, w] uint8 or uint16 (grey), [h, w, 3] uint8 (sRGB) or [h, w, 4] uint8 (with alpha, not
            premultiplied).
    """
    pixels = np.ascontiguousarray(pixels)
    colour = pixels.ndim == 3 and pixels.shape[2] in (3, 4) and pixels.dtype == np.uint8
    grey = pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16)
    if not (colour or grey) or 0 in pixels.shape:
        raise ShapeError(
            f"write_png needs [h, w] uint8|uint16 or [h, w, 3|4] uint8, got {list(pixels.shape)} {pixels.dtype}."
        )
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=4)


__all__ = [
    "SUFFIXES",
    "ImageFile",
    "Lens",
    "find_image",
    "is_image",
    "list_images",
    "missing_images",
    "probe_image",
    "to_uint8",
    "undistorted",
    "write_png",
]
