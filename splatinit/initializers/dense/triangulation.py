"""Points from their pixels in several photos: linear, then least squares of the reprojection error over all that agree.

Batched over points in double precision. World coordinates are taken relative to the first camera, so that far scenes
lose no digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .neighbours import angles_between

# Before its refinement a point may miss a photo by this many times the allowed error.
BEFORE = 3.0
STEPS = 5  # of Gauss-Newton; from the linear solution three reach the limit of double precision
# Least determinant, relative to the mean eigenvalue cubed: rays that are parallel to 10⁻⁶ rad have no point.
SINGULAR = 1e-12

KEPT, NO_MATCH, BEHIND, ANGLE, ERROR = range(5)
REASONS = {
    NO_MATCH: "no certain match",
    BEHIND: "rays that meet in no point before the cameras",
    ANGLE: "too small an angle between the rays",
    ERROR: "photos that do not agree",
}


@dataclass(frozen=True)
class Triangulated:
    """m points, those that fail a gate included.

    Attributes:
        xyz: [m, 3] float64 scene units, NaN where there is none.
        used: [v, m] which photos agree on the point, within ``max_error``.
        error: [m] px, root mean square over the photos that agree.
        angle: [m] degrees, the largest between the rays of photos that agree.
        sigma: [m] scene units, standard deviation along the first photo's ray if every pixel coordinate has one of
            1 px (from the inverse of JᵀJ).
        outcome: [m] KEPT, or the gate that refused the point: a key of REASONS.
    """

    xyz: np.ndarray
    used: np.ndarray
    error: np.ndarray
    angle: np.ndarray
    sigma: np.ndarray
    outcome: np.ndarray


def triangulate(
    K: np.ndarray,
    pose: np.ndarray,
    px: np.ndarray,
    weight: np.ndarray,
    *,
    max_error: float,
    min_angle: float,
    min_views: int = 2,
    agreement: float = 0.0,
) -> Triangulated:
    """Triangulate m points that the first of v photos shows, each in those of the others that have a match.

    Every other photo proposes the linear solution with the first; the proposal that most photos agree with, by weight,
    is refined over these: Gauss-Newton on the reprojection error with Cauchy weights (Hartley & Sturm 1997; Triggs et
    al. 2000, §4), and again over those that agree with the result. With noise of equal size in all photos its error
    reaches the Cramér-Rao bound (JᵀJ)⁻¹ σ².

    Args:
        K, pose: [v, 3, 3] px and [v, 4, 4] cam_from_world of the photos, v ≥ 2.
        px: [v, m, 2] where each photo shows the point, NaN where it does not.
        weight: [v, m] ≥ 0, of each observation; 0 counts as none.
        max_error: px, by which a photo that agrees may miss the point.
        min_angle: degrees.
        min_views: photos that must agree, with the first.
        agreement: share of the other photos with a match that must agree.
    """
    v, m = px.shape[:2]
    px = np.asarray(px, dtype=np.float64)
    weight = np.where(np.isfinite(px).all(axis=2) & np.isfinite(weight), weight, 0.0)
    matched = weight > 0
    px = np.where(matched[..., None], px, 0.0)
    centers = -np.einsum("vji,vj->vi", pose[:, :3, :3], pose[:, :3, 3])
    origin = centers[0].copy()
    centers = centers - origin
    R = pose[:, :3, :3]
    t = -np.einsum("vij,vj->vi", R, centers)
    cams = _Cameras(K, R, t, centers)
    rays = cams.rays(px)

    best, best_score = np.full((m, 3), np.nan), np.zeros(m)
    for j in range(1, v):
        proposal = _midpoint(centers, rays, [0, j])
        proposal[~(matched[0] & matched[j])] = np.nan
        error2 = cams.errors2(proposal, px)
        limit = (BEFORE * max_error) ** 2
        score = (weight[1:] * np.clip(1 - error2[1:] / limit, 0, None)).sum(axis=0)
        score[~(error2[0] < limit)] = 0.0
        better = score > best_score
        best[better], best_score[better] = proposal[better], score[better]

    used = matched & (cams.errors2(best, px) <= (BEFORE * max_error) ** 2)
    xyz = _refine(cams, px, np.where(used, weight, 0.0), best, max_error)
    used = matched & (cams.errors2(xyz, px) <= max_error**2)
    xyz = _refine(cams, px, np.where(used, weight, 0.0), xyz, max_error)
    error2 = cams.errors2(xyz, px)
    used = matched & (error2 <= max_error**2)

    count = used.sum(axis=0)
    error = np.sqrt(np.where(used, error2, 0.0).sum(axis=0) / np.maximum(count, 1))
    towards = xyz - centers[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        towards /= np.linalg.norm(towards, axis=2, keepdims=True)
    angle = np.zeros(m)
    for i in range(v):
        for j in range(i + 1, v):
            both = used[i] & used[j]
            angle[both] = np.maximum(angle[both], angles_between(towards[i, both], towards[j, both]))
    sigma = _sigma(cams, used, xyz, towards[0])

    outcome = np.full(m, KEPT)
    others = matched[1:].sum(axis=0)
    few = ~used[0] | (count < min_views) | (used[1:].sum(axis=0) < agreement * others)
    outcome[angle < min_angle] = ANGLE
    outcome[few] = ERROR
    outcome[~np.isfinite(xyz).all(axis=1)] = BEHIND
    outcome[~matched[0] | (others == 0)] = NO_MATCH
    return Triangulated(xyz + origin, used, error, angle, sigma, outcome)


@dataclass(frozen=True)
class _Cameras:
    K: np.ndarray  # [v, 3, 3]
    R: np.ndarray  # [v, 3, 3]
    t: np.ndarray  # [v, 3]
    centers: np.ndarray  # [v, 3]

    def rays(self, px: np.ndarray) -> np.ndarray:
        """Unit directions [v, m, 3] of pixels [v, m, 2] in world coordinates."""
        cam = np.ones((*px.shape[:2], 3))
        cam[..., 0] = (px[..., 0] - self.K[:, None, 0, 2]) / self.K[:, None, 0, 0]
        cam[..., 1] = (px[..., 1] - self.K[:, None, 1, 2]) / self.K[:, None, 1, 1]
        world = np.einsum("vji,vmj->vmi", self.R, cam)
        return world / np.linalg.norm(world, axis=2, keepdims=True)

    def place(self, j: int, xyz: np.ndarray) -> np.ndarray:
        """Points [m, 3] in the coordinates of camera j."""
        return xyz @ self.R[j].T + self.t[j]

    def errors2(self, xyz: np.ndarray, px: np.ndarray) -> np.ndarray:
        """[v, m] squared px between projections and ``px`` [v, m, 2]; infinite behind the camera and for NaN."""
        out = np.empty(px.shape[:2])
        for j in range(len(px)):
            cam = self.place(j, xyz)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                dx = self.K[j, 0, 0] * cam[:, 0] / cam[:, 2] + self.K[j, 0, 2] - px[j, :, 0]
                dy = self.K[j, 1, 1] * cam[:, 1] / cam[:, 2] + self.K[j, 1, 2] - px[j, :, 1]
                out[j] = np.where(cam[:, 2] > 0, dx**2 + dy**2, np.inf)
        return np.nan_to_num(out, nan=np.inf, posinf=np.inf)

    def jacobian(self, j: int, xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Projection [m, 2] of points in camera j, its derivatives [m, 2, 3] by the point, and depth [m]."""
        cam = self.place(j, xyz)
        fx, fy = self.K[j, 0, 0], self.K[j, 1, 1]
        z = np.where(cam[:, 2] > 0, cam[:, 2], np.nan)
        x, y = cam[:, 0] / z, cam[:, 1] / z
        J = np.empty((len(xyz), 2, 3))
        J[:, 0] = (fx / z)[:, None] * (self.R[j, 0] - x[:, None] * self.R[j, 2])
        J[:, 1] = (fy / z)[:, None] * (self.R[j, 1] - y[:, None] * self.R[j, 2])
        return np.stack([fx * x + self.K[j, 0, 2], fy * y + self.K[j, 1, 2]], axis=1), J, z


