"""Memory that the libraries read and write: tensors, checked, and recycled."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ShapeError

if TYPE_CHECKING:
    import torch


def pointer(name: str, tensor: torch.Tensor, shape: tuple[int, ...], device: torch.device | None = None) -> int:
    """Address of a contiguous float32 tensor of exactly ``shape`` on ``device`` (None: the CPU). Raises ShapeError
    otherwise."""
    check_tensor(name, tensor, shape, device)
    return address(tensor)


def check_tensor(name: str, tensor: torch.Tensor, shape: tuple[int, ...], device: torch.device | None = None) -> None:
    """Raise ShapeError unless the tensor is float32, contiguous, of ``shape`` and on ``device`` (None: the CPU)."""
    import torch

    here = tensor.device.type == "cpu" if device is None else tensor.device == device
    if tensor.dtype != torch.float32 or not here or tuple(tensor.shape) != shape or not tensor.is_contiguous():
        layout = "" if tensor.is_contiguous() else ", not contiguous"
        raise ShapeError(
            f"{name} must be {list(shape)} float32 on {device or 'cpu'}, contiguous; got {list(tensor.shape)} "
            f"{str(tensor.dtype).removeprefix('torch.')} on {tensor.device}{layout}."
        )


def numbers(name: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> list[float]:
    """The numbers of a small float32 tensor of one or two dimensions, row by row, for an argument passed by value.

    Those of a tensor on a GPU are waited for. Raises ShapeError unless it is contiguous and exactly of ``shape``.
    """
    check_tensor(name, tensor, shape, tensor.device)
    rows = tensor.tolist()
    return rows if len(shape) == 1 else [number for row in rows for number in row]


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
