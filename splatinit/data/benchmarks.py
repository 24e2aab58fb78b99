"""The registry of public scenes, as its tables in ``data/registry`` say it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError
from ..registry import nearest

VARIABLE = "SPLATINIT_DATA"  # names the data folder


@dataclass(frozen=True)
class Source:
    """One place that an archive comes from.

    Attributes:
        url: of the file itself.
        bytes: its size; None where nobody published it.
        sha256: its checksum; None where nobody published one: what came is then noted beside the scenes.
        cited: page that says size or checksum, where they are known.
    """

    url: str
    bytes: int | None = None
    sha256: str | None = None
    cited: str | None = None


@dataclass(frozen=True)
class Archive:
    """A file that holds scenes: its name, about how large it is (None: unknown), and where it comes from."""

    file: str
    gigabytes: float | None
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class BenchmarkScene:
    """One scene.

    Attributes:
        benchmark, name: it is called "benchmark/name", and unpacks to that folder.
        downscale: the protocol's factor (``data.downscale``).
        split: "every 8th" of the sorted names is a test view, or "files": the scene's files say which.
        photos: folder of the scene → number of photos in it.
        archive, member: where it lies; None for a scene that is made from another.
        of, train: the scene that it is made from, and how many views it leaves to train on; None for an archive's.
    """

    benchmark: str
    name: str
    downscale: int
    split: str
    photos: Mapping[str, int] = field(hash=False)
    archive: Archive | None = None
    member: str | None = None
    of: str | None = None
    train: int | None = None

    @property
    def key(self) -> str:
        return f"{self.benchmark}/{self.name}"


@dataclass(frozen=True)
class Benchmark:
    """A set of scenes that are published, and scored, together."""

    name: str
    title: str
    home: str
    licence: str
    archives: tuple[Archive, ...]
    scenes: tuple[BenchmarkScene, ...]


def data_folder() -> Path:
    """Where scenes lie, as BENCHMARK/SCENE: what SPLATINIT_DATA names, or ``data`` in the current folder."""
    return Path(os.environ.get(VARIABLE) or "data").expanduser()


def located(path: str | Path) -> Path:
    """Where the scene of a sweep lies: at ``path``; or, for a ``data/BENCHMARK/SCENE`` that is not there, in what
    SPLATINIT_DATA names."""
    path = Path(path).expanduser()
    scene = known_scene(path)
    if path.exists() or scene is None:
        return path
    return data_folder() / scene.benchmark / scene.name


def known_scene(path: str | Path) -> BenchmarkScene | None:
    """The registry's scene whose place is ``path``: data/BENCHMARK/SCENE; None where it is no such path."""
    parts = Path(path).parts
    if len(parts) != 3 or parts[0] != "data":
        return None
    known = benchmarks().get(parts[1])
    return next((scene for scene in known.scenes if scene.name == parts[2]), None) if known else None


def registry_folder() -> Path:
    """Where the tables lie: inside an installed package, or in the top folder ``data`` of a source tree."""
    packaged = Path(__file__).with_name("registry")
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "data" / "registry"


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name."""
    return {path.stem: _read(path) for path in sorted(registry_folder().glob("*.yaml"))}


def _read(path: Path) -> Benchmark:
    import yaml

    table = yaml.safe_load(path.read_text(encoding="utf-8"))
    archives = {
        key: Archive(each["file"], each["gigabytes"], tuple(Source(**source) for source in each["sources"]))
        for key, each in table["archives"].items()
    }
    scenes = []
    for row in table["scenes"]:
        archive = archives[row["archive"]] if "archive" in row else None
        scenes.append(BenchmarkScene(**{**row, "benchmark": table["name"], "archive": archive}))
    heading = {key: table[key] for key in ("name", "title", "home", "licence")}
    return Benchmark(**heading, archives=tuple(archives.values()), scenes=tuple(scenes))


def find_scenes(names: Sequence[str]) -> list[BenchmarkScene]:
    """The scenes that ``names`` mean, each once: "benchmark" or "benchmark/scene"; all scenes if there are no names.

    Raises ConfigError that names the nearest match.
    """
    known = {scene.key: [scene] for benchmark in benchmarks().values() for scene in benchmark.scenes}
    known |= {benchmark.name: list(benchmark.scenes) for benchmark in benchmarks().values()}
    found: dict[str, BenchmarkScene] = {}
    for name in names or [key for key in known if "/" in key]:
        if name.strip("/") not in known:
            raise ConfigError(f"Unknown benchmark or scene '{name}'.", hint=nearest(name, list(known)), name=name)
        found |= {scene.key: scene for scene in known[name.strip("/")]}
    return list(found.values())
