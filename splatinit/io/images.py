"""Photos: probing without decoding, decoding on demand at the working size, with masks and depth; writing PNG.

Decoding answers grey, palette, CMYK, 16-bit and transparent files with the same thing: ``Pixels`` of 8 bits, upright as
the camera model expects them, not premultiplied. Colours stay the file's numbers (no ICC conversion, no linearisation),
as everywhere in the field.
"""

from __future__ import annotations

import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import FormatError, MissingExtra, NoImages, ShapeError
from ..types import Pixels
from . import png
from .arrays import read_npy
from .atomic import atomic_path
from .lenses import Distortion, Lens, replacing_pinhole

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif")
# Folders of this name below a folder of photos hold what belongs to the photos, not further photos.
COMPANIONS = ("masks", "mask", "depth", "depths")

_EXIF_IFD = 0x8769
_ORIENTATION = 0x0112
_FOCAL_MM, _FOCAL_35MM = 0x920A, 0xA405
_PLANE_X_RESOLUTION, _PLANE_UNIT = 0xA20E, 0xA210
_EXIF_WIDTH, _EXIF_HEIGHT = 0xA002, 0xA003
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit: inch, cm, mm, µm
SURE = 127  # of 255: ARKit knows low, medium and high, which Polycam writes as 0, 127 and 255
SAME_SURFACE = 0.02  # of the depth: what differs by less from pixel to pixel is taken for one surface
_DIAGONAL_35MM = math.hypot(36.0, 24.0)  # mm; "35 mm equivalent" keeps the diagonal angle (CIPA DCG-001)

# What Pillow and its plugins raise on damaged files, depending on where they notice.
_UNREADABLE = (
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Brands of HEIF files with HEVC inside (phones call them .heic, .heif, and sometimes .jpg); Pillow reads AVIF itself.
_HEVC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}

_TIFF_TAGS = {  # those that a photo must have
    "width": (256,),
    "height": (257,),
    "bits": (258,),
    "compression": (259,),
    "photometric": (262,),
    "offsets": (273, 324),
    "byte counts": (279, 325),
}
# Formats of photos, in Pillow's names; its plugins register when they are imported.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF")
for _plugin in ("Jpeg", "Mpo", "Png", "Tiff", "WebP", "Avif"):
    with suppress(ImportError):  # AVIF came with Pillow 11.3
        import_module(f"PIL.{_plugin}ImagePlugin")

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# ------------------------------------------------------------------------------------------------------------- files
@dataclass(frozen=True)
class MaskFile:
    """A mask beside a photo: an image whose white (more than half) is the part of the photo that is kept.

    Attributes:
        path: grey, colour (any channel) or with alpha (then that is the mask).
        role: "ignore": the rest counts neither in the loss nor in a metric. "alpha": the rest is transparent.
    """

    path: Path
    role: Literal["ignore", "alpha"]


@dataclass(frozen=True)
class DepthFile:
    """A depth map beside a photo: a 16-bit PNG, a float TIFF or an array (.npy), along z, 0 or not finite = unknown.

    Attributes:
        unit: scene units of one step of the file (0.001 where it counts millimetres of a scene in metres).
        confidence: an 8-bit image on the grid of the map; depth below 127 (ARKit: low confidence) is unknown.
    """

    path: Path
    unit: float
    confidence: Path | None = None


