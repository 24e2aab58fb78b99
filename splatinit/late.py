"""The losses of a training, read without waiting for the device that computes them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import device as devices

if TYPE_CHECKING:
    import torch

# Steps by which the host may be ahead of the device. It needs a step to be ready with the next one before the device
# is; what is more evens out steps that the host takes longer over. And a clock that is read on the host is wrong by no
# more than so many steps.
AHEAD = 4


@dataclass(frozen=True)
class Loss:
    """``value`` of the loss of update number ``step``, at the view called ``view``."""

    step: int
    view: str
    value: float


class LateLosses:
    """Losses on their way to the host, oldest first; of more than ``AHEAD``, the oldest is waited for.

    A loss on the host is read at once.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._waiting: deque[tuple[int, str, torch.Tensor, devices.Mark]] = deque()

    def put(self, step: int, view: str, loss: torch.Tensor | float) -> list[Loss]:
        """Take the loss of a step, 0-dim or a number. Returns what is there by now."""
        if isinstance(loss, float) or loss.device.type == "cpu":
            return [*self.rest(), Loss(step, view, loss if isinstance(loss, float) else loss.item())]
        host = devices.page_locked((), loss.dtype)
        host.copy_(loss.detach(), non_blocking=True)
        self._waiting.append((step, view, host, devices.Mark(self._device)))
        there = []
        while self._waiting and (len(self._waiting) > AHEAD or self._waiting[0][3].passed()):
            there.append(self._first())
        return there

    def rest(self) -> list[Loss]:
        """All that have not been returned yet; waits for them."""
        there = []
        while self._waiting:
            there.append(self._first())
        return there

    def _first(self) -> Loss:
        step, view, host, mark = self._waiting.popleft()
        mark.wait()
        return Loss(step, view, float(host))
