"""Checkpoints of a training: one safetensors file each, complete or not there, checked when read. No pickle."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FormatError, OutputError
from .atomic import atomic_path, remove_leftovers

if TYPE_CHECKING:
    import torch

KEEP = 2  # files: the newest, and the one before it in case the newest is damaged
_NAME = re.compile(r"step_(\d+)\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """The state after ``step`` updates: tensors by name and JSON-able metadata."""

    step: int
    tensors: dict[str, torch.Tensor]
    meta: dict[str, Any]
    path: Path


@dataclass(frozen=True)
class Latest:
    """The newest readable checkpoint, or None, and a note for every newer one that could not be read."""

    checkpoint: Checkpoint | None
    notes: tuple[str, ...] = field(default=())


def save_checkpoint(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> Path:
    """Write ``folder/step_XXXXXXXX.safetensors`` and remove all but the newest two checkpoints.

    The metadata and a sha256 over tensors and metadata stand in the header of the file. A crash leaves the earlier
    checkpoints as they were; what a killed writer left half done is removed by the next one. Where the disk is full,
    all but the newest give their room.

    Raises OutputError when it cannot be written all the same; the newest one of before is then as it was.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(dict(meta), allow_nan=False)
    header = {"meta": text, "sha256": digest(tensors, text)}
    folder = Path(folder)
    path = folder / f"step_{step:08d}.safetensors"
    try:
        _write(path, tensors, header)
    except OutputError as error:
        spare = _newest_first(folder)[1:]
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not spare:
            raise
        for old in spare:
            old.unlink(missing_ok=True)
        _write(path, tensors, header)
    for old in _newest_first(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    remove_leftovers(folder.glob(".step_*.safetensors"))
    return path


def _write(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=header)
        except SafetensorError as error:  # what the system said stands in its text alone
            number = re.search(r"(?:os error|code:) (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(temporary)) from error


def load_latest(folder: Path) -> Latest:
    """The newest checkpoint of ``folder`` that is whole; damaged ones are passed over with a note."""
    notes = []
    for path in _newest_first(Path(folder)):
        try:
            return Latest(load_checkpoint(path), tuple(notes))
        except FormatError as error:
            notes.append(f"{error.message} It is passed over.")
    return Latest(None, tuple(notes))


def steps_in(folder: Path) -> dict[int, Path]:
    """The checkpoints of ``folder`` by their steps, whole or not."""
    return {int(_NAME.fullmatch(path.name).group(1)): path for path in _newest_first(Path(folder))}


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check one file. Raises FormatError when it is truncated, damaged or no checkpoint of ours."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        meta = json.loads(header["meta"])
        step = int(_NAME.fullmatch(path.name).group(1))
        expected = header["sha256"]
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: not a readable checkpoint ({error}).", path=path) from error
    got = digest(tensors, header["meta"])
    if got != expected:
        raise FormatError(f"{path}: damaged, sha256 {got[:12]}… instead of {expected[:12]}….", path=path)
    return Checkpoint(step=step, tensors=tensors, meta=meta, path=path)


def digest(tensors: Mapping[str, torch.Tensor], text: str = "") -> str:
    """sha256 over names, dtypes, shapes and bytes of CPU tensors (in the order of their names), and ``text``."""
    import torch

    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        sha.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step_*.safetensors") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(_NAME.fullmatch(path.name).group(1)), reverse=True)