@dataclass(frozen=True)
class ImageFile:
    """One image file: the :class:`splatinit.types.Photo` of all readers. Small and picklable; holds no pixels.

    Attributes:
        name: unique in its set, '/'-separated.
        path: the file.
        width, height: px, full size, after ``orientation``.
        file_alpha: the file has a transparency channel (or a transparent palette entry).
        orientation: EXIF orientation (1–8) that ``load`` applies to the decoded pixels.
        focal_px: focal length in px at the full size as EXIF tells it, or None.
        lenses: distortions that ``load`` removes, in this order.
        mask, depth: further files of the same view, on the photo's stored pixel grid at any resolution of its
            proportions; they go through the same orientation, lens and resizing.
    """

    name: str
    path: Path
    width: int
    height: int
    file_alpha: bool
    orientation: int = 1
    focal_px: float | None = None
    lenses: tuple[Lens, ...] = ()
    mask: MaskFile | None = None
    depth: DepthFile | None = None

    @property
    def has_alpha(self) -> bool:
        """Some pixels may be transparent."""
        return self.file_alpha or (self.mask is not None and self.mask.role == "alpha")

    @property
    def has_mask(self) -> bool:
        """Some pixels may not count: a mask file says so, or a pinhole that shows more than its fisheye."""
        return (self.mask is not None and self.mask.role == "ignore") or any(lens.masked for lens in self.lenses)

    @property
    def has_depth(self) -> bool:
        return self.depth is not None

    def as_stored(self) -> ImageFile:
        """The same file on its stored pixel grid, EXIF orientation ignored (as COLMAP and 3DGS read files)."""
        turned = self.orientation >= 5
        size = (self.height, self.width) if turned else (self.width, self.height)
        return replace(self, width=size[0], height=size[1], orientation=1)

    def load(self, width: int, height: int) -> Pixels:
        """The image at ``width`` × ``height`` px: area-averaged when it shrinks, weighted by alpha where it has one.

        A pixel counts only if nothing masked went into it. Raises FormatError, naming the file, when the photo or its
        mask cannot be decoded.
        """
        if width < 1 or height < 1:
            raise ShapeError(f"{self.name}: asked for {width}×{height} px; expected at least 1×1.")
        pixels = _decode(self.path, self.orientation, self.file_alpha, self._check_size)
        self._check_size(pixels.shape[1], pixels.shape[0])
        counts = None
        if self.mask is not None:
            kept = _read_mask(self.mask.path, self.orientation, self.width, self.height)
            if self.mask.role == "ignore":
                counts = kept
            else:
                alpha = np.minimum(pixels[..., 3], kept) if self.file_alpha else kept
                pixels = np.dstack([pixels[..., :3], alpha])
        if counts is None and self.has_mask:
            counts = np.full((self.height, self.width), 255, np.uint8)
        mask = None
        if counts is not None:
            mask = self._fitted(counts, width, height, outside=0)
            mask = np.where(mask == 255, np.uint8(255), np.uint8(0))
        if not self.has_alpha:
            return Pixels(np.ascontiguousarray(self._fitted(pixels, width, height)), mask=mask)
        if not self.lenses and (width, height) == (self.width, self.height):
            return Pixels(np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3]), mask)
        # Averaging colours unweighted would bleed the (arbitrary) colour of transparent pixels into the edges.
        premultiplied = pixels.astype(np.float32)
        premultiplied[..., :3] *= premultiplied[..., 3:] / 255.0
        premultiplied = self._fitted(premultiplied, width, height)
        alpha = np.clip(premultiplied[..., 3], 0.0, 255.0)
        rgb = premultiplied[..., :3] / np.maximum(alpha, 1e-3)[..., None] * 255.0
        return Pixels(to_uint8(rgb / 255.0), to_uint8(alpha / 255.0), mask)

    def _check_size(self, width: int, height: int) -> None:
        """Asked of the header before anything is allocated for the pixels, and of the pixels: readers know the first
        header only."""
        if (width, height) != (self.width, self.height):
            raise FormatError(
                f"{self.path}: is {width}×{height} px, but was {self.width}×{self.height} px when the scene was read.",
                hint="The file changed while it was being used, or it is damaged.",
                path=self.path,
            )

    def _fitted(self, pixels: np.ndarray, width: int, height: int, outside: int | None = None) -> np.ndarray:
        """[height, width, ...] of [self.height, self.width, ...]: without lens distortion, resized.

        Pixels that show nothing of the photo get ``outside``, or where it is None what its nearest border shows.
        """
        for lens in self.lenses:
            pixels = lens.remap(pixels, outside=outside)
        return pixels if (width, height) == (self.width, self.height) else _resize(pixels, width, height)

    def load_depth(self, width: int, height: int) -> np.ndarray | None:
        """See :meth:`splatinit.types.Photo.load_depth`: exact on planes; across edges, the nearest pixel.

        Raises FormatError, naming the file, when it cannot be decoded or does not fit the photo.
        """
        if self.depth is None:
            return None
        depth = _read_depth(self.depth.path, self.orientation, self.width, self.height) * np.float32(self.depth.unit)
        if self.depth.confidence is not None:
            sure = _read_depth(self.depth.confidence, self.orientation, self.width, self.height) >= SURE
            depth[~_nearest(sure, depth.shape[1], depth.shape[0])] = 0
        if self.lenses:
            depth = _resized_depth(depth, self.width, self.height)
        for lens in self.lenses:
            depth = _resampled_depth(
                lens.remap(depth, cv2.INTER_NEAREST, outside=0), lens.remap(_inverse(depth), cv2.INTER_LINEAR)
            )
        return np.ascontiguousarray(_resized_depth(depth, width, height))


