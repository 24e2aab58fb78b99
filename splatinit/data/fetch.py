"""From the name of a public scene to its folder, and from a folder to whether it is whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import DataMissing, FolderInUse, FormatError
from ..io.atomic import told, write_bytes, write_json, write_text
from ..io.colmap_model import read_model
from ..io.images import list_images
from ..io.locks import hold
from ..io.runs import broken, seal
from ..progress import Progress, Silent
from .archives import look_at, unpack
from .benchmarks import VARIABLE, Archive, BenchmarkScene, benchmarks, find_scenes
from .download import download, matches, sha256

ARCHIVES = ".archives"  # of the data folder: what was downloaded, or put there by hand
_UNPACKING = ".unpacking-"
# InstantSplat's protocol (arXiv:2403.20309 and its code): of so many photos, so many are test views.
SPARSE_PHOTOS, SPARSE_TEST = 24, 12
# Its photos come from clips over which the camera turns by 26 to 76 degrees (NoPe-NeRF, arXiv:2212.07388, Table 8), not
# from whole orbits, where three photos would share nothing.
SPARSE_TURN = 45.0


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
    unless ``keep``, or somebody put them there. A scene's folder appears whole or not at all.

    Raises:
        DataMissing: an archive cannot be had; the hint says what to put where.
        FormatError: an archive is damaged, or is not what it should be.
        FolderInUse, OutputError: ``root`` cannot be written to.
    """
    root = Path(root)
    with _held(root) as notes:
        for text in notes:
            progress.note(text)
        for left in root.glob(f"*/{_UNPACKING}*"):  # of a process that was killed: nobody else works here now
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


@contextmanager
def _held(root: Path) -> Iterator[tuple[str, ...]]:
    """The data folder, held by this process."""
    try:
        with hold(root) as notes:
            yield notes
    except FolderInUse as error:
        raise FolderInUse(
            error.message.replace("Output folder", "Data folder"),
            hint="Wait until it ends and give the same command again: what it has fetched is there then. "
            "Or choose another folder with --to.",
            **error.context,
        ) from error


