"""Which matches become points."""

from __future__ import annotations

import numpy as np


def sample(points: np.ndarray, certainty: np.ndarray, *, cell: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices [≤ count] of the matches to use, in an order of which every beginning is a fair sample.

    The photo is divided into squares. Each gives its matches in turn, so that they share the samples equally as long as
    they have some: sky and flat walls get theirs although texture is matched with more certainty. Within a square
    certain matches are likelier to come first: drawn without replacement with the certainty as weight (Efraimidis &
    Spirakis 2006: by descending u^(1/w), u uniform).

    Args:
        points: [m, 2] px in the reference.
        certainty: [m]; a match with 0 is never taken.
        cell: px, side of the squares.
    """
    usable = np.flatnonzero((certainty > 0) & np.isfinite(points).all(axis=1))
    if len(usable) == 0:
        return usable
    square = np.floor(points[usable] / cell).astype(np.int64)
    square -= square.min(axis=0)
    label = square[:, 1] * (square[:, 0].max() + 1) + square[:, 0]
    key = np.log(rng.uniform(1e-300, 1.0, len(usable))) / certainty[usable]
    order = np.lexsort((-key, label))
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    turn = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    # Within one turn the squares come in random order.
    return usable[order[np.lexsort((rng.random(len(order)), turn))[:count]]]
