"""The public scenes: a registry that says what it knows, downloads that resume, archives that cannot escape."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import stat
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner
from website import Site, serving

from splatinit.cli.app import app
from splatinit.config import preset_folder
from splatinit.data import archives, benchmarks, download, fetch
from splatinit.data.benchmarks import Archive, BenchmarkScene, Source
from splatinit.errors import ConfigError, DataMissing, FolderInUse, FormatError, OutputError
from splatinit.io.images import write_png
from splatinit.io.read import read_images
from splatinit.progress import Silent

CONTENT = np.random.default_rng(0).bytes(3 << 20)
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving(Site({"/file": CONTENT})) as made:
        yield made


def source(site: Site, path: str = "/file", known: bool = True) -> Source:
    content = site.files.get(path, CONTENT)
    sums = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} if known else {}
    return Source(site.url + path, **sums)


# -------------------------------------------------------------------------------------------------------- downloading
def test_a_download_that_breaks_off_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    site.breaks = [1 << 20, 5, 0, 1 << 20]
    download.download(source(site), tmp_path / "f.zip", Silent())
    assert (tmp_path / "f.zip").read_bytes() == CONTENT
    first = 1 << 20
    assert site.asked == [None, *(f"bytes={n}-" for n in (first, first + 5, first + 5, 2 * first + 5))]
    assert [path.name for path in tmp_path.iterdir()] == ["f.zip"]


def test_a_later_call_asks_for_the_rest_only(site: Site, tmp_path: Path) -> None:
    site.breaks = [1000] + [0] * 10
    with pytest.raises(DataMissing, match=r"/file could not be fetched: it broke off after 1000 of 3145728 bytes\."):
        download.download(source(site), tmp_path / "f.zip", Silent())
    assert len(site.asked) == 1 + download.ATTEMPTS - 1 and not (tmp_path / "f.zip").exists()
    site.breaks, site.asked = [], []
    download.download(source(site), tmp_path / "f.zip", Silent())
    assert site.asked == ["bytes=1000-"] and (tmp_path / "f.zip").read_bytes() == CONTENT


def test_a_file_that_came_whole_before_it_was_renamed_is_not_sent_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "f.zip.part").write_bytes(CONTENT)
    about = {"url": site.url + "/file", "ETag": site.tag}
    (tmp_path / "f.zip.part.json").write_text(json.dumps(about))
    download.download(source(site), tmp_path / "f.zip", Silent())
    assert site.asked == [f"bytes={len(CONTENT)}-"] and (tmp_path / "f.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["tag", "no tag", "weak tag", "no ranges", "other part", "longer", "damaged note"])
def test_what_cannot_be_continued_is_sent_whole(site: Site, tmp_path: Path, change: str) -> None:
    part, note = tmp_path / "f.zip.part", tmp_path / "f.zip.part.json"
    part.write_bytes(b"old" * 100 if change != "longer" else b"old" * (2 << 20))
    tag = {"tag": '"old"', "no tag": None, "weak tag": 'W/"one"'}.get(change, site.tag)
    note.write_text("{" if change == "damaged note" else json.dumps({"url": site.url + "/file", "ETag": tag}))
    site.ranges, site.shift = change != "no ranges", 7 if change == "other part" else 0
    download.download(source(site), tmp_path / "f.zip", Silent())
    assert (tmp_path / "f.zip").read_bytes() == CONTENT


def test_a_wrong_file_is_not_taken_and_not_kept(site: Site, tmp_path: Path) -> None:
    right = source(site)
    with pytest.raises(DataMissing, match=f"it has the SHA-256 {SHA}, expected 00"):
        download.download(replace(right, sha256="00"), tmp_path / "f.zip", Silent())
    with pytest.raises(DataMissing, match="the server has 3145728 bytes, expected 9: another file"):
        download.download(replace(right, bytes=9), tmp_path / "f.zip", Silent())
    assert list(tmp_path.iterdir()) == []
    site.lengths = False
    with pytest.raises(DataMissing, match="the server sends more than 9 bytes: another file"):
        download.download(replace(right, bytes=9), tmp_path / "f.zip", Silent())


def test_servers_that_are_sure_are_not_asked_again_and_others_are(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="/none could not be fetched: the server answers 404 Not Found"):
        download.download(source(site, "/none"), tmp_path / "f", Silent())
    assert len(site.asked) == 1
    site.errors, site.asked = [503, 429], []
    download.download(source(site), tmp_path / "f", Silent())
    assert len(site.asked) == 3
    site.errors, site.asked = [503] * 9, []
    with pytest.raises(DataMissing, match="the server answers 503 Service Unavailable"):
        download.download(source(site), tmp_path / "g", Silent())
    assert len(site.asked) == download.ATTEMPTS


def test_a_disk_without_room_is_said_before_it_is_full(site: Site, tmp_path: Path, monkeypatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="needs 0.0 GB more, and its disk has 0.0 GB left") as error:
        download.download(source(site), tmp_path / "f", Silent())
    assert "--to" in error.value.hint


# ---------------------------------------------------------------------------------------------------------- unpacking
def zipped(path: Path, **members: bytes | str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def tarred(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for member in members:
            file.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def entry(name: str, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = 0 if "type" in values else 3
    for key, value in values.items():
        setattr(info, key, value)
    return info


def test_only_the_wanted_folders_are_unpacked(tmp_path: Path) -> None:
    names = {"a/b/1.txt": b"one", "a/b/c/2.txt": b"two", "a/bc/3.txt": b"three", "d/4.txt": b"four", "a/b/e/": b""}
    expected = {"1.txt": b"one", "c/2.txt": b"two"}
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as file:
        for name, data in names.items():
            info = entry(name.rstrip("/"), size=len(data))
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            file.addfile(info, io.BytesIO(data))
    for archive in (zipped(tmp_path / "z.zip", **names), tmp_path / "t.tar.gz"):
        out = tmp_path / f"out-{archive.stem}"
        archives.unpack(archive, {"a/b": out}, Silent())
        found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert found == expected
        with pytest.raises(FormatError, match="holds no file in a folder 'a/x'"):
            archives.unpack(archive, {"a/x": out}, Silent())


def snapshot(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


EVIL = ("../evil", "/evil", "s/../../evil", "s\\..\\evil", "C:/evil", "s/..")


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_out_are_refused_before_anything_is_written(tmp_path: Path, kind: str, name: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    if kind == "zip":
        archive = zipped(folder / "a.zip", **{"s/good": b"1", name: b"2"})
    else:
        archive = tarred(folder / "a.tar.gz", entry("s/good"), entry(name))
    before = snapshot(tmp_path)
    with pytest.raises(FormatError, match="a path that leads out of its folder; expected relative ones") as error:
        archives.unpack(archive, {"s": folder / "out"}, Silent())
    assert error.value.hint == "Nothing was unpacked." and snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_of_tar_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tarred(tmp_path / "a.tar.gz", entry("s/good"), entry("s/odd", type=kind, linkname="good"))
    with pytest.raises(FormatError, match="'s/odd' is a link or a device; expected files and folders"):
        archives.unpack(archive, {"s": tmp_path / "out"}, Silent())
    assert not (tmp_path / "out").exists()


def test_links_of_zip_files_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("s/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("s/good", "1")
        file.writestr(link, "/etc/passwd")
    with pytest.raises(FormatError, match="'s/link' is a link or a device"):
        archives.unpack(tmp_path / "a.zip", {"s": tmp_path / "out"}, Silent())
    assert not (tmp_path / "out").exists()


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ALLOWANCE", 1000)
    monkeypatch.setattr(archives, "MOST_FILES", 20)
    out = {"s": tmp_path / "out"}
    with pytest.raises(FormatError, match="unpacks to more than .* photos do not shrink like that"):
        archives.unpack(zipped(tmp_path / "a.zip", **{"s/zeros": bytes(1 << 20)}), out, Silent())
    with pytest.raises(FormatError, match="holds more than 20 files"):
        archives.unpack(zipped(tmp_path / "b.zip", **{f"s/{k}": b"" for k in range(21)}), out, Silent())
    twice = tarred(tmp_path / "c.tar.gz", entry("s/a"), entry("s/./a"))
    with pytest.raises(FormatError, match="is there twice; expected each file once"):
        archives.unpack(twice, out, Silent())
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2}))
    with pytest.raises(OutputError, match="unpacks to 0.0 GB, and the disk of .* has 0.0 GB left"):
        archives.unpack(zipped(tmp_path / "d.zip", **{"s/a": b"123"}), out, Silent())
    assert not (tmp_path / "out").exists()


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    good = zipped(tmp_path / "good.zip", **{"s/a": CONTENT[:5000]}).read_bytes()
    (tmp_path / "none.zip").write_bytes(b"<html>Sign in</html>")
    with pytest.raises(FormatError, match="is neither a zip nor a tar file"):
        archives.unpack(tmp_path / "none.zip", {"s": tmp_path / "out"}, Silent())
    for number, damaged in enumerate((good[:40] + b"\0" * 40 + good[80:], good[:30] + good[34:])):
        (tmp_path / "bad.zip").write_bytes(damaged)
        with pytest.raises(FormatError, match="bad.zip"):
            archives.unpack(tmp_path / "bad.zip", {"s": tmp_path / f"out{number}"}, Silent())
    # The list at the end says another length than there is.
    lying = bytearray(good)
    place = lying.rindex(b"PK\x01\x02") + 24
    lying[place : place + 4] = (6000).to_bytes(4, "little")
    (tmp_path / "bad.zip").write_bytes(lying)
    with pytest.raises(FormatError, match="'s/a': is not as long as the archive says"):
        archives.unpack(tmp_path / "bad.zip", {"s": tmp_path / "out9"}, Silent())


# --------------------------------------------------------------------------------------------------- scenes as a whole
def photos(count: int, size: int = 4) -> dict[str, bytes]:
    rng = np.random.default_rng(count)
    made = {}
    for number in range(count):
        path = Path(os.environ["PHOTO"])
        write_png(path, rng.integers(0, 256, (size, size, 3), dtype=np.uint8))
        made[f"{number:03d}.png"] = path.read_bytes()
    return made


def turned(degrees: float) -> np.ndarray:
    """cam_from_world of a camera that has turned so far."""
    a = np.radians(degrees)
    pose = np.eye(4)
    pose[0, 0] = pose[2, 2] = np.cos(a)
    pose[0, 2], pose[2, 0] = np.sin(a), -np.sin(a)
    return pose


def model(count: int, degrees: float = 2.0) -> dict[str, bytes]:
    """A COLMAP model of photos that turn on by so much each."""
    images = struct.pack("<Q", count)
    for k in range(count):
        half = np.radians(degrees * k) / 2
        images += struct.pack("<i7di", k + 1, np.cos(half), 0, np.sin(half), 0, 0.1 * k, 0, 0, 1)
        images += f"{k:03d}.png".encode() + b"\0" + struct.pack("<Q", 0)
    cameras = struct.pack("<QiiQQ4d", 1, 1, 1, 4, 4, 4.0, 4.0, 2.0, 2.0)
    return {"cameras": cameras, "images": images, "points3D": struct.pack("<Q", 0)}


@pytest.fixture
def here(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry of two scenes in one archive, and one made of the first."""
    monkeypatch.setenv("PHOTO", str(tmp_path / "photo.png"))
    members = {f"top/first/images/{name}": data for name, data in photos(30).items()}
    members |= {f"top/first/sparse/0/{part}.bin": data for part, data in model(30).items()}
    members |= {f"top/second/images/{name}": data for name, data in photos(3).items()}
    site.files["/a.zip"] = zipped(tmp_path / "a.zip", **members).read_bytes()
    folder = tmp_path / "registry"
    folder.mkdir()
    known = source(site, "/a.zip")
    table = {
        "name": "bench",
        "title": "A benchmark",
        "home": "https://example.org",
        "licence": "CC0",
        "archives": {
            "main": {
                "file": "a.zip",
                "gigabytes": 0.1,
                "sources": [
                    {"url": site.url + "/gone"},
                    {"url": known.url, "bytes": known.bytes, "sha256": known.sha256},
                ],
            }
        },
        "scenes": [
            {
                "name": n,
                "archive": "main",
                "member": f"top/{n}",
                "downscale": 1,
                "split": "every 8th",
                "photos": {"images": k},
            }
            for n, k in (("first", 30), ("second", 3))
        ]
        + [
            {"name": "few", "of": "bench/first", "train": 3, "downscale": 1, "split": "files", "photos": {"images": 15}}
        ],
    }
    (folder / "bench.yaml").write_text(yaml.safe_dump(table))
    monkeypatch.setattr(benchmarks, "registry_folder", lambda: folder)
    return tmp_path / "data"