def _midpoint(centers: np.ndarray, rays: np.ndarray, views: list[int]) -> np.ndarray:
    """[m, 3] the points nearest to the rays of ``views``, by least squares; NaN where rays are parallel.

    The sum of squared distances to the lines is quadratic in the point: Σ (I − d dᵀ) X = Σ (I − d dᵀ) C.
    """
    A, b = 0.0, 0.0
    for j in views:
        across = np.eye(3) - rays[j, :, :, None] * rays[j, :, None, :]
        A, b = A + across, b + across @ centers[j]
    return _solve(A, b)


def _solve(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x [m, 3] of A x = b for symmetric A [m, 3, 3] by cofactors; NaN where A is singular (numpy would raise)."""
    inverse, regular = _inverse(A)
    x = np.einsum("mij,mj->mi", inverse, b)
    x[~regular] = np.nan
    return x


def _inverse(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse [m, 3, 3] of symmetric matrices, and which of them [m] have one."""
    a, b, c = A[:, 0, 0], A[:, 0, 1], A[:, 0, 2]
    d, e, f = A[:, 1, 1], A[:, 1, 2], A[:, 2, 2]
    adjugate = np.empty_like(A)
    adjugate[:, 0, 0] = d * f - e * e
    adjugate[:, 0, 1] = adjugate[:, 1, 0] = c * e - b * f
    adjugate[:, 0, 2] = adjugate[:, 2, 0] = b * e - c * d
    adjugate[:, 1, 1] = a * f - c * c
    adjugate[:, 1, 2] = adjugate[:, 2, 1] = b * c - a * e
    adjugate[:, 2, 2] = a * d - b * b
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        determinant = a * adjugate[:, 0, 0] + b * adjugate[:, 0, 1] + c * adjugate[:, 0, 2]
        regular = determinant > SINGULAR * ((a + d + f) / 3) ** 3
        return adjugate / np.where(regular, determinant, 1.0)[:, None, None], regular


def _refine(cams: _Cameras, px: np.ndarray, weight: np.ndarray, xyz: np.ndarray, scale: float) -> np.ndarray:
    """Gauss-Newton with Cauchy weights 1 / (1 + e² / scale²). A step that makes the cost larger is not taken, and its
    point is done. ``weight`` [v, m], 0 for photos that do not count."""
    xyz = xyz.copy()
    todo = np.flatnonzero(np.isfinite(xyz).all(axis=1) & ((weight > 0).sum(axis=0) >= 2))
    cost = _cost(cams, px[:, todo], weight[:, todo], xyz[todo], scale)
    for _ in range(STEPS):
        if len(todo) == 0:
            break
        now, w = xyz[todo], weight[:, todo]
        A, b = np.zeros((len(todo), 3, 3)), np.zeros((len(todo), 3))
        for j in range(len(px)):
            seen, J, _ = cams.jacobian(j, now)
            r = seen - px[j, todo]
            use = w[j] > 0
            r2 = (r**2).sum(axis=1)
            robust = np.where(use, w[j] / (1 + r2 / scale**2), 0.0)
            J, r = np.where(use[:, None, None], J, 0.0), np.where(use[:, None], r, 0.0)
            JW = J * robust[:, None, None]
            A += np.einsum("mki,mkj->mij", JW, J)
            b += np.einsum("mki,mk->mi", JW, r)
        moved = now - _solve(A, b)
        new = _cost(cams, px[:, todo], w, moved, scale)
        better = new < cost
        xyz[todo[better]] = moved[better]
        todo, cost = todo[better], new[better]
    return xyz


def _cost(cams: _Cameras, px: np.ndarray, weight: np.ndarray, xyz: np.ndarray, scale: float) -> np.ndarray:
    """[m] Σ w log(1 + e² / scale²); infinite where a photo that counts has the point behind it."""
    error2 = cams.errors2(xyz, px)
    return np.where(weight > 0, weight * np.log1p(np.where(weight > 0, error2, 0.0) / scale**2), 0.0).sum(axis=0)


def _sigma(cams: _Cameras, used: np.ndarray, xyz: np.ndarray, along: np.ndarray) -> np.ndarray:
    """[m] standard deviation along ``along`` [m, 3] for 1 px, infinite where the photos used do not fix it."""
    A = np.zeros((len(xyz), 3, 3))
    for j in range(len(used)):
        _, J, _ = cams.jacobian(j, xyz)
        J = np.where(used[j][:, None, None], J, 0.0)
        A += np.einsum("mki,mkj->mij", J, J)
    inverse, regular = _inverse(A)
    with np.errstate(invalid="ignore"):
        variance = np.einsum("mi,mij,mj->m", along, inverse, along)
        return np.sqrt(np.where(regular & (variance >= 0), variance, np.inf))
