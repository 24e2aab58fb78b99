"""Where two correct rasterizers may disagree: pixels at which a cut-off is decided by the last digits.

An alpha of 1/255 ± rounding is drawn or skipped, a transmittance of 1e-4 ± rounding goes on or stops, and two
Gaussians at almost the same depth swap. The picture jumps there, so the comparison leaves these pixels out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tolerances import CUTOFF_ALPHA, CUTOFF_DEPTH, CUTOFF_TRANSMITTANCE, FLOAT32_EPS

from splatinit.raster.base import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN, RasterSettings
from splatinit.raster.reference import ReferenceRasterizer, alphas_at, pixel_centers, project
from splatinit.types import Camera, Gaussians


@dataclass(frozen=True)
class Decisions:
    """``pixels`` [h, w] bool: surely decided. ``gaussians`` [n] bool: surely visible or surely not.
    ``slack`` [n]: what the undecided pixels can add to or take from each Gaussian's blend weight."""

    pixels: torch.Tensor
    gaussians: torch.Tensor
    slack: torch.Tensor


@torch.no_grad()
def decide(gaussians: Gaussians, camera: Camera, settings: RasterSettings, degree: int) -> Decisions:
    """Classify the pixels of a view, in float64."""
    exact = gaussians.map(lambda tensor: tensor.detach().double())
    pose = torch.from_numpy(camera.cam_from_world)
    order = ReferenceRasterizer._visible_in_order(exact, camera, pose, settings, degree)
    drawn = project(exact.map(lambda tensor: tensor[order]), camera, pose, settings, degree)
    # Antialiasing divides by the determinant without eps2d too, which is the worse conditioned of the two.
    blur = settings.eps2d * torch.eye(2, dtype=torch.float64) if settings.antialiased else 0.0
    eigenvalues = torch.linalg.eigvalsh(drawn.cov2d - blur)
    condition = float((eigenvalues[:, 1] / eigenvalues[:, 0]).max()) if len(order) else 1.0
    margin = max(CUTOFF_ALPHA, 20 * FLOAT32_EPS * condition)

    pixels = pixel_centers(camera.width, camera.height, torch.float64)
    raw = alphas_at(drawn.means2d, drawn.cov2d, drawn.opacities, pixels)
    alphas = torch.where(raw >= ALPHA_MIN, raw.clamp(max=ALPHA_MAX), 0.0)
    transmittance = (1 - alphas).cumprod(1)
    reached = torch.cat([torch.ones_like(raw[:, :1]), transmittance[:, :-1]], 1) > TRANSMITTANCE_MIN * 0.9
    near_alpha = ((raw / ALPHA_MIN - 1).abs() < margin) | ((raw / ALPHA_MAX - 1).abs() < CUTOFF_ALPHA)
    near_stop = (transmittance / TRANSMITTANCE_MIN - 1).abs() < CUTOFF_TRANSMITTANCE
    step = drawn.depths.diff()
    close = (step > 0) & (step < CUTOFF_DEPTH * drawn.depths[1:])
    swap = close & (raw[:, 1:] > ALPHA_MIN * 0.9) & (raw[:, :-1] > ALPHA_MIN * 0.9)
    unsure = ((near_alpha | near_stop) & reached).any(1) | (swap & reached[:, 1:]).any(1)

    slack = torch.zeros(len(gaussians), dtype=torch.float64)
    slack[order] = raw[unsure].clamp(max=1).sum(0)
    return Decisions(
        ~unsure.reshape(camera.height, camera.width), _sure_visibility(exact, camera, pose, settings), slack
    )


def _sure_visibility(exact: Gaussians, camera: Camera, pose: torch.Tensor, settings: RasterSettings) -> torch.Tensor:
    """[n] bool: visible or not with room to spare, so that rounding cannot change the answer."""
    z = exact.means @ pose[2, :3] + pose[2, 3]
    sure = torch.ones(len(exact), dtype=torch.bool)
    front = torch.nonzero(z > 1e-6).flatten()
    sure[front] = (z[front] - 0.01).abs() > 1e-5
    seen = project(exact.map(lambda tensor: tensor[front]), camera, pose, settings, 0)
    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    low, high = seen.means2d - seen.halves, seen.means2d + seen.halves
    room = 1e-3 * (1 + seen.halves + seen.means2d.abs())
    edge = ((high.abs() < room) | ((low - size).abs() < room)).any(1)
    faint = (seen.opacities / ALPHA_MIN - 1).abs() < 1e-3
    sure[front] &= ~edge & ~faint
    return sure
