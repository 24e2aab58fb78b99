"""The backends ``cpu`` and ``cuda``: our native engines (cuda/cpu, cuda/gpu) behind the raster protocol.

An ``autograd.Function`` rather than ``torch.library`` ops: the state that a backward pass needs has a size known only
after projection, lives in native buffers that are re-used from step to step, and tracing through it gains nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ctypes import c_float

import numpy as np
import torch

from .. import native
from ..errors import ConfigError
from ..types import GAUSSIAN_FIELDS, Camera, Gaussians, RasterAux, Render
from .base import RasterSettings


class NativeRasterizer:
    """A native engine.

    Attributes:
        engine: what computes.       device: of the engine.
        options: of the workspaces that it makes, see :class:`splatinit.native.Workspace`.
    """

    name: str

    def __init__(self, engine: native.Engine, options: Mapping[str, int] | None = None) -> None:
        self.engine = engine
        self.device = engine.device
        self.options = dict(options or {})

    def workspace(self) -> native.Workspace:
        """Buffers for one forward and backward pass."""
        return native.Workspace(self.engine, self.options)

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
        """See :class:`splatinit.raster.base.Rasterizer`."""
        degree = gaussians.sh_degree if sh_degree is None else sh_degree
        if not 0 <= degree <= gaussians.sh_degree:
            raise ConfigError(f"sh_degree is {degree}, but these Gaussians hold degrees 0 to {gaussians.sh_degree}.")
        n, empty = len(gaussians), self.engine.empty
        aux = RasterAux(
            means2d=empty(n, 2),
            depths=empty(n),
            radii=empty(n),
            visible=empty(n, dtype=torch.bool),
            blend_weight=empty(n) if with_stats else None,
        )
        if background is None:
            background = torch.zeros(3)
        if cam_from_world is None:
            cam_from_world = torch.from_numpy(camera.cam_from_world.astype(np.float32))
        call = _Call(self.workspace(), camera, settings, degree, with_depth, bool(with_stats), aux)
        tensors = (tensor.contiguous() for tensor in gaussians.tensors().values())
        rgb, alpha, depth = _Rasterize.apply(*tensors, background.contiguous(), cam_from_world.contiguous(), call)
        return Render(rgb=rgb, alpha=alpha, depth=depth, aux=aux)


class CpuRasterizer(NativeRasterizer):
    """splat_cpu. Raises NotBuilt where the library is missing."""

    name = "cpu"

    def __init__(self) -> None:
        super().__init__(native.cpu_engine())


class CudaRasterizer(NativeRasterizer):
    """splat_cuda.

    Args:
        engine: None for that of torch's current device.
        deterministic: the same bits in every run, as the CPU engine gives them; False lets sums of gradients come in
            any order (atomic additions), which differs by rounding from run to run.

    Raises:
        NotBuilt: something is missing here: the library, a device that it has code for, or torch's CUDA.
        BackendError: it does not compute what it should (splatinit.native.selfcheck).
    """

    name = "cuda"

    def __init__(self, engine: native.CudaEngine | None = None, *, deterministic: bool = True) -> None:
        super().__init__(engine or native.cuda_engine(), {"deterministic": int(deterministic)})

    @property
    def deterministic(self) -> bool:
        return bool(self.options["deterministic"])


class _Call:
    """What one render and its backward pass share beside tensors."""

    def __init__(
        self,
        workspace: native.Workspace,
        camera: Camera,
        settings: RasterSettings,
        degree: int,
        depth: bool,
        stats: bool,
        aux: RasterAux,
    ) -> None:
        self.workspace = workspace
        self.engine = workspace.engine
        self.camera = camera
        self.settings = settings
        self.degree = degree
        self.with_depth = depth
        self.with_stats = stats
        self.aux = aux
        self.info = native.FrameInfo()
        # Made by the forward pass: numbers of a tensor on a GPU are waited for, once.
        self.view: native.ViewArg | None = None

    def gaussians(self, tensors: tuple[torch.Tensor, ...]) -> native.GaussiansArg:
        return gaussians_arg(dict(zip(GAUSSIAN_FIELDS, tensors[:6], strict=True)), self.engine)


def gaussians_arg(tensors: Mapping[str, torch.Tensor], engine: native.Engine) -> native.GaussiansArg:
    """The six fields, checked. Their memory must stay where it is while the argument is used."""
    n, k = len(tensors["means"]), tensors["shN"].shape[1]
    shapes = {"means": (n, 3), "quats": (n, 4), "log_scales": (n, 3), "logit_opacities": (n,)}
    shapes |= {"sh0": (n, 1, 3), "shN": (n, k, 3)}
    return native.GaussiansArg(n, k, *(engine.pointer(name, tensors[name], shape) for name, shape in shapes.items()))


def view_arg(
    camera: Camera,
    settings: RasterSettings,
    sh_degree: int,
    background: torch.Tensor | None = None,
    cam_from_world: torch.Tensor | None = None,
) -> native.ViewArg:
    """What to draw: the camera's pose unless another [4, 4] is given, over ``background`` [3] (black if None)."""
    pose = camera.cam_from_world.ravel().tolist()
    if cam_from_world is not None:
        pose = native.numbers("cam_from_world", cam_from_world, (4, 4))
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
        (c_float * 3)(*((0.0, 0.0, 0.0) if background is None else native.numbers("background", background, (3,)))),
    )


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        *tensors, call = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.call = call
        height, width, aux, empty = call.camera.height, call.camera.width, call.aux, call.engine.empty
        rgb, alpha = empty(height, width, 3), empty(height, width)
        depth = empty(height, width) if call.with_depth else None
        gaussians = call.gaussians(tuple(tensors))
        call.view = view_arg(call.camera, call.settings, call.degree, *tensors[6:])
        native.forward(
            call.workspace,
            gaussians,
            call.view,
            native.ImageArg(*map(native.address, (rgb, alpha, depth))),
            native.AuxArg(*map(native.address, (aux.means2d, aux.depths, aux.radii, aux.visible, aux.blend_weight))),
            call.info,
        )
        return rgb, alpha, depth

    @staticmethod
    def backward(ctx, v_rgb, v_alpha, v_depth):
        tensors, call = ctx.saved_tensors, ctx.call
        engine, background, pose = call.engine, *tensors[6:]
        height, width, n = call.camera.height, call.camera.width, len(tensors[0])
        if v_rgb is None:
            v_rgb = torch.zeros(height, width, 3, device=engine.device)
        v_rgb, v_alpha, v_depth = (None if v is None else v.contiguous() for v in (v_rgb, v_alpha, v_depth))
        gradients = [engine.recycled(tuple(tensor.shape)) for tensor in tensors[:6]]
        v_background = engine.empty(3) if ctx.needs_input_grad[6] else None
        v_pose = engine.empty(4, 4) if ctx.needs_input_grad[7] else None
        aux = call.aux
        if call.with_stats:
            aux.v_means2d, aux.v_means2d_abs = engine.empty(n, 2), engine.empty(n, 2)
        gaussians = call.gaussians(tensors)
        v_image = native.ImageArg(
            engine.pointer("gradient of rgb", v_rgb, (height, width, 3)),
            None if v_alpha is None else engine.pointer("gradient of alpha", v_alpha, (height, width)),
            None if v_depth is None else engine.pointer("gradient of depth", v_depth, (height, width)),
        )
        outputs = (*gradients, v_pose, v_background, aux.v_means2d, aux.v_means2d_abs)
        gradients_out = native.GradientsArg(*map(native.address, outputs))
        native.backward(call.workspace, gaussians, call.view, v_image, gradients_out)
        # Autograd wants the gradient of a tensor where the tensor is.
        v_background = None if v_background is None else v_background.to(background.device)
        v_pose = None if v_pose is None else v_pose.to(pose.device)
        return (*gradients, v_background, v_pose, None)
