"""Rendering of Gaussians and its gradients, by either engine. ``raster/native.py`` builds on it."""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import byref, c_double, c_int64

from .arguments import AdamArg, AuxArg, FrameInfo, GaussiansArg, GradientsArg, ImageArg, ViewArg
from .engines import Engine, cpu_engine

STAGES = ("project", "sort_and_bin", "blend", "loss", "blend_vjp", "project_vjp")  # of Workspace.timings
FEWER = "Use fewer Gaussians (densify.max_count) or a smaller --max-size."  # where memory runs out


class Workspace:
    """Buffers of one forward/backward pair of an engine. Those of one that is gone are used again.

    Args:
        engine: None for that of the CPU.
        options: of the CUDA engine, by name (cuda/include/splat/api_cuda.h), such as ``{"deterministic": 1}``; those
            that are not named are 0.
    """

    def __init__(self, engine: Engine | None = None, options: Mapping[str, int] | None = None) -> None:
        self.engine = engine or cpu_engine()
        self.options = dict(options or {})
        self.buffers = self.engine.take(self.options)

    def __del__(self) -> None:
        if hasattr(self, "buffers"):
            self.engine.give_back(self.buffers)

    @property
    def timed(self) -> bool:
        """Whether :meth:`timings` can be had, without a wait on the CPU; the CUDA engine measures if option "timings"
        is 1."""
        return self.engine.timed or bool(self.options.get("timings"))

    def timings(self) -> dict[str, float]:
        """Seconds of the stages of the last passes. The CUDA engine waits for them to end."""
        seconds = (c_double * len(STAGES))()
        self.engine.timings(self.buffers, seconds)
        return dict(zip(STAGES, seconds, strict=True))


def forward(
    workspace: Workspace, gaussians: GaussiansArg, view: ViewArg, image: ImageArg, aux: AuxArg, info: FrameInfo
) -> None:
    """Draw. All memory is on the device of the workspace's engine; ``info`` is complete on return."""
    arguments = byref(gaussians), byref(view), byref(image), byref(aux), byref(info)
    _call(workspace, "forward", "render", *arguments)


def backward(
    workspace: Workspace,
    gaussians: GaussiansArg,
    view: ViewArg,
    v_image: ImageArg,
    gradients: GradientsArg,
    adam: AdamArg | None = None,
) -> None:
    """Gradients of the last :func:`forward` of the workspace; with ``adam``, they go into the Gaussians at once."""
    arguments = byref(gaussians), byref(view), byref(v_image), byref(gradients), None if adam is None else byref(adam)
    _call(workspace, "backward", "backward of render", *arguments)


def count_pairs(workspace: Workspace, view: ViewArg) -> tuple[int, int]:
    """(pixel, Gaussian) pairs that the blend loop of the last forward pass evaluated, and those that it blended."""
    evaluated, blended = c_int64(), c_int64()
    _call(workspace, "count_pairs", "counting pairs", byref(view), byref(evaluated), byref(blended))
    return evaluated.value, blended.value


def _call(workspace: Workspace, name: str, what: str, *arguments: object) -> None:
    buffers = workspace.buffers
    workspace.engine.call(name, what, buffers.handle, *arguments, buffers=buffers, hint=FEWER)
