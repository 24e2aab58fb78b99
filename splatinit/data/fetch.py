"""From the name of a public scene to its folder, and from a folder to whether it is whole."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataMissing, FormatError
from ..io.atomic import write_json, write_text
from ..io.images import list_images
from ..io.locks import hold
from ..io.runs import broken, seal
from ..progress import Progress, Silent
from .archives import unpack
from .benchmarks import Archive, BenchmarkScene, benchmarks, find_scenes
from .download import download, matches

ARCHIVES = ".archives"  # of the data folder: what was downloaded, or put there by hand
_UNPACKING = ".unpacking-"
# InstantSplat's protocol (arXiv:2403.20309 and its code): of so many photos, so many are test views.
SPARSE_PHOTOS, SPARSE_TEST = 24, 12


@dataclass(frozen=True)
class SceneState:
    """What became of one scene on this machine.

    Attributes:
        state: "absent"; "whole": every file is as it was unpacked; "counted": put there by hand, and as many photos as
            there should be; "damaged".
        detail: what is wrong, or how much was looked at.
    """

    scene: BenchmarkScene
    folder: Path
    state: Literal["absent", "whole", "counted", "damaged"]
    detail: str


def fetch(
    scenes: Sequence[BenchmarkScene], root: Path, *, keep: bool = False, progress: Progress = Silent()
) -> list[Path]:
    """Have ``scenes`` as folders ``root/benchmark/name``; returns the folders.

    What is there is left alone (:func:`verify` looks at it). Archives are deleted once their scenes are unpacked,
    unless ``keep``. A scene's folder appears whole or not at all.

    Raises:
        DataMissing: an archive cannot be had; the hint says what to put where.
        FormatError: an archive is damaged, or is not what it should be.
        FolderInUse, OutputError: ``root`` cannot be written to.
    """
    root = Path(root)
    with hold(root) as notes:
        for text in notes:
            progress.note(text)
        for left in root.glob(f"{_UNPACKING}*"):  # of a process that was killed: nobody else works here now
            shutil.rmtree(left)
        made_from = find_scenes([scene.of for scene in scenes if scene.of]) if any(s.of for s in scenes) else []
        missing = [s for s in dict.fromkeys([*made_from, *scenes]) if not folder_of(s, root).exists()]
        for archive in dict.fromkeys(scene.archive for scene in missing if scene.archive):
            mine = [scene for scene in missing if scene.archive == archive]
            _from_archive(archive, mine, root, keep, progress)
        for scene in missing:
            if scene.of:
                _make_sparse(scene, root)
        return [folder_of(scene, root) for scene in scenes]


def verify(scene: BenchmarkScene, root: Path) -> SceneState:
    """Whether the scene's folder below ``root`` is as it should be."""
    folder = folder_of(scene, root)
    if not folder.is_dir():
        return SceneState(scene, folder, "absent", "not fetched")
    for name, count in scene.photos.items():
        found = len(list_images(folder / name)) if (folder / name).is_dir() else 0
        if found != count:
            return SceneState(scene, folder, "damaged", f"{found} photos in {name}, expected {count}")
    counted = ", ".join(f"{count} photos in {name}" for name, count in scene.photos.items())
    manifest = _manifest(scene, root)
    if not manifest.is_file():
        return SceneState(scene, folder, "counted", f"{counted}; put there by hand, so its files were not compared")
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError, TypeError):
        return SceneState(scene, folder, "damaged", f"{manifest} is not what splatinit wrote")
    damage = broken(folder, files)
    if damage is not None:
        return SceneState(scene, folder, "damaged", damage)
    return SceneState(scene, folder, "whole", f"{counted}; {len(files)} files as they were unpacked")


def folder_of(scene: BenchmarkScene, root: Path) -> Path:
    return Path(root) / scene.benchmark / scene.name


def _manifest(scene: BenchmarkScene, root: Path) -> Path:
    """Size and SHA-256 of the scene's files, beside its folder: in it, a reader might take it for the scene's."""
    return Path(root) / scene.benchmark / f".{scene.name}.json"


def _from_archive(
    archive: Archive, scenes: Sequence[BenchmarkScene], root: Path, keep: bool, progress: Progress
) -> None:
    path = root / ARCHIVES / archive.file
    _have(archive, path, scenes, root, progress)
    temporary = Path(tempfile.mkdtemp(prefix=_UNPACKING, dir=root))
    try:
        folders = {scene.member: temporary / scene.benchmark / scene.name for scene in scenes}
        unpack(path, folders, progress)
        for scene in scenes:
            _take(scene, folders[scene.member], root)
            state = verify(scene, root)
            if state.state != "whole":
                progress.note(f"{scene.key}: {state.detail}.")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if not keep:
        path.unlink()
        with suppress(OSError):  # other archives may lie there
            path.parent.rmdir()


