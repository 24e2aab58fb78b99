"""The colours of points."""

from __future__ import annotations

import numpy as np


def bilinear(rgb: np.ndarray, px: np.ndarray) -> np.ndarray:
    """Colours [m, 3] in [0, 1] of ``rgb`` [h, w, 3] uint8 at ``px`` [m, 2] (centres at +0.5); NaN where px is NaN.

    Beyond the outermost centres the outermost colour continues.
    """
    height, width = rgb.shape[:2]
    known = np.isfinite(px).all(axis=1)
    position = np.where(known[:, None], px, 0.5) - 0.5
    x, y = position[:, 0].clip(0, width - 1), position[:, 1].clip(0, height - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = (x - left)[:, None], (y - top)[:, None]
    above = rgb[top, left] * (1 - u) + rgb[top, right] * u
    below = rgb[bottom, left] * (1 - u) + rgb[bottom, right] * u
    return np.where(known[:, None], (above * (1 - v) + below * v) / 255.0, np.nan)


def blend(colours: np.ndarray) -> np.ndarray:
    """The median colour [m, 3] of the photos ``colours`` [v, m, 3] that see each point (NaN: not seen), per channel.

    Exposures are not evened out: training compares with the photos as they are, and the median is what has the least
    absolute difference from them.
    """
    # Sorted by hand: numpy's nanmedian takes ten times as long. NaN sorts last.
    ordered = np.sort(colours, axis=0)
    seen = np.isfinite(ordered).sum(axis=0)
    low = np.take_along_axis(ordered, np.maximum(seen - 1, 0)[None] // 2, axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(seen // 2, len(colours) - 1)[None], axis=0)[0]
    return (low + high) / 2
