"""Lens distortion: where a ray lands behind a lens, and the pinhole camera that replaces the lens.

Coordinates are normalised: x = X/Z, y = Y/Z in front of the lens, (u − cx)/f behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from ..errors import FormatError


@dataclass(frozen=True)
class Distortion:
    """A distortion model with its coefficients, in OpenCV's and COLMAP's definition (no unit).

    Attributes:
        model: "brown" (k1 k2 p1 p2 k3: Brown–Conrady).
        coefficients: in the model's order; trailing ones may be absent and are 0.
    """

    model: str
    coefficients: tuple[float, ...]

    def __bool__(self) -> bool:
        """Whether it bends anything."""
        return self.model != "brown" or any(self.coefficients)

    def __str__(self) -> str:
        names = ("k1", "k2", "p1", "p2", "k3")
        return ", ".join(f"{name} {value:g}" for name, value in zip(names, self.coefficients, strict=False))

    def apply(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where normalised pinhole coordinates land behind the lens (normalised coordinates too)."""
        k1, k2, p1, p2, k3 = (*self.coefficients, 0.0, 0.0, 0.0, 0.0, 0.0)[:5]
        r2 = x * x + y * y
        radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
        xy2 = 2.0 * x * y
        return (
            x * radial + p1 * xy2 + p2 * (r2 + 2.0 * x * x),
            y * radial + p2 * xy2 + p1 * (r2 + 2.0 * y * y),
        )

    def invert(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of :meth:`apply`, by fixed-point iteration; NaN where it does not converge."""
        u, v = x.copy(), y.copy()
        with np.errstate(all="ignore"):
            for _ in range(200):
                du, dv = self.apply(u, v)
                step_u, step_v = x - du, y - dv
                u, v = u + step_u, v + step_v
                if not max(np.abs(step_u).max(), np.abs(step_v).max()) > 1e-12:
                    break
            du, dv = self.apply(u, v)
            good = np.hypot(du - x, dv - y) < 1e-7
        return np.where(good, u, np.nan), np.where(good, v, np.nan)


@dataclass(frozen=True)
class Lens:
    """The lens of a photo, and the pinhole camera that replaces it.

    Attributes:
        fx, fy, cx, cy: px at the photo's full size, centre of pixel (0, 0) at (0.5, 0.5): the lens camera.
        distortion: what the lens does.
        pinhole: (fx, fy, cx, cy) in px of the undistorted image, which has the same size.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: Distortion
    pinhole: tuple[float, float, float, float]

    def remap(self, pixels: np.ndarray, interpolation: int = cv2.INTER_CUBIC) -> np.ndarray:
        """The undistorted image of a photo at its full size [h, w, ...]."""
        maps = _maps(self, pixels.shape[1], pixels.shape[0])
        # The outermost half pixel lies beyond the last pixel centre; replicating it is exact to half a pixel.
        return cv2.remap(pixels, *maps, interpolation=interpolation, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=4)
def _maps(lens: Lens, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of the undistorted image, the float32 position (cv2's integer pixel centres) in the photo."""
    fx, fy, cx, cy = lens.pinhole
    x = (np.arange(width) + 0.5 - cx) / fx
    y = (np.arange(height) + 0.5 - cy) / fy
    u, v = lens.distortion.apply(*np.meshgrid(x, y))
    return (
        (lens.fx * u + lens.cx - 0.5).astype(np.float32),
        (lens.fy * v + lens.cy - 0.5).astype(np.float32),
    )


def replacing_pinhole(
    K: np.ndarray, distortion: Distortion, width: int, height: int, where: str
) -> tuple[Lens, np.ndarray]:
    """The Lens of a distorted camera, with the pinhole that replaces it, and that pinhole's K [3, 3].

    The pinhole shows the largest axis-aligned rectangle that is filled everywhere (no black border), stretched to the
    photo's own size; so fx/fy changes a little, and the principal point moves with the rectangle. It is what
    ``cv2.getOptimalNewCameraMatrix(alpha=0)`` computes, from the whole border instead of 9 samples a side.

    Args:
        K: [3, 3] px of an image of ``width`` × ``height`` px.

    Raises:
        FormatError, naming ``where``: the distortion folds over inside the image, so it cannot be inverted there.
    """
    fx, fy, cx, cy = float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
    lens = Lens(fx, fy, cx, cy, distortion, pinhole=(fx, fy, cx, cy))
    along_x, along_y = np.linspace(0, width, width + 1), np.linspace(0, height, height + 1)

    def edge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return distortion.invert((x - cx) / fx, (y - cy) / fy)

    left = edge(np.zeros_like(along_y), along_y)[0].max()
    right = edge(np.full_like(along_y, width), along_y)[0].min()
    top = edge(along_x, np.zeros_like(along_x))[1].max()
    bottom = edge(along_x, np.full_like(along_x, height))[1].min()
    # A NaN (not invertible) fails both comparisons.
    if not (right > left and bottom > top):
        raise FormatError(
            f"{where}: the lens distortion ({distortion} at focal {fx:g} px) folds over inside the {width}×{height} px "
            "image, so it cannot be removed.",
            hint="Check the coefficients and their order (k1 k2 p1 p2), and that the focal length fits the image size.",
        )
    new_fx, new_fy = width / (right - left), height / (bottom - top)
    pinhole = (float(new_fx), float(new_fy), float(-left * new_fx), float(-top * new_fy))
    new_K = np.array([[pinhole[0], 0.0, pinhole[2]], [0.0, pinhole[1], pinhole[3]], [0.0, 0.0, 1.0]])
    return replace(lens, pinhole=pinhole), new_K
