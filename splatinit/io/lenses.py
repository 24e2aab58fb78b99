"""Lenses: where a ray lands behind each of COLMAP's camera models, and the pinhole camera that replaces the lens.

Coordinates are normalised: x = X/Z, y = Y/Z in front of the lens, (u − cx)/f behind it. A pinhole shows only what is in
front of it, so the rays of a fisheye beyond 90° have no x and y, and are cropped.

The models are those of COLMAP's ``src/colmap/sensor/models.h`` and OpenCV's calibration module, written anew from their
formulas: Brown 1966 (radial and tangential), Kannala and Brandt 2006 (fisheye), Devernay and Faugeras 2001 (FOV),
Fitzgibbon 2001 (division), Khomutenko et al. 2016 (EUCM), Weng et al. 1992 (thin prism).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from ..errors import FormatError

Plane = tuple[np.ndarray, np.ndarray]

# A fisheye's pinhole ends where its corners are enlarged this many times (along the radius) against its centre: beyond,
# it would spend most of its pixels on what the photo shows with few. An equidistant fisheye gets 63° from axis to
# corner; 10 would give 72° and a third of the centre's resolution.
MAX_STRETCH = 5.0
# No lens enlarges its border against its centre more than this (a strong pincushion: 2), and no photo shows a fisheye's
# image circle smaller than this part of its side; wrong coefficients and focal lengths do.
_MAX_ENLARGED = 10.0
# What is usable of a lens must reach this far from the axis, or to the border of the photo. 45° is less than any
# fisheye has within MAX_STRETCH (orthographic: 54°), so less is a polynomial that folds over, and not a lens.
_MIN_USABLE = np.tan(np.radians(45.0))
_MAX_SIDE = 32766  # px; cv2.remap counts in 16 bits

# Where a lens is surveyed: 1e-5 is 0.01 px of a lens of 1000 px, 1e3 is 89.94°. Steps of 1.9 %.
_RADII = np.geomspace(1e-5, 1e3, 1000)
_DIRECTIONS = np.linspace(0.0, 2.0 * np.pi, 32, endpoint=False)

_STRIP = 128  # rows undistorted at a time, a multiple of all steps; for 12 megapixels, positions of 4 MB
_STEPS = (16, 8, 4)  # px between the exact positions that others are interpolated from, the widest that is exact enough
_TOLERANCE = 5e-4  # px; as much as rounding positions of 12 megapixels to float32 costs (2.4e-4), twice


# ------------------------------------------------------------------------------------------------------------ models
def _brown(c: tuple[float, ...], x: np.ndarray, y: np.ndarray) -> Plane:
    k1, k2, p1, p2, k3 = c
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    xy2 = 2.0 * x * y
    return (
        x * radial + p1 * xy2 + p2 * (r2 + 2.0 * x * x),
        y * radial + p2 * xy2 + p1 * (r2 + 2.0 * y * y),
    )


def _rational(c: tuple[float, ...], x: np.ndarray, y: np.ndarray) -> Plane:
    k1, k2, p1, p2, k3, k4, k5, k6 = c
    r2 = x * x + y * y
    radial = (1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1.0 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    xy2 = 2.0 * x * y
    return (
        x * radial + p1 * xy2 + p2 * (r2 + 2.0 * x * x),
        y * radial + p2 * xy2 + p1 * (r2 + 2.0 * y * y),
    )


def _fov(c: tuple[float, ...], x: np.ndarray, y: np.ndarray) -> Plane:
    (omega,) = c
    if omega == 0.0:
        return x, y
    r = np.hypot(x, y)
    scale = 2.0 * np.tan(0.5 * omega)
    radial = np.where(r > 0, np.arctan(r * scale) / np.where(r > 0, r, 1.0), scale) / omega
    return x * radial, y * radial


def _division(c: tuple[float, ...], x: np.ndarray, y: np.ndarray) -> Plane:
    # The model is the inverse, x = u / (1 + k |u|²); this solves it for u.
    radial = 2.0 / (1.0 + np.sqrt(1.0 - 4.0 * c[0] * (x * x + y * y)))
    return x * radial, y * radial


def _eucm(c: tuple[float, ...], x: np.ndarray, y: np.ndarray) -> Plane:
    alpha, beta = c
    radial = 1.0 / (alpha * np.sqrt(beta * (x * x + y * y) + 1.0) + 1.0 - alpha)
    return x * radial, y * radial


def _fisheye(c: tuple[float, ...], x: np.ndarray, y: np.ndarray) -> Plane:
    k1, k2, k3, k4 = c
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    return x * radial, y * radial


def _thin_prism(c: tuple[float, ...], x: np.ndarray, y: np.ndarray) -> Plane:
    k1, k2, p1, p2, k3, k4, sx1, sy1 = c
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4)))
    xy2 = 2.0 * x * y
    return (
        x * radial + p1 * xy2 + p2 * (r2 + 2.0 * x * x) + sx1 * r2,
        y * radial + p2 * xy2 + p1 * (r2 + 2.0 * y * y) + sy1 * r2,
    )


def _rad_tan_thin_prism(c: tuple[float, ...], x: np.ndarray, y: np.ndarray) -> Plane:
    k0, k1, k2, k3, k4, k5, p0, p1, s0, s1, s2, s3 = c
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k0 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * (k4 + r2 * k5)))))
    x, y = x * radial, y * radial
    r2 = x * x + y * y
    xy2 = 2.0 * x * y
    return (
        x + p1 * xy2 + p0 * (r2 + 2.0 * x * x) + r2 * (s0 + r2 * s1),
        y + p0 * xy2 + p1 * (r2 + 2.0 * y * y) + r2 * (s2 + r2 * s3),
    )


@dataclass(frozen=True)
class _Model:
    """``bend`` takes all coefficients by ``names``. Where ``angular``, it bends x and y that are scaled from the
    tangent of the ray's angle with the axis to that angle (radians)."""

    names: tuple[str, ...]
    bend: Callable[[tuple[float, ...], np.ndarray, np.ndarray], Plane]
    angular: bool = False


