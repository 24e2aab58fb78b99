"""Where an image has detail, and how many points that is worth."""

from __future__ import annotations

import numpy as np

SIGMA = 1.5  # px, of the Gaussian window in which contrast is measured
AVERAGE = 0.05  # contrast, in [0, 1], of a photo of average detail


def contrast(rgb: np.ndarray) -> np.ndarray:
    """[h, w] float32: standard deviation of the colours around each pixel of ``rgb`` [h, w, 3] uint8, in [0, 1]."""
    import cv2

    colour = rgb.astype(np.float32) / 255.0
    mean, square = (cv2.GaussianBlur(each, (0, 0), SIGMA) for each in (colour, colour * colour))
    return np.sqrt(np.maximum(square - mean * mean, 0.0).mean(axis=2))


def worth(contrast: np.ndarray, detail: float) -> np.ndarray:
    """Points wanted per area, 1 where the contrast is average; ``detail`` in [0, 1] of it follow the contrast."""
    return (1.0 - detail) + detail / AVERAGE * contrast
