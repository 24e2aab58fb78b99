"""Which photos show the same things: pairs, matched by features alone, whatever the poses say.

Pairs have to be found without believing the poses, because wrong poses name neighbours that are none. Every photo of
the sample is compared with every other by its strongest features; the best candidates, those that the poses name, and
the next photo by name are then matched in full and verified by a fundamental matrix of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from .looks import Features

FEWEST_MATCHES = 20  # verified ones; fewer are found between unrelated photos by chance
MOST_PAIRS = 400
_COARSE = 400  # features a photo in the first comparison
_RATIO = 0.8  # Lowe 2004
_COARSE_VOTES = 5  # mutual matches of the strongest features
_SEEN_BY_VOTES, _SEEN_BY_POSES = 4, 2  # candidates a photo
_AGAIN_BY_VOTES, _AGAIN_BY_POSES, _AGAIN_BY_NAME = 10, 8, 3  # of a photo that found fewer than two partners
_INLIER_PX = 1.5
_FEWEST_SHARE = 0.3  # of the matches, that agree with the pair's own fundamental matrix


@dataclass(frozen=True)
class Pair:
    """Verified matches of photos ``a`` < ``b`` (indices into the sample).

    Attributes:
        at_a, at_b: [m] indices of the features.
        xy_a, xy_b: [m, 2] px of the feature size, without lens.
        planar: share of the matches that one homography explains as well as the fundamental matrix.
    """

    a: int
    b: int
    at_a: np.ndarray
    at_b: np.ndarray
    xy_a: np.ndarray
    xy_b: np.ndarray
    planar: float

    def __len__(self) -> int:
        return len(self.at_a)


def normalised(descriptors: np.ndarray) -> np.ndarray:
    """RootSIFT [m, 128] float32 of unit length (Arandjelović and Zisserman, CVPR 2012)."""
    values = descriptors.astype(np.float32)
    return np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1e-6))


def coarse_votes(features: Sequence[Features]) -> np.ndarray:
    """[n, n] int: mutual nearest neighbours among the strongest features of two photos that pass the ratio test."""
    n = len(features)
    block = np.zeros((n, _COARSE, 128), np.float32)
    for row, each in enumerate(features):
        strongest = normalised(each.descriptors[:_COARSE])
        block[row, : len(strongest)] = strongest
    votes = np.zeros((n, n), int)
    flat = block.reshape(n * _COARSE, 128)
    for a in range(n):
        m = min(len(features[a].descriptors), _COARSE)
        if m < 2 or a + 1 == n:
            continue
        similarity = (block[a, :m] @ flat[(a + 1) * _COARSE :].T).reshape(m, n - a - 1, _COARSE)
        best = similarity.argmax(axis=2)  # [m, n−a−1]
        top = np.take_along_axis(similarity, best[..., None], axis=2)[..., 0]
        back = similarity.argmax(axis=0)  # [n−a−1, coarse]
        mutual = np.take_along_axis(back.T, best, axis=0) == np.arange(m)[:, None]
        np.put_along_axis(similarity, best[..., None], -1.0, axis=2)
        second = similarity.max(axis=2)
        passes = _passes_ratio(top, second)
        votes[a, a + 1 :] = (mutual & passes & (top > 0)).sum(axis=0)
    return votes + votes.T


def _passes_ratio(top: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Lowe's test on similarities of unit vectors: distance² = 2 − 2 similarity."""
    return (1.0 - top) < _RATIO**2 * (1.0 - second)


