"""A web server that fails as real ones do, and says what it was asked for."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server serves, how it fails, and what it was asked for.

    Attributes:
        files: path → bytes.       redirects: path → where it leads.
        tag, date: what it says of every file (ETag, Last-Modified).
        ranges: it sends parts.    compares: it looks at If-Range before it does.
        lengths: it says how long an answer is.
        breaks: bytes after which the next answers break off.
        errors: status of the next answers.
        shift: by which parts begin elsewhere than asked.
        asked: the Range of each question.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    tag: str | None = '"one"'
    date: str | None = None
    kind: str = "application/zip"
    ranges: bool = True
    compares: bool = True
    lengths: bool = True
    breaks: list[int] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    shift: int = 0
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(made: Site) -> Iterator[Site]:
    """``made``, served at its ``url`` for this block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            made.asked.append(asked)
            if self.path in made.redirects:
                self.send_response(302)
                self.send_header("Location", made.redirects[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if made.errors or self.path not in made.files:
                self.send_error(made.errors.pop(0) if made.errors else 404)
                return
            data, first = made.files[self.path], 0
            same = not made.compares or self.headers.get("If-Range") in (None, made.tag, made.date)
            if asked and made.ranges and same:
                first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) + made.shift
                if first >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Type", made.kind)
            for name, value in (("ETag", made.tag), ("Last-Modified", made.date)):
                if value:
                    self.send_header(name, value)
            if made.lengths:
                self.send_header("Content-Length", str(len(data) - first))
            self.end_headers()
            end = first + made.breaks.pop(0) if made.breaks else len(data)
            self.wfile.write(data[first:end])

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
