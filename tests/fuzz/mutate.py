"""Ways to damage a file, each a pure function of its random numbers: (data, rng) → (damaged data, what was done)."""

from __future__ import annotations

import io
import json
import math
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

Mutation = tuple[bytes, str]
Mutator = Callable[[bytes, random.Random], Mutation]

INTEGERS = (
    0,
    1,
    2,
    -1,
    -2,
    127,
    128,
    255,
    256,
    2**15,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**62,
    2**63,
    2**64 - 1,
)
FLOATS = (math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1e308, -1e308, 1e39, 5e-324, 1e-300, 2.0**53)
# What a name may try: leave the folder, end a C string, forge terminal output, turn its reading direction, be markup.
NAMES = (
    "../secret.png",
    "/etc/hostname",
    "images/../../secret.png",
    "..\\secret.png",
    "C:\\secret.png",
    "~/secret.png",
    "file:///etc/hostname",
    "a\0b.png",
    ".",
    "..",
    "",
    " ",
    "\x1b[31mred\x1b[0m.png",
    "\x1b]0;title\x07.png",
    "line\nbreak.png",
    "line\rbreak.png",
    "[bold red]markup[/]",
    "[/]",
    "\u202egnp.exe",
    "\u2028.png",
    "<script>alert(1)</script>.png",
    "&quot;.png",
    "caf\u00e9.png",
    "\U0001f600.png",
    "x" * 5000 + ".png",
    "x/" * 3000 + "a.png",
    "../x/" * 20_000 + "a.png",
    "CON",
    "nul.png",
    "-rf",
    "images",
    "./images/./a.png",
    "images//a.png",
    "images/a.png/",
    "images/../images/a.png",
)
WORDS = (
    "nan",
    "-nan",
    "inf",
    "-inf",
    "1e999",
    "1e308",
    "-1e308",
    "1e-320",
    "0",
    "-0",
    "-1",
    "1_0",
    "\u0663",
    "0x10",
    "1e2",
    "1.5",
    "+3",
    "one",
    "''",
    "99999999999999999999",
    "2147483648",
    "4294967296",
    "18446744073709551616",
    ",",
    ";",
    "#",
    "//",
    "%s",
    "{}",
    "\0",
    "\x1b[31m",
    "\u202e",
    "..",
    "-",
)


# ------------------------------------------------------------------------------------------------------- plain bytes
def _span(data: bytes, rng: random.Random) -> tuple[int, int]:
    """A piece of the file, mostly a short one."""
    length = min(len(data), rng.choice((1, 2, 4, 8, 16, 24, 56, 64, rng.randint(1, max(1, len(data))))))
    start = rng.randint(0, len(data) - length)
    return start, start + length


def flip_bits(data: bytes, rng: random.Random) -> Mutation:
    out = bytearray(data)
    spots = [rng.randrange(8 * len(out)) for _ in range(rng.choice((1, 1, 1, 2, 8)))]
    for spot in spots:
        out[spot // 8] ^= 1 << spot % 8
    return bytes(out), f"bits {spots} flipped"


def set_bytes(data: bytes, rng: random.Random) -> Mutation:
    out = bytearray(data)
    start, end = _span(data, rng)
    if rng.random() < 0.5:
        out[start:end] = bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x20, 0x2D, rng.randrange(256)))]) * (
            end - start
        )
    else:
        out[start:end] = rng.randbytes(end - start)
    return bytes(out), f"bytes {start}:{end} set to {bytes(out[start : min(end, start + 8)])!r}"


def truncate(data: bytes, rng: random.Random) -> Mutation:
    keep = rng.choice((0, 1, len(data) - 1, len(data) - rng.randint(1, min(16, len(data))), rng.randrange(len(data))))
    return data[:keep], f"truncated to {keep} of {len(data)} bytes"