def candidates(votes: np.ndarray, near: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Pairs worth matching in full: the next photo, what the poses name, and what the votes name.

    Args:
        votes: [n, n].      near: for each photo, the others that its pose names, best first; may be empty.
    """
    n = len(votes)
    ranked: list[tuple[int, tuple[int, int]]] = []  # (how late in the list of its photo, pair)
    for a in range(n):
        order = [int(b) for b in np.lexsort((np.arange(n), -votes[a])) if b != a and votes[a, b] >= _COARSE_VOTES]
        ranked += [(rank, (a, b)) for rank, b in enumerate(order[:_SEEN_BY_VOTES])]
        ranked += [(rank, (a, b)) for rank, b in enumerate(list(near[a])[:_SEEN_BY_POSES])]
        if a + 1 < n:
            ranked.append((0, (a, a + 1)))
    first: dict[tuple[int, int], int] = {}
    for rank, (a, b) in ranked:
        key = (min(a, b), max(a, b))
        first[key] = min(rank, first.get(key, rank))
    # When there are too many, every photo loses its last candidates first.
    return sorted(sorted(first, key=lambda key: (first[key], key))[:MOST_PAIRS])


def further_candidates(
    votes: np.ndarray, near: Sequence[Sequence[int]], found: Sequence[Pair], tried: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """More pairs for the photos that found fewer than two partners: few features and much vegetation need luck."""
    n = len(votes)
    partners = np.zeros(n, int)
    for pair in found:
        partners[[pair.a, pair.b]] += 1
    more: set[tuple[int, int]] = set()
    for a in np.flatnonzero(partners < 2).tolist():
        by_votes = [int(b) for b in np.lexsort((np.arange(n), -votes[a])) if votes[a, b] > 0][:_AGAIN_BY_VOTES]
        by_name = [b for b in range(a - _AGAIN_BY_NAME, a + _AGAIN_BY_NAME + 1) if 0 <= b < n]
        others = {*by_votes, *by_name, *list(near[a])[:_AGAIN_BY_POSES]} - {a}
        more |= {(min(a, b), max(a, b)) for b in others}
    return sorted(more - set(tried))[:MOST_PAIRS]


def match(a: Features, b: Features) -> tuple[np.ndarray, np.ndarray]:
    """Indices of mutual nearest neighbours that pass the ratio test."""
    if len(a.xy) < 2 or len(b.xy) < 2:
        return np.zeros(0, int), np.zeros(0, int)
    similarity = normalised(a.descriptors) @ normalised(b.descriptors).T
    best = similarity.argmax(axis=1)
    rows = np.arange(len(best))
    top = similarity[rows, best]
    mutual = similarity.argmax(axis=0)[best] == rows
    similarity[rows, best] = -1.0
    good = mutual & _passes_ratio(top, similarity.max(axis=1))
    return rows[good], best[good]


def verify(a: Features, b: Features, at_a: np.ndarray, at_b: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Which matches [m] agree with one fundamental matrix, and the share of them that one homography explains.

    None where too few agree for the two photos to show the same thing.
    """
    if len(at_a) < FEWEST_MATCHES:
        return None
    xy_a, xy_b = a.xy[at_a], b.xy[at_b]
    try:
        _, found = cv2.findFundamentalMat(xy_a, xy_b, cv2.USAC_MAGSAC, _INLIER_PX, 0.999, 2000)
    except cv2.error:  # degenerate: all matches at one place
        return None
    if found is None:
        return None
    inlier = found.ravel().astype(bool)
    if inlier.sum() < FEWEST_MATCHES or inlier.mean() < _FEWEST_SHARE:
        return None
    _, flat = cv2.findHomography(xy_a[inlier], xy_b[inlier], cv2.USAC_MAGSAC, _INLIER_PX, None, 2000, 0.999)
    planar = 0.0 if flat is None else float(flat.mean())
    return inlier, planar


def match_pairs(
    features: Sequence[Features], pairs: Sequence[tuple[int, int]], workers: int, advance: Callable[[int], None]
) -> list[Pair]:
    """The pairs that show the same thing, in the order of ``pairs``."""

    def work(pair: tuple[int, int]) -> Pair | None:
        a, b = pair
        at_a, at_b = match(features[a], features[b])
        verified = verify(features[a], features[b], at_a, at_b)
        if verified is None:
            return None
        inlier, planar = verified
        at_a, at_b = at_a[inlier], at_b[inlier]
        return Pair(a, b, at_a, at_b, features[a].xy[at_a], features[b].xy[at_b], planar)

    found = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for done, pair in enumerate(pool.map(work, pairs), 1):
            if pair is not None:
                found.append(pair)
            advance(done)
    return found


def components(n: int, pairs: Sequence[Pair]) -> list[list[int]]:
    """Groups of photos that pairs connect, largest first, each ascending."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for pair in pairs:
        parent[root(pair.a)] = root(pair.b)
    groups: dict[int, list[int]] = {}
    for i in range(n):
        groups.setdefault(root(i), []).append(i)
    return sorted(groups.values(), key=lambda group: (-len(group), group[0]))


def exposure_differences(pairs: Sequence[Pair], luminance: Sequence[np.ndarray]) -> np.ndarray:
    """How much brighter, in stops, photo b of each pair [p] is at what both photos show; NaN where too little is lit.

    The median over the matches: content that only one photo shows does not count, and neither does clipping.

    Args:
        luminance: for each photo, log2 of the luminance at its features (see :class:`Features`).
    """
    result = np.full(len(pairs), np.nan)
    for row, pair in enumerate(pairs):
        difference = luminance[pair.b][pair.at_b] - luminance[pair.a][pair.at_a]
        difference = difference[np.isfinite(difference)]
        if len(difference) >= FEWEST_MATCHES // 2:
            result[row] = np.median(difference)
    return result