def call(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["data", *words], env={"COLUMNS": "300", "TERM": "dumb"})
    assert result.exit_code == code, result.output
    return result.output


def test_from_a_name_to_a_folder_and_back(site: Site, here: Path) -> None:
    text = call("fetch", "bench/second", "--to", str(here))
    assert "/gone could not be fetched: the server answers 404" in text  # the next source was asked
    assert snapshot(here) == ["bench", "bench/.second.json", "bench/second", "bench/second/images"] + [
        f"bench/second/images/{k:03d}.png" for k in range(3)
    ]
    assert "3 photos in images; 3 files as they were unpacked" in call("verify", "bench/second", "--to", str(here))
    assert "not fetched" in call("verify", "--to", str(here), code=1)
    listed = call("list", "--to", str(here))
    assert re.search(r"✓ +bench/second", listed) and not re.search(r"✓ +bench/first", listed)
    assert "licence: CC0" in listed and "checksum unknown, not verified" in listed
    # What is there is not fetched again.
    site.asked = []
    call("fetch", "bench/second", "--to", str(here))
    assert site.asked == []
    call("fetch", "bench", "--to", str(here), "--keep")
    assert (here / ".archives" / "a.zip").is_file()
    assert call("verify", "bench", "--to", str(here)).count("whole") == 3
    (here / "bench/first/images/000.png").write_bytes(b"0")
    (here / "bench/second/images/000.png").unlink()
    (here / "bench/.few.json").write_text("{")
    damaged = call("verify", "bench", "--to", str(here), code=1)
    assert "000.png (1 bytes) is not as it was written" in damaged and damaged.count("damaged") == 3
    assert "2 photos in images, expected 3" in damaged and "is not what splatinit wrote" in damaged
    (here / "bench/.few.json").unlink()
    assert "put there by hand" in call("verify", "bench/few", "--to", str(here))


