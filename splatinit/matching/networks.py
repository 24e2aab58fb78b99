"""What the learned matchers share: their device, what they say about their speed, and how their weights are loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ..errors import WeightsMissing
from ..progress import Progress

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def device() -> torch.device:
    """A CUDA device where there is one, else the processor."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Pace:
    """Warns, once, about the time that a network takes on a processor: when it begins, and with the first pair's time.

    Args:
        matcher: its name.
        on_cpu: whether the network runs on the processor; if not, nothing is said.
    """

    def __init__(self, matcher: str, on_cpu: bool, progress: Progress) -> None:
        self._matcher, self._progress, self._quiet = matcher, progress, not on_cpu

    @contextmanager
    def pair(self) -> Iterator[None]:
        """Around the work for one pair of photos."""
        if self._quiet:
            yield
            return
        self._quiet = True
        self._progress.note(
            f"The matcher '{self._matcher}' is a network and runs on the processor: expect it to take long. "
            "'planesweep' needs no network."
        )
        began = time.perf_counter()
        yield
        seconds = time.perf_counter() - began
        self._progress.note(f"The first pair took '{self._matcher}' {seconds:.1f} s; each other takes about as long.")


def load_network(matcher: str, load: Callable[[], T], hint: str) -> T:
    """What ``load`` returns. It may fetch weights, and leaves torch's random numbers as they were.

    Raises:
        WeightsMissing: the weights are not on this machine and could not be fetched, or are not what was expected;
            ``hint`` says what to do.
    """
    import pickle
    from http.client import HTTPException

    import torch

    # Networks are first filled with random numbers; the program's own must not depend on that.
    with torch.random.fork_rng(devices=[]):
        try:
            return load()
        # URLError is an OSError, and so is a file that is not there; torch raises RuntimeError for other weights.
        except (OSError, EOFError, HTTPException, RuntimeError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise WeightsMissing(
                f"The matcher '{matcher}' cannot load its weights: {reason}", hint=hint, matcher=matcher
            ) from error
