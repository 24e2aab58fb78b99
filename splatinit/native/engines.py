"""The two engines behind one interface: which library computes, on which device, and how its errors are told.

Both libraries have the same functions with the same structs, under the names ``splat_cpu_…`` and ``splat_cuda_…``.
Those of splat_cuda also take a device or a stream, and its workspaces ask torch for their memory: what differs is here,
and nobody above asks which engine it is.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_void_p
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from ..errors import BackendError, ConfigError, OutOfMemory, SplatinitError
from .arguments import AdamArg, AuxArg, DeviceArg, FrameInfo, GaussiansArg, GradientsArg, ImageArg, ViewArg
from .loading import DEVICE_ERROR, OK, OUT_OF_MEMORY, ROOM, check_code, declare, library
from .tensors import address, check_tensor, recycled

if TYPE_CHECKING:
    import torch

ALIGNMENT = 256  # bytes, of what splat_cuda is given
OF_MEMORY = (RuntimeError, MemoryError)  # what allocators of tensors raise
_KEPT = 2  # workspaces that wait to be used again: one of training, one of renders in between; more would hold memory
Allocate = CFUNCTYPE(c_void_p, c_void_p, c_int32, c_int64)  # splat_cuda_allocate

_FORWARD = [c_void_p, *map(POINTER, (GaussiansArg, ViewArg, ImageArg, AuxArg, FrameInfo))]
_BACKWARD = [c_void_p, *map(POINTER, (GaussiansArg, ViewArg, ImageArg, GradientsArg, AdamArg))]
_COUNT_PAIRS = [c_void_p, *map(POINTER, (ViewArg, c_int64, c_int64))]
_LOSS = [*[c_void_p] * 4, c_int, c_int, c_float, c_void_p, c_void_p]
_ADAM = [*[c_void_p] * 4, c_int64, *[c_double] * 4, c_int64]
_STREAM = [c_void_p]
declare(
    {
        "splat_cpu_workspace_create": (c_void_p, []),
        "splat_cpu_workspace_destroy": (None, [c_void_p]),
        "splat_cpu_forward": (c_int, _FORWARD),
        "splat_cpu_backward": (c_int, _BACKWARD),
        "splat_cpu_count_pairs": (c_int, _COUNT_PAIRS),
        "splat_cpu_timings": (None, [c_void_p, POINTER(c_double)]),
        "splat_cpu_l1_ssim": (c_int, _LOSS),
        "splat_cpu_adam": (c_int, _ADAM),
        "splat_cuda_device_count": (c_int, []),
        "splat_cuda_device_info": (c_int, [c_int, POINTER(DeviceArg)]),
        "splat_cuda_device_check": (c_int, [c_int]),
        "splat_cuda_version": (c_char_p, []),
        "splat_cuda_last_error": (c_char_p, []),
        "splat_cuda_buffer_name": (c_char_p, [c_int32]),
        "splat_cuda_workspace_create": (c_void_p, [c_int, Allocate, c_void_p]),
        "splat_cuda_workspace_destroy": (None, [c_void_p]),
        "splat_cuda_set_option": (c_int, [c_void_p, c_char_p, c_int]),
        "splat_cuda_forward": (c_int, [*_FORWARD, *_STREAM]),
        "splat_cuda_backward": (c_int, [*_BACKWARD, *_STREAM]),
        "splat_cuda_count_pairs": (c_int, [*_COUNT_PAIRS, *_STREAM]),
        "splat_cuda_timings": (c_int, [c_void_p, POINTER(c_double)]),
        "splat_cuda_l1_ssim": (c_int, [*_LOSS, *_STREAM]),
        "splat_cuda_adam": (c_int, [c_int, *_ADAM, *_STREAM]),
        "splat_cuda_exp2": (c_int, [c_int, c_void_p, c_void_p, c_int64, *_STREAM]),
    }
)


class Engine(ABC):
    """A native library and the device whose memory it reads and writes.

    Attributes:
        name: "cpu" or "cuda".
        library: with typed functions.
        device: of every tensor that it takes and makes.
        emulated: it is splat_cuda, but its "device memory" is that of the host (tests on machines without a GPU).
        loss_dtype: of the three numbers that l1_ssim writes.
        timed: its workspaces know at any time how long their stages took.
    """

    name: str
    prefix: str
    emulated = False
    loss_dtype: torch.dtype
    timed: bool

    def __init__(self, lib: ctypes.CDLL, device: torch.device) -> None:
        self.library = lib
        self.device = device
        self._idle: list[Buffers] = []

    def call(self, name: str, what: str, *arguments: object, buffers: Buffers | None = None, hint: str = ROOM) -> None:
        """Call a function of both libraries by the part of its name that they share.

        Args:
            what: what it does, for messages.
            buffers: of the workspace that it works in.       hint: what helps where memory runs out.

        Raises:
            OutOfMemory, BackendError: it says so.
        """
        code = getattr(self.library, self.prefix + name)(*arguments, *self._queue())
        self.check(code, what, buffers=buffers, hint=hint)

    def check(self, code: int, what: str, *, buffers: Buffers | None = None, hint: str = ROOM) -> None:
        """Turn a return code into the error it stands for."""
        check_code(code, what, hint=hint)

    def empty(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """An uninitialised tensor (float32 if None) on the device."""
        import torch

        return torch.empty(shape, dtype=dtype or torch.float32, device=self.device)

    def recycled(self, shape: tuple[int, ...]) -> torch.Tensor:
        """As :meth:`empty`, for the large ones that come again and again."""
        # torch keeps the memory of a GPU itself.
        return recycled(shape) if self.device.type == "cpu" else self.empty(*shape)

    def pointer(self, name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> int:
        """Address of a contiguous float32 tensor of exactly ``shape`` on the device. Raises ShapeError otherwise."""
        check_tensor(name, tensor, shape, self.device)
        return address(tensor)

    def describe(self) -> str:
        """The device, as messages name it."""
        return str(self.device)

    def stream(self) -> int:
        """The queue that calls are put into; 0 where there is only one."""
        return 0

    def take(self, options: Mapping[str, int]) -> Buffers:
        """Buffers of a workspace: those that waited, where there are some, else new ones."""
        stream = self.stream()
        kept = next((each for each in self._idle if each.stream == stream), None)
        if kept is not None:
            self._idle.remove(kept)
        buffers = kept or self._make(stream)
        try:
            buffers.choose(options)
        except SplatinitError:
            buffers.destroy()
            raise
        return buffers

    def give_back(self, buffers: Buffers) -> None:
        """They are not used any more: kept for the next who takes some, or freed."""
        if len(self._idle) < _KEPT:
            self._idle.append(buffers)
        else:
            buffers.destroy()

    def free_idle(self) -> bool:
        """Free what waits to be used again; False where there was nothing."""
        idle, self._idle = self._idle, []
        for buffers in idle:
            buffers.destroy()
        return bool(idle)

    def adam(self, *arguments: object) -> None:
        """splat_…_adam, without device and stream."""
        self.call("adam", "Adam", *arguments)

    @abstractmethod
    def timings(self, buffers: Buffers, seconds: object) -> None:
        """splat_…_timings."""

    def _queue(self) -> tuple[object, ...]:
        """What every call ends with."""
        return ()

    @abstractmethod
    def _make(self, stream: int) -> Buffers:
        """New ones."""


class Buffers:
    """A workspace of a library, with what it needs to live; whoever has it destroys it or gives it back.

    It has no ``__del__``: where a cycle of references dies, Python finalizes all of it in any order, and a workspace of
    the library would be destroyed that a Workspace of the same cycle then gives back to be used again.

    Attributes:
        handle: of the library.       stream: the only one that it may be used on.
        memory: where its memory comes from, or None where the library has its own.
        allocate: what asks ``memory`` for some, in the name of the library: it must live as long as the handle.
    """

    def __init__(
        self,
        handle: int,
        destroy: Callable[[int], None],
        set_option: Callable[[int, str, int], None],
        stream: int = 0,
        memory: DeviceMemory | None = None,
        allocate: object = None,
    ) -> None:
        self.handle, self.stream, self.memory, self.allocate = handle, stream, memory, allocate
        self._destroy, self._set_option = destroy, set_option
        self._options: dict[str, int] = {}

    def destroy(self) -> None:
        """The end of it; its memory goes with the last reference."""
        self._destroy(self.handle)

    def choose(self, options: Mapping[str, int]) -> None:
        """Have these options, and 0 for all others."""
        for name in {*self._options, *options}:
            value = options.get(name, 0)
            if self._options.get(name, 0) != value:
                self._set_option(self.handle, name, value)
                self._options[name] = value


class CpuEngine(Engine):
    """splat_cpu: keeps its own memory, and is done when a call returns."""

    name, prefix, timed = "cpu", "splat_cpu_", True

    def __init__(self) -> None:
        import torch

        super().__init__(library(), torch.device("cpu"))
        self.loss_dtype = torch.float64

    def timings(self, buffers: Buffers, seconds: object) -> None:
        self.library.splat_cpu_timings(buffers.handle, seconds)

    def _make(self, stream: int) -> Buffers:
        handle = self.library.splat_cpu_workspace_create()
        if not handle:
            raise OutOfMemory("The native engine could not allocate its workspace.")
        return Buffers(handle, self.library.splat_cpu_workspace_destroy, self._set_option)

    @staticmethod
    def _set_option(handle: int, name: str, value: int) -> NoReturn:
        raise ConfigError(f"The CPU engine has no option '{name}'; options are of the CUDA engine.")


@lru_cache(maxsize=1)
def cpu_engine() -> CpuEngine:
    """splat_cpu. Raises NotBuilt where the library is missing."""
    return CpuEngine()


class CudaEngine(Engine):
    """splat_cuda on one device. Calls are put into torch's current stream there, and return before they are done.

    :func:`splatinit.native.cuda_engine` finds the library and makes sure that it can be used.
    """

    name, prefix, timed = "cuda", "splat_cuda_", False

    def __init__(self, lib: ctypes.CDLL, index: int) -> None:
        import torch

        self.index = index
        self.version = lib.splat_cuda_version().decode()
        self.emulated = "emulated" in self.version
        super().__init__(lib, torch.device("cpu") if self.emulated else torch.device("cuda", index))
        self.loss_dtype = torch.float32

    def check(self, code: int, what: str, *, buffers: Buffers | None = None, hint: str = ROOM) -> None:
        failure = None if buffers is None or buffers.memory is None else buffers.memory.take_failure()
        if failure is not None:
            buffer, size, error = failure
            if not isinstance(error, OF_MEMORY):
                raise error
            raise self._out_of_memory(what, hint, self._buffer_name(buffer), size) from error
        if code == DEVICE_ERROR:
            said = (self.library.splat_cuda_last_error() or b"").decode(errors="replace")
            raise BackendError(
                f"{what}: {self.describe()} failed: {said or 'the engine does not say why'}.",
                hint="Start again: after such an error this process cannot use the GPU any more. With "
                "CUDA_LAUNCH_BLOCKING=1 the call that it comes from is the one that fails; --backend cpu does without "
                "a GPU.",
                device=str(self.device),
                cause=said,
            )
        if code == OUT_OF_MEMORY:
            raise self._out_of_memory(what, hint)
        check_code(code, what, hint=hint)

    def _out_of_memory(self, what: str, hint: str, buffer: str = "", size: int = 0) -> OutOfMemory:
        free, total = self.memory()
        wanted = f"; {_mb(size)} MB were wanted for {buffer}" if buffer else ""
        there = f"; {_mb(free)} of {_mb(total)} MB are free" if total else ""
        fits = f", which is room for {100 * free // size} % of it" if total and 0 < free < size else ""
        return OutOfMemory(
            f"{what}: out of memory on {self.describe()}{wanted}{there}{fits}.",
            hint=hint,
            buffer=buffer,
            bytes=size,
            free=free,
            total=total,
        )

    def _buffer_name(self, buffer: int) -> str:
        name = self.library.splat_cuda_buffer_name(buffer)
        return f"buffer {buffer}" if name is None else name.decode(errors="replace")

    def info(self) -> DeviceArg:
        """What the library says of the device; all 0 where it cannot tell (after an error of the device)."""
        found = DeviceArg()
        if self.library.splat_cuda_device_info(self.index, byref(found)) != OK:
            return DeviceArg()
        return found

    def facts(self) -> dict[str, object]:
        """Of the device, as plain values: name, capability, memory_gb, and runs: whether there is code for it."""
        info = self.info()
        return {
            "name": info.name.decode(errors="replace"),
            "capability": f"{info.major}.{info.minor}",
            "memory_gb": round(info.total_bytes / 2**30, 1),
            "runs": self.library.splat_cuda_device_check(self.index) == OK,
        }

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the device. What torch holds but does not use is free."""
        info = self.info()
        free = info.free_bytes
        if not self.emulated and info.total_bytes:
            import torch

            free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return free, info.total_bytes

    def describe(self) -> str:
        name = self.info().name.decode(errors="replace")
        where = f"cuda:{self.index}"
        return f"{where} ({name})" if name else where

    def stream(self) -> int:
        if self.emulated:
            return 0
        import torch

        return torch.cuda.current_stream(self.device).cuda_stream

    def call(self, name: str, what: str, *arguments: object, buffers: Buffers | None = None, hint: str = ROOM) -> None:
        if buffers is not None and buffers.stream != self.stream():
            raise BackendError(
                f"{what}: this workspace was made on another CUDA stream of {self.device}.",
                hint="Use one stream for all of a step; the backward pass of a render runs on that of its forward.",
            )
        super().call(name, what, *arguments, buffers=buffers, hint=hint)

    def adam(self, *arguments: object) -> None:
        self.call("adam", "Adam", self.index, *arguments)

    def timings(self, buffers: Buffers, seconds: object) -> None:
        self.check(self.library.splat_cuda_timings(buffers.handle, seconds), "timings", buffers=buffers)

    def _queue(self) -> tuple[object, ...]:
        return (self.stream() or None,)

    def _make(self, stream: int) -> Buffers:
        memory = DeviceMemory(self.device, self.free_idle)
        allocate = Allocate(memory.give)
        handle = self.library.splat_cuda_workspace_create(self.index, allocate, None)
        if not handle:
            self.check(DEVICE_ERROR, "making a workspace")
        return Buffers(handle, self.library.splat_cuda_workspace_destroy, self._set_option, stream, memory, allocate)

    def _set_option(self, handle: int, name: str, value: int) -> None:
        self.check(self.library.splat_cuda_set_option(handle, name.encode(), value), f"the option '{name}'")