def append(data: bytes, rng: random.Random) -> Mutation:
    tail = rng.choice(
        (b"\0", b"\n", b" ", b"\0" * 8, b"\xff" * 64, data, data[: len(data) // 2], rng.randbytes(rng.randint(1, 100)))
    )
    return data + tail, f"{len(tail)} bytes appended"


def remove_chunk(data: bytes, rng: random.Random) -> Mutation:
    start, end = _span(data, rng)
    return data[:start] + data[end:], f"bytes {start}:{end} removed"


def double_chunk(data: bytes, rng: random.Random) -> Mutation:
    start, end = _span(data, rng)
    return data[:end] + data[start:end] + data[end:], f"bytes {start}:{end} doubled"


def swap_chunks(data: bytes, rng: random.Random) -> Mutation:
    length = max(1, min(len(data) // 2, rng.choice((1, 4, 8, 24, 64))))
    first, second = sorted((rng.randint(0, len(data) - length), rng.randint(0, len(data) - length)))
    if second - first < length:
        return flip_bits(data, rng)
    out = bytearray(data)
    out[first : first + length], out[second : second + length] = (
        data[second : second + length],
        data[first : first + length],
    )
    return bytes(out), f"{length} bytes at {first} and {second} swapped"


def set_integer(data: bytes, rng: random.Random) -> Mutation:
    size = rng.choice((1, 2, 4, 4, 8, 8))
    at = rng.randrange(0, max(1, len(data) - size + 1))
    if rng.random() < 0.7:
        at -= at % min(4, size)
    value = rng.choice(INTEGERS)
    raw = (value % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "little", "big")))
    return data[:at] + raw + data[at + size :], f"{size}-byte integer at {at} set to {value}"


def set_float(data: bytes, rng: random.Random) -> Mutation:
    layout = rng.choice(("<d", "<d", "<f", ">d", ">f"))
    size = struct.calcsize(layout)
    at = rng.randrange(0, max(1, len(data) - size + 1))
    if rng.random() < 0.7:
        at -= at % 4
    value = rng.choice(FLOATS)
    if layout[1] == "f" and math.isfinite(value) and abs(value) > 3e38:
        value = math.copysign(math.inf, value)
    return data[:at] + struct.pack(layout, value) + data[at + size :], f"{layout} at {at} set to {value}"


BINARY: tuple[Mutator, ...] = (
    flip_bits,
    flip_bits,
    set_bytes,
    truncate,
    append,
    remove_chunk,
    double_chunk,
    swap_chunks,
    set_integer,
    set_integer,
    set_float,
)


def field_mutator(fields: Sequence[tuple[int, str]]) -> Mutator:
    """Sets one of the numbers that stand at known places: (offset, struct layout)."""

    def set_field(data: bytes, rng: random.Random) -> Mutation:
        at, layout = rng.choice(fields)
        size, kind = struct.calcsize(layout), layout[-1]
        if at + size > len(data):
            return append(data, rng)
        if kind in "fd":
            value: float = rng.choice(FLOATS)
            if kind == "f" and math.isfinite(value) and abs(value) > 3e38:
                value = math.inf
            raw = struct.pack(layout, value)
        else:
            (old,) = struct.unpack_from(layout, data, at)
            value = rng.choice((*INTEGERS, old + 1, old - 1, old * 2))
            raw = (int(value) % (1 << 8 * size)).to_bytes(size, "big" if layout[0] == ">" else "little")
        return data[:at] + raw + data[at + size :], f"field {layout} at {at} set to {value}"

    return set_field


# -------------------------------------------------------------------------------------------------------------- text
def _lines(data: bytes) -> list[bytes]:
    return data.split(b"\n")


def change_word(data: bytes, rng: random.Random) -> Mutation:
    words = [match.span() for match in re.finditer(rb"[^\s,:\[\]{}\"]+", data)]
    if not words:
        return append(data, rng)
    start, end = rng.choice(words)
    new = rng.choice((*WORDS, *NAMES)).encode("utf-8", "surrogatepass")
    return data[:start] + new + data[end:], f"word {data[start:end][:40]!r} at {start} changed to {new[:40]!r}"


def drop_word(data: bytes, rng: random.Random) -> Mutation:
    words = [match.span() for match in re.finditer(rb"\S+", data)]
    if not words:
        return append(data, rng)
    start, end = rng.choice(words)
    return data[:start] + data[end:], f"word {data[start:end][:40]!r} at {start} dropped"


def double_word(data: bytes, rng: random.Random) -> Mutation:
    words = [match.span() for match in re.finditer(rb"\S+", data)]
    if not words:
        return append(data, rng)
    start, end = rng.choice(words)
    return data[:end] + b" " + data[start:end] + data[end:], f"word {data[start:end][:40]!r} at {start} doubled"


def change_lines(data: bytes, rng: random.Random) -> Mutation:
    lines = _lines(data)
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    what = rng.choice(("drop", "double", "swap", "blank", "join", "comment"))
    if what == "drop":
        del lines[at]
    elif what == "double":
        lines.insert(at, lines[at])
    elif what == "swap":
        lines[at], lines[other] = lines[other], lines[at]
    elif what == "blank":
        lines.insert(at, b"")
    elif what == "join" and at + 1 < len(lines):
        lines[at : at + 2] = [lines[at] + b" " + lines[at + 1]]
    else:
        lines[at] = b"#" + lines[at]
    return b"\n".join(lines), f"line {at}: {what} ({other})"


def change_encoding(data: bytes, rng: random.Random) -> Mutation:
    what = rng.choice(("crlf", "cr", "bom", "utf-16", "latin", "nul", "tabs", "unicode line", "no end"))
    if what == "crlf":
        return data.replace(b"\n", b"\r\n"), what
    if what == "cr":
        return data.replace(b"\n", b"\r"), what
    if what == "bom":
        return b"\xef\xbb\xbf" + data, what
    if what == "utf-16":
        return data.decode("utf-8", "replace").encode("utf-16"), what
    if what == "tabs":
        return data.replace(b" ", b"\t"), what
    if what == "no end":
        return data.rstrip(b"\n"), what
    at = rng.randint(0, len(data))
    new = {"latin": b"\xe9", "nul": b"\0"}.get(what, rng.choice(("\u2028", "\x0b", "\x0c", "\x1c", "\x85")).encode())
    return data[:at] + new + data[at:], f"{what} {new!r} at {at}"


TEXT: tuple[Mutator, ...] = (
    change_word,
    change_word,
    change_word,
    drop_word,
    double_word,
    change_lines,
    change_lines,
    change_encoding,
    flip_bits,
    set_bytes,
    truncate,
    append,
    remove_chunk,
    double_chunk,
    swap_chunks,
)


# -------------------------------------------------------------------------------------------------------------- JSON
class _Object(list):
    """A JSON object as a list of (key, value), so that a key may stand there twice."""


class _Raw(str):
    """Text that goes into the file as it is."""


def _places(node: Any) -> list[tuple[Any, int]]:
    """(container, index) of every value of a tree."""
    found: list[tuple[Any, int]] = []
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, _Object | list):
            for index, item in enumerate(here):
                found.append((here, index))
                stack.append(item[1] if isinstance(here, _Object) else item)
    return found


def _emit(node: Any) -> str:
    if isinstance(node, _Raw):
        return str(node)
    if isinstance(node, _Object):
        return "{" + ", ".join(f"{json.dumps(key)}: {_emit(value)}" for key, value in node) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(map(_emit, node)) + "]"
    return json.dumps(node)


def _junk(rng: random.Random) -> Any:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice(NAMES)
    if kind == 1:
        return rng.choice((*INTEGERS, *FLOATS))
    if kind == 2:
        return rng.choice((None, True, False, "", [], _Object(), [[]], [None], _Object([("a", 1)]), "1.0", "yes"))
    if kind == 3:
        return _Raw(
            rng.choice(
                ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "1" + "0" * 5000, "0.1e-400", "-0")
            )
        )
    if kind == 4:
        depth = rng.choice((3, 50, 900, 20_000))
        return _Raw("[" * depth + "]" * depth)
    return _Raw(
        rng.choice(('"\\ud800"', '"\\u0000"', '"' + "x" * 100_000 + '"', "01", "1.", "nan", "'a'", "[1,]", "{,}", "//"))
    )


