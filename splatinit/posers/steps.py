"""Finished steps of a structure from motion, kept in a run's folder, so that one that was killed goes on after them.

    work/  steps.json   the key of photos and settings, and each finished step with size and hash of its files
           images/ masks/        what was exported
           features.db | matches.db | verified.db      COLMAP's database after its newest finished step
           try1/0/*.bin ...      the mapper's models of each focal prior

COLMAP itself writes into a scratch folder of the system only: its database needs a local disk, and one that was left
half written there is never looked at again.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import FormatError, OutputError, SceneError
from ..io.atomic import atomic_path, write_json
from ..io.locks import hold
from ..io.runs import broken, read_json, seal

_SPARSE = 64 * 2**20  # bytes; less is likely what COLMAP failed of
_SCRATCH = "splatinit-"  # how the names of our scratch folders begin


@contextmanager
def work_place(work_dir: Path | None, key: str) -> Iterator[Steps]:
    """Where to work: ``work_dir/work`` keeps the finished steps until the block ends well (None keeps nothing).

    Whatever else ends the block leaves them for the next call with the same ``key``, but for a SceneError: such
    photos fail again. Raises FolderInUse when another process works there.
    """
    scratch = Path(tempfile.gettempdir()) / f"{_SCRATCH}{secrets.token_hex(8)}"
    if work_dir is None:
        with _made(scratch):
            yield Steps(None, key, scratch)
        return
    kept = _folder(work_dir)
    with hold(kept):
        steps = Steps(kept, key, scratch)  # which records the place before it is made, so that no kill can lose it
        try:
            with _made(scratch):
                yield steps
        except SceneError:
            shutil.rmtree(kept, ignore_errors=True)
            with suppress(OSError):
                work_dir.rmdir()  # if it was made for this alone
            raise
        shutil.rmtree(kept, ignore_errors=True)  # after the scratch folder


def forget_steps(work_dir: Path) -> None:
    """Remove what a process that was killed after its last step could not remove."""
    shutil.rmtree(_folder(work_dir), ignore_errors=True)


def _folder(work_dir: Path) -> Path:
    return work_dir / "work"


@contextmanager
def _made(scratch: Path) -> Iterator[None]:
    """The folder, removed at the end; only this user can look into it."""
    scratch.mkdir(mode=0o700)
    try:
        yield
    except RuntimeError as error:
        # COLMAP's database says that it failed, and not why.
        if shutil.disk_usage(scratch).free > _SPARSE:
            raise
        raise _no_room(scratch, f"failed: {str(error).strip()}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _no_room(scratch: Path, what: str) -> OutputError:
    free = shutil.disk_usage(scratch).free / 2**20
    return OutputError(
        f"Structure from motion {what}; {free:.0f} MB are free for temporary files in {scratch.parent}.",
        hint="Free some space there, or name a folder on another disk in TMPDIR, then give the same command again: "
        "every finished step is kept.",
        path=scratch.parent,
    )


class Steps:
    """The steps of one structure from motion that are finished. Make it with :func:`work_place`.

    Attributes:
        scratch: a folder of this process.      folder: where files that a step leaves belong.
    """

    def __init__(self, kept: Path | None, key: str, scratch: Path) -> None:
        self.scratch = scratch
        self.folder = scratch if kept is None else kept
        self._index = None if kept is None else kept / "steps.json"
        self._done: dict[str, Any] = {}
        self._key = key
        if self._index is None:
            return
        found = self._read()
        if found.get("key") == key and isinstance(found.get("steps"), dict):
            self._done = found["steps"]
        _remove_scratch(found.get("scratch"))
        self._write()

    def need_room(self, size: int) -> None:
        """Raise OutputError unless so many bytes fit beside ``scratch``."""
        if shutil.disk_usage(self.scratch).free < size:
            raise _no_room(self.scratch, f"needs up to {size / 2**20:.0f} MB")

    def done(self, step: str) -> bool:
        """Whether ``step`` was finished and its files are still whole."""
        return step in self._done and broken(self.folder, self._done[step]) is None

    def finish(self, step: str, files: Iterable[Path], instead_of: Sequence[str] = ()) -> None:
        """Record that ``step`` left ``files`` below ``folder``; earlier steps that it stands for are given up."""
        if self._index is None:
            return
        self._done = {name: files for name, files in self._done.items() if name not in instead_of}
        self._done[step] = seal(self.folder, files)
        self._write()

    def keep(self, step: str, file: Path, instead_of: Sequence[str] = ()) -> None:
        """Keep a copy of ``file`` as what ``step`` left."""
        if self._index is None:
            return
        copy = self._copy(step, file)
        with atomic_path(copy) as temporary:
            shutil.copyfile(file, temporary)
        self.finish(step, [copy], instead_of)
        for earlier in instead_of:
            self._copy(earlier, file).unlink(missing_ok=True)

    def restore(self, step: str, file: Path) -> bool:
        """Put what :meth:`keep` kept at ``file``; False where there is nothing whole."""
        if not self.done(step):
            return False
        shutil.copyfile(self._copy(step, file), file)
        return True

    def _copy(self, step: str, file: Path) -> Path:
        return self.folder / f"{step}{file.suffix}"

    def _read(self) -> dict[str, Any]:
        try:
            found = read_json(self._index)
        except (FormatError, FileNotFoundError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self) -> None:
        write_json(self._index, {"key": self._key, "scratch": str(self.scratch), "steps": self._done})


def _remove_scratch(path: Any) -> None:
    """Remove the scratch folder of a process that was killed; only what has a name and place as ours."""
    if not isinstance(path, str) or not Path(path).name.startswith(_SCRATCH) or Path(path).is_symlink():
        return
    if Path(path).parent == Path(tempfile.gettempdir()):
        shutil.rmtree(path, ignore_errors=True)