MODELS = {
    "brown": _Model(("k1", "k2", "p1", "p2", "k3"), _brown),
    "rational": _Model(("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"), _rational),
    "fov": _Model(("omega",), _fov),
    "division": _Model(("k",), _division),
    "eucm": _Model(("alpha", "beta"), _eucm),
    "fisheye": _Model(("k1", "k2", "k3", "k4"), _fisheye, angular=True),
    "thin_prism_fisheye": _Model(("k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"), _thin_prism, angular=True),
    "rad_tan_thin_prism_fisheye": _Model(
        ("k0", "k1", "k2", "k3", "k4", "k5", "p0", "p1", "s0", "s1", "s2", "s3"), _rad_tan_thin_prism, angular=True
    ),
}


@dataclass(frozen=True)
class Distortion:
    """A distortion model with its coefficients, in OpenCV's and COLMAP's definition (no unit; FOV's omega: radians).

    Attributes:
        model: a name of MODELS: "brown" (k1 k2 p1 p2 k3), "fisheye" (k1 k2 k3 k4), ...
        coefficients: in the model's order; trailing ones may be absent and are 0.
    """

    model: str
    coefficients: tuple[float, ...]

    def __bool__(self) -> bool:
        """Whether it bends anything."""
        return MODELS[self.model].angular or any(self.coefficients)

    def __str__(self) -> str:
        named = zip(MODELS[self.model].names, self.coefficients, strict=False)
        return ", ".join([self.model] * (self.model != "brown") + [f"{name} {value:g}" for name, value in named])

    def apply(self, x: np.ndarray, y: np.ndarray) -> Plane:
        """Where normalised pinhole coordinates land behind the lens (normalised coordinates too)."""
        model = MODELS[self.model]
        coefficients = (*self.coefficients, *[0.0] * len(model.names))[: len(model.names)]
        if model.angular:
            r = np.hypot(x, y)
            scale = np.where(r > 0, np.arctan(r) / np.where(r > 0, r, 1.0), 1.0)
            x, y = x * scale, y * scale
        return model.bend(coefficients, x, y)

    def invert(self, x: np.ndarray, y: np.ndarray) -> Plane:
        """The inverse of :meth:`apply` on the branch that is connected to the centre.

        NaN where no ray less than 89.9° off the axis lands there before the lens folds over.
        """
        survey = _survey(self)
        target = np.hypot(x, y)
        if survey.reach == 0.0:
            return np.full_like(target, np.nan), np.full_like(target, np.nan)
        # From nearer the axis than the solution: where a lens flattens towards a fold, Newton does not overshoot then.
        start = np.interp(target, survey.landing, survey.radius) / np.where(target > 0, target, 1.0)
        u, v = x * start, y * start
        with np.errstate(all="ignore"):
            for _ in range(20):  # 4 are enough but at the edge of a fold
                du, dv = self.apply(u, v)
                (a, b), (c, d) = self._slopes(u, v)
                determinant = a * d - b * c
                step_u = (d * (x - du) - b * (y - dv)) / determinant
                step_v = (a * (y - dv) - c * (x - du)) / determinant
                new_u, new_v = u + step_u, v + step_v
                held = np.minimum(1.0, survey.reach / np.hypot(new_u, new_v))
                new_u, new_v = new_u * held, new_v * held
                still = ~(np.abs(new_u - u) + np.abs(new_v - v) > 1e-13 * (1.0 + np.abs(u) + np.abs(v)))
                u, v = new_u, new_v
                if still.all():
                    break
            du, dv = self.apply(u, v)
            good = np.hypot(du - x, dv - y) < 1e-9
        return np.where(good, u, np.nan), np.where(good, v, np.nan)

    def _slopes(self, x: np.ndarray, y: np.ndarray) -> tuple[Plane, Plane]:
        """The derivatives of u, then of v, by x and y (central differences: good to 1e-9, enough for Newton)."""
        h = 1e-6 * (1.0 + np.abs(x) + np.abs(y))
        right, left = self.apply(x + h, y), self.apply(x - h, y)
        below, above = self.apply(x, y + h), self.apply(x, y - h)
        return (
            ((right[0] - left[0]) / (2.0 * h), (below[0] - above[0]) / (2.0 * h)),
            ((right[1] - left[1]) / (2.0 * h), (below[1] - above[1]) / (2.0 * h)),
        )


