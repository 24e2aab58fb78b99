"""What a poser found, shared by runs of the same photos: computed by the first of them, copied by the others."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..io.atomic import atomic_path, write_json
from ..io.locks import hold_when_free
from ..io.text import read_json
from .base import kept_files

_COST = "cost.json"  # what computing it took


def fill(shared: Path, pose: Callable[[Path], Any]) -> None:
    """Have the poser's result in ``shared``; ``pose`` and errors as :func:`shared_result` has them."""
    with hold_when_free(shared):
        _compute(shared, pose)


def shared_result(shared: Path, work_dir: Path, pose: Callable[[Path], Any]) -> float:
    """Have the poser's result in ``shared`` and a copy of it in ``work_dir``; the seconds that it took to compute.

    Args:
        shared: folder of the runs in common. One process at a time works in it, others wait: what they would compute
            meanwhile is the same.
        pose: runs the poser with the folder as its ``work_dir``. It recognises by itself whether what is there belongs
            to these photos and settings, so that a folder that was filled for others is only filled anew.

    Raises what ``pose`` raises; OutputError where a folder cannot be written.
    """
    with hold_when_free(shared):
        _compute(shared, pose)
        *model, index = kept_files(shared)
        *copies, copied_index = kept_files(work_dir)
        copied_index.unlink(missing_ok=True)  # until all is copied, the folder answers to no key
        for source, copy in zip([*model, index], [*copies, copied_index], strict=True):
            with atomic_path(copy) as temporary:
                shutil.copyfile(source, temporary)
        return _seconds(shared / _COST)


def _compute(shared: Path, pose: Callable[[Path], Any]) -> None:
    *_, index = kept_files(shared)
    before, began = _content(index), time.perf_counter()
    pose(shared)
    if _content(index) != before:
        write_json(shared / _COST, {"seconds": time.perf_counter() - began})


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _seconds(cost: Path) -> float:
    """What the file says; 0 where the process that computed the poses was killed before it could tell."""
    try:
        return float(read_json(cost)["seconds"])
    except (FormatError, KeyError, TypeError, ValueError):
        return 0.0
