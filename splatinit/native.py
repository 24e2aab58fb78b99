"""The native library splat_cpu, loaded with ctypes: plain functions over torch tensors, checked before every call.

Nothing here knows about training or autograd: ``raster/native.py`` and ``losses.py`` build on it. The library is looked
for in the installed package (``splatinit/_lib``) and compiled at installation, never at a call.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import weakref
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import __path__ as PACKAGE_PATH
from .errors import BackendError, ConfigError, NotBuilt, OutOfMemory, ShapeError

if TYPE_CHECKING:
    import torch

# An editable install keeps what was compiled in site-packages, beside the source tree; both are in the package's path.
LIBRARY_FOLDERS = [Path(folder) / "_lib" for folder in PACKAGE_PATH]
OK, OUT_OF_MEMORY, BAD_ARGUMENT, TOO_MANY_PAIRS = 0, -1, -2, -3


STAGES = ("project", "sort_and_bin", "blend", "loss", "blend_vjp", "project_vjp")  # of Workspace.timings


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


class StereoViewArg(Structure):
    _fields_ = [
        ("grey", c_void_p),
        *((name, c_int32) for name in ("width", "height", "masked")),
        ("from_reference", c_float * 12),
    ]


class StereoSettingsArg(Structure):
    _fields_ = [*((name, c_int32) for name in ("radius", "best", "stride", "first")), ("noise", c_float)]


class StereoSearchArg(Structure):
    _fields_ = [
        *((name, c_float) for name in ("smallest", "largest", "steepest")),
        *((name, c_int32) for name in ("directions", "tilts")),
    ]


class GridArg(Structure):
    _fields_ = [("levels", c_int32), ("cells", c_int32 * 16), ("rows", c_int32 * 16)]


class MlpArg(Structure):
    _fields_ = [(name, c_int32) for name in ("inputs", "width", "hidden", "outputs")]


class RaysArg(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("rays", "samples")),
        *((name, c_void_p) for name in ("first", "density", "length", "distance", "rgb", "middle", "extent")),
    ]


class RaySumsArg(Structure):
    _fields_ = [(name, c_void_p) for name in ("weights", "rgb", "opacity", "depth", "distortion")]


class RayCotangentsArg(Structure):
    _fields_ = [(name, c_void_p) for name in ("rgb", "opacity", "depth", "distortion")]


class SpaceArg(Structure):
    _fields_ = [("ball", c_int32), ("low", c_float * 3), ("high", c_float * 3)]


class SamplingArg(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("cells", "coarse", "fine")),
        *((name, c_float) for name in ("uniform", "near")),
    ]


class RaySamplesArg(Structure):
    _fields_ = [(name, c_void_p) for name in ("length", "distance", "middle", "extent", "points")]


class FrameInfo(Structure):
    """What a forward pass met: visible Gaussians with at least one tile, (tile, Gaussian) pairs, bytes of buffers."""

    _fields_ = [("n_visible", c_int64), ("n_pairs", c_int64), ("bytes", c_int64)]


_STEREO = [POINTER(StereoViewArg), POINTER(StereoViewArg), c_int, POINTER(StereoSettingsArg)]


def library_path(name: str) -> Path:
    """Where the library called ``name`` ("splat_cpu") is installed, or would be if it were: the file need not exist."""
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    paths = [folder / f"{'' if sys.platform == 'win32' else 'lib'}{name}{suffix}" for folder in LIBRARY_FOLDERS]
    return next((path for path in paths if path.exists()), paths[0])


@lru_cache(maxsize=1)
def available() -> bool:
    """True where splat_cpu was built and can be loaded."""
    try:
        library()
    except NotBuilt:
        return False
    return True


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """splat_cpu with typed functions. Raises NotBuilt when it is not in this installation."""
    path = library_path("splat_cpu")
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        raise NotBuilt(
            f"The native CPU engine could not be loaded: {error}.",
            hint=f"It is built when splatinit is installed (pip install .); expected at {path}.",
            path=path,
        ) from error
    signatures = {
        "splat_cpu_version": (c_char_p, []),
        "splat_cpu_simd": (c_char_p, []),
        "splat_cpu_set_simd": (c_int, [c_char_p]),
        "splat_cpu_threads": (c_int, []),
        "splat_cpu_set_threads": (None, [c_int]),
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
        "splat_cpu_l1_ssim": (
            c_int,
            [c_void_p] * 4 + [c_int, c_int, c_float, c_void_p, POINTER(c_double)],
        ),
        "splat_cpu_adam": (c_int, [c_void_p] * 4 + [c_int64] + [c_double] * 4 + [c_int64]),
        "splat_cpu_exp2": (None, [c_void_p, c_void_p, c_int64]),
        "splat_cpu_stereo_sweep": (c_int, [*_STEREO, c_void_p, c_int, c_void_p]),
        "splat_cpu_stereo_semiglobal": (c_int, [c_void_p, c_int, c_int, c_int, c_void_p, *[c_float] * 3, c_void_p]),
        "splat_cpu_stereo_minima": (c_int, [c_void_p, c_int, c_int, c_int, c_void_p, c_void_p, c_void_p]),
        "splat_cpu_stereo_search": (
            c_int,
            [*_STEREO, POINTER(StereoSearchArg), c_void_p, c_int, c_void_p, c_void_p],
        ),
        "splat_cpu_stereo_costs": (c_int, [*_STEREO, c_void_p, c_float, c_void_p, c_void_p]),
        "splat_cpu_grid": (c_int, [POINTER(GridArg), c_void_p, c_void_p, c_int64, c_void_p]),
        "splat_cpu_grid_vjp": (c_int, [POINTER(GridArg), c_void_p, c_void_p, c_int64, c_void_p]),
        "splat_cpu_mlp": (c_int, [POINTER(MlpArg), c_void_p, c_void_p, c_int64, c_void_p]),
        "splat_cpu_mlp_vjp": (c_int, [POINTER(MlpArg), *[c_void_p] * 3, c_int64, c_void_p, c_void_p]),
        "splat_cpu_rays": (c_int, [POINTER(RaysArg), POINTER(RaySumsArg)]),
        "splat_cpu_rays_vjp": (c_int, [POINTER(RaysArg), POINTER(RayCotangentsArg), c_void_p, c_void_p]),
        "splat_cpu_space_unit": (c_int, [POINTER(SpaceArg), c_void_p, c_int64, c_void_p]),
        "splat_cpu_occupancy_put": (
            c_int,
            [POINTER(SpaceArg), c_int, c_void_p, c_void_p, c_int64, c_float, c_void_p],
        ),
        "splat_cpu_ray_samples": (
            c_int,
            [
                *(POINTER(SpaceArg), POINTER(SamplingArg)),
                *(c_void_p, c_void_p, c_void_p, c_int64, c_void_p, POINTER(RaySamplesArg)),
            ],
        ),
        "splat_cpu_sh_basis": (c_int, [c_int, c_void_p, c_int64, c_void_p]),
    }
    for name, (restype, argtypes) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = restype, argtypes
    if os.environ.get("SPLATINIT_THREADS"):
        lib.splat_cpu_set_threads(_positive_int("SPLATINIT_THREADS"))
    level = os.environ.get("SPLATINIT_SIMD")
    if level and lib.splat_cpu_set_simd(level.encode()) != OK:
        raise ConfigError(
            f"SPLATINIT_SIMD is '{level}', which is unknown or cannot run on this processor.",
            hint="Use generic, avx2, avx512 or (on ARM) neon, or unset it.",
        )
    return lib


def _positive_int(variable: str) -> int:
    value = os.environ[variable]
    if not value.isdigit() or int(value) < 1:
        raise ConfigError(f"{variable} is '{value}'; expected a positive whole number.")
    return int(value)


def build_info() -> dict[str, object]:
    """Facts for ``splatinit doctor``: version, simd, threads, cuda. Raises NotBuilt without the library."""
    lib = library()
    return {
        "version": lib.splat_cpu_version().decode(),
        "simd": lib.splat_cpu_simd().decode(),
        "threads": lib.splat_cpu_threads(),
        "cuda": _cuda_state(),
    }


def _cuda_state() -> str:
    """Whether splat_cuda was built, and which devices it sees. It has no engine yet."""
    path = library_path("splat_cuda")
    if not path.exists():
        return "not built (no CUDA compiler at installation)"
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        return f"built, but cannot be loaded: {error}"
    lib.splat_cuda_version.restype = c_char_p
    return f"{lib.splat_cuda_version().decode()}, {lib.splat_cuda_device_count()} devices, no engine yet"


def set_threads(threads: int) -> None:
    """Number of threads of the native engine; its results do not depend on it."""
    library().splat_cpu_set_threads(threads)


def set_simd(level: str) -> None:
    """Force an instruction set ("generic", "avx2", "avx512", "neon"). Raises ConfigError if it cannot run here."""
    if library().splat_cpu_set_simd(level.encode()) != OK:
        raise ConfigError(f"The instruction set '{level}' is unknown or cannot run on this processor.")


def check_code(code: int, what: str) -> None:
    """Turn a return code of the library into the error it stands for."""
    if code == OK:
        return
    if code == OUT_OF_MEMORY:
        raise OutOfMemory(
            f"{what}: out of memory.", hint="Use fewer Gaussians (densify.max_count) or a smaller --max-size."
        )
    if code == TOO_MANY_PAIRS:
        raise OutOfMemory(
            f"{what}: more than 2³¹ (tile, Gaussian) pairs: the Gaussians cover far too much of the image.",
            hint="Start with smaller Gaussians, fewer of them, or a smaller --max-size.",
        )
    raise BackendError(f"{what}: the native engine refused its arguments (code {code}).")


def pointer(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> int:
    """Address of a contiguous float32 CPU tensor of exactly ``shape``. Raises ShapeError otherwise."""
    import torch

    if (
        tensor.dtype != torch.float32
        or tensor.device.type != "cpu"
        or tuple(tensor.shape) != shape
        or not tensor.is_contiguous()
    ):
        layout = "" if tensor.is_contiguous() else ", not contiguous"
        raise ShapeError(
            f"{name} must be {list(shape)} float32 on cpu, contiguous; got {list(tensor.shape)} "
            f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}{layout}."
        )
    return tensor.data_ptr()


_spare: dict[tuple[int, ...], list[np.ndarray]] = {}  # arrays of one length


def recycled(shape: tuple[int, ...]) -> torch.Tensor:
    """An uninitialised float32 tensor in memory that earlier ones of the same shape have given back.

    Gradients of many Gaussians are too large for the C library to keep: each step would get fresh pages from the system
    and fault them in one by one. The memory is given back when the last tensor that looks at it is gone.
    """
    import torch

    if any(other[0] != shape[0] for other in _spare):
        _spare.clear()  # they are of a number of Gaussians that is past
    kept = _spare.setdefault(shape, [])
    memory = kept.pop() if kept else np.empty(shape, np.float32)
    lent = memory.view()  # an object of its own for this tensor, whose end tells
    weakref.finalize(lent, kept.append, memory).atexit = False
    return torch.from_numpy(lent)


def address(tensor: torch.Tensor | None) -> int | None:
    """Where an output lies that was made here; what comes from elsewhere is checked by :func:`pointer`."""
    return None if tensor is None else tensor.data_ptr()


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


def l1_dssim(
    rgb: torch.Tensor,
    target: torch.Tensor,
    ssim_weight: float,
    counts: torch.Tensor | None = None,
    *,
    workspace: Workspace | None = None,
    out: torch.Tensor | None = None,
) -> tuple[float, torch.Tensor]:
    """(1 − w) mean|rgb − target| + w (1 − mean SSIM), w = ssim_weight, and its gradient w.r.t. rgb, in one call.

    Args:
        rgb, target: [h, w, 3] float32 in [0, 1].
        counts: [h, w, 3] 1 where the pixel counts, 0 where not (taken as 0 on both sides, with gradient 0); None: all.
        workspace: buffers to use, None for some of the pool.      out: [h, w, 3] memory for the gradient.
    Returns:
        loss, v_rgb [h, w, 3].
    Source: Kerbl et al. 2023 eq. 7; SSIM of Wang et al. 2004 with an 11×11 Gaussian window, σ 1.5, zero padding.
    """
    import torch

    height, width = rgb.shape[:2]
    shape = (height, width, 3)
    v_rgb = torch.empty(shape) if out is None else out
    loss = (c_double * 3)()
    workspace = workspace or Workspace()
    code = library().splat_cpu_l1_ssim(
        workspace.handle,
        pointer("rgb", rgb, shape),
        pointer("target", target, shape),
        None if counts is None else pointer("counts", counts, shape),
        width,
        height,
        ssim_weight,
        pointer("gradient of rgb", v_rgb, shape),
        loss,
    )
    check_code(code, "loss")
    return loss[0], v_rgb


def adam_step_(
    param: torch.Tensor,
    grad: torch.Tensor,
    exp_avg: torch.Tensor,
    exp_avg_sq: torch.Tensor,
    *,
    lr: float,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-15,
) -> None:
    """One Adam step in place on a tensor of any shape; ``step`` counts from 1. Kingma & Ba 2015, algorithm 1."""
    shape = tuple(param.shape)
    code = library().splat_cpu_adam(
        pointer("param", param, shape),
        pointer("grad", grad, shape),
        pointer("exp_avg", exp_avg, shape),
        pointer("exp_avg_sq", exp_avg_sq, shape),
        param.numel(),
        lr,
        beta1,
        beta2,
        eps,
        step,
    )
    check_code(code, "Adam")


def forward(
    workspace: Workspace, gaussians: GaussiansArg, view: ViewArg, image: ImageArg, aux: AuxArg, info: FrameInfo
) -> None:
    code = library().splat_cpu_forward(
        workspace.handle, byref(gaussians), byref(view), byref(image), byref(aux), byref(info)
    )
    check_code(code, "render")


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
    check_code(code, "backward of render")


def count_pairs(workspace: Workspace, view: ViewArg) -> tuple[int, int]:
    """(pixel, Gaussian) pairs that the blend loop of the last forward pass evaluated, and those that it blended."""
    evaluated, blended = c_int64(), c_int64()
    code = library().splat_cpu_count_pairs(workspace.handle, byref(view), byref(evaluated), byref(blended))
    check_code(code, "counting pairs")
    return evaluated.value, blended.value


# ------------------------------------------------------------------------------------------------- multi-view stereo
@dataclass(frozen=True)
class StereoPhoto:
    """A grey photo and how to get there from the reference.

    Attributes:
        grey: [h, w] uint16: 1 + 65534 times grey in [0, 1]; 0 where the pixel is unusable.
        from_reference: [3, 4] (M | b): the pixel x of the reference (homogeneous, centres at +0.5) at depth z lies at
            M x + b / z here. None for the reference itself.
    """

    grey: np.ndarray
    from_reference: np.ndarray | None = None

    def __post_init__(self) -> None:
        grey = self.grey
        if grey.dtype != np.uint16 or grey.ndim != 2 or min(grey.shape) < 2 or max(grey.shape) > 16384:
            raise ShapeError(
                f"A photo for stereo must be [h, w] uint16 of 2 to 16384 px, got {list(grey.shape)} {grey.dtype}."
            )
        object.__setattr__(self, "grey", np.ascontiguousarray(grey))

    def arg(self) -> StereoViewArg:
        height, width = self.grey.shape
        matrix = np.zeros((3, 4)) if self.from_reference is None else self.from_reference
        numbers = (c_float * 12)(*np.asarray(matrix, np.float64).reshape(12))
        return StereoViewArg(self.grey.ctypes.data, width, height, not self.grey.all(), numbers)


@dataclass(frozen=True)
class Stereo:
    """A reference photo and its neighbours, for the three functions of multi-view stereo.

    The cost of a plane at a pixel is 1 − ZNCC, cut to [0, 1], between the square window around the pixel and what the
    plane maps it to, in the mean over the ``best`` neighbours in which it is smallest. Results do not depend on the
    number of threads.

    Attributes:
        reference, neighbours: the photos, 1 to 16 neighbours.
        radius: px of the window, 1 to 4.
        best: 1 to the number of neighbours.
        noise: variance of grey that is added to both windows' variances: what has less contrast does not correlate.
        stride, first: depths are for the pixels (first + stride i, first + stride j) of the reference.
    """

    reference: StereoPhoto
    neighbours: Sequence[StereoPhoto]
    radius: int = 3
    best: int = 1
    noise: float = 1e-4
    stride: int = 1
    first: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the pixels that get a depth."""
        height, width = self.reference.grey.shape
        return -((self.first - height) // self.stride), -((self.first - width) // self.stride)

    def _call(self, name: str, *args: object) -> None:
        views = (StereoViewArg * len(self.neighbours))(*(photo.arg() for photo in self.neighbours))
        settings = StereoSettingsArg(self.radius, self.best, self.stride, self.first, self.noise)
        function = getattr(library(), name)
        code = function(byref(self.reference.arg()), views, len(self.neighbours), byref(settings), *args)
        check_code(code, "stereo")

    def sweep(self, inverse_depths: np.ndarray) -> np.ndarray:
        """Costs [h, hypotheses, w] float32 of fronto-parallel planes at these inverse depths; stride 1 only."""
        inverse_depths = np.ascontiguousarray(inverse_depths, np.float32)
        height, width = self.reference.grey.shape
        cost = np.empty((height, len(inverse_depths), width), np.float32)
        self._call("splat_cpu_stereo_sweep", inverse_depths.ctypes.data, len(inverse_depths), cost.ctypes.data)
        return cost

    def search(
        self,
        planes: np.ndarray,
        steps: Sequence[float],
        *,
        inverse_depths: tuple[float, float],
        steepest: float,
        directions: int = 4,
        tilts: bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Better planes than these, one for each pixel of the grid, and what they cost.

        Args:
            planes: [3, gh, gw] inverse depth, and its slopes per px in x and y.
            steps: a round for each: how far depths are moved, px in the neighbour in which they move fastest.
            inverse_depths: (smallest, largest) allowed.
            steepest: largest sum of the slopes' absolute values, relative to the inverse depth.
            directions: from how many directions planes of other pixels are tried: 0, 4 or 8.
            tilts: whether slopes are searched, too.
        Returns:
            planes [3, gh, gw], cost [gh, gw], both float32.
        """
        planes = self._checked(planes).copy()
        cost = np.empty(self.grid, np.float32)
        sizes = np.ascontiguousarray(steps, np.float32)
        wanted = StereoSearchArg(*inverse_depths, steepest, directions, tilts)
        pointers = (sizes.ctypes.data, len(sizes), planes.ctypes.data, cost.ctypes.data)
        self._call("splat_cpu_stereo_search", byref(wanted), *pointers)
        return planes, cost

    def costs(self, planes: np.ndarray, step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Costs of planes [3, gh, gw] neighbour by neighbour [v, gh, gw], and their rate [gh, gw]: px per unit of
        inverse depth in the neighbour in which they move fastest.

        With a step (px in that neighbour), costs are [3, v, gh, gw]: a step behind the planes, at them, and before.
        """
        planes = self._checked(planes)
        costs = np.empty((3, len(self.neighbours), *self.grid), np.float32)
        rate = np.empty(self.grid, np.float32)
        self._call("splat_cpu_stereo_costs", planes.ctypes.data, step, costs.ctypes.data, rate.ctypes.data)
        return (costs if step > 0 else costs[1]), rate

    def _checked(self, planes: np.ndarray) -> np.ndarray:
        if planes.shape != (3, *self.grid):
            raise ShapeError(f"planes must be {[3, *self.grid]}, got {list(planes.shape)}.")
        return np.ascontiguousarray(planes, np.float32)


def stereo_semiglobal(
    cost: np.ndarray, guide: np.ndarray, *, slope: float, jump: float, edge: float = math.inf
) -> np.ndarray:
    """Semi-global matching: costs [h, d, w] of :meth:`Stereo.sweep`, in the mean over four paths, [h, d, w] float32.

    On a path (right, left, down and up through the image) a pixel's cost is its own and the least of: what the pixel
    before cost at the same hypothesis; at the next one on either side, and ``slope``; at any, and a jump; without the
    least that it cost there (Hirschmüller 2008, eq. 13).

    Args:
        guide: [h, w] grey; a jump costs jump / (1 + difference / edge) between pixels of different grey.
        slope, jump: 0 ≤ slope; a jump within flat grey costs ``jump``.      edge: > 0, in units of grey.
    """
    height, hypotheses, width = cost.shape
    if guide.shape != (height, width):
        raise ShapeError(f"guide must be {[height, width]}, got {list(guide.shape)}.")
    cost, guide = (np.ascontiguousarray(array, np.float32) for array in (cost, guide))
    means = np.empty_like(cost)
    code = library().splat_cpu_stereo_semiglobal(
        cost.ctypes.data, height, hypotheses, width, guide.ctypes.data, slope, jump, edge, means.ctypes.data
    )
    check_code(code, "stereo")
    return means


def stereo_minima(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the costs [h, d, w] of :meth:`Stereo.sweep`, pixel by pixel [h, w] float32:

    Returns:
        the lowest cost;
        its hypothesis, refined by the parabola through it and its two neighbours: −0.5 to d − 0.5;
        the lowest local minimum more than two hypotheses away from it, 1 where there is none.
    """
    height, hypotheses, width = cost.shape
    cost = np.ascontiguousarray(cost, np.float32)
    lowest, position, rival = (np.empty((height, width), np.float32) for _ in range(3))
    code = library().splat_cpu_stereo_minima(
        cost.ctypes.data, height, hypotheses, width, lowest.ctypes.data, position.ctypes.data, rival.ctypes.data
    )
    check_code(code, "stereo")
    return lowest, position, rival


# --------------------------------------------------------------------------------------------------- radiance field
@dataclass(frozen=True)
class HashGrid:
    """A multiresolution hash grid over the unit cube (Müller et al. 2022, section 3), two numbers per entry.

    Attributes:
        cells: cubes of each level along an axis; 1 to 16 levels of 1 to 65535.
        rows: entries of each level in the table. At least (cells + 1)³ where every vertex has one of its own, else a
            power of two, and vertices share entries by their hash.
    """

    cells: tuple[int, ...]
    rows: tuple[int, ...]

    @classmethod
    def spanning(cls, levels: int, coarsest: int, finest: int, log2_rows: int) -> HashGrid:
        """``levels`` in geometric steps from ``coarsest`` to ``finest`` cells, at most 2^log2_rows entries each."""
        growth = (finest / coarsest) ** (1 / max(1, levels - 1))
        cells = tuple(int(coarsest * growth**level + 1e-6) for level in range(levels))
        return cls(cells, tuple(min((n + 1) ** 3, 2**log2_rows) for n in cells))

    @property
    def features(self) -> int:
        """Numbers that a point is encoded in."""
        return 2 * len(self.cells)

    @property
    def size(self) -> int:
        """Entries of the table."""
        return sum(self.rows)

    def arg(self) -> GridArg:
        if not 1 <= len(self.cells) == len(self.rows) <= 16:
            raise ShapeError(
                "A hash grid needs cells and rows for each of 1 to 16 levels, "
                f"got {len(self.cells)} and {len(self.rows)}."
            )
        return GridArg(len(self.cells), (c_int32 * 16)(*self.cells), (c_int32 * 16)(*self.rows))


def grid_features(grid: HashGrid, table: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Trilinear features [n, 2 levels] of points [n, 3], from a table [grid.size, 2].

    Points outside the unit cube count as the nearest point of it. Müller et al. 2022, eq. 4.
    """
    import torch

    encoded = torch.empty(len(points), grid.features)
    code = library().splat_cpu_grid(
        byref(grid.arg()),
        pointer("table", table, (grid.size, 2)),
        pointer("points", points, (len(points), 3)),
        len(points),
        address(encoded),
    )
    check_code(code, "hash grid")
    return encoded


def grid_features_vjp(grid: HashGrid, points: torch.Tensor, v_encoded: torch.Tensor) -> torch.Tensor:
    """Gradient [grid.size, 2] w.r.t. the table. Each entry is summed in the order of the points, for any threads."""
    import torch

    v_table = torch.empty(grid.size, 2)
    code = library().splat_cpu_grid_vjp(
        byref(grid.arg()),
        pointer("points", points, (len(points), 3)),
        pointer("gradient of features", v_encoded, (len(points), grid.features)),
        len(points),
        address(v_table),
    )
    check_code(code, "gradient of the hash grid")
    return v_table


@dataclass(frozen=True)
class Mlp:
    """A small multilayer perceptron: ``hidden`` layers of ``width`` numbers with ReLU behind each, and a linear one.

    Its weights are one array: for each layer the matrix [in, out] and the bias [out].

    Attributes:
        inputs, width, outputs: 1 to 64; multiples of 16 leave no lane empty.
        hidden: 1 or 2.
    """

    inputs: int
    width: int
    hidden: int
    outputs: int

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of each layer."""
        sizes = (self.inputs, *[self.width] * self.hidden, self.outputs)
        return tuple(zip(sizes[:-1], sizes[1:], strict=True))

    @property
    def size(self) -> int:
        """Numbers of all weights."""
        return sum((n + 1) * m for n, m in self.shapes)

    def arg(self) -> MlpArg:
        return MlpArg(self.inputs, self.width, self.hidden, self.outputs)


def mlp_outputs(mlp: Mlp, weights: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """[n, outputs] of x [n, inputs], with weights [mlp.size]."""
    import torch

    out = torch.empty(len(x), mlp.outputs)
    code = library().splat_cpu_mlp(
        byref(mlp.arg()),
        pointer("weights", weights, (mlp.size,)),
        pointer("x", x, (len(x), mlp.inputs)),
        len(x),
        address(out),
    )
    check_code(code, "MLP")
    return out


def mlp_outputs_vjp(
    mlp: Mlp, weights: torch.Tensor, x: torch.Tensor, v_out: torch.Tensor, *, with_x: bool = True
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Gradients w.r.t. x [n, inputs] (None without ``with_x``) and w.r.t. the weights [mlp.size].

    Hidden layers are computed again: nothing is kept of the forward pass.
    """
    import torch

    v_x = torch.empty(len(x), mlp.inputs) if with_x else None
    v_weights = torch.empty(mlp.size)
    code = library().splat_cpu_mlp_vjp(
        byref(mlp.arg()),
        pointer("weights", weights, (mlp.size,)),
        pointer("x", x, (len(x), mlp.inputs)),
        pointer("gradient of outputs", v_out, (len(x), mlp.outputs)),
        len(x),
        address(v_x),
        address(v_weights),
    )
    check_code(code, "gradient of the MLP")
    return v_x, v_weights


@dataclass(frozen=True)
class RaySamples:
    """Samples along rays, ray behind ray, and front to back along each; s of them in all. CPU tensors, contiguous.

    Attributes:
        first: [rays + 1] int64: the samples of ray r are first[r] to first[r + 1] − 1; from 0 to s.
        density: [s] per scene unit, ≥ 0.      rgb: [s, 3].
        length: [s] scene units.      distance: [s] scene units from the camera to the sample's middle.
        middle, extent: [s] middle and length of the sample in the coordinate in which distortion is measured.
    """

    first: torch.Tensor
    density: torch.Tensor
    rgb: torch.Tensor
    length: torch.Tensor
    distance: torch.Tensor
    middle: torch.Tensor
    extent: torch.Tensor

    @property
    def rays(self) -> int:
        return len(self.first) - 1

    def arg(self) -> RaysArg:
        import torch

        first, s = self.first, len(self.density)
        if first.dtype != torch.int64 or first.ndim != 1 or len(first) < 1 or not first.is_contiguous():
            raise ShapeError(
                f"first must be [rays + 1] int64, contiguous; got {list(first.shape)} "
                f"{str(first.dtype).removeprefix('torch.')}."
            )
        names = ("density", "length", "distance", "rgb", "middle", "extent")
        shapes = [(s, 3) if name == "rgb" else (s,) for name in names]
        arrays = [pointer(name, getattr(self, name), shape) for name, shape in zip(names, shapes, strict=True)]
        return RaysArg(self.rays, s, first.data_ptr(), *arrays)


def ray_sums(samples: RaySamples) -> tuple[torch.Tensor, ...]:
    """What rays see of their samples: emission and absorption (Max 1995; Mildenhall et al. 2020, eq. 3).

    Returns:
        weights [s]: share of each sample in the light of its ray;
        rgb [rays, 3], without background;      opacity [rays]: sum of the weights;
        depth [rays]: sum of weights times distance (the expected distance, times opacity);
        distortion [rays]: Barron et al. 2022 (mip-NeRF 360), eq. 15.
    A ray without samples gets zeros. Weights are exact to 2e-7 of the light that reaches the sample.
    """
    import torch

    shapes = ((len(samples.density),), (samples.rays, 3), *[(samples.rays,)] * 3)
    sums = tuple(torch.empty(shape) for shape in shapes)
    check_code(library().splat_cpu_rays(byref(samples.arg()), byref(RaySumsArg(*map(address, sums)))), "rays")
    return sums


def ray_sums_vjp(
    samples: RaySamples,
    v_rgb: torch.Tensor,
    v_opacity: torch.Tensor | None = None,
    v_depth: torch.Tensor | None = None,
    v_distortion: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients w.r.t. density [s] and rgb [s, 3] of the samples, from those of the sums of :func:`ray_sums`."""
    import torch

    v_density, v_color = torch.empty(len(samples.density)), torch.empty(len(samples.density), 3)
    optional = [
        None if v is None else pointer(f"gradient of {name}", v, (samples.rays,))
        for name, v in (("opacity", v_opacity), ("depth", v_depth), ("distortion", v_distortion))
    ]
    v = RayCotangentsArg(pointer("gradient of rgb", v_rgb, (samples.rays, 3)), *optional)
    code = library().splat_cpu_rays_vjp(byref(samples.arg()), byref(v), address(v_density), address(v_color))
    check_code(code, "gradient of rays")
    return v_density, v_color


def sh_basis(directions: torch.Tensor, degree: int) -> torch.Tensor:
    """Real spherical harmonics [n, (degree + 1)²] of unit vectors [n, 3], degree 0 to 3, in the order of 3DGS."""
    import torch

    basis = torch.empty(len(directions), (degree + 1) ** 2)
    address_in = pointer("directions", directions, (len(directions), 3))
    check_code(library().splat_cpu_sh_basis(degree, address_in, len(directions), address(basis)), "spherical harmonics")
    return basis


def space_unit(space: SpaceArg, points: torch.Tensor) -> torch.Tensor:
    """Points [n, 3] of the world in the unit cube [n, 3] of a field; see :mod:`splatinit.nerf.space`."""
    import torch

    unit = torch.empty(len(points), 3)
    arrays = pointer("points", points, (len(points), 3)), len(points), address(unit)
    check_code(library().splat_cpu_space_unit(byref(space), *arrays), "points in the unit cube")
    return unit


def occupancy_put_(
    space: SpaceArg, density: torch.Tensor, points: torch.Tensor, values: torch.Tensor, rate: float
) -> None:
    """Remember the values [n] at points [n, 3] in the cells [c, c, c] (z, y, x) that they lie in, one after the other,
    in place: density += rate (value − density). NaN and negative values are passed over."""
    n, cells = len(points), density.shape[0]
    arrays = pointer("points", points, (n, 3)), pointer("values", values, (n,)), n
    known = pointer("density", density, (cells, cells, cells))
    check_code(library().splat_cpu_occupancy_put(byref(space), cells, *arrays, rate, known), "remembering densities")


def ray_samples(
    space: SpaceArg,
    density: torch.Tensor,
    origins: torch.Tensor,
    directions: torch.Tensor,
    shifts: torch.Tensor | None,
    coarse: int,
    fine: int,
    uniform: float,
    near: float,
) -> tuple[torch.Tensor, ...]:
    """Where to sample rays, by what is remembered of densities; see :func:`splatinit.nerf.reference.ray_samples`.

    Args:
        density: [c, c, c] per scene unit, of the cells (z, y, x) of the unit cube.
        origins, directions: [n, 3], unit directions.
        shifts: [n, 2] in [0, 1), which move the coarse parts and the samples of each ray; None: 1/2.
        coarse: parts that are weighed, 1 to 1024.      fine: samples of each ray.
        uniform: share of the samples that is spread over all of the ray.
        near: scene units from the camera at which rays begin.

    Returns:
        length, distance (of the middle; scene units), middle, extent (in [0, 1], of the whole ray): each [n fine];
        points [n fine, 3].
    """
    import torch

    n, cells = len(origins), density.shape[0]
    out = (*(torch.empty(n * fine) for _ in range(4)), torch.empty(n * fine, 3))
    code = library().splat_cpu_ray_samples(
        byref(space),
        byref(SamplingArg(cells, coarse, fine, uniform, near)),
        pointer("density", density, (cells, cells, cells)),
        pointer("origins", origins, (n, 3)),
        pointer("directions", directions, (n, 3)),
        n,
        None if shifts is None else pointer("shifts", shifts, (n, 2)),
        byref(RaySamplesArg(*map(address, out))),
    )
    check_code(code, "samples along rays")
    return out
