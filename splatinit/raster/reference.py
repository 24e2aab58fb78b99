"""The rasterizer in plain torch: every pixel looks at every visible Gaussian, and autograd does the backward.

It is the oracle of the tests, so it is written straight from the formulas, shares no code with any other backend, and
follows the dtype of the Gaussians: in float64 it is the truth that float32 engines are measured against. Its cost is
pixels × Gaussians in time and, with gradients, in memory; it is meant for images of a few thousand pixels.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch

from ..errors import ConfigError, ShapeError
from ..types import Camera, Gaussians, RasterAux, Render
from .base import (
    ALPHA_MAX,
    ALPHA_MIN,
    COMPENSATION_MIN_SQUARED,
    FOV_MARGIN,
    NEAR,
    TRANSMITTANCE_MIN,
    RasterSettings,
)

# Pixels of a chunk × visible Gaussians: keeps the temporaries of a forward pass near 100 MB.
PAIRS_PER_CHUNK = 1 << 21


def quat_to_rotmat(quats: torch.Tensor) -> torch.Tensor:
    """[n, 4] wxyz quaternions of any length to [n, 3, 3] rotations: (w² − |v|²) I + 2 v vᵀ + 2 w [v]×, for unit length.

    A zero quaternion has no direction; it is taken as the identity.
    """
    length = quats.square().sum(-1, keepdim=True).clamp(min=torch.finfo(quats.dtype).tiny).sqrt()
    w, x, y, z = (quats / length).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def covariances(quats: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """World covariances [n, 3, 3] = (R S)(R S)ᵀ (Kerbl et al. 2023, eq. 6) of quats [n, 4] and scales [n, 3]."""
    half = quat_to_rotmat(quats) * scales[:, None, :]
    return half @ half.transpose(1, 2)


def sh_basis(directions: torch.Tensor, degree: int) -> torch.Tensor:
    """The (degree + 1)² real spherical harmonics [n, K] at unit directions [n, 3].

    Orthonormal on the sphere, with the Condon-Shortley phase, ordered l = 0 … degree, m = −l … l: the convention in
    which all 3DGS files store their coefficients.
    """
    x, y, z = directions.unbind(-1)
    root = lambda numerator, denominator: math.sqrt(numerator / (denominator * math.pi))  # noqa: E731
    basis = [torch.full_like(x, root(1, 4))]
    if degree >= 1:
        basis += [-root(3, 4) * y, root(3, 4) * z, -root(3, 4) * x]
    if degree >= 2:
        basis += [
            root(15, 4) * x * y,
            -root(15, 4) * y * z,
            root(5, 16) * (3 * z * z - 1),
            -root(15, 4) * x * z,
            root(15, 16) * (x * x - y * y),
        ]
    if degree >= 3:
        basis += [
            -root(35, 32) * y * (3 * x * x - y * y),
            root(105, 4) * x * y * z,
            -root(21, 32) * y * (5 * z * z - 1),
            root(7, 16) * z * (5 * z * z - 3),
            -root(21, 32) * x * (5 * z * z - 1),
            root(105, 16) * z * (x * x - y * y),
            -root(35, 32) * x * (x * x - 3 * y * y),
        ]
    return torch.stack(basis, dim=-1)


@dataclass(frozen=True)
class Projected:
    """Gaussians on the screen, m of them.

    Attributes:
        means2d: [m, 2] px.    depths: [m] z in camera space.    cov2d: [m, 2, 2] px², with eps2d.
        opacities: [m], compensated in antialiased mode.         colors: [m, 3] ≥ 0.
        halves: [m, 2] px, half the sides of the box in which alpha can reach ALPHA_MIN (0 where it never does).
        visible: [m] bool.
    """

    means2d: torch.Tensor
    depths: torch.Tensor
    cov2d: torch.Tensor
    opacities: torch.Tensor
    colors: torch.Tensor
    halves: torch.Tensor
    visible: torch.Tensor


def project(
    gaussians: Gaussians,
    camera: Camera,
    cam_from_world: torch.Tensor,
    settings: RasterSettings,
    sh_degree: int,
) -> Projected:
    """EWA projection (Zwicker et al. 2002) of Gaussians that lie in front of the camera (z > NEAR)."""
    like = gaussians.means
    R, t = cam_from_world[:3, :3], cam_from_world[:3, 3]
    p = gaussians.means @ R.T + t
    x, y, z = p.unbind(-1)
    fx, fy, cx, cy = (float(camera.K[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    w, h = camera.width, camera.height
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)

    # Far outside the view the linearised projection is meaningless, so it is taken at the nearest direction that is
    # at most FOV_MARGIN half-widths beyond the border.
    margin_x, margin_y = FOV_MARGIN * 0.5 * w / fx, FOV_MARGIN * 0.5 * h / fy
    u = (x / z).clamp(-(cx / fx + margin_x), (w - cx) / fx + margin_x)
    v = (y / z).clamp(-(cy / fy + margin_y), (h - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    J = torch.stack([fx / z, zero, -fx * u / z, zero, fy / z, -fy * v / z], dim=-1).reshape(-1, 2, 3)

    cov3d = R @ covariances(gaussians.quats, gaussians.scales) @ R.T
    bare = J @ cov3d @ J.transpose(1, 2)
    cov2d = bare + settings.eps2d * torch.eye(2, dtype=like.dtype)
    det = cov2d[:, 0, 0] * cov2d[:, 1, 1] - cov2d[:, 0, 1] * cov2d[:, 1, 0]
    opacities = gaussians.opacities
    if settings.antialiased:
        bare_det = bare[:, 0, 0] * bare[:, 1, 1] - bare[:, 0, 1] * bare[:, 1, 0]
        opacities = opacities * (bare_det / det).clamp(min=COMPENSATION_MIN_SQUARED).sqrt()

    centre = -R.T @ t
    ray = gaussians.means - centre
    direction = ray / ray.square().sum(-1, keepdim=True).sqrt()
    count = (sh_degree + 1) ** 2
    coefficients = torch.cat([gaussians.sh0, gaussians.shN[:, : count - 1]], dim=1)
    colors = (sh_basis(direction, sh_degree)[:, :, None] * coefficients).sum(1) + 0.5
    colors = colors.clamp(min=0)

    # opacity · exp(−½ r²) falls to ALPHA_MIN at the Mahalanobis distance r; the box around that ellipse has half
    # sides r · standard deviation.
    reach = (2 * (opacities.detach() / ALPHA_MIN).log()).clamp(min=0).sqrt()
    halves = reach[:, None] * cov2d.detach().diagonal(dim1=1, dim2=2).sqrt()
    m2 = means2d.detach()
    size = torch.tensor([w, h], dtype=like.dtype)
    meets = ((m2 + halves >= 0) & (m2 - halves <= size)).all(-1)
    visible = meets & (det.detach() > 0) & (opacities.detach() >= ALPHA_MIN)
    return Projected(means2d, z, cov2d, opacities, colors, halves, visible)


def alphas_at(means2d: torch.Tensor, cov2d: torch.Tensor, opacities: torch.Tensor, pixels: torch.Tensor):
    """Opacity · exp(−½ dᵀ Σ⁻¹ d) [p, m] at pixel positions [p, 2], before any cut-off.

    ``means2d`` is [m, 2] or [p, m, 2].
    """
    d = pixels[:, None, :] - means2d
    a, b, c = cov2d[:, 0, 0], cov2d[:, 0, 1], cov2d[:, 1, 1]
    dx, dy = d.unbind(-1)
    distance = (c * dx * dx - 2 * b * dx * dy + a * dy * dy) / (a * c - b * b)
    return opacities * torch.exp(-0.5 * distance)


def blend_weights(raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [p, m] and remaining transmittance [p] of raw alphas [p, m] in drawing order.

    base.py's three cut-offs: ALPHA_MAX, ALPHA_MIN, and the stop before TRANSMITTANCE_MIN.
    """
    capped = raw.clamp(max=ALPHA_MAX)
    alphas = torch.where(capped >= ALPHA_MIN, capped, torch.zeros_like(capped))
    # Transmittance never rises, so "the stop is not yet reached" is a plain comparison at every Gaussian.
    going = (1 - alphas.detach()).cumprod(1) > TRANSMITTANCE_MIN
    alphas = alphas * going
    left = torch.cat([raw.new_ones(len(raw), 1), (1 - alphas).cumprod(1)], dim=1)
    return alphas * left[:, :-1], left[:, -1]


