"""The native library splat_cpu, loaded with ctypes: plain functions over torch tensors, checked before every call.

Nothing here knows about training or autograd: ``raster/native.py``, ``losses.py`` and ``nerf/kernels.py`` build on it.
The library is looked for in the installed package (``splatinit/_lib``) and compiled at installation, never at a call.

:mod:`.loading` finds the library and says what it was built for, :mod:`.tensors` hands memory to it;
:mod:`.rasterization`, :mod:`.optimization`, :mod:`.stereo` and :mod:`.field` are the parts of cuda/include/splat/api.h.
"""

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
from .rasterization import (
    STAGES,
    AdamArg,
    AuxArg,
    FrameInfo,
    GaussiansArg,
    GradientsArg,
    ImageArg,
    ViewArg,
    Workspace,
    backward,
    count_pairs,
    forward,
)
from .stereo import Stereo, StereoPhoto, stereo_minima, stereo_semiglobal
from .tensors import address, pointer, recycled

__all__ = [
    "AdamArg",
    "AuxArg",
    "FrameInfo",
    "GaussiansArg",
    "GradientsArg",
    "HashGrid",
    "ImageArg",
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
    "forward",
    "grid_features",
    "grid_features_vjp",
    "l1_dssim",
    "library",
    "library_path",
    "mlp_outputs",
    "mlp_outputs_vjp",
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
]