def _take(scene: BenchmarkScene, made: Path, root: Path) -> None:
    """Move a finished folder to its place; its manifest first, which says nothing without the folder."""
    files = [path for path in sorted(made.rglob("*")) if path.is_file()]
    write_json(_manifest(scene, root), {"scene": scene.key, "files": seal(made, files)})
    made.rename(folder_of(scene, root))


def _have(archive: Archive, path: Path, scenes: Sequence[BenchmarkScene], root: Path, progress: Progress) -> None:
    """Have the archive at ``path``: put there by hand, or from the first source that gives it."""
    if path.is_file():
        fitting = [source for source in archive.sources if matches(source, path)]
        if not fitting:
            wanted = " or ".join(f"{source.bytes} bytes, SHA-256 {source.sha256}" for source in archive.sources)
            raise FormatError(
                f"{path} is not the {archive.file} that the registry knows; expected {wanted}.",
                hint="Delete it, and it is fetched; or put the right file in its place.",
                path=path,
            )
        verified = any(source.sha256 for source in fitting)
    else:
        verified = _fetched(archive, path, scenes, root, progress)
    if not verified:
        progress.note(f"No checksum of {archive.file} is known: it was not verified, beyond what unpacking checks.")


def _fetched(archive: Archive, path: Path, scenes: Sequence[BenchmarkScene], root: Path, progress: Progress) -> bool:
    reasons = []
    for source in archive.sources:
        try:
            download(source, path, progress)
            return source.sha256 is not None
        except DataMissing as error:
            reasons.append(error.message)
            progress.note(error.message)
    home = benchmarks()[scenes[0].benchmark].home
    places = ", ".join(str(folder_of(scene, root)) for scene in scenes[:3]) + (", …" if len(scenes) > 3 else "")
    size = f" ({archive.gigabytes:g} GB)" if archive.gigabytes else ""
    raise DataMissing(
        f"{archive.file} cannot be had: {' '.join(reasons)}",
        hint=f"On a machine with network, get {archive.file}{size} from {home}, put it at {path} and give the same "
        f"command again. Or put the folders {', '.join(str(s.member) for s in scenes[:3])} of it at {places} yourself.",
        archive=archive.file,
    )


def _make_sparse(scene: BenchmarkScene, root: Path) -> None:
    """A scene of few training views, from one of many: its photos, their cameras and the split, but no points."""
    (whole,) = find_scenes([str(scene.of)])
    source = folder_of(whole, root)
    photos = list_images(source / "images")
    model = source / "sparse" / "0"
    if len(photos) < SPARSE_PHOTOS or not all((model / f"{part}.bin").is_file() for part in ("cameras", "images")):
        raise FormatError(
            f"{source}: {len(photos)} photos, and no sparse/0/cameras.bin and images.bin or not enough of them; "
            f"expected at least {SPARSE_PHOTOS} photos with their COLMAP model to make {scene.key} from.",
            hint=f"Delete the folder and fetch {whole.key} again.",
            path=source,
        )
    train, test = sparse_split(len(photos), int(scene.train or 0))
    temporary = Path(tempfile.mkdtemp(prefix=_UNPACKING, dir=root))
    try:
        made = temporary / scene.name
        for folder in ("images", "sparse/0"):
            (made / folder).mkdir(parents=True)
        for part in ("cameras.bin", "images.bin"):
            shutil.copyfile(model / part, made / "sparse" / "0" / part)
        for name, chosen in (("train", train), ("test", test)):
            for number in chosen:
                shutil.copyfile(photos[number], made / "images" / photos[number].name)
            write_text(made / f"{name}.txt", "".join(f"{photos[number].name}\n" for number in chosen))
        (root / scene.benchmark).mkdir(exist_ok=True)
        _take(scene, made, root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sparse_split(count: int, train: int) -> tuple[list[int], list[int]]:
    """Which of ``count`` sorted photos InstantSplat's protocol trains on, and which it tests on.

    24 photos, evenly spread, first and last among them; of these 12 test views, evenly from the second to the last but
    one; of the other 12 as many to train on as asked for, evenly spread.
    """
    chosen = np.linspace(0, count - 1, SPARSE_PHOTOS).astype(int)
    test = np.linspace(1, SPARSE_PHOTOS - 2, SPARSE_TEST).astype(int)
    rest = np.setdiff1d(np.arange(SPARSE_PHOTOS), test)
    few = rest[np.linspace(0, len(rest) - 1, train).astype(int)]
    return chosen[few].tolist(), chosen[test].tolist()
