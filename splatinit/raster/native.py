"""The backend ``cpu``: our native engine (cuda/cpu) behind the raster protocol.

An ``autograd.Function`` rather than ``torch.library`` ops: the state that a backward pass needs has a size known only
after projection, lives in native buffers that are re-used from step to step, and tracing through it gains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import c_float

import numpy as np
import torch

from .. import native
from ..errors import ConfigError
from ..types import GAUSSIAN_FIELDS, Camera, Gaussians, RasterAux, Render
from .base import RasterSettings


class CpuRasterizer:
    """splat_cpu. Raises NotBuilt where the library is missing."""

    name = "cpu"

    def __init__(self) -> None:
        native.library()

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
        with_stats: bool = False,
    ) -> Render:
        """See :class:`splatinit.raster.base.Rasterizer`."""
        degree = gaussians.sh_degree if sh_degree is None else sh_degree
        if not 0 <= degree <= gaussians.sh_degree:
            raise ConfigError(f"sh_degree is {degree}, but these Gaussians hold degrees 0 to {gaussians.sh_degree}.")
        n = len(gaussians)
        aux = RasterAux(
            means2d=torch.empty(n, 2),
            depths=torch.empty(n),
            radii=torch.empty(n),
            visible=torch.empty(n, dtype=torch.bool),
            blend_weight=torch.empty(n) if with_stats else None,
        )
        if background is None:
            background = torch.zeros(3)
        if cam_from_world is None:
            cam_from_world = torch.from_numpy(camera.cam_from_world.astype(np.float32))
        call = _Call(camera, settings, degree, with_depth, with_stats, aux)
        tensors = (tensor.contiguous() for tensor in gaussians.tensors().values())
        rgb, alpha, depth = _Rasterize.apply(*tensors, background.contiguous(), cam_from_world.contiguous(), call)
        return Render(rgb=rgb, alpha=alpha, depth=depth, aux=aux)


class _Call:
    """What one render and its backward pass share beside tensors."""

    def __init__(
        self, camera: Camera, settings: RasterSettings, degree: int, depth: bool, stats: bool, aux: RasterAux
    ) -> None:
        self.camera = camera
        self.settings = settings
        self.degree = degree
        self.with_depth = depth
        self.with_stats = stats
        self.aux = aux
        self.workspace = native.Workspace()
        self.info = native.FrameInfo()

    def arguments(self, tensors: tuple[torch.Tensor, ...]) -> tuple[native.GaussiansArg, native.ViewArg]:
        *fields, background, viewmat = tensors
        gaussians = gaussians_arg(dict(zip(GAUSSIAN_FIELDS, fields, strict=True)))
        return gaussians, view_arg(self.camera, self.settings, self.degree, background, viewmat)


def gaussians_arg(tensors: Mapping[str, torch.Tensor]) -> native.GaussiansArg:
    """The six fields, checked. Their memory must stay where it is while the argument is used."""
    n, k = len(tensors["means"]), tensors["shN"].shape[1]
    shapes = {"means": (n, 3), "quats": (n, 4), "log_scales": (n, 3), "logit_opacities": (n,)}
    shapes |= {"sh0": (n, 1, 3), "shN": (n, k, 3)}
    return native.GaussiansArg(n, k, *(native.pointer(name, tensors[name], shape) for name, shape in shapes.items()))


def view_arg(
    camera: Camera,
    settings: RasterSettings,
    sh_degree: int,
    background: torch.Tensor | None = None,
    cam_from_world: torch.Tensor | None = None,
) -> native.ViewArg:
    """What to draw: the camera's pose unless another [4, 4] is given, over ``background`` [3] (black if None)."""
    if cam_from_world is None:
        pose = camera.cam_from_world.ravel().tolist()
    else:
        native.pointer("cam_from_world", cam_from_world, (4, 4))
        pose = cam_from_world.detach().flatten().tolist()
    if background is not None:
        native.pointer("background", background, (3,))
    K = camera.K
    return native.ViewArg(
        (c_float * 16)(*pose),
        K[0, 0],
        K[1, 1],
        K[0, 2],
        K[1, 2],
        camera.width,
        camera.height,
        sh_degree,
        settings.antialiased,
        settings.eps2d,
        (c_float * 3)(*((0.0, 0.0, 0.0) if background is None else background.detach().tolist())),
    )


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        *tensors, call = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.call = call
        height, width, aux = call.camera.height, call.camera.width, call.aux
        rgb, alpha = torch.empty(height, width, 3), torch.empty(height, width)
        depth = torch.empty(height, width) if call.with_depth else None
        gaussians, view = call.arguments(tuple(tensors))
        native.forward(
            call.workspace,
            gaussians,
            view,
            native.ImageArg(rgb.data_ptr(), alpha.data_ptr(), native.address(depth)),
            native.AuxArg(*map(native.address, (aux.means2d, aux.depths, aux.radii, aux.visible, aux.blend_weight))),
            call.info,
        )
        return rgb, alpha, depth

    @staticmethod
    def backward(ctx, v_rgb, v_alpha, v_depth):
        tensors, call = ctx.saved_tensors, ctx.call
        height, width, n = call.camera.height, call.camera.width, len(tensors[0])
        if v_rgb is None:
            v_rgb = torch.zeros(height, width, 3)
        v_rgb, v_alpha, v_depth = (None if v is None else v.contiguous() for v in (v_rgb, v_alpha, v_depth))
        gradients = [native.recycled(tuple(tensor.shape)) for tensor in tensors[:6]]
        v_background = torch.empty(3) if ctx.needs_input_grad[6] else None
        v_viewmat = torch.empty(4, 4) if ctx.needs_input_grad[7] else None
        aux = call.aux
        if call.with_stats:
            aux.v_means2d, aux.v_means2d_abs = torch.empty(n, 2), torch.empty(n, 2)
        gaussians, view = call.arguments(tensors)
        v_image = native.ImageArg(
            native.pointer("gradient of rgb", v_rgb, (height, width, 3)),
            None if v_alpha is None else native.pointer("gradient of alpha", v_alpha, (height, width)),
            None if v_depth is None else native.pointer("gradient of depth", v_depth, (height, width)),
        )
        outputs = (*gradients, v_viewmat, v_background, aux.v_means2d, aux.v_means2d_abs)
        native.backward(call.workspace, gaussians, view, v_image, native.GradientsArg(*map(native.address, outputs)))
        return (*gradients, v_background, v_viewmat, None)