def test_few_views_of_many(here: Path) -> None:
    call("fetch", "bench/few", "--to", str(here))
    folder = here / "bench" / "few"
    train, test = (folder.joinpath(f"{kind}.txt").read_text().split() for kind in ("train", "test"))
    assert (len(train), len(test)) == (3, 12) and not set(train) & set(test)
    assert sorted(train + test) == sorted(path.name for path in (folder / "images").iterdir())
    # The 24th photo has turned by 46 degrees, and as many must be.
    assert (train[0], train[-1]) == ("000.png", "023.png")
    # The points know all photos.
    assert sorted(path.name for path in (folder / "sparse/0").iterdir()) == ["cameras.bin", "images.bin"]
    images = read_images(folder)
    assert (len(images.photos), len(images.cameras), len(images.test_names)) == (15, 15, 12)
    for photo in list((here / "bench/first/images").iterdir())[:7]:
        photo.unlink()
    with pytest.raises(FormatError, match="first: 23 photos have a pose in sparse/0/images.bin; expected at least 24"):
        fetch._make_sparse(benchmarks.find_scenes(["bench/few"])[0], here)


def test_few_views_are_of_a_clip_and_not_of_an_orbit() -> None:
    assert fetch.clip([turned(0.7 * k) for k in range(200)]) == 65  # the last at 44.8 degrees
    assert fetch.clip([turned(5 * k) for k in range(200)]) == 24
    assert fetch.clip([turned(0.1 * k) for k in range(200)]) == 200


