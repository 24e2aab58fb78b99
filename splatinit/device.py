"""What the host asks of the device that a rasterizer draws on: to wait for it, its memory, and ways that do not wait.

A CUDA device works behind the host. A copy between its memory and ordinary host memory makes the host wait until all
that it has been given is done; one from or to page-locked memory does not, and the device makes it by itself. The host
("cpu") is a device that is always done. Nothing here starts CUDA for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .types import Gaussians

if TYPE_CHECKING:
    import torch

    from .raster.base import Rasterizer


def device_of(rasterizer: Rasterizer) -> torch.device:
    """Where the tensors lie that ``rasterizer`` draws; the host, for one that does not say."""
    import torch

    return torch.device(getattr(rasterizer, "device", "cpu"))


def moved(gaussians: Gaussians, device: torch.device) -> Gaussians:
    """``gaussians`` on ``device``; the same tensors where they are there."""
    return gaussians.map(lambda tensor: tensor.to(device))


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done all that it was given."""
    if device.type != "cpu":
        import torch

        torch.cuda.synchronize(device)


# --------------------------------------------------------------------------------------------------------------- memory
@dataclass(frozen=True)
class DeviceMemory:
    """Bytes of a device's memory.

    Attributes:
        name: of the device, as its maker calls it.        total: what it has.
        free: what this process can still take: what nobody has, and what torch keeps for its next tensors.
        taken: by this process's tensors.
    """

    name: str
    total: int
    free: int
    taken: int


def device_memory(device: torch.device) -> DeviceMemory:
    """As it is now. Raises RuntimeError where there is no such device."""
    import torch

    free, total = torch.cuda.mem_get_info(device)
    taken = torch.cuda.memory_allocated(device)
    spare = torch.cuda.memory_reserved(device) - taken
    return DeviceMemory(torch.cuda.get_device_name(device), total, free + spare, taken)


def give_back(device: torch.device) -> None:
    """Give what torch keeps for its next tensors back to the device: pieces of it may be too small for what is next."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()


# ------------------------------------------------------------------------------------------------------ to the device
def page_locked(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A new host tensor that a device copies from or to by itself. Freeing it while it does so is safe: torch gives the
    memory to nobody else before the copy is done."""
    import torch

    return torch.empty(tuple(shape), dtype=dtype, pin_memory=True)


def sent(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of ``array`` on ``device`` for what is next given to it; the host does not wait. On the host, the array
    itself."""
    import torch

    there = torch.from_numpy(array)
    if device.type == "cpu":
        return there
    return page_locked(there.shape, there.dtype).copy_(there).to(device, non_blocking=True)


class Parcel:
    """Tensors on their way to a device (see :class:`Lane`)."""

    def __init__(self, tensors: list[torch.Tensor | None], arrived: torch.cuda.Event | None) -> None:
        self._tensors, self._arrived = tensors, arrived

    def open(self) -> list[torch.Tensor | None]:
        """The tensors, for what is next given to the device in this thread; the host does not wait. Once only."""
        if self._arrived is not None:
            import torch

            here = next(tensor.device for tensor in self._tensors if tensor is not None)
            stream = torch.cuda.current_stream(here)
            stream.wait_event(self._arrived)
            for tensor in self._tensors:
                if tensor is not None:
                    tensor.record_stream(stream)  # or its memory would go to the next parcel while it is still read
        return self._tensors


class Lane:
    """A way for arrays to a CUDA device beside its other work: a stream of its own, for a thread of its own."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._device = device
        self._stream = torch.cuda.Stream(device)

    def send(self, arrays: Sequence[np.ndarray | None]) -> Parcel:
        """Copies on their way, at least one; the arrays are free at once."""
        import torch

        with torch.cuda.stream(self._stream):
            tensors = [None if array is None else sent(array, self._device) for array in arrays]
            arrived = torch.cuda.Event()
            arrived.record(self._stream)
        return Parcel(tensors, arrived)


# ---------------------------------------------------------------------------------------------------- from the device
class Mark:
    """A point in the work that a CUDA device was given until now."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(device))

    def passed(self) -> bool:
        return self._event.query()

    def wait(self) -> None:
        self._event.synchronize()
