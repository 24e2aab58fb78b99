"""One large file over HTTP: resumed where it broke off, and taken for whole only when size and checksum are right."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from ..errors import DataMissing, OutputError
from ..io.atomic import told, write_json
from ..progress import Progress
from .benchmarks import Source

TIMEOUT = 30.0  # s without a byte
ATTEMPTS = 4  # that bring no byte more, one after the other
PAUSE = 1.0  # s before the second attempt, twice as long before each further one
RESERVE = 10**9  # bytes of the disk that a file of unknown length leaves alone
_BLOCK = 1 << 20
# What of an answer says that a file is still the same one.
_VALIDATORS = ("ETag", "Last-Modified")


def download(source: Source, path: Path, progress: Progress) -> None:
    """Save ``source.url`` as ``path``.

    What has come lies in ``path.part``, beside what the server said of the file; a further call asks for the rest, and
    for all of it where the file has changed since. Of two sources with one checksum, the second continues what the
    first began.

    Raises:
        DataMissing: the server cannot be reached, has no such file, breaks off again and again, sends a web page, or
            gives a file of another size or checksum (which is then deleted).
        OutputError: there is no room for it.
    """
    part = path.with_name(path.name + ".part")
    with told(part):
        path.parent.mkdir(parents=True, exist_ok=True)
    continued = _size(part) > 0
    failures = 0
    while True:
        before = _size(part)
        try:
            total = _get_rest(source, part, progress)
            if total is None or _size(part) >= total:
                problem = _problem(source, part)
                if problem is None:
                    break
                _forget(part)
                if not continued:
                    raise _missing(source, problem)
                # What was there may have been of another file, or never written to the disk.
                progress.note(f"{source.url}: {problem}; it is fetched again from its begin.")
                continued = False
                continue
            reason = f"it broke off after {_size(part)} of {total} bytes"
        except _Changed:
            _forget(part)
            reason = "the server sends another part of it than was asked for"
        except urllib.error.HTTPError as error:
            # 408, 429 and 5xx may pass; of the others the server is sure.
            if error.code not in (408, 429) and error.code < 500:
                raise _missing(source, f"the server answers {error.code} {error.reason}") from error
            reason = f"the server answers {error.code} {error.reason}"
        except _NoAnswer as error:
            reason = str(error)
        failures = 1 if _size(part) > before else failures + 1
        if failures >= ATTEMPTS:
            raise _missing(source, reason)
        time.sleep(PAUSE * 2 ** (failures - 1))
    with told(path):
        part.replace(path)
    _about(part).unlink(missing_ok=True)


class _Changed(Exception):
    """What lies in the part cannot be continued with what the server sends."""


class _NoAnswer(Exception):
    """The network or the server failed, in words; another attempt may go better."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to other places of the web only, and never from an encrypted one to one that is not."""

    def redirect_request(
        self, request: urllib.request.Request, file: IO[bytes], code: int, text: str, headers: HTTPMessage, url: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(request.full_url).scheme, urlsplit(url).scheme
        if new not in ("http", "https") or (old, new) == ("https", "http"):
            raise urllib.error.HTTPError(request.full_url, code, f"{text}, which leads to {url}", headers, file)
        return super().redirect_request(request, file, code, text, headers, url)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _about(part).unlink(missing_ok=True)


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
    """Append what is missing of ``part``; the size of the whole file where the server or the registry says it."""
    have, headers, before = _resumable(source, part)
    request = urllib.request.Request(source.url, headers={"User-Agent": "splatinit", **headers})
    try:
        answer = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing is left to send. Whether what is there is the file, its size tells, and its checksum.
        if _whole_size(error.headers) == have:
            return have
        raise _Changed from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: an address that is none
        raise _no_answer(error) from error
    with answer:
        resumed = answer.status == 206
        if resumed and (_first_byte(answer.headers) != have or _differ(before, answer.headers)):
            raise _Changed
        have = have if resumed else 0
        if answer.headers.get_content_type() == "text/html":
            raise _missing(source, "the server sends a web page in its place")
        length = answer.headers.get("Content-Length")
        total = int(length) if length and length.isdecimal() else None
        if resumed:
            total = _whole_size(answer.headers)
        if total is not None and source.bytes is not None and total != source.bytes:
            raise _missing(source, f"the server has {total} bytes, expected {source.bytes}: another file")
        total = source.bytes if total is None else total
        _require_room(part, RESERVE if total is None else total - have)
        if not resumed:
            said = {name: answer.headers.get(name) for name in _VALIDATORS}
            write_json(_about(part), {"url": source.url, "sha256": source.sha256, **said})
        progress.start("fetch", total)
        with told(part), open(part, "ab" if resumed else "wb") as file:
            while block := _read(answer):
                file.write(block)
                have += len(block)
                if total is None:
                    _require_room(part, RESERVE)
                elif have > total:
                    break
                progress.advance(have, MB=round(have / 1e6))
        if total is not None and have > total:
            _forget(part)
            raise _missing(source, f"the server sends more than {total} bytes: another file")
        progress.finish(f"{have / 1e6:.1f} MB of {source.url}")
    return total


def _read(answer: Any) -> bytes:
    try:
        return answer.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _no_answer(error) from error


def _no_answer(error: Exception) -> _NoAnswer:
    return _NoAnswer(str(getattr(error, "reason", error)) or type(error).__name__)


def _resumable(source: Source, part: Path) -> tuple[int, dict[str, str], dict[str, Any]]:
    """How many bytes can be kept, the headers that ask for the others (for all, should the file have changed), and what
    the server said of the file before."""
    try:
        about = json.loads(_about(part).read_text(encoding="utf-8"))
        have = part.stat().st_size
    except (OSError, ValueError):
        return 0, {}, {}
    if not isinstance(about, dict) or have == 0:
        return 0, {}, {}
    asked = {"Range": f"bytes={have}-"}
    if about.get("url") == source.url:
        # Weak tags do not promise the same bytes (RFC 9110, 8.8.1); a date will do then.
        tags = [about.get(name) for name in _VALIDATORS]
        usable = [tag for tag in tags if isinstance(tag, str) and tag.isascii() and tag.isprintable()]
        same = next((tag for tag in usable if not tag.startswith("W/")), None)
        if same is not None:
            return have, {**asked, "If-Range": same}, about
    if source.sha256 is not None and about.get("sha256") == source.sha256:
        return have, asked, {}
    return 0, {}, {}


def _differ(before: dict[str, Any], headers: HTTPMessage) -> bool:
    """Whether the server says of the rest that it is of another file than what came before."""
    return any(before.get(name) and headers.get(name) and before[name] != headers[name] for name in _VALIDATORS)


def _first_byte(headers: HTTPMessage) -> int | None:
    """``Content-Range: bytes 5-9/10`` → 5."""
    first = headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else None


def _whole_size(headers: HTTPMessage) -> int | None:
    """``Content-Range: bytes 5-9/10`` → 10."""
    size = headers.get("Content-Range", "").rpartition("/")[2]
    return int(size) if size.isdecimal() else None


def _require_room(part: Path, size: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if size > free:
        raise OutputError(
            f"{part} needs {size / 1e9:.1f} GB more, and its disk has {free / 1e9:.1f} GB left.",
            hint="Free some space, or choose another folder with --to.",
            path=part,
        )


def _problem(source: Source, part: Path) -> str | None:
    """What is wrong with the whole file, as far as size and checksum are known."""
    size = _size(part)
    if source.bytes is not None and size != source.bytes:
        return f"it has {size} bytes, expected {source.bytes}"
    if source.sha256 is not None and (found := sha256(part)) != source.sha256:
        return f"it has the SHA-256 {found}, expected {source.sha256}"
    return None
