"""The colours of points."""

from __future__ import annotations

import numpy as np

SH_C1 = 0.4886025119029199  # factor of the SH basis functions of degree 1, √(3 / (4 π))
# Of a colour in [0, 1]: how much photos of one point differ by noise, interpolation and pixels that are not quite the
# same, and how much a colour is expected to change from one direction to one at right angles.
NOISE, CHANGE = 0.03, 0.15
FEWEST = 3  # photos; two differ by noise as well as by direction


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


def fit_sh1(
    colours: np.ndarray, directions: np.ndarray, ridge: float = (NOISE / CHANGE) ** 2
) -> tuple[np.ndarray, np.ndarray]:
    """Colours as SH of degree 1 that explain what each photo shows: rgb [m, 3], the part that does not depend on the
    direction, and coefficients [m, 3, 3] of degree 1, as in PointCloud.

    Least squares with a ridge: of all linear functions of the direction the most probable one, if photos have noise of
    standard deviation NOISE and slopes one of CHANGE. Where the directions do not tell, the slope is 0; in fewer
    than FEWEST photos too, and the colour is that of :func:`blend`. Photos weigh 1 / (1 + (e / 3 NOISE)²) with their
    distance e from the median (a Cauchy weight), so that the highlight or the passer-by of one tilts nothing.

    Args:
        colours: [v, m, 3] in [0, 1], NaN in photos that do not see a point; each is seen by one at least.
        directions: [v, m, 3] unit, from each camera to each point.
        ridge: > 0, added to the sum of squared directions.
    """
    median = blend(colours)
    seen = np.isfinite(colours).all(axis=2)
    off = np.where(seen[..., None], colours - median, 0.0)
    weight = seen / (1 + (off**2).sum(axis=2) / (3 * NOISE) ** 2)
    total = weight.sum(axis=0)[:, None]
    middle = np.einsum("vm,vmi->mi", weight, directions) / total
    level = np.einsum("vm,vmc->mc", weight, off) / total
    turn = directions - middle
    # weight · (off − level) needs no level: the weighted turns add up to 0.
    A = np.einsum("vm,vmi,vmj->mij", weight, turn, turn) + ridge * np.eye(3)
    slope = np.linalg.solve(A, np.einsum("vm,vmi,vmc->mic", weight, turn, off))
    few = seen.sum(axis=0) < FEWEST
    slope[few], level[few] = 0.0, 0.0
    rgb = median + level - np.einsum("mi,mic->mc", middle, slope)
    # The basis of degree 1 is SH_C1 · (−y, z, −x).
    return rgb, np.stack([-slope[:, 1], slope[:, 2], -slope[:, 0]], axis=1) / SH_C1
