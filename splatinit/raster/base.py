"""What every rasterization backend does, and the numbers on which all of them agree.

The image model is 3DGS's (Kerbl et al. 2023, eq. 2–6), with gsplat's constants:
a Gaussian is projected by EWA splatting (Zwicker et al. 2002), its screen covariance grows by ``eps2d`` on the
diagonal; at a pixel centre p, alpha = min(ALPHA_MAX, opacity · exp(−½ (p−μ)ᵀ Σ⁻¹ (p−μ))); alphas below ALPHA_MIN are
skipped; blending goes front to back in order of camera z (ties by index) and stops *before* the Gaussian that would
bring the transmittance to TRANSMITTANCE_MIN or below. The remaining transmittance shows the background.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..types import Camera, Gaussians, Render

if TYPE_CHECKING:
    import torch

ALPHA_MIN = 1.0 / 255.0
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4
NEAR = 0.01  # scene units; a Gaussian whose mean is nearer is not drawn
# The EWA Jacobian is taken at a point clamped to this multiple beyond the image border (3DGS: 1.3 × tan(fov/2)),
# because the linearisation blows up far outside the view.
FOV_MARGIN = 0.3
# Floor of Mip-Splatting's compensation √(det Σ / det(Σ + eps2d·I)), squared; its gradient is 0 there (Yu et al. 2024).
COMPENSATION_MIN_SQUARED = 2.5e-5


@dataclass(frozen=True)
class RasterSettings:
    """How to draw. Frozen, so that a run can record it.

    Attributes:
        antialiased: multiply each opacity by √(det Σ / det(Σ + eps2d·I)), so that thin Gaussians do not grow brighter
            when the image shrinks (Mip-Splatting, Yu et al. 2024). Changes the look of a scene trained without it.
        eps2d: px², added to the diagonal of the screen covariance: the low-pass filter of 3DGS (0.3).
    """

    antialiased: bool = False
    eps2d: float = 0.3


class Rasterizer(Protocol):
    """A backend. Differentiable w.r.t. the six tensors of the Gaussians, the background and ``cam_from_world``.

    Attributes:
        name: in the registry.
        device: where the tensors of the Gaussians lie that it draws, and everything that it returns.
    """

    name: str
    device: torch.device

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
        """Draw the Gaussians as ``camera`` sees them.

        Args:
            gaussians: n ≥ 0 Gaussians; their tensors may require gradients.
            background: [3] sRGB, black if None; may require a gradient. A tensor on the CPU, whatever the device: it
                is read as three numbers. One on the device is taken, too, but reading it waits for the device.
            sh_degree: SH degree to evaluate, at most that of the Gaussians; None for all.
            cam_from_world: [4, 4] float32 in place of the camera's own pose, where its gradient is wanted; on the CPU
                or on the device, as ``background``. The rotation is taken as nine free numbers: the gradient is that of
                the 12 entries.
            with_depth: also return the expected depth.
            with_stats: also return ``aux.blend_weight``, and let backward fill ``aux.v_means2d`` and
                ``aux.v_means2d_abs``. Names of these are a request for them alone, which may be cheaper.

        Returns:
            A Render; with n = 0, or nothing in view, it is the background with alpha 0.
        """
        ...