def change_json(data: bytes, rng: random.Random) -> Mutation:
    try:
        return _change_json(data, rng)
    except (RecursionError, OverflowError):  # an earlier damage nested it deep, or made a number huge
        return change_word(data, rng)


def _change_json(data: bytes, rng: random.Random) -> Mutation:
    try:
        tree = json.loads(data, object_pairs_hook=_Object)
    except ValueError:
        return change_word(data, rng)
    places = _places(tree)
    if not places:
        return append(data, rng)
    holder, at = rng.choice(places)
    keyed = isinstance(holder, _Object)
    key, value = holder[at] if keyed else (at, holder[at])
    what = rng.choice(
        (
            "replace",
            "replace",
            "replace",
            "remove",
            "double",
            "rename",
            "swap",
            "wrap",
            "text",
            "number",
            "number",
            "move",
        )
    )

    def put(new: Any) -> None:
        holder[at] = (key, new) if keyed else new

    if what == "remove":
        del holder[at]
    elif what == "double":
        holder.insert(rng.randint(0, len(holder)), (key, rng.choice((value, _junk(rng)))) if keyed else value)
    elif what == "rename" and keyed:
        other = rng.choice([holder[i][0] for i in range(len(holder))])
        holder[at] = (rng.choice((key.upper(), key + " ", key[:-1], "__proto__", "", other)), value)
    elif what == "swap":
        other_holder, other_at = rng.choice(places)
        other_keyed = isinstance(other_holder, _Object)
        other = other_holder[other_at][1] if other_keyed else other_holder[other_at]
        # A container must not end up inside itself.
        if isinstance(value, list) or isinstance(other, list):
            put(json.loads(_emit(other), object_pairs_hook=_Object) if "Infinity" not in _emit(other) else None)
        else:
            put(other)
            other_holder[other_at] = (other_holder[other_at][0], value) if other_keyed else value
    elif what == "wrap":
        put(rng.choice(([value], _Object([("value", value)]), [value, value])))
    elif what == "text" and not isinstance(value, str | list):
        put(_emit(value))
    elif what == "number" and isinstance(value, int | float) and not isinstance(value, bool):
        put(
            rng.choice(
                (
                    -value,
                    value * 1000,
                    value + 1,
                    value * 1.001,
                    value / 7,
                    float(value),
                    1 / (value or 1),
                    1e-9 * value,
                )
            )
        )
    elif what == "move":
        rng.shuffle(holder)
    else:
        what = "replace"
        put(_junk(rng))
    return _emit(tree).encode("utf-8", "surrogatepass"), f"JSON {what} at {str(key)[:40]!r} (was {str(value)[:60]!r})"


