"""Points from their pixels in several photos: linear, then least squares of the reprojection error over all that agree.

Batched over points, in torch and in double precision. World coordinates are taken relative to the first camera, so that
far scenes lose no digits. Points lie along the last axis, [3, m]: then everything is arithmetic of long rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

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
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64, device=device)

    v, m = px.shape[:2]
    centers = -np.einsum("vji,vj->vi", pose[:, :3, :3], pose[:, :3, 3])
    origin = centers[0].copy()
    cams = _Cameras(tensor(K), tensor(pose[:, :3, :3]), tensor(centers - origin))
    at = tensor(px.transpose(0, 2, 1))
    w = tensor(weight)
    w = torch.where(at.isfinite().all(1) & w.isfinite(), w, 0.0)
    matched = w > 0
    at = torch.where(matched[:, None], at, 0.0)

    rays = cams.rays(at)
    best = torch.full((3, m), torch.nan, dtype=torch.float64, device=device)
    best_score = torch.zeros(m, dtype=torch.float64, device=device)
    limit = (BEFORE * max_error) ** 2
    for j in range(1, v):
        proposal = _midpoint(cams.centers[[0, j]], rays[[0, j]])
        error2 = torch.where(matched[j] & matched[0], cams.errors2(proposal, at), torch.inf)
        score = (w[1:] * (1 - error2[1:] / limit).clamp(min=0)).sum(0)
        better = (error2[0] < limit) & (score > best_score)
        best, best_score = torch.where(better, proposal, best), torch.where(better, score, best_score)

    used = matched & (cams.errors2(best, at) <= limit)
    xyz = _refine(cams, at, torch.where(used, w, 0.0), best, max_error)
    used = matched & (cams.errors2(xyz, at) <= max_error**2)
    xyz = _refine(cams, at, torch.where(used, w, 0.0), xyz, max_error)
    error2 = cams.errors2(xyz, at)
    used = matched & (error2 <= max_error**2)

    count = used.sum(0)
    error = (torch.where(used, error2, 0.0).sum(0) / count.clamp(min=1)).sqrt()
    towards = xyz - cams.centers[:, :, None]
    towards = towards / towards.norm(dim=1, keepdim=True)
    angle = _largest_angle(towards, used)
    sigma = _sigma(cams, used, xyz, towards[0])

    others = matched[1:].sum(0)
    few = ~used[0] | (count < min_views) | (used[1:].sum(0) < agreement * others)
    outcome = torch.full((m,), KEPT, device=device)
    outcome[angle < min_angle] = ANGLE
    outcome[few] = ERROR
    outcome[~xyz.isfinite().all(0)] = BEHIND
    outcome[~matched[0] | (others == 0)] = NO_MATCH
    found = (xyz.T.contiguous(), used, error, angle, sigma, outcome)
    xyz, used, error, angle, sigma, outcome = (each.cpu().numpy() for each in found)
    return Triangulated(xyz + origin, used, error, angle, sigma, outcome)


@dataclass(frozen=True)
class _Cameras:
    K: torch.Tensor  # [v, 3, 3]
    R: torch.Tensor  # [v, 3, 3]
    centers: torch.Tensor  # [v, 3]

    def rays(self, px: torch.Tensor) -> torch.Tensor:
        """Unit directions [v, 3, m] of pixels [v, 2, m] in world coordinates."""
        import torch

        x = (px[:, 0] - self.K[:, 0, 2, None]) / self.K[:, 0, 0, None]
        y = (px[:, 1] - self.K[:, 1, 2, None]) / self.K[:, 1, 1, None]
        world = self.R.mT @ torch.stack([x, y, torch.ones_like(x)], dim=1)
        return world / world.norm(dim=1, keepdim=True)

    def project(self, xyz: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Points [3, m] as x / z and y / z, and depth z, [v, m] each; NaN where z is not positive."""
        import torch

        cam = self.R @ (xyz - self.centers[:, :, None])
        z = torch.where(cam[:, 2] > 0, cam[:, 2], torch.nan)
        return cam[:, 0] / z, cam[:, 1] / z, z

    def residuals(self, x: torch.Tensor, y: torch.Tensor, px: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """px [v, m] in both axes between x / z and y / z, as of :meth:`project`, and ``px`` [v, 2, m]."""
        u = self.K[:, 0, 0, None] * x + self.K[:, 0, 2, None] - px[:, 0]
        return u, self.K[:, 1, 1, None] * y + self.K[:, 1, 2, None] - px[:, 1]

    def errors2(self, xyz: torch.Tensor, px: torch.Tensor) -> torch.Tensor:
        """[v, m] squared px between projections and ``px`` [v, 2, m]; infinite behind the camera and for NaN."""
        import torch

        x, y, _ = self.project(xyz)
        u, v = self.residuals(x, y, px)
        return torch.nan_to_num(u * u + v * v, nan=torch.inf)

    def jacobian(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Derivatives [v, 3, m] of the projection's two pixel coordinates by the point, from :meth:`project`."""
        across, down, forward = self.R[:, 0, :, None], self.R[:, 1, :, None], self.R[:, 2, :, None]
        du = (self.K[:, 0, 0, None] / z)[:, None] * (across - x[:, None] * forward)
        return du, (self.K[:, 1, 1, None] / z)[:, None] * (down - y[:, None] * forward)


# Symmetric 3×3 matrices are six rows: xx, xy, xz, yy, yz, zz.
_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


def _midpoint(centers: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
    """[3, m] the points nearest to lines from ``centers`` [k, 3] along ``rays`` [k, 3, m]; NaN where rays are parallel.

    The sum of squared distances to the lines is quadratic in the point: Σ (I − d dᵀ) X = Σ (I − d dᵀ) C.
    """
    import torch

    A = torch.stack([float(i == j) * len(rays) - (rays[:, i] * rays[:, j]).sum(0) for i, j in _PAIRS])
    along = (rays * centers[:, :, None]).sum(1, keepdim=True)
    return _solve(A, (centers[:, :, None] - along * rays).sum(0))


def _solve(A: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """x [3, m] of A x = b for symmetric A [6, m] by cofactors; NaN where A is singular (torch would raise)."""
    import torch

    inverse, regular = _inverse(A)
    xx, xy, xz, yy, yz, zz = inverse
    x = torch.stack(
        [xx * b[0] + xy * b[1] + xz * b[2], xy * b[0] + yy * b[1] + yz * b[2], xz * b[0] + yz * b[1] + zz * b[2]]
    )
    return torch.where(regular, x, torch.nan)


def _inverse(A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverse [6, m] of symmetric matrices, and which of them [m] have one."""
    import torch

    a, b, c, d, e, f = A
    xx, xy, xz = d * f - e * e, c * e - b * f, b * e - c * d
    determinant = a * xx + b * xy + c * xz
    regular = determinant > SINGULAR * ((a + d + f) / 3) ** 3
    adjugate = torch.stack([xx, xy, xz, a * f - c * c, b * c - a * e, a * d - b * b])
    return adjugate / torch.where(regular, determinant, 1.0), regular


def _refine(cams: _Cameras, px: torch.Tensor, weight: torch.Tensor, xyz: torch.Tensor, scale: float) -> torch.Tensor:
    """Gauss-Newton with Cauchy weights 1 / (1 + e² / scale²). A step that makes the cost larger is not taken, and its
    point is done. ``weight`` [v, m], 0 for photos that do not count."""
    import torch

    xyz = xyz.clone()
    todo = (xyz.isfinite().all(0) & ((weight > 0).sum(0) >= 2)).nonzero()[:, 0]
    now, at, w = xyz[:, todo], px[:, :, todo], weight[:, todo]
    seen = cams.project(now)
    cost = _cost(cams.residuals(seen[0], seen[1], at), w, scale)
    for _ in range(STEPS):
        if len(todo) == 0:
            break
        ru, rv = cams.residuals(seen[0], seen[1], at)
        du, dv = cams.jacobian(*seen)
        use = w > 0
        robust = torch.where(use, w / (1 + (ru * ru + rv * rv) / scale**2), 0.0)
        # A photo that does not count may have the point behind it: its NaN must not be multiplied by 0.
        du, dv = torch.where(use[:, None], du, 0.0), torch.where(use[:, None], dv, 0.0)
        ru, rv = torch.where(use, ru, 0.0), torch.where(use, rv, 0.0)
        wu, wv = du * robust[:, None], dv * robust[:, None]
        A = torch.stack([(wu[:, i] * du[:, j] + wv[:, i] * dv[:, j]).sum(0) for i, j in _PAIRS])
        moved = now - _solve(A, (wu * ru[:, None] + wv * rv[:, None]).sum(0))
        seen = cams.project(moved)
        new = _cost(cams.residuals(seen[0], seen[1], at), w, scale)
        better = new < cost
        xyz[:, todo[better]] = moved[:, better]
        todo, now, cost, w, at = todo[better], moved[:, better], new[better], w[:, better], at[:, :, better]
        seen = tuple(each[:, better] for each in seen)
    return xyz


def _cost(residuals: tuple[torch.Tensor, torch.Tensor], weight: torch.Tensor, scale: float) -> torch.Tensor:
    """[m] Σ w log(1 + e² / scale²); not finite where a photo that counts has the point behind it."""
    import torch

    u, v = residuals
    return torch.where(weight > 0, weight * ((u * u + v * v) / scale**2).log1p(), 0.0).sum(0)


def _largest_angle(towards: torch.Tensor, used: torch.Tensor) -> torch.Tensor:
    """[m] degrees, largest angle between unit ``towards`` [v, 3, m] of photos ``used`` [v, m]; 0 for fewer than two.

    From the distance of the directions' ends: exact for tiny angles, where the arc cosine is not.
    """
    import torch

    chord = torch.zeros_like(towards[0, 0])
    for i in range(len(used)):
        for j in range(i + 1, len(used)):
            apart = (towards[i] - towards[j]).norm(dim=0)
            chord = torch.where(used[i] & used[j], torch.maximum(chord, apart), chord)
    return torch.rad2deg(2 * (chord / 2).clamp(max=1).asin())


def _sigma(cams: _Cameras, used: torch.Tensor, xyz: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """[m] standard deviation along ``along`` [3, m] for 1 px, infinite where the photos used do not fix it."""
    import torch

    du, dv = (torch.where(used[:, None], each, 0.0) for each in cams.jacobian(*cams.project(xyz)))
    A = torch.stack([(du[:, i] * du[:, j] + dv[:, i] * dv[:, j]).sum(0) for i, j in _PAIRS])
    inverse, regular = _inverse(A)
    twice = [1.0 if i == j else 2.0 for i, j in _PAIRS]
    variance = sum(k * row * along[i] * along[j] for k, row, (i, j) in zip(twice, inverse, _PAIRS, strict=True))
    return torch.where(regular & (variance >= 0), variance, torch.inf).sqrt()