def pixel_centers(width: int, height: int, dtype: torch.dtype) -> torch.Tensor:
    """[height · width, 2] positions (x, y) in px, row by row."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2).to(dtype) + 0.5


class ReferenceRasterizer:
    """See :class:`splatinit.raster.base.Rasterizer`; this backend takes any floating dtype and runs on the CPU."""

    name = "reference"
    device = torch.device("cpu")

    def render(
        self,
        gaussians: Gaussians,
        camera: Camera,
        *,
        settings: RasterSettings = RasterSettings(),
        background: torch.Tensor | None = None,
        sh_degree: int | None = None,
        cam_from_world: torch.Tensor | None = None,
        with_depth: bool = False,
        with_stats: bool | Collection[str] = False,
    ) -> Render:
        dtype, n = gaussians.means.dtype, len(gaussians)
        degree = gaussians.sh_degree if sh_degree is None else sh_degree
        if not 0 <= degree <= gaussians.sh_degree:
            raise ConfigError(f"sh_degree is {degree}, but these Gaussians hold degrees 0 to {gaussians.sh_degree}.")
        if background is None:
            background = torch.zeros(3, dtype=dtype)
        if background.shape != (3,):
            raise ShapeError(f"render: background must be [3], got {list(background.shape)}.")
        pose = torch.from_numpy(camera.cam_from_world) if cam_from_world is None else cam_from_world
        if pose.shape != (4, 4):
            raise ShapeError(f"render: cam_from_world must be [4, 4], got {list(pose.shape)}.")
        background, pose = background.to(dtype), pose.to(dtype)

        order = self._visible_in_order(gaussians, camera, pose, settings, degree)
        drawn = project(gaussians.map(lambda tensor: tensor[order]), camera, pose, settings, degree)

        aux = self._aux(n, order, drawn, bool(with_stats))
        means2d = drawn.means2d
        trained = (means2d, drawn.cov2d, drawn.opacities, drawn.colors)
        watched = with_stats and any(tensor.requires_grad for tensor in trained)
        if watched and not means2d.requires_grad:
            # Hooks need a tensor that takes part in autograd, also when only colours are trained.
            means2d = means2d.requires_grad_()

        w, h = camera.width, camera.height
        values = [drawn.colors] + ([drawn.depths[:, None]] if with_depth else [])
        values = torch.cat(values, dim=1)
        images, remaining = [], []
        for pixels in pixel_centers(w, h, dtype).split(max(1, PAIRS_PER_CHUNK // max(len(order), 1))):
            at_pixel = means2d
            if watched:
                # One copy of every mean per pixel: its gradient is what the absolute gradient sums up.
                at_pixel = means2d.expand(len(pixels), -1, -1)
                at_pixel.register_hook(_statistics_hook(aux, order))
            weights, transmittance = blend_weights(alphas_at(at_pixel, drawn.cov2d, drawn.opacities, pixels))
            images.append(weights @ values)
            remaining.append(transmittance)
            if with_stats:
                aux.blend_weight[order] += weights.detach().sum(0)
        image, transmittance = torch.cat(images), torch.cat(remaining)

        alpha = 1 - transmittance
        rgb = image[:, :3] + transmittance[:, None] * background
        depth = None
        if with_depth:
            hit = alpha > 0
            depth = torch.where(hit, image[:, 3] / torch.where(hit, alpha, torch.ones_like(alpha)), 0.0).reshape(h, w)
        return Render(rgb.reshape(h, w, 3), alpha.reshape(h, w), depth, aux)

    @staticmethod
    @torch.no_grad()
    def _visible_in_order(gaussians, camera, pose, settings, degree) -> torch.Tensor:
        """Indices of the Gaussians to draw, front to back.

        Chosen before anything is differentiated: what lies behind the camera would send infinities through autograd.
        """
        z = gaussians.means @ pose[2, :3] + pose[2, 3]
        front = torch.nonzero(z > NEAR).flatten()
        seen = project(gaussians.map(lambda tensor: tensor[front]), camera, pose, settings, degree)
        front, depths = front[seen.visible], seen.depths[seen.visible]
        return front[torch.argsort(depths, stable=True)]

    @staticmethod
    def _aux(n: int, order: torch.Tensor, drawn: Projected, with_stats: bool) -> RasterAux:
        dtype = drawn.depths.dtype

        def spread(values: torch.Tensor) -> torch.Tensor:
            return torch.zeros((n, *values.shape[1:]), dtype=values.dtype).index_copy(0, order, values.detach())

        return RasterAux(
            means2d=spread(drawn.means2d),
            depths=spread(drawn.depths),
            radii=spread(drawn.halves.amax(1)),
            visible=spread(torch.ones(len(order), dtype=torch.bool)),
            blend_weight=torch.zeros(n, dtype=dtype) if with_stats else None,
        )


def _statistics_hook(aux: RasterAux, order: torch.Tensor):
    def add(gradient: torch.Tensor) -> None:
        if aux.v_means2d is None:
            aux.v_means2d = torch.zeros_like(aux.means2d)
            aux.v_means2d_abs = torch.zeros_like(aux.means2d)
        aux.v_means2d.index_add_(0, order, gradient.sum(0))
        aux.v_means2d_abs.index_add_(0, order, gradient.abs().sum(0))

    return add
