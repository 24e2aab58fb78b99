"""Rasterization backends behind one protocol.

To add a backend: write ``raster/NAME.py`` with a class that fulfils :class:`splatinit.raster.base.Rasterizer`, add its
spec below; the oracle tests run over every backend of this registry that can run.
"""

from ..registry import Registry, Spec
from .base import Rasterizer, RasterSettings

BACKENDS: Registry[Spec] = Registry("backend")
BACKENDS.register(
    Spec(
        name="cpu",
        impl="splatinit.raster.native:CpuRasterizer",
        summary="our native engine: C++ SIMD kernels, OpenMP, bit-identical for any number of threads",
        source="splatinit; maths of Kerbl et al. 2023 and Zwicker et al. 2002",
    )
)
BACKENDS.register(
    Spec(
        name="cuda",
        impl="splatinit.raster.native:CudaRasterizer",
        summary="our native engine on an NVIDIA GPU: the same maths, the same bits in every run",
        source="splatinit; maths of Kerbl et al. 2023 and Zwicker et al. 2002",
        status="tested in an emulation of the GPU; not yet run on one",
        gpu=True,
    )
)
BACKENDS.register(
    Spec(
        name="reference",
        impl="splatinit.raster.reference:ReferenceRasterizer",
        summary="plain torch, one pixel × all Gaussians: slow and independent, the oracle of the tests",
        source="Kerbl et al. 2023",
    )
)
BACKENDS.register(
    Spec(
        name="gsplat",
        impl="splatinit.raster.gsplat:GsplatRasterizer",
        summary="the library gsplat, on CUDA devices; compiles its kernels at its first use, or brings them",
        source="arXiv:2409.06765",
        status="tested with kernels of our own in place of gsplat's, not on a GPU",
        needs=("gsplat",),
        extra="gsplat",
        gpu=True,
    )
)
BACKENDS.register(
    Spec(
        name="gsplat-packed",
        impl="splatinit.raster.gsplat:PackedGsplatRasterizer",
        summary="gsplat in its packed mode: less memory where a view sees little of the scene, more time otherwise",
        source="arXiv:2409.06765",
        status="tested with kernels of our own in place of gsplat's, not on a GPU",
        needs=("gsplat",),
        extra="gsplat",
        gpu=True,
    )
)


def make_rasterizer(name: str) -> Rasterizer:
    """The backend called ``name``, ready to render.

    Raises NotBuilt or MissingExtra when it cannot run here, BackendError when it does not compute what it should.
    """
    return BACKENDS.load(name)()


__all__ = ["BACKENDS", "RasterSettings", "Rasterizer", "make_rasterizer"]