def test_the_split_of_few_views_is_instantsplats() -> None:
    # Of exactly 24 photos, as its code splits them.
    assert fetch.sparse_split(24, 3) == ([0, 11, 23], [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22])
    assert fetch.sparse_split(24, 12)[0] == [0, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]
    train, test = fetch.sparse_split(251, 6)
    assert (train[0], train[-1], len(train), len(set(test) - set(train))) == (0, 250, 6, 12)


def test_without_network_it_says_what_to_put_where(site: Site, here: Path) -> None:
    archive = site.files.pop("/a.zip")
    with pytest.raises(
        DataMissing, match=r"a\.zip cannot be had: .*/gone could not .*/a\.zip could not be fetched"
    ) as error:
        fetch.fetch(benchmarks.find_scenes(["bench/first"]), here)
    place = here / ".archives" / "a.zip"
    assert f"get a.zip (0.1 GB) from https://example.org, put it at {place}" in error.value.hint
    assert f"the folders top/first of it at {here / 'bench' / 'first'} yourself" in error.value.hint
    assert not (here / "bench").exists()
    # Put there by hand, it is used, and nothing is asked of the network.
    site.asked = []
    place.write_bytes(archive)
    fetch.fetch(benchmarks.find_scenes(["bench/first"]), here)
    assert site.asked == [] and (here / "bench" / "first" / "sparse").is_dir()


