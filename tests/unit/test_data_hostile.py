"""Archives and servers that mean harm, or are broken: nothing of them lands elsewhere, or looks whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz import mutate
from website import Site, serving

from splatinit.data import archives, download
from splatinit.data.benchmarks import Source
from splatinit.errors import DataMissing, FormatError, OutputError, SplatinitError
from splatinit.progress import Silent

CONTENT = np.random.default_rng(1).bytes(1 << 20)
SHA = hashlib.sha256(CONTENT).hexdigest()


# ----------------------------------------------------------------------------------------------------------- archives
def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def tarred(*members: tuple[str, bytes], mode: str = "w:gz", format: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=format) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpacked(folder: Path, data: bytes) -> dict[str, bytes]:
    """What ``s`` of an archive of these bytes becomes; else nothing may be left."""
    archive, out = folder / "a", folder / "out"
    archive.write_bytes(data)
    archives.unpack(archive, {"s": out}, Silent())
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for path in sorted(out.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    out.rmdir()
    return found


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("s/a.jpg", "s/A.JPG"), "'s/A.JPG' is the same file as 's/a.jpg' on many disks; expected each file once"),
        (("s/\u00e9", "s/e\u0301"), "on many disks"),  # one accent, written in two ways
        (("s/a", "s/a/b"), "'s/a' is a file, and a folder for 's/a/b'; expected one of them"),
        (("s/a/b", "S/A"), "'S/A' is a file, and a folder for 's/a/b'"),
        (("s/a", "s//a"), "there twice"),
    ],
)
def test_names_that_one_disk_tells_apart_and_another_does_not(tmp_path: Path, names: tuple[str, ...], why: str) -> None:
    for data in (zipped(dict.fromkeys(names, b"1")), tarred(*((name, b"1") for name in names))):
        with pytest.raises(FormatError, match=why) as error:
            unpacked(tmp_path, data)
        assert error.value.hint == "Nothing was unpacked." and not (tmp_path / "out").exists()


def test_an_archive_of_the_current_folder_is_no_path_that_leads_out(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, kind in ((".", tarfile.DIRTYPE), ("./s", tarfile.DIRTYPE), ("./s/a", tarfile.REGTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            file.addfile(info, io.BytesIO())
    assert unpacked(tmp_path, out.getvalue()) == {"a": b""}


def test_methods_that_take_as_much_memory_as_the_file_asks_for(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="'s/a' is packed by method 14; expected stored or deflated"):
        unpacked(tmp_path, zipped({"s/a": b"1" * 100}, zipfile.ZIP_LZMA))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as file:
        file.addfile(tarfile.TarInfo("s/a"))
    with pytest.raises(FormatError, match="is neither a zip nor a tar file") as error:
        unpacked(tmp_path, packed.getvalue())
    assert error.value.hint == "A web page may have been saved in its place: delete it, and fetch it again."


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = abs(size), kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        block[124:136] = b"\xff" * 4 + (2**64 + size).to_bytes(8, "big")
        block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    return bytes(block)


def test_tars_that_claim_memory_or_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = gzip.compress(header("x", 64 << 20, tarfile.GNUTYPE_LONGNAME) + bytes(64 << 20))
    with pytest.raises(FormatError, match="one entry claims 67108864 bytes of names"):
        unpacked(tmp_path, zeros)
    # Backwards, to the same header again and again.
    with pytest.raises(FormatError, match="'s/a' is of -1024 bytes"):
        unpacked(tmp_path, header("s/a", -1024) + bytes(2048))
    with pytest.raises(FormatError, match="unpacks to more than .* photos do not shrink like that"):
        unpacked(tmp_path, gzip.compress(header("s/a", 100 << 20) + bytes(100 << 20) + bytes(1024)))
    # Headers without end.
    monkeypatch.setattr(archives, "ALLOWANCE", 1000)
    monkeypatch.setattr(archives, "MOST_FILES", 10)
    names = b"".join(header("././@LongLink", 512, tarfile.GNUTYPE_LONGNAME) + b"n" * 512 for _ in range(40))
    with pytest.raises(FormatError, match=r"it goes on far beyond its members|recursion"):
        unpacked(tmp_path, gzip.compress(names + header("s/a", 0) + bytes(1024)))
    folders = b"".join(header(f"s/{k}/", 0, tarfile.DIRTYPE) for k in range(11))
    with pytest.raises(FormatError, match="holds more than 10 files"):
        unpacked(tmp_path, folders + bytes(1024))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_zips_that_claim_memory(tmp_path: Path) -> None:
    good = bytearray(zipped({"s/a": b"1" * 1000}))
    end = good.rindex(b"PK\x05\x06")
    good[end + 12 : end + 16] = (64 << 20).to_bytes(4, "little")  # of the list of members
    with pytest.raises(FormatError, match="is damaged, or cannot be unpacked"):
        unpacked(tmp_path, bytes(64 << 20) + bytes(good))


def test_members_that_are_longer_than_declared_are_cut_off(tmp_path: Path) -> None:
    data = bytearray(zipped({"s/a": bytes(5 << 20)}))
    place = data.rindex(b"PK\x01\x02") + 24
    data[place : place + 4] = (10).to_bytes(4, "little")
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(FormatError, match="is damaged, or cannot be unpacked"):
        archives.unpack(tmp_path / "a", {"s": tmp_path / "out"}, Silent())
    assert all(path.stat().st_size <= 10 for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_a_list_of_members_that_lost_some(tmp_path: Path) -> None:
    good = zipped({"s/a": b"1", "s/b": b"2", "other/c": b"3"})
    lost, last = bytearray(good), good.rindex(b"PK\x01\x02")
    first = good.index(b"PK\x01\x02")
    lost[first + 32 : first + 34] = (last - first - 46 - 3).to_bytes(2, "little")  # a comment that covers the second
    with pytest.raises(FormatError, match="it lists 2 members and says 3"):
        unpacked(tmp_path, bytes(lost))
    # A name that is another one before the member's bytes.
    with pytest.raises(FormatError, match="is damaged, or cannot be unpacked"):
        unpacked(tmp_path, good[:first] + good[first:].replace(b"s/b", b"x/b"))


GOOD = {"s/a.txt": b"hello" * 50, "s/b/c.txt": bytes(range(256)) * 4, "other.txt": b"x"}
SEEDS = {
    "deflated": zipped(GOOD),
    "stored": zipped(GOOD, zipfile.ZIP_STORED),
    "tar.gz": tarred(*GOOD.items()),
    "pax": tarred(*GOOD.items(), ("s/" + "long" * 40, b"y"), mode="w"),
    "gnu": tarred(*GOOD.items(), ("s/" + "long" * 40, b"y"), mode="w", format=tarfile.GNU_FORMAT),
}


@pytest.mark.parametrize("kind", SEEDS)
def test_damaged_archives_are_refused_or_unpacked_rightly(tmp_path: Path, kind: str) -> None:
    whole, refused = unpacked(tmp_path, SEEDS[kind]), 0
    for index in range(120):
        rng = random.Random(f"{kind}/{index}")
        data, damage = mutate.mutate(SEEDS[kind], rng, mutate.BINARY)
        try:
            found = unpacked(tmp_path, data)
        except SplatinitError:
            refused += 1
            for path in sorted((tmp_path / "out").rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
        else:  # a plain tar has no checksums
            assert found == whole or kind in ("pax", "gnu"), f"case {index}: {damage}"
        assert {path.name for path in tmp_path.iterdir()} <= {"a", "out"}, f"case {index}: {damage}"
    assert refused > 12


# ------------------------------------------------------------------------------------------------------------ servers
@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with serving(Site({"/file": CONTENT})) as made:
        yield made


def got(site: Site, folder: Path, path: str = "/file", **known: object) -> bytes:
    download.download(Source(site.url + path, **known), folder / "f", Silent())
    assert [path.name for path in folder.iterdir()] == ["f"]
    return (folder / "f").read_bytes()


def test_a_web_page_is_not_the_file(site: Site, tmp_path: Path) -> None:
    site.files["/file"], site.kind = b"<html>Sign in</html>", "text/html; charset=utf-8"
    with pytest.raises(DataMissing, match=r"/file could not be fetched: the server sends a web page in its place\."):
        got(site, tmp_path)
    assert len(site.asked) == 1 and list(tmp_path.iterdir()) == []


def test_redirects_lead_to_the_web_only(site: Site, tmp_path: Path) -> None:
    site.redirects = {"/there": site.url + "/file", "/again": "/there", "/loop": "/loop"}
    assert got(site, tmp_path, "/again", sha256=SHA) == CONTENT
    for number, place in enumerate(("file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x")):
        site.redirects[f"/{number}"] = place
        with pytest.raises(DataMissing, match="could not be fetched: the server answers 302 Found"):
            download.download(Source(f"{site.url}/{number}"), tmp_path / "g", Silent())
    with pytest.raises(DataMissing, match="the server answers 302 .*infinite loop"):
        download.download(Source(f"{site.url}/loop"), tmp_path / "g", Silent())
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_no_redirect_leaves_the_encrypted_web() -> None:
    asked = download.urllib.request.Request("https://example.org/a.zip")
    with pytest.raises(download.urllib.error.HTTPError, match="which leads to http://example.org/a.zip"):
        download._Redirects().redirect_request(asked, io.BytesIO(), 302, "Found", {}, "http://example.org/a.zip")


@pytest.mark.parametrize("says", ["tag", "date"])
def test_a_file_that_changed_is_sent_whole_though_the_server_ignores_if_range(
    site: Site, tmp_path: Path, says: str
) -> None:
    site.compares = False
    site.tag, site.date = ('"one"', None) if says == "tag" else (None, "Sat, 01 Jan 2022 00:00:00 GMT")
    site.breaks = [1000] + [0] * 9
    with pytest.raises(DataMissing, match="it broke off after 1000 of 1048576 bytes"):
        got(site, tmp_path)
    site.breaks, site.files["/file"] = [], CONTENT[::-1]
    site.tag, site.date = ('"two"', None) if says == "tag" else (None, "Sun, 02 Jan 2022 00:00:00 GMT")
    assert got(site, tmp_path) == CONTENT[::-1]


def test_a_part_that_proves_wrong_is_fetched_again_from_its_begin(site: Site, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(bytes(1000))  # as after a power cut
    (tmp_path / "f.part.json").write_text(json.dumps({"url": site.url + "/file", "ETag": site.tag}))
    assert got(site, tmp_path, sha256=SHA) == CONTENT
    assert site.asked == ["bytes=1000-", None]


def test_a_second_source_of_one_checksum_continues_what_the_first_began(site: Site, tmp_path: Path) -> None:
    site.files["/copy"], site.breaks = CONTENT, [1000] + [0] * 9
    with pytest.raises(DataMissing):
        got(site, tmp_path, sha256=SHA)
    site.breaks, site.asked = [], []
    assert got(site, tmp_path, "/copy", sha256=SHA) == CONTENT and site.asked == ["bytes=1000-"]
    # Without a checksum nobody would see what was put together.
    (tmp_path / "f").unlink()
    site.breaks = [1000] + [0] * 9
    with pytest.raises(DataMissing):
        got(site, tmp_path)
    site.breaks, site.asked = [], []
    assert got(site, tmp_path, "/copy") == CONTENT and site.asked == [None]


def test_an_answer_of_unknown_length(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.lengths = False
    assert got(site, tmp_path) == CONTENT
    (tmp_path / "f").unlink()
    # It breaks off, and only the registry knows.
    site.breaks = [1000, 500]
    assert got(site, tmp_path, bytes=len(CONTENT)) == CONTENT
    (tmp_path / "f").unlink()
    site.breaks = [1000]
    with pytest.raises(DataMissing, match=f"it has the SHA-256 [0-9a-f]*, expected {SHA}"):
        got(site, tmp_path, sha256=SHA)
    # It never ends: some room is left on the disk.
    usage = iter([2 * download.RESERVE, download.RESERVE - 1])
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": next(usage)}))
    with pytest.raises(OutputError, match="needs 1.0 GB more, and its disk has 1.0 GB left"):
        got(site, tmp_path)


def test_a_damaged_note_sends_no_header_of_its_own(site: Site, tmp_path: Path) -> None:
    site.breaks = [1000] + [0] * 9
    with pytest.raises(DataMissing):
        got(site, tmp_path)
    note = json.loads((tmp_path / "f.part.json").read_text())
    site.breaks = []
    (tmp_path / "f.part.json").write_text(json.dumps({**note, "ETag": "one\r\nX: y"}))
    site.asked = []
    assert got(site, tmp_path) == CONTENT and site.asked == [None]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_is_said_and_what_has_come_stays(site: Site, tmp_path: Path) -> None:
    (tmp_path / "f.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"f\.part could not be written: No space left on device\.") as error:
        got(site, tmp_path)
    assert "Free some space on that disk" in error.value.hint
    (tmp_path / "f.part").unlink()
    site.breaks = [1000] + [0] * 9
    with pytest.raises(DataMissing):
        got(site, tmp_path, sha256=SHA)
    assert (tmp_path / "f.part").stat().st_size == 1000


def test_a_network_that_fails_while_reading_is_not_the_disk(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = download.http.client.HTTPResponse.read
    left = iter([TimeoutError(110, "Connection timed out"), OSError(113, "No route to host"), None])

    def flaky(self, *arguments):
        error = next(left, None)
        if error is not None:
            raise error
        return read(self, *arguments)

    monkeypatch.setattr(download.http.client.HTTPResponse, "read", flaky)
    assert got(site, tmp_path, sha256=SHA) == CONTENT
    left = iter([OSError(113, "No route to host")] * 9)
    with pytest.raises(DataMissing, match=r"/file could not be fetched: \[Errno 113\] No route to host"):
        download.download(Source(site.url + "/file"), tmp_path / "g", Silent())


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with pytest.raises(DataMissing, match=r"http://127\.0\.0\.1:1/x could not be fetched: \[Errno 111\]"):
        download.download(Source("http://127.0.0.1:1/x"), tmp_path / "f", Silent())
