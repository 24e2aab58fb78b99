"""One large file over HTTP: resumed where it broke off, and taken for whole only when size and checksum are right."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path

from ..errors import DataMissing, OutputError
from ..io.atomic import told, write_json
from ..progress import Progress
from .benchmarks import Source

TIMEOUT = 30.0  # s without a byte
ATTEMPTS = 4  # that bring no byte more, one after the other
PAUSE = 1.0  # s before the second attempt, twice as long before each further one
_BLOCK = 1 << 20
# What of an answer says that a file is still the same one.
_VALIDATORS = ("ETag", "Last-Modified")


def download(source: Source, path: Path, progress: Progress) -> None:
    """Save ``source.url`` as ``path``.

    What has come lies in ``path.part``, beside what the server said of the file; a further call asks for the rest, and
    for all of it where the file has changed since.

    Raises:
        DataMissing: the server cannot be reached, has no such file, breaks off again and again, or gives a file of
            another size or checksum (which is then deleted).
        OutputError: there is no room for it.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _size(part)
        try:
            total = _get_rest(source, part, progress)
            if total is None or _size(part) >= total:
                break
            reason = f"it broke off after {_size(part)} of {total} bytes"
        except _Changed:
            part.unlink(missing_ok=True)
            reason = "the server sends another part of it than was asked for"
        except urllib.error.HTTPError as error:
            # 408, 429 and 5xx may pass; of the others the server is sure.
            if error.code not in (408, 429) and error.code < 500:
                raise _missing(source, f"the server answers {error.code} {error.reason}") from error
            reason = f"the server answers {error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 1 if _size(part) > before else failures + 1
        if failures >= ATTEMPTS:
            raise _missing(source, reason)
        time.sleep(PAUSE * 2 ** (failures - 1))
    _check(source, part)
    part.replace(path)
    _about(part).unlink(missing_ok=True)


class _Changed(Exception):
    """What lies in the part cannot be continued with what the server sends."""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def matches(source: Source, path: Path) -> bool:
    """Whether ``path`` has the size and checksum that are known of ``source``."""
    if source.bytes is not None and path.stat().st_size != source.bytes:
        return False
    return source.sha256 is None or sha256(path) == source.sha256


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _missing(source: Source, reason: str) -> DataMissing:
    return DataMissing(f"{source.url} could not be fetched: {reason}.", url=source.url)


def _about(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _get_rest(source: Source, part: Path, progress: Progress) -> int | None:
    """Append what is missing of ``part``; the size of the whole file where the server says it."""
    have, headers = _resumable(source, part)
    request = urllib.request.Request(source.url, headers={"User-Agent": "splatinit", **headers})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing is left to send. Whether what is there is the file, its size tells, and its checksum.
        size = error.headers.get("Content-Range", "").rpartition("/")[2]
        if size.isdecimal() and int(size) == have:
            return have
        raise _Changed from error
    with answer:
        resumed = answer.status == 206
        if resumed and _first_byte(answer.headers.get("Content-Range")) != have:
            raise _Changed
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdecimal() else None
        if total is not None and source.bytes is not None and total != source.bytes:
            raise _missing(source, f"the server has {total} bytes, expected {source.bytes}: another file")
        _require_room(part, (total or 0) - have)
        about = {"url": source.url, **{name: answer.headers.get(name) for name in _VALIDATORS}}
        write_json(_about(part), about)
        progress.start("fetch", total)
        with told(part), open(part, "ab" if resumed else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                have += len(block)
                progress.advance(have, MB=round(have / 1e6))
        progress.finish(f"{have / 1e6:.1f} MB of {source.url}")
    return total


def _resumable(source: Source, part: Path) -> tuple[int, dict[str, str]]:
    """How many bytes can be kept, and the headers that ask for the others: for all, should the file have changed."""
    try:
        about = json.loads(_about(part).read_text(encoding="utf-8"))
        have = part.stat().st_size
    except (OSError, ValueError):
        return 0, {}
    if not isinstance(about, dict) or about.get("url") != source.url or have == 0:
        return 0, {}
    # Weak tags do not promise the same bytes (RFC 9110, 8.8.1); a date will do then.
    tags = [about.get(name) for name in _VALIDATORS]
    same = next((tag for tag in tags if isinstance(tag, str) and not tag.startswith("W/")), None)
    if same is None:
        return 0, {}
    return have, {"Range": f"bytes={have}-", "If-Range": same}


def _first_byte(content_range: str | None) -> int | None:
    """``bytes 5-9/10`` → 5."""
    first = (content_range or "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else None


def _require_room(part: Path, size: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if size > free:
        raise OutputError(
            f"{part} needs {size / 1e9:.1f} GB more, and its disk has {free / 1e9:.1f} GB left.",
            hint="Free some space, or choose another folder with --to.",
            path=part,
        )


def _check(source: Source, part: Path) -> None:
    size = part.stat().st_size
    if source.bytes is not None and size != source.bytes:
        reason = f"it has {size} bytes, expected {source.bytes}"
    elif source.sha256 is not None and (found := sha256(part)) != source.sha256:
        reason = f"it has the SHA-256 {found}, expected {source.sha256}"
    else:
        return
    part.unlink()
    _about(part).unlink(missing_ok=True)
    raise _missing(source, reason)