def verify(scene: BenchmarkScene, root: Path) -> SceneState:
    """Whether the scene's folder below ``root`` is as it should be: as many photos as the registry says, and where
    splatinit unpacked it, every file with the size and SHA-256 that it had then."""
    found = count(scene, root)
    manifest = _manifest(scene, root)
    if found.state != "counted" or not manifest.is_file():
        return found
    try:
        noted = json.loads(manifest.read_text(encoding="utf-8"))
        files, origin = noted["files"], _origin(noted.get("archive"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return SceneState(scene, found.folder, "damaged", f"{manifest} is not what splatinit wrote")
    damage = broken(found.folder, files)
    if damage is not None:
        return SceneState(scene, found.folder, "damaged", damage)
    counted = found.detail.partition(";")[0]
    return SceneState(scene, found.folder, "whole", f"{counted}; {len(files)} files as they were unpacked{origin}")


def count(scene: BenchmarkScene, root: Path) -> SceneState:
    """Whether the scene is there with all its photos: :func:`verify` without reading its files."""
    folder = folder_of(scene, root)
    if not folder.is_dir():
        return SceneState(scene, folder, "absent", "not fetched")
    for name, expected in scene.photos.items():
        found = len(list_images(folder / name)) if (folder / name).is_dir() else 0
        if found != expected:
            return SceneState(scene, folder, "damaged", f"{found} photos in {name}, expected {expected}")
    counted = ", ".join(f"{expected} photos in {name}" for name, expected in scene.photos.items())
    return SceneState(scene, folder, "counted", f"{counted}; put there by hand, so its files were not compared")


def _origin(archive: Mapping[str, Any] | None) -> str:
    """From which archive they are, in words."""
    if not archive:
        return ""
    known = "verified" if archive["verified"] else f"no checksum is published, here it was {archive['sha256']}"
    return f" from {archive['file']} ({known})"


def folder_of(scene: BenchmarkScene, root: Path) -> Path:
    return Path(root) / scene.benchmark / scene.name


def _manifest(scene: BenchmarkScene, root: Path) -> Path:
    """Size and SHA-256 of the scene's files, beside its folder: in it, a reader might take it for the scene's."""
    return Path(root) / scene.benchmark / f".{scene.name}.json"


def _from_archive(
    archive: Archive, scenes: Sequence[BenchmarkScene], root: Path, keep: bool, progress: Progress
) -> None:
    path = root / ARCHIVES / archive.file
    by_hand = path.is_file()
    verified = _checked(archive, path) if by_hand else _fetched(archive, path, scenes, root, progress)
    noted = {"file": archive.file, "bytes": path.stat().st_size, "sha256": sha256(path), "verified": verified}
    if not verified:
        progress.note(
            f"No checksum of {archive.file} is known: it was not verified, beyond what unpacking checks. Its SHA-256 "
            f"is {noted['sha256']}."
        )
        _compare_with_before(noted, scenes, root, progress)
    with _workplaces(scenes, root) as places:
        unpack(path, {str(scene.member): place for scene, place in zip(scenes, places, strict=True)}, progress)
        for scene, place in zip(scenes, places, strict=True):
            _take(scene, place, root, noted)
            state = verify(scene, root)
            if state.state != "whole":
                progress.note(f"{scene.key}: {state.detail}.")
    if by_hand and not keep:
        progress.note(f"{path} was there before, and stays; its scenes do not need it.")
    if by_hand or keep:
        return
    path.unlink()
    with suppress(OSError):  # other archives may lie there
        path.parent.rmdir()
    others = [s.key for b in benchmarks().values() for s in b.scenes if s.archive == archive]
    if any(not folder_of(scene, root).exists() for scene in find_scenes(others)):
        progress.note(f"{archive.file} has further scenes, and is deleted; --keep keeps it.")


@contextmanager
def _workplaces(scenes: Sequence[BenchmarkScene], root: Path) -> Iterator[list[Path]]:
    """A new place for each scene's folder, beside where it will be, so that it can be moved there at once."""
    made: dict[str, Path] = {}
    try:
        for scene in scenes:
            parent = root / scene.benchmark
            with told(parent / scene.name):
                parent.mkdir(parents=True, exist_ok=True)
                if scene.benchmark not in made:
                    made[scene.benchmark] = Path(tempfile.mkdtemp(prefix=_UNPACKING, dir=parent))
        yield [made[scene.benchmark] / scene.name for scene in scenes]
    finally:
        for folder in made.values():
            shutil.rmtree(folder, ignore_errors=True)


def _take(scene: BenchmarkScene, made: Path, root: Path, archive: Mapping[str, Any] | None = None) -> None:
    """Move a finished folder to its place; its manifest first, which says nothing without the folder."""
    files = [path for path in sorted(made.rglob("*")) if path.is_file()]
    manifest = {"scene": scene.key, "archive": archive, "files": seal(made, files)}
    write_json(_manifest(scene, root), manifest)
    if hasattr(os, "sync"):
        os.sync()  # a power cut must not leave the folder without its files
    with told(folder_of(scene, root)):
        made.rename(folder_of(scene, root))


def _compare_with_before(
    noted: Mapping[str, Any], scenes: Sequence[BenchmarkScene], root: Path, progress: Progress
) -> None:
    """Say it where an archive without a published checksum is another file than the one that came before."""
    for other in sorted({path for s in scenes for path in (root / s.benchmark).glob(".*.json")}):
        try:
            before = json.loads(other.read_text(encoding="utf-8"))
            same_name = before["archive"]["file"] == noted["file"]
            if same_name and before["archive"]["sha256"] != noted["sha256"]:
                progress.note(
                    f"{noted['file']} is another file than the one that {before['scene']} came from (SHA-256 "
                    f"{before['archive']['sha256']}): its authors have changed it, or one of the two is not theirs."
                )
                return
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _checked(archive: Archive, path: Path) -> bool:
    """Whether the archive that somebody put at ``path`` is known by its checksum; FormatError if it is another one."""
    fitting = [source for source in archive.sources if matches(source, path)]
    if fitting:
        return any(source.sha256 for source in fitting)
    wanted = " or ".join(
        f"{'' if source.bytes is None else f'{source.bytes} bytes, '}SHA-256 {source.sha256}"
        for source in archive.sources
    )
    raise FormatError(
        f"{path} is not the {archive.file} that the registry knows; expected {wanted}.",
        hint="Delete it, and it is fetched; or put the right file in its place.",
        path=path,
    )


def _fetched(archive: Archive, path: Path, scenes: Sequence[BenchmarkScene], root: Path, progress: Progress) -> bool:
    reasons = []
    for source in archive.sources:
        try:
            download(source, path, progress)
            if source.sha256 is None:
                _look_at(path)
            return source.sha256 is not None
        except (DataMissing, FormatError) as error:
            reasons.append(error.message)
            progress.note(error.message)
    home = benchmarks()[scenes[0].benchmark].home
    places = ", ".join(str(folder_of(scene, root)) for scene in scenes[:3]) + (", …" if len(scenes) > 3 else "")
    size = f" ({archive.gigabytes:g} GB)" if archive.gigabytes else ""
    raise DataMissing(
        f"{archive.file} cannot be had: {' '.join(reasons)}",
        hint=f"On a machine with network, get {archive.file}{size} from {home}, put it at {path} and give the same "
        f"command again. Or put the folders {', '.join(str(s.member) for s in scenes[:3])} of it at {places} yourself; "
        f"where they lie in another data folder, name that in {VARIABLE}.",
        archive=archive.file,
    )


def _look_at(path: Path) -> None:
    """Delete what was fetched, and raise FormatError, where it is no archive that could be unpacked."""
    try:
        look_at(path)
    except FormatError:
        path.unlink()
        raise


def _make_sparse(scene: BenchmarkScene, root: Path) -> None:
    """A scene of few training views, from one of many: its photos, their cameras and the split, but no points."""
    (whole,) = find_scenes([str(scene.of)])
    source = folder_of(whole, root)
    model = source / "sparse" / "0"
    poses = _poses(model) if (model / "images.bin").is_file() else {}
    photos = [photo for photo in list_images(source / "images") if photo.name in poses]
    if len(photos) < SPARSE_PHOTOS:
        raise FormatError(
            f"{source}: {len(photos)} photos have a pose in sparse/0/images.bin; expected at least {SPARSE_PHOTOS} to "
            f"make {scene.key} from.",
            hint=f"Delete the folder and fetch {whole.key} again.",
            path=source,
        )
    count = clip([poses[photo.name] for photo in photos])
    train, test = sparse_split(count, int(scene.train or 0))
    with _workplaces([scene], root) as (made,):
        for part in ("cameras.bin", "images.bin"):
            write_bytes(made / "sparse" / "0" / part, (model / part).read_bytes())
        for name, chosen in (("train", train), ("test", test)):
            for number in chosen:
                write_bytes(made / "images" / photos[number].name, photos[number].read_bytes())
            write_text(made / f"{name}.txt", "".join(f"{photos[number].name}\n" for number in chosen))
        _take(scene, made, root)


def _poses(model: Path) -> dict[str, np.ndarray]:
    """cam_from_world [4, 4] of each image of a COLMAP model."""
    images = read_model(model).images.values()
    return {image.name: image.cam_from_world(f"{model}, {image.name}") for image in images}


def clip(poses: Sequence[np.ndarray]) -> int:
    """How many of the photos, from the first on, are taken before the camera has turned by SPARSE_TURN degrees against
    the first; SPARSE_PHOTOS at least. ``poses``: cam_from_world [4, 4] each."""
    first = poses[0][:3, :3]
    for number, pose in enumerate(poses):
        cosine = (np.trace(first.T @ pose[:3, :3]) - 1) / 2
        if np.degrees(np.arccos(np.clip(cosine, -1, 1))) > SPARSE_TURN:
            return max(number, SPARSE_PHOTOS)
    return len(poses)


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