class DeviceMemory:
    """The memory of one workspace of splat_cuda: tensors of torch's allocator, which also has everything else there.

    A buffer that grows gives its old memory back at once: torch hands it out again in the order of the stream, behind
    the work that still uses it.
    """

    def __init__(self, device: torch.device, make_room: Callable[[], bool]) -> None:
        """``make_room``: called once where memory runs out, before it is given up; False where nothing was freed."""
        self._device, self._make_room = device, make_room
        self._tensors: dict[int, torch.Tensor] = {}
        self._failure: tuple[int, int, BaseException] | None = None

    def take_failure(self) -> tuple[int, int, BaseException] | None:
        """(buffer, bytes, what was raised) of the last request that failed, and forget it."""
        failure, self._failure = self._failure, None
        return failure

    def give(self, user: int | None, buffer: int, size: int) -> int | None:
        """splat_cuda_allocate: the address of ``size`` bytes in place of what the buffer had, None where that fails."""
        # An exception cannot cross the library: it is kept for the one who called it. Where memory ran out, the library
        # may ask again for less.
        try:
            self._tensors.pop(buffer, None)
            tensor = self._empty(size)
        except BaseException as error:
            self._failure = buffer, size, error
            return None
        if self._failure is not None and self._failure[0] == buffer and isinstance(self._failure[2], OF_MEMORY):
            self._failure = None
        self._tensors[buffer] = tensor
        return -(-address(tensor) // ALIGNMENT) * ALIGNMENT

    def _empty(self, size: int) -> torch.Tensor:
        import torch

        try:
            return torch.empty(size + ALIGNMENT - 1, dtype=torch.uint8, device=self._device)
        except RuntimeError:
            if not self._make_room():
                raise
        return torch.empty(size + ALIGNMENT - 1, dtype=torch.uint8, device=self._device)


def _mb(size: int) -> str:
    return f"{size / 2**20:,.0f}".replace(",", " ")