def test_an_archive_put_there_by_hand_is_verified_where_that_can_be(tmp_path: Path) -> None:
    scene = BenchmarkScene(
        "b", "s", 1, "files", {}, Archive("a.zip", None, (Source("http://127.0.0.1:1/", 3, "ab"),)), "s"
    )
    (tmp_path / ".archives").mkdir()
    zipped(tmp_path / ".archives" / "a.zip", **{"s/a.txt": b"1"})
    with pytest.raises(FormatError, match="is not the a.zip that the registry knows; expected 3 bytes, SHA-256 ab"):
        fetch.fetch([scene], tmp_path)
    unknown = replace(scene, archive=Archive("a.zip", None, (Source("http://127.0.0.1:1/"),)))
    notes: list[str] = []
    heard = Silent()
    heard.note = notes.append  # type: ignore[method-assign]
    fetch.fetch([unknown], tmp_path, progress=heard)
    sha = hashlib.sha256((tmp_path / ".archives" / "a.zip").read_bytes()).hexdigest()
    assert notes[:1] == [
        "No checksum of a.zip is known: it was not verified, beyond what unpacking checks. Its SHA-256 is " + sha + "."
    ]
    state = fetch.verify(unknown, tmp_path)
    assert state.state == "whole" and state.detail.endswith(
        f"1 files as they were unpacked from a.zip (no checksum is published, here it was {sha})"
    )
    # Another file of that name is told apart from the one that came before.
    notes.clear()
    zipped(tmp_path / ".archives" / "a.zip", **{"s/a.txt": b"1", "t/a.txt": b"2"})
    fetch.fetch([replace(unknown, name="t", member="t")], tmp_path, progress=heard)
    assert f"a.zip is another file than the one that b/s came from (SHA-256 {sha}): its authors have" in notes[1]
    # What somebody brought is not deleted.
    assert notes[2].endswith("a.zip was there before, and stays; its scenes do not need it.")
    assert (tmp_path / ".archives" / "a.zip").is_file()


