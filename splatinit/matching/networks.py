"""What the learned matchers share: their device, what they keep of a photo, and how their weights are loaded."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import WeightsMissing
from .base import MatchView

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
# Of what is made of photos: of 90 by XFeat at 960 px, of 6 by LoFTR at 640 px. A reference has few neighbours, and
# references follow each other as the photos were taken.
KEPT_BYTES = 256 * 2**20


def device() -> torch.device:
    """A CUDA device where there is one, else the processor."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class PerPhoto(Generic[T]):
    """What a network makes of a photo by itself, so that it is made once and not for every pair that the photo is in.

    Kept for the photos used last. A photo is known by its object: to tell it by its pixels would mean to read them all.

    Args:
        make: photo → what is kept.
        size: bytes of that.
        most: bytes that are kept at one time; one photo's are, however many.
    """

    def __init__(self, make: Callable[[MatchView], T], size: Callable[[T], int], most: int = KEPT_BYTES) -> None:
        self._make, self._size, self._most = make, size, most
        # By the photo's id; the reference tells whether it is still the same object that has it.
        self._kept: OrderedDict[int, tuple[weakref.ref[MatchView], T]] = OrderedDict()
        self._bytes = 0

    def __call__(self, view: MatchView) -> T:
        key = id(view)
        if key in self._kept:
            photo, made = self._kept.pop(key)
            if photo() is view:
                self._kept[key] = photo, made
                return made
            self._bytes -= self._size(made)
        made = self._make(view)
        self._kept[key] = weakref.ref(view), made
        self._bytes += self._size(made)
        while self._bytes > self._most and len(self._kept) > 1:
            self._bytes -= self._size(self._kept.popitem(last=False)[1][1])
        return made


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
