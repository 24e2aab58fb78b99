"""Bringing one point cloud onto another: from pairs of points, from a rough placement, or from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import BadPoints, ShapeError
from .neighbours import checked_points, local_planes, mean_neighbour_distance
from .rigid import Similarity, align_similarity

# Points are drawn at random where there are more: more of them refine no further than their noise lets them.
_DENSE, _SPARSE = 40_000, 5_000
_ROUNDS = 80
# A pair counts within so many standard deviations of the noise, told by the median of the pairs (normal errors).
_LIMIT = 3 * 1.4826
# Neighbourhoods thinner than this are planes, along which a pair may slide (see ``local_planes``).
_PLANE = 0.3
# Weight of what a pair lies beside its plane's normal, relative to along it: what holds a cloud of few directions.
_SLIDE = 0.02
# Weight of a pair whose neighbourhood is no plane: its nearest point is off by about the spacing, in any direction.
_ROUGH = 0.1
_NEAR_ENOUGH = 1e-7  # of the extent: the last step of a refinement
# Less of a second direction than this share of the first is a line.
_LINE = 1e-3

# The search: rotations about 20° apart, scales 25 % apart, shifts by half the size; all within reach of the refinement.
_ROTATIONS = 1000
_SCALES = (0.5, 0.63, 0.8, 1.0, 1.25, 1.6, 2.0)
_SHIFTS = (-0.5, 0.0, 0.5)
_COARSE_POINTS, _LOOKED_UP = 700, 120
_ISOLATED = 2.5  # times the usual distance to the nearest 8
_GRID, _REACH = 64, 3.0  # cells along each side of the table of distances, and half its side in sizes of the cloud
_FAR = 0.35  # sizes: beyond it, how far no longer matters, so that what does not overlap does not pull
_TRIM = 0.7  # share of the pairs that count in the first closest points
_TRIED, _KEPT, _FINE = 100, 30, 5  # hypotheses that go on to the second, the third and the last pass
_SAME_ANGLE, _SAME_SCALE, _SAME_PLACE = 15.0, 0.2, 0.15  # degrees, share, share of the extent


@dataclass(frozen=True)
class Fit:
    """How well a moved cloud and a target lie on each other.

    Attributes:
        similarity: target from cloud.
        reach: distance within which two points are one (units of the target).
        share: of the target's points that have one of the cloud within ``reach``.
        back: share of the cloud's points that have one of the target so near.
        residual: median distance of the target's points that have one, to the cloud (units of the target); to its
            local planes where it has some.
        rival: the score of the best other placement of a search; 0 where there was none.
    """

    similarity: Similarity
    reach: float
    share: float
    back: float
    residual: float
    rival: float = 0.0

    @property
    def score(self) -> float:
        """Harmonic mean of both shares."""
        return 2 * self.share * self.back / max(self.share + self.back, 1e-12)


def from_pairs(a: np.ndarray, b: np.ndarray, where: str) -> tuple[Similarity, np.ndarray]:
    """The similarity that takes points ``a`` [n, 3] to ``b`` [n, 3], and the distances [n] that stay (Umeyama 1991).

    Raises BadPoints, naming ``where``: fewer than three pairs, or points on one line, about which all may turn.
    """
    a, b = checked_points(a, where), checked_points(b, where)
    if len(a) < 3 or len(a) != len(b):
        raise BadPoints(
            f"{where}: {min(len(a), len(b))} pairs of points; a similarity needs at least 3.",
            hint="Name more points that both know, far from each other.",
        )
    for points in (a, b):
        first, second, _ = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        if second <= _LINE * first:
            raise BadPoints(
                f"{where}: the points of its {len(a)} pairs lie on one line, so that the rest may turn about it.",
                hint="Add a pair beside that line.",
            )
    found = align_similarity(a, b)
    return found, np.linalg.norm(found(a) - b, axis=1)


def refine(
    cloud: np.ndarray, target: np.ndarray, start: Similarity | None = None, *, scaled: bool, seed: int = 0
) -> Fit:
    """Trimmed iterative closest points, from a placement that is right within a few percent of the extent: rotation and
    translation, and the scale where ``scaled``.

    Each point of the sparser cloud is paired with the nearest of the denser one (Besl and McKay 1992). Where the
    neighbourhood of that is a plane, distances along its normal count (Chen and Medioni 1992), else all of them. Pairs
    beyond three standard deviations of the noise, told by their median, are left out anew in every round, so that what
    does not overlap, and outliers, do not pull (after Chetverikov et al. 2002); the others weigh less with their
    distance (Tukey's biweight).

    Args:
        cloud: [n, 3]. target: [m, 3]; both finite, with 4 points at least.
        start: target from cloud; None: they lie on each other already.

    Raises ShapeError for other shapes or too few points, BadPoints for points that are not finite.
    """
    cloud, target = _usable(cloud, "the cloud"), _usable(target, "the target")
    start = Similarity(1.0, np.eye(3), np.zeros(3)) if start is None else start
    rng = np.random.default_rng(seed)
    if len(cloud) >= len(target):
        dense, sparse = _Dense(_drawn(cloud, _DENSE, rng)), _drawn(target, _SPARSE, rng)
        found = dense.refine(sparse, start, scaled)
    else:
        dense, sparse = _Dense(_drawn(target, _DENSE, rng)), _drawn(cloud, _SPARSE, rng)
        found = dense.refine(sparse, start.inverse(), scaled).inverse()
    return _judged(cloud, target, found, rng)


def search(cloud: np.ndarray, target: np.ndarray, *, seed: int = 0) -> Fit:
    """The similarity that takes a cloud of unknown place, size and turn onto ``target``.

    All combinations of 1024 rotations (evenly spread, and between the principal axes), 7 scales about the ratio of the
    sizes, and 27 shifts about the medians are scored by the distance of each cloud's points from the other, capped, in
    a table of distances. The best are refined by closest points in both directions, of which the nearest 70 % count;
    the best of these go on to :func:`refine`, and the one with the best score stays. ``rival`` is the score of the best
    that ended elsewhere.

    Two clouds that share less than about half, or whose shape has several equal placements, cannot be told: look at
    ``share``, ``score`` and ``rival``.

    Raises as :func:`refine`.
    """
    cloud, target = _usable(cloud, "the cloud"), _usable(target, "the target")
    rng = np.random.default_rng(seed)
    a, b = _even(cloud, rng), _even(target, rng)
    ends = _coarse(a, b, rng)
    judged: list[Fit] = []
    for found in ends:
        fit = refine(cloud, target, found, scaled=True, seed=seed)
        if all(_apart(fit.similarity, other.similarity, b) for other in judged):
            judged.append(fit)
        else:
            place = next(k for k, other in enumerate(judged) if not _apart(fit.similarity, other.similarity, b))
            judged[place] = max(judged[place], fit, key=lambda each: each.score)
    judged.sort(key=lambda each: each.score, reverse=True)
    best = judged[0]
    rival = judged[1].score if len(judged) > 1 else 0.0
    return Fit(best.similarity, best.reach, best.share, best.back, best.residual, rival)


# ------------------------------------------------------------------------------------------------------------ refining
class _Dense:
    """The denser cloud, in which the points of the other look for their nearest."""

    def __init__(self, xyz: np.ndarray) -> None:
        self.xyz = xyz

    @cached_property
    def tree(self):
        from scipy.spatial import cKDTree

        return cKDTree(self.xyz)

    @cached_property
    def planes(self) -> tuple[np.ndarray, np.ndarray]:
        """Normals [n, 3], and whether a point's neighbourhood is a plane [n]."""
        normals, thickness = local_planes(self.xyz, 16)
        return normals, thickness < _PLANE

    def refine(self, points: np.ndarray, start: Similarity, scaled: bool) -> Similarity:
        """The similarity that takes this cloud to ``points`` [m, 3]."""
        unit = _extent(points)
        normals, flat = self.planes
        found, limit = start, np.inf
        for _ in range(_ROUNDS):
            distance, index = self.tree.query(found.inverse()(points))
            distance *= found.scale
            near = distance <= limit
            limit = min(limit, max(_LIMIT * float(np.median(distance[near])), 1e-9 * unit))
            keep = distance <= limit
            if keep.sum() < 4:
                break
            p, n = found(self.xyz[index[keep]]), normals[index[keep]] @ found.R.T
            weight = (1 - np.minimum(distance[keep] / max(limit, 1e-300), 1) ** 2) ** 2 + 1e-6
            found, moved = _step(found, p, points[keep], n, flat[index[keep]], weight, scaled)
            if moved <= _NEAR_ENOUGH * unit:
                break
        return found


def _step(
    found: Similarity,
    p: np.ndarray,
    q: np.ndarray,
    normals: np.ndarray,
    flat: np.ndarray,
    weight: np.ndarray,
    scaled: bool,
) -> tuple[Similarity, float]:
    """One Gauss-Newton step that brings moved points ``p`` nearer to ``q``; and how far it moves them at most."""
    centre = (weight[:, None] * p).sum(axis=0) / weight.sum()
    x, gap = p - centre, q - p
    # d(new p) = ω × x + σ x + τ, the rows of each pair's Jacobian [3, 7].
    J = np.zeros((len(p), 3, 7))
    J[:, 0, 1], J[:, 0, 2] = x[:, 2], -x[:, 1]
    J[:, 1, 0], J[:, 1, 2] = -x[:, 2], x[:, 0]
    J[:, 2, 0], J[:, 2, 1] = x[:, 1], -x[:, 0]
    J[:, :, 3:6] = np.eye(3)
    J[:, :, 6] = x if scaled else 0.0
    along = np.where(flat, 1 - _SLIDE, 0.0)
    W = along[:, None, None] * normals[:, :, None] * normals[:, None, :]
    W += np.where(flat, _SLIDE, _ROUGH)[:, None, None] * np.eye(3)
    W *= weight[:, None, None]
    A = np.einsum("nai,nab,nbj->ij", J, W, J, optimize=True)
    b = np.einsum("nai,nab,nb->i", J, W, gap, optimize=True)
    # Least norm, so that what nothing holds (and the scale that is not asked for) stays.
    size = np.sqrt(np.maximum(np.diag(A), 1e-300))
    delta = np.linalg.lstsq(A / size / size[:, None], b / size, rcond=1e-9)[0] / size
    turn, shift, grow = _rotation(delta[:3]), delta[3:6], float(np.exp(np.clip(delta[6], -0.5, 0.5)))
    # new p = grow · turn · (p − centre) + centre + shift
    after = Similarity(found.scale * grow, turn @ found.R, grow * turn @ (found.t - centre) + centre + shift)
    radius = float(np.linalg.norm(x, axis=1).max())
    moved = radius * (float(np.linalg.norm(delta[:3])) + abs(grow - 1)) + float(np.linalg.norm(shift))
    return after, moved


def _rotation(vector: np.ndarray) -> np.ndarray:
    """Rodrigues: [3, 3] of an axis times its angle."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()


def _judged(cloud: np.ndarray, target: np.ndarray, found: Similarity, rng: np.random.Generator) -> Fit:
    from scipy.spatial import cKDTree

    dense, sparse = _drawn(cloud, _DENSE, rng), _drawn(target, _SPARSE, rng)
    moved = found(dense)
    tree = cKDTree(moved)
    there, index = tree.query(sparse)
    back, _ = cKDTree(_drawn(target, _DENSE, rng)).query(_drawn(moved, _SPARSE, rng))
    # One within the spacing of the sparser of the two, or 1 % of the extent where both are denser.
    spacing = max(float(np.median(mean_neighbour_distance(each, 1))) for each in (moved, sparse))
    reach = min(max(0.01 * _extent(sparse), spacing), 0.03 * _extent(sparse))
    near = there <= reach
    residual = float("inf")
    if near.any():
        normals, thickness = local_planes(moved, 16) if len(moved) > 16 else (np.zeros_like(moved), np.ones(len(moved)))
        gap = sparse[near] - moved[index[near]]
        on_plane = np.abs(np.einsum("na,na->n", gap, normals[index[near]]))
        residual = float(np.median(np.where(thickness[index[near]] < _PLANE, on_plane, there[near])))
    return Fit(found, reach, float(near.mean()), float((back <= reach).mean()), residual)


# ----------------------------------------------------------------------------------------------------------- searching
def _coarse(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> list[Similarity]:
    """The most promising similarities that take points ``a`` to ``b``, both of even density."""
    from scipy.spatial import cKDTree

    centre_a, centre_b = np.median(a, axis=0), np.median(b, axis=0)
    size_a, size_b = _radius(a), _radius(b)
    # Both about the origin and of size 1.
    a, b = (a - centre_a) / size_a, (b - centre_b) / size_b
    trees = cKDTree(a), cKDTree(b)
    hypotheses = _scored(a, b, rng)
    for rounds, kept in ((5, _KEPT), (20, _FINE)):
        ends = [_closest(a, b, trees, each, rounds) for each in hypotheses]
        hypotheses = _distinct([ends[k][0] for k in np.argsort([cost for _, cost in ends], kind="stable")], b, kept)
    return [
        Similarity(
            h.scale * size_b / size_a,
            h.R,
            size_b * h.t + centre_b - h.scale * size_b / size_a * h.R @ centre_a,
        )
        for h in hypotheses
    ]


def _scored(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> list[Similarity]:
    """The best similarities by the distances that two tables tell, each the best of its rotation."""
    p, q = _drawn(a, _LOOKED_UP, rng), _drawn(b, _LOOKED_UP, rng)
    tables = _distances(a), _distances(b)
    scales = np.array(_SCALES)
    shifts = np.stack(np.meshgrid(_SHIFTS, _SHIFTS, _SHIFTS, indexing="ij"), axis=-1).reshape(-1, 3)
    root = np.sqrt(scales)[:, None, None]
    best = []
    for R in _turns(a, b):
        there = _look_up(tables[1], (scales[:, None, None] * (p @ R.T))[:, None] + shifts[:, None])
        back = _look_up(tables[0], ((q - shifts[:, None]) @ R) / scales[:, None, None, None])
        # In units of the geometric mean of both sizes, so that neither gains by shrinking.
        cost = (np.minimum(there / root, _FAR) + np.minimum(back * root, _FAR)).mean(axis=2)
        k, shift = np.unravel_index(cost.argmin(), cost.shape)
        best.append((float(cost[k, shift]), Similarity(float(scales[k]), R, shifts[shift])))
    best.sort(key=lambda each: each[0])
    return [found for _, found in best[:_TRIED]]


def _distances(points: np.ndarray) -> np.ndarray:
    """[g, g, g] distances of the cells of a grid about the origin to the nearest cell with a point."""
    from scipy.ndimage import distance_transform_edt

    free = np.ones((_GRID,) * 3, bool)
    free[tuple(_cells(points).T)] = False
    return (distance_transform_edt(free) * (2 * _REACH / _GRID)).astype(np.float32)


def _cells(points: np.ndarray) -> np.ndarray:
    return np.clip((points + _REACH) * (_GRID / (2 * _REACH)), 0, _GRID - 1).astype(np.int32)


def _look_up(table: np.ndarray, points: np.ndarray) -> np.ndarray:
    cells = _cells(points)
    return table.reshape(-1)[(cells[..., 0] * _GRID + cells[..., 1]) * _GRID + cells[..., 2]]


def _distinct(ordered: list[Similarity], points: np.ndarray, most: int) -> list[Similarity]:
    """The first of those that place the cloud alike, ``most`` at most."""
    kept: list[Similarity] = []
    for found in ordered:
        if all(_apart(found, other, points) for other in kept):
            kept.append(found)
        if len(kept) == most:
            break
    return kept


def _closest(a: np.ndarray, b: np.ndarray, trees: tuple, found: Similarity, rounds: int) -> tuple[Similarity, float]:
    """Closest points in both directions; and the mean distance of the pairs that count, in units of both sizes."""
    cost = np.inf
    for _ in range(rounds):
        back = found.inverse()
        to_a, ia = trees[0].query(back(b))
        to_b, ib = trees[1].query(found(a))
        to_a = to_a * np.sqrt(found.scale)  # of the geometric mean of both units: neither gains by shrinking
        to_b = to_b / np.sqrt(found.scale)
        cost, pairs = 0.0, []
        for distance, left, right in ((to_a, a[ia], b), (to_b, a, b[ib])):
            nearest = np.argpartition(distance, int(_TRIM * len(distance)))[: max(3, int(_TRIM * len(distance)))]
            cost += float(distance[nearest].mean())
            pairs.append((left[nearest], right[nearest]))
        p, q = (np.concatenate(side) for side in zip(*pairs, strict=True))
        found = align_similarity(p, q)
        # Umeyama's scale is that of one direction, and shrinks with the noise of the pairs; this one is of both.
        scale = float(np.clip(np.sqrt(q.var(axis=0).sum() / max(p.var(axis=0).sum(), 1e-300)), 0.2, 5.0))
        found = Similarity(scale, found.R, q.mean(axis=0) - scale * found.R @ p.mean(axis=0))
    return found, cost


def _turns(a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """Rotations [3, 3] to try: the 24 that lay the principal axes on each other, and evenly spread ones."""
    from scipy.spatial.transform import Rotation

    axes = []
    for points in (a, b):
        _, _, Vt = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
        Vt[2] *= np.sign(np.linalg.det(Vt))
        axes.append(Vt)
    principal = [axes[1].T @ R @ axes[0] for R in Rotation.create_group("O").as_matrix()]
    # Super-Fibonacci spirals (Alexa, CVPR 2022): as far apart as so many rotations can be.
    s = np.arange(_ROTATIONS) + 0.5
    inner, outer = np.sqrt(s / _ROTATIONS), np.sqrt(1 - s / _ROTATIONS)
    alpha, beta = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    spread = np.stack(
        [inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)], axis=1
    )
    return [*principal, *Rotation.from_quat(spread).as_matrix()]


def _apart(one: Similarity, other: Similarity, points: np.ndarray) -> bool:
    """Whether two similarities place a cloud differently; ``points``: what both bring it to."""
    angle = np.degrees(np.arccos(np.clip((np.trace(one.R.T @ other.R) - 1) / 2, -1, 1)))
    if angle > _SAME_ANGLE or abs(np.log(one.scale / other.scale)) > _SAME_SCALE:
        return True
    centre = np.median(points, axis=0)
    moved = other(one.inverse()(centre[None]))[0]
    return bool(np.linalg.norm(moved - centre) > _SAME_PLACE * _extent(points))


# -------------------------------------------------------------------------------------------------------------- points
def _usable(xyz: np.ndarray, where: str) -> np.ndarray:
    xyz = checked_points(xyz, where)
    if len(xyz) < 4:
        raise ShapeError(f"{where}: {len(xyz)} points; an alignment needs at least 4.")
    return xyz


def _drawn(xyz: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return xyz if len(xyz) <= most else xyz[rng.choice(len(xyz), most, replace=False)]


def _even(xyz: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About ``_COARSE_POINTS`` points of even density: one of each cell of a grid that grows until they are so few.

    Isolated points go first: each would have a cell of its own, and outliers outweigh the surface.
    """
    xyz = _drawn(xyz, _DENSE, rng)
    apart = mean_neighbour_distance(xyz, 8)
    xyz = xyz[apart <= _ISOLATED * np.median(apart)]
    low, high = np.quantile(xyz, (0.02, 0.98), axis=0)
    cell = max(float((high - low).max()) / 100, 1e-300)
    while len(xyz) > _COARSE_POINTS:
        _, first = np.unique(np.floor((xyz - low) / cell), axis=0, return_index=True)
        xyz = xyz[np.sort(first)]
        cell *= 1.15
    return xyz


def _radius(xyz: np.ndarray) -> float:
    """Median distance to the median point; at least tiny."""
    return max(float(np.median(np.linalg.norm(xyz - np.median(xyz, axis=0), axis=1))), 1e-300)


def _extent(xyz: np.ndarray) -> float:
    """Diagonal of the box of the points, without 5 % on each side of each axis."""
    low, high = np.quantile(xyz, (0.05, 0.95), axis=0)
    return max(float(np.linalg.norm(high - low)), 1e-300)
