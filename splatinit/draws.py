"""Random draws that follow from (seed, purpose, index) alone: a resumed run has no random state to carry along."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def hash64(seed: int, purpose: str, index: int) -> int:
    """64 well-mixed bits for one draw of a run."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest(), "little")


def seeded(random: torch.Generator, seed: int, purpose: str, index: int) -> torch.Generator:
    """``random``, seeded for one draw of a run."""
    return random.manual_seed(hash64(seed, purpose, index))