def test_nothing_half_unpacked_is_taken_for_whole(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = benchmarks.find_scenes(["bench/first"])
    write, left = archives._write, iter(range(5))

    def killed(*arguments: object) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(archives, "_write", killed)
    monkeypatch.setattr(fetch.shutil, "rmtree", lambda *_, **__: None)  # a killed process removes nothing
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(scenes, here)
    monkeypatch.undo()
    assert not (here / "bench" / "first").exists() and list(here.glob("bench/.unpacking-*/first/images/*.png"))


def test_leftovers_of_a_killed_process_are_removed(here: Path) -> None:
    left = here / "bench" / ".unpacking-abc" / "first"
    left.mkdir(parents=True)
    fetch.fetch(benchmarks.find_scenes(["bench/second"]), here)
    assert not left.exists() and fetch.verify(benchmarks.find_scenes(["bench/second"])[0], here).state == "whole"


SLOWLY = """
import sys, time
from pathlib import Path
from splatinit.data import archives, benchmarks, fetch
from splatinit.errors import FolderInUse

write = archives._write

def slow(*arguments):
    time.sleep(0.1)
    write(*arguments)

archives._write = slow
benchmarks.registry_folder = lambda: Path(sys.argv[1])
try:
    fetch.fetch(benchmarks.find_scenes(["bench/first"]), Path(sys.argv[2]))
except FolderInUse as error:
    sys.exit(f"{error.message} {error.hint}")
"""


def fetching(here: Path) -> subprocess.Popen:
    """A process that fetches bench/first, and takes 0.1 s a file to unpack it."""
    arguments = [sys.executable, "-c", SLOWLY, str(benchmarks.registry_folder()), str(here)]
    return subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)