JSON: tuple[Mutator, ...] = (change_json,) * 10 + TEXT


# --------------------------------------------------------------------------------------------------------------- PLY
def change_ply_header(data: bytes, rng: random.Random) -> Mutation:
    end = data.find(b"end_header")
    if end < 0:
        return change_word(data, rng)
    lines = data[:end].split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    what = rng.choice(("count", "type", "type", "name", "format", "line", "word", "list", "element"))
    words = lines[at].split()
    if what == "count":
        counts = [i for i, line in enumerate(lines) if line.startswith(b"element")]
        at = rng.choice(counts) if counts else at
        old = lines[at].split()
        if len(old) == 3 and old[2].isdigit():
            number = rng.choice((*INTEGERS, int(old[2]) + 1, int(old[2]) - 1, 10**30))
            lines[at] = b" ".join([*old[:2], str(number).encode()])
    elif what == "type" and len(words) == 3 and words[0] == b"property":
        types = (
            b"char",
            b"uchar",
            b"short",
            b"ushort",
            b"int",
            b"uint",
            b"float",
            b"double",
            b"int64",
            b"float16",
            b"list",
        )
        lines[at] = b" ".join([words[0], rng.choice(types), words[2]])
    elif what == "name" and len(words) == 3:
        lines[at] = b" ".join(
            [
                *words[:2],
                rng.choice((b"x", b"red", b"f_dc_0", b"opacity", b"nx", b"__class__", b"\xff", words[2][::-1])),
            ]
        )
    elif what == "format":
        formats = (b"ascii", b"binary_little_endian", b"binary_big_endian", b"binary")
        lines[1:2] = [b"format %s %s" % (rng.choice(formats), rng.choice((b"1.0", b"2.0", b"nan")))]
    elif what == "list":
        lines.insert(at + 1, b"property list %s int vertex_indices" % rng.choice((b"uchar", b"int", b"float")))
    elif what == "element":
        lines.insert(
            at + 1,
            b"element %s %d\nproperty %s q"
            % (
                rng.choice((b"face", b"vertex", b"camera")),
                rng.choice((0, 1, 3, 10**12)),
                rng.choice((b"uchar", b"double")),
            ),
        )
    elif what == "line":
        lines[at], lines[other] = lines[other], lines[at]
    else:
        return change_word(data[:end], rng)[0] + data[end:], "a word of the PLY header changed"
    return b"\n".join(lines) + data[end:], f"PLY header {what} at line {at}"


