"""The native libraries, loaded with ctypes: plain functions over torch tensors, checked before every call.

Nothing here knows about training or autograd: ``raster/native.py``, ``losses.py`` and ``nerf/kernels.py`` build on it.
The libraries are looked for in the installed package (``splatinit/_lib``); they are compiled at installation, never at
a call.

splat_cpu and splat_cuda are one :class:`Engine` each (:mod:`.engines`); :func:`cuda_engine` (:mod:`.cuda`) says what is
missing where the second cannot run, and tries it out (:mod:`.selfcheck`). :mod:`.loading` finds the libraries,
:mod:`.driver` the GPUs, :mod:`.tensors` hands memory to them. :mod:`.rasterization` and :mod:`.optimization` are what
both engines do; :mod:`.stereo` and :mod:`.field` are of splat_cpu alone.
"""

from .arguments import AdamArg, AuxArg, FrameInfo, GaussiansArg, GradientsArg, ImageArg, ViewArg
from .cuda import LIBRARY_VARIABLE, cuda_engine, cuda_library, cuda_library_path, engine_for, usable_engine
from .engines import CpuEngine, CudaEngine, Engine, cpu_engine
from .field import (
    HashGrid,
    Mlp,
    RaySamples,
    SpaceArg,
    grid_features,
    grid_features_vjp,
    mlp_outputs,
    mlp_outputs_vjp,
    occupancy_put_,
    ray_samples,
    ray_sums,
    ray_sums_vjp,
    sh_basis,
    space_unit,
)
from .loading import (
    OUT_OF_MEMORY,
    TOO_MANY_PAIRS,
    available,
    build_info,
    check_code,
    library,
    library_path,
    set_simd,
    set_threads,
)
from .optimization import adam_step_, l1_dssim
from .rasterization import STAGES, Workspace, backward, count_pairs, forward
from .stereo import Stereo, StereoPhoto, stereo_minima, stereo_semiglobal
from .tensors import address, numbers, pointer, recycled

__all__ = [
    "AdamArg",
    "AuxArg",
    "CpuEngine",
    "CudaEngine",
    "Engine",
    "FrameInfo",
    "GaussiansArg",
    "GradientsArg",
    "HashGrid",
    "ImageArg",
    "LIBRARY_VARIABLE",
    "Mlp",
    "OUT_OF_MEMORY",
    "RaySamples",
    "STAGES",
    "SpaceArg",
    "Stereo",
    "StereoPhoto",
    "TOO_MANY_PAIRS",
    "ViewArg",
    "Workspace",
    "adam_step_",
    "address",
    "available",
    "backward",
    "build_info",
    "check_code",
    "count_pairs",
    "cpu_engine",
    "cuda_engine",
    "cuda_library",
    "cuda_library_path",
    "engine_for",
    "forward",
    "grid_features",
    "grid_features_vjp",
    "l1_dssim",
    "library",
    "library_path",
    "mlp_outputs",
    "mlp_outputs_vjp",
    "numbers",
    "occupancy_put_",
    "pointer",
    "ray_samples",
    "ray_sums",
    "ray_sums_vjp",
    "recycled",
    "set_simd",
    "set_threads",
    "sh_basis",
    "space_unit",
    "stereo_minima",
    "stereo_semiglobal",
    "usable_engine",
]