def wait_for_files(here: Path, process: subprocess.Popen) -> None:
    while not list(here.glob("bench/.unpacking-*/first/images/003.png")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


def test_a_process_killed_while_it_unpacks_leaves_no_scene(site: Site, here: Path) -> None:
    with fetching(here) as process:
        wait_for_files(here, process)
        process.kill()
    (scene,) = benchmarks.find_scenes(["bench/first"])
    assert fetch.verify(scene, here).state == "absent" and list(here.glob("bench/.unpacking-*"))
    site.asked = []
    fetch.fetch([scene], here)
    assert fetch.verify(scene, here).state == "whole" and not list(here.glob("bench/.unpacking-*"))
    # What had come whole and was verified then is still there.
    assert site.asked == [] and (here / ".archives" / "a.zip").is_file()


def test_of_two_processes_that_fetch_one_scene_one_waits_outside(site: Site, here: Path) -> None:
    with fetching(here) as first:
        wait_for_files(here, first)
        with fetching(here) as second:
            said = second.communicate()[1]
        with pytest.raises(FolderInUse, match=f"Data folder {here} is in use by process {first.pid} on "):
            fetch.fetch(benchmarks.find_scenes(["bench/second"]), here)
        assert second.returncode == 1 and first.wait() == 0
    assert f"Data folder {here} is in use by process {first.pid} on " in said
    assert "give the same command again: what it has fetched is there then. Or choose another folder with --to." in said
    assert fetch.verify(benchmarks.find_scenes(["bench/first"])[0], here).state == "whole"
    assert site.asked.count(None) == 2  # the source that is gone, and the archive once


def test_what_is_no_archive_is_deleted_and_the_next_source_asked(site: Site, here: Path, tmp_path: Path) -> None:
    """Where no checksum says that it is another file."""
    table = yaml.safe_load((tmp_path / "registry" / "bench.yaml").read_text())
    good = site.files["/a.zip"]
    site.files |= {"/gone": b"Please sign in.", "/a.zip": good[: len(good) // 2]}
    table["archives"]["main"]["sources"][1] = {"url": site.url + "/a.zip"}
    (tmp_path / "registry" / "bench.yaml").write_text(yaml.safe_dump(table))
    with pytest.raises(DataMissing, match=r"is neither a zip nor a tar file\. .*a\.zip: is ") as error:
        fetch.fetch(benchmarks.find_scenes(["bench/second"]), here)
    assert "name that in SPLATINIT_DATA" in error.value.hint
    assert not list((here / ".archives").iterdir())
    site.files["/a.zip"] = good
    fetch.fetch(benchmarks.find_scenes(["bench/second"]), here)
    assert fetch.verify(benchmarks.find_scenes(["bench/second"])[0], here).state == "whole"


def test_scenes_that_lie_elsewhere(site: Site, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "disk" / "my scenes"
    fetch.fetch(benchmarks.find_scenes(["bench/second"]), tmp_path / "once")
    own.mkdir(parents=True)
    (tmp_path / "once/bench/second").rename(own / "second")
    (own / "first" / "images").mkdir(parents=True)  # begun, and left
    # A benchmark's folder may be a link; what is fetched to it lands there.
    here.mkdir()
    (here / "bench").symlink_to(own)
    monkeypatch.setenv("SPLATINIT_DATA", str(here))
    listed = call("list")
    assert re.search(r"✓ +bench/second .* yes", listed) and f"1 of 3 scenes are in {here}" in listed
    assert re.search(r"✗ +bench/first .* 0 photos in images, expected 30", listed)
    assert "put there by hand, so its files were not compared" in call("verify", "bench/second")
    (own / "first" / "images").rmdir()
    (own / "first").rmdir()
    call("fetch", "bench/first")
    assert snapshot(own)[:2] == [".first.json", "first"] and not (tmp_path / "data2").exists()
    # What --to says comes first.
    assert "0 of 3 scenes are in" in call("list", "--to", str(tmp_path / "data2"))


def test_where_a_sweep_finds_a_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPLATINIT_DATA", raising=False)
    assert benchmarks.located("data/mipnerf360/garden") == Path("data/mipnerf360/garden")
    monkeypatch.setenv("SPLATINIT_DATA", "/elsewhere")
    assert benchmarks.located("data/mipnerf360/garden") == Path("/elsewhere/mipnerf360/garden")
    for other in ("data/mine/garden", "data/mipnerf360/mine", "data/garden", "/data/mipnerf360/garden", "garden"):
        assert benchmarks.located(other) == Path(other)
    Path("data/mipnerf360/garden").mkdir(parents=True)
    assert benchmarks.located("data/mipnerf360/garden") == Path("data/mipnerf360/garden")


def test_unknown_names_and_no_names(here: Path) -> None:
    with pytest.raises(ConfigError, match="Unknown benchmark or scene 'bench/fist'") as error:
        benchmarks.find_scenes(["bench/fist"])
    assert "bench/first" in error.value.hint
    assert "expected a benchmark or a scene" in call("fetch", code=2)


# -------------------------------------------------------------------------------------------------- the registry itself
def test_the_registry_says_what_it_knows() -> None:
    known = benchmarks.benchmarks()
    assert {"mipnerf360", "tanks_and_temples", "deep_blending", "nerf_synthetic", "llff", "sparse_view"} == set(known)
    keys = [scene.key for scene in benchmarks.find_scenes([])]
    assert len(keys) == len(set(keys)) == 9 + 2 + 2 + 8 + 8 + 6
    for name, benchmark in known.items():
        assert benchmark.name == name and benchmark.licence and benchmark.home.startswith("https://")
        for archive in benchmark.archives:
            for each in archive.sources:
                assert each.url.startswith("https://")
                # Known from somewhere, or said to be unknown.
                assert (each.sha256 is None) == (each.cited is None) and (each.bytes is None or each.sha256)
                assert each.sha256 is None or re.fullmatch("[0-9a-f]{64}", each.sha256)
        for scene in benchmark.scenes:
            assert (scene.archive is None) == (scene.member is None) == (scene.of is not None)
            assert scene.split in ("every 8th", "files") and all(scene.photos.values())
            assert scene.of is None or scene.of in keys
    assert {s.name: s.downscale for s in known["mipnerf360"].scenes if s.downscale == 2}.keys() == {
        "bonsai",
        "counter",
        "kitchen",
        "room",
    }


@pytest.mark.parametrize("name", sorted(benchmarks.benchmarks()))
def test_each_benchmark_has_its_sweep(name: str) -> None:
    sweep = yaml.safe_load((preset_folder() / "sweeps" / f"{name}.yaml").read_text(encoding="utf-8"))
    scenes = benchmarks.benchmarks()[name].scenes
    assert [(s["name"], s["path"], s["downscale"]) for s in sweep["scenes"]] == [
        (scene.name, f"data/{scene.key}", scene.downscale) for scene in scenes
    ]