PLY: tuple[Mutator, ...] = (change_ply_header,) * 8 + BINARY
PLY_TEXT: tuple[Mutator, ...] = (change_ply_header,) * 6 + TEXT


# ------------------------------------------------------------------------------------------------------- npy and npz
_BOMBS: dict[str, bytes] = {}


def npy(dtype: str, shape: str, payload: bytes, fortran: bool = False, version: tuple[int, int] = (1, 0)) -> bytes:
    """An .npy file with any header, true or not."""
    header = f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode("latin-1", "replace")
    lead = b"\x93NUMPY" + bytes(version)
    layout = "<H" if version == (1, 0) else "<I"
    pad = -(len(lead) + struct.calcsize(layout) + len(header) + 1) % 64
    header += b" " * pad + b"\n"
    return lead + struct.pack(layout, len(header)) + header + payload


def change_npy(data: bytes, rng: random.Random) -> Mutation:
    """Another header for the same payload, or another payload."""
    match = re.match(
        rb"\x93NUMPY..(..)\{'descr': (.*?), 'fortran_order': (\w+), 'shape': (\(.*?\)).*?\n", data, re.DOTALL
    )
    if match is None:
        return rng.choice(BINARY)(data or b"\0", rng)
    dtype, fortran, shape = match[2].decode("latin-1"), match[3] == b"True", match[4].decode("latin-1")
    payload = data[match.end() :]
    numbers = [int(n) for n in re.findall(r"\d+", shape)]
    what = rng.choice(("dtype", "dtype", "fortran", "shape", "shape", "shape", "payload", "header"))
    if what == "dtype":
        dtype = rng.choice(
            (
                "'|O'",
                "'<f4'",
                "'>f8'",
                "'<f2'",
                "'<i8'",
                "'|b1'",
                "'<c16'",
                "'|S8'",
                "'<U2'",
                "'|V8'",
                "'<M8[s]'",
                "[('a', '<f8')]",
                "[('a', '|O')]",
                "'|O8'",
                "'nonsense'",
                "None",
                "__import__('os')",
            )
        )
    elif what == "fortran":
        fortran = not fortran
    elif what == "shape":
        shape = rng.choice(
            (
                "()",
                "(0,)",
                "(1,)",
                "(-1,)",
                f"({2**62},)",
                f"({2**31}, {2**31})",
                "(1, 1)",
                "(True,)",
                "(1.5,)",
                "'x'",
                "[1]",
                str(tuple(reversed(numbers))),
                str((*numbers, 1)),
                str(tuple(n + 1 for n in numbers)),
                str((math.prod(numbers),)),
                str(tuple(numbers[:-1])),
                "(10000, 10000, 100)",
            )
        )
    elif what == "payload":
        payload = rng.choice(
            (b"", payload[:-1], payload + b"\0" * 8, payload * 2, rng.choice(BINARY)(payload or b"\0", rng)[0])
        )
    else:
        return data[:8] + struct.pack("<H", rng.choice((0, 1, 65535))) + data[10:], "npy header length changed"
    return npy(
        dtype, shape, payload, fortran, rng.choice(((1, 0), (1, 0), (1, 0), (2, 0)))
    ), f"npy {what}: {dtype} {shape} {fortran}"


def _bomb(name: str) -> bytes:
    """A small archive whose one member, a true array, unpacks to more than a reader may take."""
    if name not in _BOMBS:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open(name, "w") as member:
            member.write(npy("'<f8'", "(8000, 5000)", b""))
            for _ in range(320):
                member.write(bytes(1_000_000))
        _BOMBS[name] = out.getvalue()
    return _BOMBS[name]


