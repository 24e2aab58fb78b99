"""Rendering of Gaussians and its gradients. ``raster/native.py`` builds on it."""

from __future__ import annotations

from ctypes import POINTER, Structure, byref, c_double, c_float, c_int, c_int32, c_int64, c_void_p

from ..errors import OutOfMemory
from .loading import check_code, declare, library

STAGES = ("project", "sort_and_bin", "blend", "loss", "blend_vjp", "project_vjp")  # of Workspace.timings
FEWER = "Use fewer Gaussians (densify.max_count) or a smaller --max-size."  # where memory runs out


# The structs of cuda/include/splat/api.h, field by field.
class GaussiansArg(Structure):
    _fields_ = [
        ("n", c_int64),
        ("k", c_int32),
        *((name, c_void_p) for name in ("means", "quats", "log_scales", "logit_opacities", "sh0", "shN")),
    ]


class ViewArg(Structure):
    _fields_ = [
        ("viewmat", c_float * 16),
        *((name, c_float) for name in ("fx", "fy", "cx", "cy")),
        *((name, c_int32) for name in ("width", "height", "sh_degree", "antialiased")),
        ("eps2d", c_float),
        ("background", c_float * 3),
    ]


class ImageArg(Structure):
    """Also splat_image_cotangents: the same three pointers."""

    _fields_ = [(name, c_void_p) for name in ("rgb", "alpha", "depth")]


class AuxArg(Structure):
    _fields_ = [(name, c_void_p) for name in ("means2d", "depths", "radii", "visible", "blend_weight")]


class GradientsArg(Structure):
    _fields_ = [
        (name, c_void_p)
        for name in (
            "means",
            "quats",
            "log_scales",
            "logit_opacities",
            "sh0",
            "shN",
            "viewmat",
            "background",
            "means2d",
            "means2d_abs",
        )
    ]


class AdamArg(Structure):
    _fields_ = [
        *((name, c_void_p * 6) for name in ("param", "exp_avg", "exp_avg_sq")),
        ("lr", c_double * 6),
        *((name, c_double) for name in ("beta1", "beta2", "eps")),
        ("step", c_int64),
        *((name, c_int32) for name in ("only_touched", "sh_degree_grows")),
    ]


class FrameInfo(Structure):
    """What a forward pass met: visible Gaussians with at least one tile, (tile, Gaussian) pairs, bytes of buffers."""

    _fields_ = [("n_visible", c_int64), ("n_pairs", c_int64), ("bytes", c_int64)]


declare(
    {
        "splat_cpu_workspace_create": (c_void_p, []),
        "splat_cpu_workspace_destroy": (None, [c_void_p]),
        "splat_cpu_forward": (
            c_int,
            [c_void_p, *map(POINTER, (GaussiansArg, ViewArg, ImageArg, AuxArg, FrameInfo))],
        ),
        "splat_cpu_backward": (
            c_int,
            [c_void_p, *map(POINTER, (GaussiansArg, ViewArg, ImageArg, GradientsArg, AdamArg))],
        ),
        "splat_cpu_count_pairs": (c_int, [c_void_p, *map(POINTER, (ViewArg, c_int64, c_int64))]),
        "splat_cpu_timings": (None, [c_void_p, POINTER(c_double)]),
    }
)


class Workspace:
    """Buffers of one forward/backward pair. Taken from a pool, and back in it when no longer referenced."""

    _pool: list[int] = []
    _POOL_SIZE = 2  # one for training, one for renders in between; more would only hold memory

    def __init__(self) -> None:
        self._destroy = library().splat_cpu_workspace_destroy
        self.handle = self._pool.pop() if self._pool else library().splat_cpu_workspace_create()
        if not self.handle:
            raise OutOfMemory("The native engine could not allocate its workspace.")

    def __del__(self) -> None:
        handle = getattr(self, "handle", None)
        if not handle:
            return
        if len(self._pool) < self._POOL_SIZE:
            self._pool.append(handle)
        else:
            self._destroy(handle)

    def timings(self) -> dict[str, float]:
        """Seconds of the stages of the last passes."""
        seconds = (c_double * len(STAGES))()
        library().splat_cpu_timings(self.handle, seconds)
        return dict(zip(STAGES, seconds, strict=True))


def forward(
    workspace: Workspace, gaussians: GaussiansArg, view: ViewArg, image: ImageArg, aux: AuxArg, info: FrameInfo
) -> None:
    code = library().splat_cpu_forward(
        workspace.handle, byref(gaussians), byref(view), byref(image), byref(aux), byref(info)
    )
    check_code(code, "render", hint=FEWER)


def backward(
    workspace: Workspace,
    gaussians: GaussiansArg,
    view: ViewArg,
    v_image: ImageArg,
    gradients: GradientsArg,
    adam: AdamArg | None = None,
) -> None:
    code = library().splat_cpu_backward(
        workspace.handle,
        byref(gaussians),
        byref(view),
        byref(v_image),
        byref(gradients),
        None if adam is None else byref(adam),
    )
    check_code(code, "backward of render", hint=FEWER)


def count_pairs(workspace: Workspace, view: ViewArg) -> tuple[int, int]:
    """(pixel, Gaussian) pairs that the blend loop of the last forward pass evaluated, and those that it blended."""
    evaluated, blended = c_int64(), c_int64()
    code = library().splat_cpu_count_pairs(workspace.handle, byref(view), byref(evaluated), byref(blended))
    check_code(code, "counting pairs")
    return evaluated.value, blended.value
