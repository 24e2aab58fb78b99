"""A device that is none: its tensors hold real numbers on the host, and say that they are elsewhere ("meta").

Inside :class:`Pretend`, what would be wrong on a CUDA device is an error here: an operation on tensors of two devices.
What would make the host wait for a device is noted, and an error while :attr:`Pretend.strict` is set: reading a number,
what has a size that depends on numbers (nonzero, a mask as an index), a copy from or to ordinary host memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from splatinit import device as devices
from splatinit.device import DeviceMemory, Parcel
from splatinit.steps import AutogradStep
from splatinit.types import Gaussians, RasterAux, Render

DEVICE = torch.device("meta")
# Their results have a size, or are a number of the host, that depends on the numbers on the device.
_READS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}


class There(torch.Tensor):
    """A tensor of the pretended device over ``raw``, a tensor of the host."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> There:
        layout = {"strides": raw.stride(), "storage_offset": raw.storage_offset()}
        tensor = torch.Tensor._make_wrapper_subclass(cls, raw.shape, dtype=raw.dtype, device=DEVICE, **layout)
        tensor.raw = raw
        return tensor

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), named=None):
        # Where no Pretend is active: in another thread, which may wait.
        return _compute(operation, arguments, named or {}, lambda what: None)


def _compute(operation, arguments, named, note: Callable[[str], None]):
    """Do ``operation`` on the host, for tensors that say to be elsewhere; ``note`` hears of what would wait."""
    name = operation.overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((arguments, named)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    here = [tensor for tensor in tensors if not isinstance(tensor, There)]
    goes = named.get("device")
    if name in ("_to_copy", "copy_"):
        crosses = (there and here) or (goes is not None and (torch.device(goes) == DEVICE) != bool(there))
        asks = named.get("non_blocking") or (name == "copy_" and len(arguments) > 2 and arguments[2])
        if crosses and not (asks and all(getattr(tensor, "page_locked", False) for tensor in here)):
            note(f"{name} of {list(tensors[0].shape)}")
    elif there and any(tensor.ndim for tensor in here):
        raise RuntimeError(f"{name}: tensors of {DEVICE} and of the host, {[list(t.shape) for t in here]}")
    masks = name.startswith("index") and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:])
    if there and (name in _READS or masks):
        note(name)
    raw, raw_named = tree_map(lambda leaf: leaf.raw if isinstance(leaf, There) else leaf, (arguments, named))
    if goes is not None:
        raw_named["device"] = torch.device("cpu")
    result = operation(*raw, **raw_named)
    if name == "copy_":
        return arguments[0]
    ends_there = torch.device(goes) == DEVICE if goes is not None else bool(there)
    if not ends_there:
        return result
    known = {id(tensor.raw): tensor for tensor in there}  # in place: the same tensor again

    def placed(leaf):
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return known[id(leaf)] if id(leaf) in known else There(leaf)

    return tree_map(placed, result)


class Waits(Exception):
    """The host would wait for the device."""


class Pretend(TorchDispatchMode):
    """A context in which :data:`DEVICE` can be computed on.

    Attributes:
        strict: raise :class:`Waits` where the host would wait.
        waits: operations that would have made it wait.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch would import its compiler first

    def __init__(self) -> None:
        super().__init__()
        self.strict = False
        self.waits: list[str] = []

    @contextmanager
    def waiting_allowed(self) -> Iterator[None]:
        before, self.strict = self.strict, False
        try:
            yield
        finally:
            self.strict = before

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        return _compute(operation, arguments, named or {}, self._note)

    def _note(self, what: str) -> None:
        self.waits.append(what)
        if self.strict:
            raise Waits(what)


# ------------------------------------------------------------------------------- in place of what splatinit.device has
class Lane:
    """Sends in another thread, as the true one does, where no Pretend is active."""

    def __init__(self, device: torch.device) -> None:
        assert device == DEVICE

    def send(self, arrays) -> Parcel:
        return Parcel([None if array is None else There(torch.from_numpy(np.array(array))) for array in arrays], None)


class Mark:
    """Passed when it is waited for, or ``Mark.lag`` marks later."""

    lag = 2
    made: list[Mark]
    waited: list[int]

    def __init__(self, device: torch.device) -> None:
        self.number = len(Mark.made)
        Mark.made.append(self)

    def passed(self) -> bool:
        return len(Mark.made) > self.number + Mark.lag

    def wait(self) -> None:
        if not self.passed():
            Mark.waited.append(self.number)


def page_locked(shape, dtype) -> torch.Tensor:
    tensor = torch.empty(tuple(shape), dtype=dtype)
    tensor.page_locked = True
    return tensor


def take_place(monkeypatch, memory: DeviceMemory) -> None:
    """Have splatinit take :data:`DEVICE` for a CUDA device with this ``memory``."""
    Mark.made, Mark.waited = [], []
    for name, value in (("Lane", Lane), ("Mark", Mark), ("page_locked", page_locked)):
        monkeypatch.setattr(devices, name, value)
    monkeypatch.setattr(devices, "device_memory", lambda device: memory)
    monkeypatch.setattr(devices, "synchronize", lambda device: None)


# --------------------------------------------------------------------------------------------- drawing and stepping
class Rasterizer:
    """``inner``, which draws on the host, as one of the pretended device."""

    name = "pretend"
    device = DEVICE

    def __init__(self, inner=None) -> None:
        self.inner = inner or tiny.rasterizer()

    def render(self, gaussians: Gaussians, camera, *, background=None, **how) -> Render:
        assert background is None or background.device.type == "cpu"
        call = {"render": lambda model: self.inner.render(model, camera, background=background, **how)}
        aux = RasterAux(*[None] * 4)
        rgb, alpha, depth = _Draw.apply(*gaussians.tensors().values(), call, aux)
        return Render(rgb=rgb, alpha=alpha, depth=depth, aux=aux)


def _place(aux: RasterAux, inner: RasterAux) -> None:
    for name, value in vars(inner).items():
        setattr(aux, name, None if value is None else There(value.detach()))


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *inputs):
        *tensors, call, aux = inputs
        ctx.leaves = [tensor.raw.detach().clone().requires_grad_(True) for tensor in tensors]
        with torch.enable_grad():
            ctx.drawn = call["render"](Gaussians(*ctx.leaves))
        ctx.aux = aux
        _place(aux, ctx.drawn.aux)
        images = (ctx.drawn.rgb, ctx.drawn.alpha, ctx.drawn.depth)
        return tuple(None if image is None else There(image.detach()) for image in images)

    @staticmethod
    def backward(ctx, *cotangents):
        images = (ctx.drawn.rgb, ctx.drawn.alpha, ctx.drawn.depth)
        pairs = [(i, v.raw) for i, v in zip(images, cotangents, strict=True) if i is not None and v is not None]
        with torch.enable_grad():
            gradients = torch.autograd.grad([i for i, _ in pairs], ctx.leaves, [v for _, v in pairs])
        _place(ctx.aux, ctx.drawn.aux)
        return (*map(There, gradients), None, None)


def step_with(pretend: Pretend) -> type[AutogradStep]:
    """The step in plain torch, which is for oracles: what it waits for is not looked at."""

    class Step(AutogradStep):
        def loss(self, task):
            with pretend.waiting_allowed():
                return super().loss(task)

        def update(self):
            with pretend.waiting_allowed():
                return super().update()

    return Step