def change_zip(data: bytes, rng: random.Random) -> Mutation:
    """The archive of an .npz with members changed, removed, renamed, doubled, swollen, or sizes that lie."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            if sum(info.file_size for info in file.infolist()) > 1 << 22:  # an earlier damage made it large
                return rng.choice(BINARY)(data, rng)
            members = [(info.filename, file.read(info)) for info in file.infolist()]
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError):
        return rng.choice(BINARY)(data, rng)
    if not members:
        return rng.choice(BINARY)(data, rng)
    at = rng.randrange(len(members))
    name, member = members[at]
    what = rng.choice(("npy", "npy", "npy", "npy", "remove", "rename", "double", "swap", "bomb", "size", "extra"))
    if what == "npy":
        member, how = change_npy(member, rng)
        members[at], what = (name, member), f"{what} {name}: {how}"
    elif what == "remove":
        del members[at]
    elif what == "rename":
        members[at] = (
            rng.choice((name.upper(), name.removesuffix(".npy"), "../" + name, "/" + name, "a\nb.npy", "x.npy")),
            member,
        )
    elif what == "double":
        members.append(members[at])
    elif what == "swap":
        other = rng.randrange(len(members))
        members[at], members[other] = (name, members[other][1]), (members[other][0], member)
    elif what == "bomb":
        return _bomb(name), "zip bomb: 320 MB of zeros"
    elif what == "extra":
        members.append(("more.npy", npy("'<f8'", "(1,)", bytes(8))))
    out = io.BytesIO()
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        warnings.simplefilter("ignore")  # a doubled name is meant
        for member_name, content in members:
            file.writestr(member_name, content)
    result = out.getvalue()
    if what == "size":
        spot = result.find(b"PK\x01\x02") + rng.choice((16, 20, 24, 28, 42))
        value = rng.choice((0, 1, 2**31 - 1, 2**32 - 1))
        result = result[:spot] + struct.pack("<I", value) + result[spot + 4 :]
        what = f"directory field at {spot} set to {value}"
    return result, f"zip {what}"


NPY: tuple[Mutator, ...] = (change_npy,) * 8 + BINARY
NPZ: tuple[Mutator, ...] = (change_zip,) * 10 + BINARY


# ------------------------------------------------------------------------------------------------------------ images
def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]] | None:
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            return None
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks or None


def png_of(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks, with true checksums."""
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        out += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return out


_DIMENSIONS = (0, 1, 2, 3, 5, 7, 9, 16, 100, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def change_png(data: bytes, rng: random.Random) -> Mutation:
    """Chunks changed, with their checksums made right again (flipped bits alone would stop at the checksum)."""
    chunks = _png_chunks(data) if data.startswith(b"\x89PNG") else None
    if not chunks:
        return rng.choice(BINARY)(data, rng)
    at = rng.randrange(len(chunks))
    kind, body = chunks[at]
    what = rng.choice(
        (
            "size",
            "size",
            "size",
            "depth",
            "drop",
            "double",
            "swap",
            "short",
            "body",
            "text",
            "palette",
            "pixels",
            "kind",
        )
    )
    if what == "size" and len(chunks[0][1]) == 13:
        header = bytearray(chunks[0][1])
        struct.pack_into(">I", header, rng.choice((0, 4)), rng.choice(_DIMENSIONS))
        chunks[0] = (chunks[0][0], bytes(header))
    elif what == "depth" and len(chunks[0][1]) == 13:
        header = bytearray(chunks[0][1])
        header[rng.choice((8, 9, 10, 11, 12))] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 255))
        chunks[0] = (chunks[0][0], bytes(header))
    elif what == "drop":
        del chunks[at]
    elif what == "double":
        chunks.insert(at, chunks[at])
    elif what == "swap":
        other = rng.randrange(len(chunks))
        chunks[at], chunks[other] = chunks[other], chunks[at]
    elif what == "short":
        chunks[at] = (kind, body[: rng.randint(0, len(body))])
    elif what == "body" and body:
        chunks[at] = (kind, rng.choice(BINARY)(body, rng)[0])
    elif what == "text":
        bomb = zlib.compress(bytes(rng.choice((100, 3_000_000))), 9)
        chunks.insert(
            1,
            rng.choice(
                (
                    (b"zTXt", b"a\0\0" + bomb),
                    (b"iTXt", b"a\0\1\0\0\0" + bomb),
                    (b"iCCP", b"a\0\0" + bomb),
                    (b"tEXt", b"a"),
                )
            ),
        )
    elif what == "palette":
        chunks.insert(
            1,
            rng.choice(
                ((b"tRNS", b"\0\1"), (b"PLTE", bytes(9)), (b"acTL", bytes(8)), (b"gAMA", bytes(4)), (b"eXIf", b"II*\0"))
            ),
        )
    elif what == "pixels":
        bodies = b"".join(part for name, part in chunks if name == b"IDAT")
        try:
            raw = zlib.decompress(bodies)
        except zlib.error:
            raw = b"\0"
        raw = rng.choice((raw[:-1], raw + b"\0" * 10, bytes(5_000_000), rng.choice(BINARY)(raw or b"\0", rng)[0]))
        rest = [chunk for chunk in chunks if chunk[0] != b"IDAT"]
        chunks = [*rest[:-1], (b"IDAT", zlib.compress(raw)), *rest[-1:]]
    else:
        chunks[at] = (rng.choice((b"IDAT", b"IEND", b"IHDR", b"abCd", b"ABCD", b"fdAT")), body)
    return png_of(chunks), f"PNG {what} at chunk {at} ({kind!r})"


