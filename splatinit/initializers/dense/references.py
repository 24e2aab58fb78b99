"""Which photos are references: all, or so many that what is seen stays covered."""

from __future__ import annotations

import numpy as np

from ..rig import Rig

# A feature is the place in extents of the cameras, and the unit direction times this. EDGS clusters the 16 numbers of
# raw matrices, where scene units decide what weighs more, the place or the direction.
DIRECTION_WEIGHT = 1.0
ROUNDS = 50
GAIN_LEFT = 0.5  # what a point is still worth that was seen once more
# Unit directions from a point: the middles of the faces and the corners of a cube, 55° and less from each other.
_CUBE = np.array([[x, y, z] for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)], dtype=np.float64)
SIDES = _CUBE[np.isin(np.abs(_CUBE).sum(axis=1), (1, 3))]
SIDES /= np.linalg.norm(SIDES, axis=1, keepdims=True)


def by_kmeans(rig: Rig, count: int, rng: np.random.Generator) -> list[int]:
    """``count`` cameras, ascending: of each of ``count`` clusters of poses the one nearest to its centre.

    A pose is its place in extents of the cameras and its direction. Lloyd's algorithm from a k-means++ start (Arthur &
    Vassilvitskii 2007); a cluster that runs empty starts again at the camera that fits worst.
    """
    if count >= len(rig):
        return list(range(len(rig)))
    place = (rig.center - rig.center.mean(axis=0)) / rig.extent
    feature = np.concatenate([place, DIRECTION_WEIGHT * rig.axis], axis=1)
    chosen = [int(rng.integers(len(rig)))]
    nearest = ((feature - feature[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < count:
        total = nearest.sum()
        # Cameras that stand and look alike are all at distance 0: then any that is left will do.
        odds = nearest / total if total > 0 else np.isin(np.arange(len(rig)), chosen, invert=True).astype(float)
        chosen.append(int(rng.choice(len(rig), p=odds / odds.sum())))
        nearest = np.minimum(nearest, ((feature - feature[chosen[-1]]) ** 2).sum(axis=1))
    centers = feature[chosen]
    label = np.full(len(rig), -1)
    for _ in range(ROUNDS):
        distance = ((feature[:, None] - centers[None]) ** 2).sum(axis=-1)
        before, label = label, distance.argmin(axis=1)
        if (label == before).all():
            break
        for k in range(count):
            members = label == k
            if members.any():
                centers[k] = feature[members].mean(axis=0)
            else:
                centers[k] = feature[distance.min(axis=1).argmax()]
    distance = ((feature[:, None] - centers[None]) ** 2).sum(axis=-1)
    picked: list[int] = []
    for k in range(count):
        distance[picked, k] = np.inf  # two centres may share their nearest camera
        picked.append(int(distance[:, k].argmin()))
    return sorted(picked)


def by_coverage(rig: Rig, count: int, points: np.ndarray) -> list[int]:
    """``count`` cameras, ascending, chosen greedily: the next is the one that sees most of what few have seen so far.

    What can be seen is a point from one of SIDES, for its far side is another surface. A camera sees it as well as it
    is near, compared with the camera that sees it best. What was seen c times is worth 0.5ᶜ to the next; the sum is
    submodular, so that the greedy choice reaches 63 % of the best one's (Nemhauser et al. 1978).

    Args:
        points: [p, 3] of the scene, or proxies of what the cameras see.
    """
    if count >= len(rig):
        return list(range(len(rig)))
    worth = np.zeros((len(rig), len(points)), np.float32)
    side = np.zeros((len(rig), len(points)), np.int64)
    for k in range(len(rig)):
        _, z, seen = rig.look(np.array([k]), points)
        worth[k, seen[0]] = rig.focal[k] / z[0, seen[0]]
        side[k] = ((rig.center[k] - points) @ SIDES.T).argmax(axis=1)
    worth /= np.maximum(worth.max(axis=0), 1e-30)
    left = np.ones((len(points), len(SIDES)), np.float32)
    each = np.arange(len(points))
    free = np.ones(len(rig), bool)
    for _ in range(count):
        gain = [float((worth[k] * left[each, side[k]]).sum()) if free[k] else -1.0 for k in range(len(rig))]
        best = int(np.argmax(gain))
        free[best] = False
        left[each, side[best]] *= 1 - (1 - GAIN_LEFT) * worth[best]
    return np.flatnonzero(~free).tolist()