def undistorted(photo: ImageFile, K: np.ndarray, distortion: Distortion) -> tuple[ImageFile, np.ndarray]:
    """The photo with its lens distortion removed when it is loaded, and the K [3, 3] of the pinhole that remains.

    Args:
        photo: its width × height are the size that K belongs to.
        K: [3, 3] px at the photo's full size.

    Raises:
        FormatError: the distortion cannot be removed (see :func:`splatinit.io.lenses.replacing_pinhole`).
    """
    if not distortion:
        return photo, np.array(K, dtype=np.float64)
    lens, new_K = replacing_pinhole(K, distortion, photo.width, photo.height, photo.name)
    return replace(photo, lenses=(*photo.lenses, lens)), new_K


def probe_image(path: Path, name: str | None = None) -> ImageFile:
    """What the header of an image file says; no pixel is decoded. Upright: EXIF orientation will be applied.

    Raises FormatError, naming the file, when it is not an image that can be read.
    """
    path = Path(path)
    try:
        with open_image(path) as image:
            width, height = image.size
            file_alpha = _has_alpha(image)
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
        file_alpha=file_alpha,
        orientation=orientation,
        focal_px=focal,
    )


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Pillow's image, undecoded; HEIF through pillow-heif, which turns it upright itself and says so in its EXIF.

    In place of ``Image.open``, which warns of every image above 89 megapixels and refuses those above 179: a limit of
    the whole process, that a library must not move, and that phones exceed. Who decodes must have asked for the size
    (:meth:`splatinit.io.read.ReadConfig.check_pixels`). Formats beyond those of photos are not tried.

    Raises MissingExtra when the file is HEIF and pillow-heif is not installed; what Pillow raises (``UNREADABLE``).
    """
    with open(path, "rb") as file:
        head = file.read(64)
        _register_heif(path, head)
        for name in _FORMATS:
            factory, accepts = Image.OPEN.get(name, (None, None))
            if factory is None or (accepts is not None and accepts(head[:16]) is not True):
                continue
            file.seek(0)
            try:
                image = factory(file, os.fspath(path))
            except SyntaxError:  # how a plugin says that it is not its format
                continue
            yield image
            return
    raise UnidentifiedImageError(f"{path}: no known format")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _register_heif(path: Path, head: bytes) -> None:
    brands = {head[at : at + 4] for at in range(8, min(len(head), int.from_bytes(head[:4], "big")), 4)}
    if head[4:8] == b"ftyp" and brands & _HEVC_BRANDS:
        try:
            import pillow_heif
        except ImportError as error:
            raise MissingExtra(
                f"{path}: a HEIC photo, which needs pillow-heif to be read.",
                hint='Install it: pip install "splatinit[heic]" (or convert the photos to JPEG).',
                missing=("pillow_heif",),
                path=path,
            ) from error
        pillow_heif.register_heif_opener()


def _exif(image: Image.Image) -> tuple[Mapping[int, Any], Mapping[int, Any]]:
    """The general and the camera's EXIF tags; empty where they are damaged, which does not make the photo unusable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exif = png.exif_of(image) if image.format == "PNG" else image.getexif()
            return exif, exif.get_ifd(_EXIF_IFD)
    except _UNREADABLE:
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
        hint="Replace or remove this file; JPEG, PNG, TIFF, WebP, HEIC and AVIF are read.",
        path=path,
    )