def change_jpeg(data: bytes, rng: random.Random) -> Mutation:
    """Segments of a JPEG: sizes in the frame header, segments dropped, doubled and with lengths that lie."""
    marks = [match.start() for match in re.finditer(rb"\xff[\xc0-\xfe]", data)]
    if not data.startswith(b"\xff\xd8") or not marks:
        return rng.choice(BINARY)(data, rng)
    frames = [at for at in marks if data[at + 1] in (0xC0, 0xC1, 0xC2)]
    out = bytearray(data)
    what = rng.choice(("size", "size", "size", "length", "marker", "components"))
    if what == "size" and frames and frames[0] + 9 <= len(out):
        struct.pack_into(">H", out, frames[0] + rng.choice((5, 7)), rng.choice((0, 1, 2, 5, 7, 9, 16, 100, 65535)))
    elif what == "components" and frames and frames[0] + 12 <= len(out):
        out[frames[0] + rng.choice((4, 9, 10, 11))] = rng.choice((0, 1, 2, 3, 4, 8, 12, 0x11, 0x22, 255))
    else:
        at = rng.choice(marks)
        if what == "length" and at + 4 <= len(out):
            struct.pack_into(">H", out, at + 2, rng.choice((0, 1, 2, 3, 65535)))
        elif at + 2 <= len(out):
            out[at + 1] = rng.choice((0xC0, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE1, 0xFE, 0x01))
    return bytes(out), f"JPEG {what}"


IMAGE: dict[str, tuple[Mutator, ...]] = {
    ".png": (change_png,) * 10 + BINARY,
    ".jpg": (change_jpeg,) * 8 + BINARY,
    ".jpeg": (change_jpeg,) * 8 + BINARY,
    ".tif": BINARY,
    ".webp": BINARY,
    ".heic": BINARY,
}
BY_SUFFIX: dict[str, tuple[Mutator, ...]] = {
    **IMAGE,
    ".bin": BINARY,
    ".las": BINARY,
    ".laz": BINARY,
    ".xyz": TEXT,
    ".pts": TEXT,
    ".pcd": TEXT + BINARY,
    ".mp4": BINARY,
    ".safetensors": BINARY,
    ".txt": TEXT,
    ".yaml": TEXT,
    ".jsonl": TEXT,
    ".json": JSON,
    ".ply": PLY,
    ".npy": NPY,
    ".npz": NPZ,
}


def mutators_of(name: str, data: bytes) -> tuple[Mutator, ...]:
    """The ways to damage a file of this name and content."""
    if name.endswith(".ply") and b"format ascii" in data[:100]:
        return PLY_TEXT
    return BY_SUFFIX.get(PurePosixPath(name).suffix.lower(), BINARY)


def mutate(data: bytes, rng: random.Random, mutators: Sequence[Mutator]) -> Mutation:
    """One damage, now and then several, that leaves other bytes than there were."""
    out, done = data, []
    for _ in range(rng.choices((1, 2, 3, 5), (70, 18, 8, 4))[0]):
        if not out:
            break
        out, what = rng.choice(mutators)(out, rng)
        done.append(what)
    while out == data:
        out, what = flip_bits(data, rng)
        done.append(what)
    return out, "; ".join(done)