@dataclass(frozen=True)
class _Survey:
    """A lens along its radius, as far as it is one-to-one in all directions.

    Attributes:
        radius: [m] tangents of the angle with the axis, from 0 to ``reach``.
        landing: [m] the radius behind the lens, largest of all directions; rising.
        pincushion: [m] the most that the lens has enlarged the picture up to there, against the centre.
        reach: where it folds over; 1e3 (89.94°) where it does not, 0 where it is no lens even at the centre.
        usable: where it shrinks the picture MAX_STRETCH times against the centre; at most ``reach``.
    """

    radius: np.ndarray
    landing: np.ndarray
    pincushion: np.ndarray
    reach: float
    usable: float


@lru_cache(maxsize=64)
def _survey(distortion: Distortion) -> _Survey:
    cos, sin = np.cos(_DIRECTIONS), np.sin(_DIRECTIONS)
    with np.errstate(all="ignore"):  # beyond a fold, numbers may be anything
        u, v = distortion.apply(_RADII[:, None] * cos, _RADII[:, None] * sin)
        outward, sideways = u * cos + v * sin, v * cos - u * sin
        log_radii = np.log(_RADII)
        # The Jacobian in polar coordinates. Differences across directions are exact for what is radial.
        across = 2.0 * np.sin(_DIRECTIONS[1])
        u_turn = (np.roll(u, -1, axis=1) - np.roll(u, 1, axis=1)) / across
        v_turn = (np.roll(v, -1, axis=1) - np.roll(v, 1, axis=1)) / across
        slope = np.gradient(outward, log_radii, axis=0)
        slope_side = np.gradient(sideways, log_radii, axis=0)
        determinant = slope * (v_turn * cos - u_turn * sin) - slope_side * (u_turn * cos + v_turn * sin)
        slope /= _RADII[:, None]
        good = (np.isfinite(determinant) & (determinant > 0) & (outward > 0)).all(axis=1)
    count = len(good) if good.all() else int(np.argmin(good))
    if count < 2:
        none = np.zeros(1)
        return _Survey(none, none, none, 0.0, 0.0)
    radii, slope, landing = _RADII[:count], slope[:count], np.maximum.accumulate(np.hypot(u, v)[:count].max(axis=1))
    centre = float(landing[0] / radii[0])
    weakest = slope.min(axis=1) * (MAX_STRETCH / centre)
    usable = float(radii[-1])
    if (weakest < 1.0).any():
        first = int(np.argmax(weakest < 1.0))
        usable = float(np.interp(-1.0, -weakest[first - 1 : first + 1], radii[first - 1 : first + 1])) if first else 0.0
    return _Survey(
        radius=np.concatenate([[0.0], radii]),
        landing=np.concatenate([[0.0], landing]),
        pincushion=np.concatenate([[1.0], np.maximum.accumulate(slope.max(axis=1)) / centre]),
        reach=float(radii[-1]),
        usable=usable,
    )


