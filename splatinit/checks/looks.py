"""One pass over a sample of the photos: each is decoded once, small, and leaves numbers and features, no pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import FormatError
from ..io.thumbnails import thumbnail, without_lens
from ..types import ImageSet, Photo

FEATURE_SIZE = 800  # px, longer side in which features are sought: where epipolar errors are stated
FEATURES = 1500  # a photo, the strongest; 100 good matches are left of them between neighbours
TINY = 32  # px, side of the picture by which duplicates are recognised
_WHITE, _BLACK = 250, 4  # of 255: a sensor that clips ends there, after JPEG's ringing
_SATURATED = (0.01, 0.90)  # linear luminance outside which a pixel does not tell the exposure
_MARGIN = 9  # px: features nearer to a transparent or masked pixel than this describe its edge
# Half of SIFT's own threshold, on a photo whose contrast is stretched at most so many times: the strongest features are
# taken anyway, and an underexposed photo must not fall out of the comparison that would tell its exposure.
_CONTRAST, _MOST_GAIN = 0.02, 4.0
_EDGE_SHARE = 0.02  # of the pixels: the strongest edges, by which sharpness is judged
_TILES = (6, 8)
_FAINTEST = 4.0  # of 255: fainter edges are noise
_FEWEST_EDGES = 12  # a tile, for its blur to mean something
_REBLUR = 1.5  # px: large enough to change a sharp edge clearly, small enough not to merge edges
_LARGEST_BLUR = 8.0  # px: beyond it the ratio of gradients is noise


@dataclass(frozen=True)
class Features:
    """SIFT features of one photo at ``size`` (width, height), lens distortion removed.

    Attributes:
        xy: [m, 2] px, strongest first.      descriptors: [m, 128] uint8.
        luminance: [m] log2 of the linear luminance around each feature, NaN where clipped.
    """

    size: tuple[int, int]
    xy: np.ndarray
    descriptors: np.ndarray
    luminance: np.ndarray


@dataclass(frozen=True)
class Look:
    """What one photo showed.

    Attributes:
        size: working size, px.
        log_luminance: mean log2 of the linear luminance of the pixels that count; NaN where none counts.
        white, black: clipped shares of them.
        blur: px at the working size, standard deviation of the Gaussian that the sharpest part is blurred by; NaN
            where nothing has edges.
        grey: no pixel has a colour.
        opaque, kept: mean alpha, and share of the pixels that a mask keeps; None without alpha or mask.
        tiny: [TINY, TINY] uint8 grey.
        features: None where they were not asked for.
    """

    name: str
    size: tuple[int, int]
    log_luminance: float
    white: float
    black: float
    blur: float
    grey: bool
    opaque: float | None
    kept: float | None
    tiny: np.ndarray
    features: Features | None


def look_at(photo: Photo, size: tuple[int, int], with_features: bool) -> Look:
    """Decode and measure one photo at its working size. Raises FormatError when it cannot be decoded."""
    pixels = thumbnail(photo, *size)
    rgb = pixels.rgb
    counts = np.ones(rgb.shape[:2], bool)
    if pixels.alpha is not None:
        counts &= pixels.alpha > 250
    if pixels.mask is not None:
        counts &= pixels.mask > 0
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    covered = None if counts.all() else counts
    if covered is not None:  # one grey instead of whatever transparent pixels hold
        grey = np.where(counts, grey, np.uint8(128))
    white, black, mean = _exposure(rgb, counts)
    small = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA).astype(np.int16)
    return Look(
        name=photo.name,
        size=size,
        log_luminance=mean,
        white=white,
        black=black,
        blur=blur_px(grey, covered),
        grey=bool((small.max(axis=2) - small.min(axis=2)).max() <= 2),
        opaque=None if pixels.alpha is None else float(pixels.alpha.mean()) / 255.0,
        kept=None if pixels.mask is None else float((pixels.mask > 0).mean()),
        tiny=cv2.resize(grey, (TINY, TINY), interpolation=cv2.INTER_AREA),
        features=find_features(photo, grey, covered) if with_features else None,
    )


def look_at_all(
    images: ImageSet,
    chosen: Sequence[Photo],
    featured: frozenset[str],
    workers: int,
    advance: Callable[[int], None],
) -> tuple[dict[str, Look], dict[str, str]]:
    """Looks by name, and the reason by name for each photo that could not be decoded.

    At most ``workers`` photos are in memory at once.
    """
    looks: dict[str, Look] = {}
    broken: dict[str, str] = {}

    def work(photo: Photo) -> Look | FormatError:
        try:
            return look_at(photo, images.sizes[photo.name], photo.name in featured)
        except FormatError as error:
            return error

    with ThreadPoolExecutor(max_workers=workers) as pool:
        for done, (photo, result) in enumerate(zip(chosen, pool.map(work, chosen), strict=True), 1):
            if isinstance(result, FormatError):
                broken[photo.name] = result.message
            else:
                looks[photo.name] = result
            advance(done)
    return looks, broken


# ---------------------------------------------------------------------------------------------------------- measures
_LINEAR = np.where(
    np.arange(256) <= 10, np.arange(256) / 255 / 12.92, ((np.arange(256) / 255 + 0.055) / 1.055) ** 2.4
).astype(np.float32)  # IEC 61966-2-1


def linear_luminance(rgb: np.ndarray) -> np.ndarray:
    """[...] float32 in [0, 1] of [..., 3] uint8 sRGB (Rec. 709 weights)."""
    return _LINEAR[rgb] @ np.array([0.2126, 0.7152, 0.0722], np.float32)


def _exposure(rgb: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    """Shares of clipped white and black pixels, and the mean log2 luminance."""
    step = max(1, max(rgb.shape[:2]) // 400)
    seen = rgb[::step, ::step][counts[::step, ::step]]
    if not len(seen):
        return 0.0, 0.0, float("nan")
    luminance = linear_luminance(seen)
    # The floor keeps noise in the dark from deciding: 2^-9 is 1.2 of 255 sRGB steps.
    mean = float(np.log2(np.maximum(luminance, 2.0**-9)).mean())
    return float((seen.min(axis=1) >= _WHITE).mean()), float((seen.max(axis=1) <= _BLACK).mean()), mean


def blur_px(grey: np.ndarray, counts: np.ndarray | None = None) -> float:
    """How much the sharpest part of a photo is blurred: standard deviation of a Gaussian, in px; NaN without edges.

    A step edge blurred by σ loses the share √(σ² / (σ² + s²)) of its gradient when it is blurred by s once more,
    whatever its contrast (Zhuo and Sim, "Defocus map estimation from a single image", Pattern Recognition 2011). The
    edges are the strongest of the whole photo; the sharper third of the tiles that have some decides, so that a
    blurred background does not count against a sharp object; of four directions the worst one counts, because motion
    blurs only one.

    Args:
        grey: [h, w] uint8.      counts: [h, w] bool, False where the photo shows nothing; None: it shows all.
    """
    # Half a pixel of smoothing of our own: it takes the sting out of noise and JPEG blocks, and is subtracted again.
    smooth = 0.5
    image = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), smooth)
    again = cv2.GaussianBlur(image, (0, 0), _REBLUR)
    inside = None if counts is None else cv2.erode(counts.astype(np.uint8), np.ones((_MARGIN, _MARGIN), np.uint8))
    height, width = grey.shape
    worse = None
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        if height <= 2 * dy or width <= 2 * abs(dx):
            continue
        before, after = (_difference(each, dy, dx) for each in (image, again))
        if inside is not None:
            before = before * inside[dy : height - dy, abs(dx) : width - abs(dx)]
        rows, columns = np.nonzero(before >= max(_FAINTEST, float(np.quantile(before[::3, ::3], 1 - _EDGE_SHARE))))
        ratio = before[rows, columns] / np.maximum(after[rows, columns], 1e-3)
        tile = (rows * _TILES[0] // before.shape[0]) * _TILES[1] + columns * _TILES[1] // before.shape[1]
        order = np.argsort(tile, kind="stable")
        groups = np.split(ratio[order], np.cumsum(np.bincount(tile, minlength=_TILES[0] * _TILES[1]))[:-1])
        # The difference of two pixels averages over what lies between them: a box of their distance.
        box = 4 * (dy * dy + dx * dx) / 12
        blurs = []
        for group in groups:
            if len(group) >= _FEWEST_EDGES:
                excess = max(float(np.median(group)) ** 2 - 1.0, 1e-6)
                variance = _REBLUR**2 / excess - smooth**2 - box
                blurs.append(min(float(np.sqrt(max(variance, 0.0))), _LARGEST_BLUR))
        if blurs:
            sharpest = float(np.median(np.sort(blurs)[: max(1, len(blurs) // 3)]))
            worse = sharpest if worse is None else max(worse, sharpest)
    return float("nan") if worse is None else worse


def _difference(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """[h − 2 dy, w − 2 |dx|] half the absolute difference of the pixels on both sides of each, along (dy, dx)."""
    height, width = image.shape
    side = abs(dx)
    ahead = image[2 * dy :, side + dx : width - side + dx]
    behind = image[: height - 2 * dy, side - dx : width - side - dx]
    return 0.5 * np.abs(ahead - behind)


def find_features(photo: Photo, grey: np.ndarray, counts: np.ndarray | None) -> Features:
    """SIFT features of a thumbnail (with its lens), at positions without the lens."""
    height, width = grey.shape
    scale = min(1.0, FEATURE_SIZE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    mask, shown_at_all = None, True
    if size != (width, height):
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    if counts is not None:
        shown = cv2.resize(counts.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA)
        mask = cv2.erode((shown == 255).astype(np.uint8) * 255, np.ones((_MARGIN, _MARGIN), np.uint8))
        shown_at_all = bool(mask.any())
    # Without the precise upscaling all positions are a quarter of a pixel off: as much as good poses err.
    sift = cv2.SIFT_create(nfeatures=FEATURES, contrastThreshold=_CONTRAST, enable_precise_upscale=True)
    low, high = np.quantile(grey if mask is None else grey[mask > 0], [0.01, 0.99]) if shown_at_all else (0.0, 255.0)
    gain = min(_MOST_GAIN, 255.0 / max(high - low, 1.0))
    stretched = cv2.convertScaleAbs(np.clip((grey.astype(np.float32) - low) * gain, 0, 255))
    keypoints, descriptors = sift.detectAndCompute(stretched, mask)
    if not keypoints:
        return Features(size, np.zeros((0, 2)), np.zeros((0, 128), np.uint8), np.zeros(0))
    # Strongest first, ties by place, so that nothing is left to chance.
    response = np.array([point.response for point in keypoints])
    xy = np.array([point.pt for point in keypoints], dtype=np.float64)
    order = np.lexsort((xy[:, 1], xy[:, 0], -response))[:FEATURES]
    xy, descriptors = xy[order], descriptors[order]
    column, row = np.rint(xy).astype(int).T
    around = cv2.GaussianBlur(_LINEAR[grey], (0, 0), 2.0)
    light = around[np.clip(row, 0, size[1] - 1), np.clip(column, 0, size[0] - 1)]
    usable = (light > _SATURATED[0]) & (light < _SATURATED[1])
    light = np.where(usable, np.log2(np.maximum(light, 1e-6)), np.nan)
    # OpenCV counts from the centre of the first pixel.
    xy = without_lens(photo, xy + 0.5, *size)
    good = np.isfinite(xy).all(axis=1)
    return Features(size, xy[good], np.rint(descriptors[good]).clip(0, 255).astype(np.uint8), light[good])