def _decode(path: Path, orientation: int, with_alpha: bool, check_size: Callable[[int, int], None]) -> np.ndarray:
    """[h, w, 3] or, with alpha, [h, w, 4] uint8; ``check_size`` is asked of width and height before it is decoded."""
    try:
        with open_image(path) as image:
            check_size(*(reversed(image.size) if orientation >= 5 else image.size))
            deep = _is_deep(image)
            if image.format == "PNG":
                png.check(image, all_rows=deep)
            elif image.format == "TIFF":
                _check_tiff(image)
            if deep or _is_large_tiff(image):
                pixels = _decode_deep(path)
                if image.format != "TIFF" and orientation in _TRANSPOSE:
                    pixels = _turn(pixels, orientation)
            else:
                if orientation in _TRANSPOSE:
                    image = image.transpose(_TRANSPOSE[orientation])
                pixels = _as_array(image, "RGBA" if with_alpha else "RGB")
    except (*_UNREADABLE, cv2.error) as error:
        raise _unreadable(path, error) from error
    if with_alpha and pixels.shape[2] == 3:
        pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    return pixels if with_alpha else pixels[..., :3]


def _as_array(image: Image.Image, mode: str) -> np.ndarray:
    """[h, w, 3|4] uint8, taken band by band.

    ``np.asarray(image.convert(mode))`` has four copies of the photo in memory at once: with 12 megapixels the peak is
    171 MB in place of 97 MB here, and it takes twice as long.
    """
    image = image if image.mode == mode else image.convert(mode)
    pixels = np.empty((image.height, image.width, len(mode)), np.uint8)
    for top in range(0, image.height, 256):
        bottom = min(top + 256, image.height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def _header(path: Path) -> tuple[bool, int, int]:
    """Whether it has alpha, and width and height in px as stored. (Not :func:`probe_image`: reading EXIF touches the
    warning filters, which threads that decode share.)"""
    try:
        with open_image(path) as image:
            return _has_alpha(image), *image.size
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _read_mask(path: Path, orientation: int, width: int, height: int) -> np.ndarray:
    """[height, width] uint8, 255 where the mask keeps the photo; any resolution of the photo's proportions."""
    with_alpha, stored_width, stored_height = _header(path)
    # Some tools turn photos upright before they mask them, some do not; a quarter turn shows in the proportions.
    if orientation >= 5 and not same_proportions(stored_height, stored_width, width, height):
        orientation = 1

    def fits(mask_width: int, mask_height: int) -> None:
        _check_fits(path, "mask", (mask_height, mask_width), width, height)

    pixels = _decode(path, orientation, with_alpha, fits)
    grey = pixels[..., 3] if with_alpha else pixels.max(axis=2)
    # Some tools write 0 and 1 instead of 0 and 255.
    kept = np.where(grey > (127 if grey.max(initial=0) > 1 else 0), np.uint8(255), np.uint8(0))
    fits(kept.shape[1], kept.shape[0])
    if kept.shape != (height, width):
        kept = cv2.resize(kept, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return kept


def _read_depth(path: Path, orientation: int, width: int, height: int) -> np.ndarray:
    """Float32 in steps of the file, 0 = unknown, at its own resolution, which has the photo's proportions."""
    try:
        if path.suffix.lower() == ".npy":
            depth = read_npy(path)
        else:
            _, stored_width, stored_height = _header(path)
            turned = (stored_width, stored_height) if orientation >= 5 else (stored_height, stored_width)
            _check_fits(path, "depth map", turned, width, height)
            if path.suffix.lower() == ".png":
                png.check_chunks(path)
                png.check_rows(path)
            depth = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
            if depth is None:
                raise ValueError("damaged, or not an image")
        if depth.ndim == 3 and depth.shape[2] == 1:
            depth = depth[..., 0]
        if depth.ndim != 2 or depth.dtype.kind not in "uif" or 0 in depth.shape:
            raise ValueError(f"{list(depth.shape)} {depth.dtype}; expected one channel of numbers")
        with np.errstate(over="ignore"):  # infinite is unknown
            depth = depth.astype(np.float32)
    except (OSError, ValueError, EOFError, KeyError, struct.error, zlib.error, cv2.error) as error:
        raise FormatError(f"{path}: the depth map cannot be read ({error}).", path=path) from error
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
    if orientation in _TRANSPOSE:
        depth = np.asarray(Image.fromarray(depth).transpose(_TRANSPOSE[orientation]))
    _check_fits(path, "depth map", depth.shape, width, height)
    return depth


def _nearest(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """[height, width]: for each pixel, the one that its centre falls into."""
    rows = ((np.arange(height) + 0.5) * (pixels.shape[0] / height)).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * (pixels.shape[1] / width)).astype(np.int64)
    return pixels[rows][:, columns]


def _inverse(depth: np.ndarray) -> np.ndarray:
    """1 / depth, infinite where it is unknown."""
    with np.errstate(divide="ignore", over="ignore"):
        return 1 / depth


def _resized_depth(depth: np.ndarray, width: int, height: int) -> np.ndarray:
    if depth.shape == (height, width):
        return depth
    linear = cv2.resize(_inverse(depth), (width, height), interpolation=cv2.INTER_LINEAR)
    return _resampled_depth(_nearest(depth, width, height), linear)


def _resampled_depth(nearest: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Depth at places between pixels: ``nearest`` one, and linearly interpolated ``inverse``.

    The nearest pixel alone is up to half a pixel off, which on a slope is an error (2 mm in a scene of 3 m at half
    size). Inverse depth is linear over the image of a plane, so there its interpolation is exact; where the two differ
    by more than a surface does within a pixel, there is an edge, and a depth between two surfaces is no depth.
    """
    with np.errstate(all="ignore"):  # infinite and NaN beside unknown pixels: those keep the nearest
        smooth = np.abs(nearest * inverse - 1) < SAME_SURFACE
        return np.where(smooth, 1 / inverse, nearest)


def _check_fits(path: Path, what: str, shape: tuple[int, ...], width: int, height: int) -> None:
    if not same_proportions(shape[1], shape[0], width, height):
        raise FormatError(
            f"{path}: the {what} is {shape[1]}×{shape[0]} px, its photo {width}×{height} px; expected the same "
            "proportions.",
            path=path,
        )


def same_proportions(width: int, height: int, other_width: int, other_height: int) -> bool:
    """Equal proportions, up to the rounding of a reduced image's sides and 1 %."""
    difference = abs(width * other_height - height * other_width)
    return difference <= other_width + other_height + 0.01 * width * other_height


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


def _check_tiff(image: Image.Image) -> None:
    """Raise ValueError for a TIFF whose tags are missing or do not agree.

    Pillow has guesses for them: where "compression" is lost, it shows packed data as pixels.
    """
    tags = image.tag_v2
    missing = [name for name, numbers in _TIFF_TAGS.items() if not any(number in tags for number in numbers)]
    if missing:
        raise ValueError(f"its tags {', '.join(missing)} are missing or damaged")
    if tags.get(284, 1) not in (1, 2):
        raise ValueError(f"its planar configuration is {tags[284]}; expected 1 or 2")
    width, height = tags[256], tags[257]  # as stored; Pillow turns its own
    strips = -(-height // max(1, tags.get(278, height)))
    bands = tags.get(277, 1)
    strips *= bands if tags.get(284) == 2 else 1
    if 273 in tags and not len(tags[273]) == len(tags.get(279, tags[273])) == strips:
        raise ValueError(f"it has {len(tags[273])} strips; expected {strips}")
    if tags[259] == 1 and tags[262] == 6 and 530 not in tags:
        raise ValueError("it does not say how its colours (YCbCr) are sampled")
    if len(tags[258]) not in (1, bands):
        raise ValueError(f"it has {bands} bands with the bits of {len(tags[258])}")
    bits = tags[258] if len(tags[258]) == bands else tags[258] * bands
    if tags[259] == 1 and 279 in tags:
        promised, there = height * ((width * sum(bits) + 7) // 8), sum(tags[279])
        if there < promised:
            raise ValueError(f"its strips hold {there} bytes; expected {promised}")


def _is_large_tiff(image: Image.Image) -> bool:
    """One that Pillow would warn of, or refuse, while it decodes (see :func:`open_image`), and OpenCV reads as well."""
    limit = Image.MAX_IMAGE_PIXELS
    large = limit is not None and image.width * image.height > limit
    return large and image.format == "TIFF" and image.mode in ("L", "RGB", "RGBA")


def _decode_deep(path: Path) -> np.ndarray:
    """A file that Pillow does not read well as [h, w, 3|4] uint8; of 16 bits, 65535 → 255."""
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


def _resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = width <= pixels.shape[1] and height <= pixels.shape[0]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


# ----------------------------------------------------------------------------------------------------- finding files
def is_image(path: Path) -> bool:
    """Has the suffix of an image and is not hidden (macOS leaves ``._name.jpg`` beside each photo)."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path, recursive: bool = False) -> list[Path]:
    """The photos of a folder, sorted by their '/'-separated relative path; not its folders of masks and depth maps."""
    found = (path for path in (folder.rglob("*") if recursive else folder.glob("*")) if is_image(path))
    photos = (path for path in found if not _is_beside(path.relative_to(folder)) and path.is_file())
    return sorted(photos, key=lambda path: path.relative_to(folder).as_posix())


def _is_beside(relative: Path) -> bool:
    *folders, name = relative.parts
    return name.startswith(".") or any(each.startswith(".") or each.lower() in COMPANIONS for each in folders)


def find_image(path: Path) -> Path | None:
    """``path`` if it is a file, else a file of the same name with an image suffix (added, or in place of its own).

    Scene files often name images without a suffix (Blender), or with the suffix of the full-size originals.
    """
    # Unlike Path.is_file, os.path.isfile says no to names that no file system takes (they come from files).
    if os.path.isfile(path):
        return path
    stems = [path.name]
    if path.suffix.lower() in SUFFIXES:
        stems.append(path.name[: -len(path.suffix)])
    for stem in stems:
        for suffix in SUFFIXES:
            for candidate in (path.with_name(stem + suffix), path.with_name(stem + suffix.upper())):
                if os.path.isfile(candidate):
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


def write_png(path: Path, pixels: np.ndarray, *, level: int = 4) -> None:
    """Write a PNG atomically.

    Args:
        path: ends in ``.png``.
        pixels: [h, w] uint8 or uint16 (grey), [h, w, 3] uint8 (sRGB) or [h, w, 4] uint8 (with alpha, not
            premultiplied).
        level: of zlib, 0 to 9; the pixels are the same. On renders of 960×540, 1 takes 28 to 35 ms and 4 takes 44 to 84
            for files that are 13 to 15 % smaller.
    """
    pixels = np.ascontiguousarray(pixels)
    colour = pixels.ndim == 3 and pixels.shape[2] in (3, 4) and pixels.dtype == np.uint8
    grey = pixels.ndim == 2 and pixels.dtype in (np.uint8, np.uint16)
    if not (colour or grey) or 0 in pixels.shape:
        raise ShapeError(
            f"write_png needs [h, w] uint8|uint16 or [h, w, 3|4] uint8, got {list(pixels.shape)} {pixels.dtype}."
        )
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=level)


__all__ = [
    "SUFFIXES",
    "DepthFile",
    "ImageFile",
    "MaskFile",
    "find_image",
    "is_image",
    "list_images",
    "missing_images",
    "open_image",
    "probe_image",
    "same_proportions",
    "to_uint8",
    "undistorted",
    "write_png",
]