# ----------------------------------------------------------------------------------------------------------- photos
@dataclass(frozen=True)
class Lens:
    """The lens of a photo, and the pinhole camera that replaces it.

    Attributes:
        fx, fy, cx, cy: px at the photo's full size, centre of pixel (0, 0) at (0.5, 0.5): the lens camera.
        distortion: what the lens does.
        pinhole: (fx, fy, cx, cy) in px of the undistorted image, which has the same size.
        masked: some pixels of the undistorted image show nothing of the photo.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: Distortion
    pinhole: tuple[float, float, float, float]
    masked: bool = False

    def remap(
        self, pixels: np.ndarray, interpolation: int = cv2.INTER_CUBIC, outside: float | None = None
    ) -> np.ndarray:
        """The undistorted image of a photo at its full size [h, w, ...].

        Args:
            outside: what pixels get that show nothing of the photo. None: what its nearest border shows.
        """
        pixels = np.ascontiguousarray(pixels)
        height, width = pixels.shape[:2]
        result = np.empty_like(pixels)
        for top in range(0, height, _STRIP):
            bottom = min(top + _STRIP, height)
            u, v = self._positions(top, bottom, width, height)
            # The outermost half pixel lies beyond the last pixel centre; replicating it is exact to half a pixel.
            result[top:bottom] = cv2.remap(pixels, u, v, interpolation, borderMode=cv2.BORDER_REPLICATE)
            if outside is not None and self.masked:
                reached = (u >= -0.5) & (u <= width - 0.5) & (v >= -0.5) & (v <= height - 0.5)
                result[top:bottom][~reached] = outside
        return result

    def project(self, columns: np.ndarray, rows: np.ndarray) -> Plane:
        """For pixel centres (cv2's: integer) of the undistorted image on a grid, where they are in the photo."""
        fx, fy, cx, cy = self.pinhole
        u, v = self.distortion.apply(*np.meshgrid((columns + 0.5 - cx) / fx, (rows + 0.5 - cy) / fy))
        return self.fx * u + self.cx - 0.5, self.fy * v + self.cy - 0.5

    def _positions(self, top: int, bottom: int, width: int, height: int) -> Plane:
        """:meth:`project` for rows ``top`` to ``bottom`` as float32."""
        grid = _grid(self, width, height)
        if grid is None:
            u, v = self.project(np.arange(width), np.arange(top, bottom))
            return u.astype(np.float32), v.astype(np.float32)
        step, nodes = grid
        along = _cubic(np.arange(step) / step)
        result = np.empty((2, bottom - top, width), np.float32)
        for plane, positions in zip(nodes, result, strict=True):
            plane = _across(plane[top // step : (bottom - 1) // step + 4], np.arange(width), step)
            # Block by block, as all have the same weights, and a larger product would wake BLAS's threads.
            for block, row in enumerate(range(0, bottom - top, step)):
                positions[row : row + step] = (along @ plane[block : block + 4])[: bottom - top - row]
        return result[0], result[1]


@lru_cache(maxsize=16)
def _grid(lens: Lens, width: int, height: int) -> tuple[int, tuple[np.ndarray, np.ndarray]] | None:
    """Exact positions every ``step`` px, from which cubic interpolation gives all others to _TOLERANCE; else None.

    The positions of all pixels would be 96 MB for 12 megapixels, and computing them takes longer than decoding the
    photo; these are 0.8 MB. Nodes are at (index − 1) · step px, so every pixel lies between the middle two of four.
    """
    for step in _STEPS:
        columns = (np.arange((width - 1) // step + 4) - 1.0) * step
        rows = (np.arange((height - 1) // step + 4) - 1.0) * step
        if len(columns) * len(rows) > width * height / 4:  # nothing to be gained
            continue
        with np.errstate(all="ignore"):
            nodes = lens.project(columns, rows)
            # The error is largest in the middle between nodes.
            between = columns[1:-2] + 0.5 * step
            error = 0.0
            for plane, exact in zip(nodes, lens.project(between, rows[1:-2] + 0.5 * step), strict=True):
                plane = _across(plane, between, step)
                found = sum(weight * plane[k : len(plane) - 3 + k] for k, weight in enumerate(_cubic(0.5)))
                error = max(error, float(np.abs(found - exact).max()))
        if error <= _TOLERANCE:
            return step, nodes
    return None


def _across(nodes: np.ndarray, columns: np.ndarray, step: int) -> np.ndarray:
    """[rows of nodes, columns]: nodes as in :func:`_grid`, interpolated along x."""
    index = (columns // step).astype(np.int64)
    weights = _cubic(columns / step - index)
    return sum(nodes.take(index + k, axis=1) * weights[..., k] for k in range(4))


def _cubic(t: np.ndarray | float) -> np.ndarray:
    """[..., 4] weights of the nodes at −1, 0, 1 and 2 for positions in [0, 1) (Lagrange)."""
    return np.stack(
        (
            t * (1.0 - t) * (t - 2.0) / 6.0,
            (1.0 + t) * (1.0 - t) * (2.0 - t) / 2.0,
            t * (1.0 + t) * (2.0 - t) / 2.0,
            t * (t * t - 1.0) / 6.0,
        ),
        axis=-1,
    )


def replacing_pinhole(
    K: np.ndarray, distortion: Distortion, width: int, height: int, where: str
) -> tuple[Lens, np.ndarray]:
    """The Lens of a distorted camera, with the pinhole that replaces it, and that pinhole's K [3, 3].

    The pinhole of a narrow lens shows the largest axis-aligned rectangle that is filled everywhere (no black border),
    stretched to the photo's own size; so fx/fy changes a little, and the principal point moves with the rectangle. It
    is what ``cv2.getOptimalNewCameraMatrix(alpha=0)`` computes, from the whole border instead of 9 samples a side.

    Where there is no such rectangle, or where its corners are enlarged more than MAX_STRETCH times (fisheyes), the
    pinhole keeps fx/fy. It is the widest of which no corner is enlarged more than that, but not wider than the photo
    along both axes; the axis is in its middle where the photo reaches far enough on all sides. What it shows beyond the
    photo is masked (``Lens.masked``).

    Args:
        K: [3, 3] px of an image of ``width`` × ``height`` px.

    Raises:
        FormatError, naming ``where``: the coefficients are not finite or absurd, or the distortion folds over inside
            the image, so that it cannot be inverted there; or the image has a side of more than 32766 px.
    """
    fx, fy, cx, cy = float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
    found = _replacing(fx, fy, cx, cy, distortion, width, height)
    if isinstance(found, str):
        names = " ".join(MODELS[distortion.model].names)
        raise FormatError(
            f"{where}: the lens distortion ({distortion} at focal {fx:g} px) {found}, so it cannot be removed.",
            hint="Check the coefficients and their order "
            f"({names}), the camera model, and that the focal length fits the image size.",
        )
    fx, fy, cx, cy = found.pinhole
    return found, np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def lens_note(lenses: Iterable[tuple[Lens, ...]]) -> str:
    """What a reader adds to its first note, from the lenses of each photo: nothing where there are none."""
    lenses = [each for each in lenses if each]
    if not lenses:
        return ""
    masked = sum(any(lens.masked for lens in each) for each in lenses)
    return ", lens distortion removed" + (f" (border masked in {masked} photos)" if masked else "")


@lru_cache(maxsize=1024)
def _replacing(
    fx: float, fy: float, cx: float, cy: float, distortion: Distortion, width: int, height: int
) -> Lens | str:
    """The lens with its pinhole, or what is wrong with it."""
    if not np.isfinite(distortion.coefficients).all():
        return "is not finite"
    if max(width, height) > _MAX_SIDE:
        return f"is that of a {width}×{height} px image; expected at most {_MAX_SIDE} px a side"
    survey = _survey(distortion)
    folds = f"folds over inside the {width}×{height} px image"
    left, right, top, bottom = -cx / fx, (width - cx) / fx, -cy / fy, (height - cy) / fy
    nearest = min(-left, right, -top, bottom)
    if survey.usable < _MIN_USABLE and np.interp(survey.usable, survey.radius, survey.landing) < nearest:
        return folds
    farthest = np.hypot(max(-left, right), max(-top, bottom))
    pincushion = survey.pincushion[survey.landing < farthest].max()
    if pincushion > _MAX_ENLARGED:
        return f"enlarges the border of the {width}×{height} px image {pincushion:.3g} times against its centre"
    lens = Lens(fx, fy, cx, cy, distortion, pinhole=(fx, fy, cx, cy))

    along_x, along_y = (np.arange(width + 1) - cx) / fx, (np.arange(height + 1) - cy) / fy
    # Where the photo ends: the least of what each side shows. NaN where no ray in front of the lens gets there.
    ends = (
        -distortion.invert(np.full_like(along_y, left), along_y)[0],
        distortion.invert(np.full_like(along_y, right), along_y)[0],
        -distortion.invert(along_x, np.full_like(along_x, top))[1],
        distortion.invert(along_x, np.full_like(along_x, bottom))[1],
    )
    left, right, top, bottom = (float(side.min()) for side in ends)
    corner = np.hypot(max(left, right), max(top, bottom))  # NaN if any is
    if left + right > 0 and top + bottom > 0 and corner <= survey.usable:
        new_fx, new_fy = width / (left + right), height / (top + bottom)
        return _masked(replace(lens, pinhole=(new_fx, new_fy, left * new_fx, top * new_fy)), width, height)

    if not nearest > 0:
        return f"has its axis outside the {width}×{height} px image, and leaves no rectangle of it filled"
    # Sides that end beyond 90° or the fold do not limit the pinhole.
    left, right, top, bottom = (float(np.where(np.isnan(side), np.inf, side).min()) for side in ends)
    if not min(left, right, top, bottom) > 0:
        return folds
    span_x, span_y = width / fx, height / fy

    def window(scale: float) -> tuple[float, float, float]:
        """What the pinhole of ``scale`` times the focal lengths shows left of and above the axis; its far corner."""
        x, y = _placed(span_x / scale, left, right), _placed(span_y / scale, top, bottom)
        return x, y, float(np.hypot(max(x, span_x / scale - x), max(y, span_y / scale - y)))

    # The far corner is half a diagonal away where the window is in the middle, and less than a diagonal anywhere.
    high = float(np.hypot(span_x, span_y)) / survey.usable
    low = max(0.5 * high, min(span_x / (left + right), span_y / (top + bottom)))
    high = max(low, high)
    if window(low)[2] <= survey.usable * (1.0 + 1e-9):
        high = low
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if window(middle)[2] <= survey.usable else (middle, high)
    if high > _MAX_ENLARGED:
        return f"has all it shows in so few px that they need enlarging {high:.3g} times"
    x, y, _ = window(high)
    return _masked(replace(lens, pinhole=(high * fx, high * fy, x * high * fx, y * high * fy)), width, height)


def _masked(lens: Lens, width: int, height: int) -> Lens:
    """The lens with ``masked`` as it is. Along each ray from the axis the photo ends once, so the border tells."""
    columns, rows = np.arange(width), np.arange(height)
    border = (lens.project(columns, rows[[0, -1]]), lens.project(columns[[0, -1]], rows))
    reached = all(
        (u >= -0.5).all() and (u <= width - 0.5).all() and (v >= -0.5).all() and (v <= height - 0.5).all()
        for u, v in border
    )
    return replace(lens, masked=not reached)


def _placed(span: float, before: float, after: float) -> float:
    """How much of a window of ``span`` lies before 0: half, unless the photo's ``before`` and ``after`` 0 demand more
    or less."""
    if before + after <= span:
        return span * before / (before + after)
    return min(max(0.5 * span, span - after), before)
