"""Memory that the library reads and writes: tensors, checked, and recycled."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ShapeError

if TYPE_CHECKING:
    import torch


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
