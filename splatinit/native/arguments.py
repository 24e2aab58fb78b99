"""The structs of cuda/include/splat/api.h and api_cuda.h that both engines take, field by field."""

from __future__ import annotations

from ctypes import Structure, c_char, c_double, c_float, c_int32, c_int64, c_void_p


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


class DeviceArg(Structure):
    _fields_ = [
        ("name", c_char * 256),
        *((name, c_int32) for name in ("major", "minor")),
        *((name, c_int64) for name in ("total_bytes", "free_bytes")),
    ]
