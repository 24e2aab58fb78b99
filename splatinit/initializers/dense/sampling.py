"""Which matches become points."""

from __future__ import annotations

import numpy as np


def sample(
    points: np.ndarray, certainty: np.ndarray, worth: np.ndarray, *, cell: int, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Indices [≤ count] of the matches to use.

    The photo is divided into squares, which give their matches in turn, the more often the more they are worth, as long
    as they have some: sky and flat walls get their share although texture is matched with more certainty. Within a
    square, matches that are certain and worth more are likelier to come first: drawn without replacement with the
    product as weight (Efraimidis & Spirakis 2006: by descending u^(1/w), u uniform).

    Args:
        points: [m, 2] px in the reference.
        certainty: [m]; a match with 0 is never taken.
        worth: [m] > 0, samples wanted per area.
        cell: px, side of the squares.
    """
    usable = np.flatnonzero((certainty > 0) & np.isfinite(points).all(axis=1))
    if len(usable) == 0:
        return usable
    square = np.floor(points[usable] / cell).astype(np.int64)
    square -= square.min(axis=0)
    label = square[:, 1] * (square[:, 0].max() + 1) + square[:, 0]
    key = np.log(rng.uniform(1e-300, 1.0, len(usable))) / (certainty[usable] * worth[usable])
    order = np.lexsort((-key, label))
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    # The k-th match of a square comes at the time (k + u) / worth of the square; u, so that not all begin at once.
    of_square = np.add.reduceat(worth[usable][order], starts) / sizes
    turn = np.arange(len(order)) - np.repeat(starts, sizes) + np.repeat(rng.random(len(starts)), sizes)
    time = turn / np.repeat(of_square, sizes)
    return usable[order[np.argsort(time, kind="stable")[:count]]]
