"""PCD files of the Point Cloud Library: every encoding and layout, written by hand; and what is wrong with others."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from splatinit.errors import FormatError
from splatinit.io import pcd
from splatinit.io.pcd import _unpacked, read_pcd

FLOATS = {"x": "f4", "y": "f4", "z": "f4"}

LETTER = {"f": "F", "u": "U", "i": "I"}


def table(kinds: dict[str, str | tuple[str, int]], n: int = 6) -> np.ndarray:
    rows = np.zeros(n, [(name, *kind) if isinstance(kind, tuple) else (name, kind) for name, kind in kinds.items()])
    for axis, name in enumerate("xyz"):
        rows[name].T[...] = np.arange(n) * 0.25 + axis  # each of several numbers
    return rows


def literals(data: bytes) -> bytes:
    """LZF of nothing but runs that are stored as they are."""
    return b"".join(bytes([len(data[k : k + 32]) - 1]) + data[k : k + 32] for k in range(0, len(data), 32))


def write(path: Path, rows: np.ndarray, encoding: str) -> Path:
    kinds = [rows.dtype[name].base for name in rows.dtype.names]
    counts = [int(np.prod(rows.dtype[name].shape)) for name in rows.dtype.names]
    head = f"# .PCD v0.7\nVERSION 0.7\nFIELDS {' '.join(rows.dtype.names)}\n"
    head += f"SIZE {' '.join(str(kind.itemsize) for kind in kinds)}\nTYPE {' '.join(LETTER[k.kind] for k in kinds)}\n"
    head += f"COUNT {' '.join(map(str, counts))}\nWIDTH {len(rows)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
    head += f"POINTS {len(rows)}\nDATA {encoding}\n"
    if encoding == "ascii":
        flat = [[x for name in rows.dtype.names for x in np.ravel(row[name]).tolist()] for row in rows]
        data = "".join(" ".join(map(repr, row)) + "\n" for row in flat).encode()
    elif encoding == "binary":
        data = rows.tobytes()
    else:  # column after column
        columns = b"".join(rows[name].tobytes() for name in rows.dtype.names)
        packed = literals(columns)
        data = struct.pack("<II", len(packed), len(columns)) + packed
    path.write_bytes(head.encode() + data)
    return path


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_encodings_and_fields(tmp_path: Path, encoding: str) -> None:
    normals = {"normal_x": "f4", "normal_y": "f4", "normal_z": "f4"}
    rows = table({**FLOATS, "intensity": "f4", "rgb": "u4", **normals})
    rows["rgb"], rows["normal_y"] = 0xFF3300 + np.arange(6), 1
    found = read_pcd(write(tmp_path / "a.pcd", rows, encoding), lambda total: np.array([1, total - 1]))
    np.testing.assert_array_equal(found.xyz, [[0.25, 1.25, 2.25], [1.25, 2.25, 3.25]])
    np.testing.assert_allclose(255 * found.rgb, [[255, 51, 1], [255, 51, 5]], atol=1e-4)
    np.testing.assert_array_equal(found.normal, [[0, 1, 0]] * 2)
    assert found.total == 6


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_double_precision_is_kept(tmp_path: Path, encoding: str) -> None:
    rows = table({"x": "f8", "y": "f8", "z": "f8"})
    rows["x"] += 5e6
    rows["y"][2] += 0.001
    found = read_pcd(write(tmp_path / "a.pcd", rows, encoding))
    np.testing.assert_array_equal(found.xyz, np.stack([rows[name] for name in "xyz"], axis=1))
    assert found.rgb is None and found.normal is None


def test_colours_in_the_bits_of_a_float(tmp_path: Path) -> None:
    # As the Point Cloud Library wrote them before its version 1.7; in text, as a number with these bits.
    rows = table({**FLOATS, "rgb": "f4"})
    rows["rgb"] = np.full(6, 0x00FF3300, np.uint32).view(np.float32)
    for encoding in ("binary", "binary_compressed", "ascii"):
        found = read_pcd(write(tmp_path / "a.pcd", rows, encoding))
        np.testing.assert_allclose(255 * found.rgb, [[255, 51, 0]] * 6, atol=1e-4)


def test_an_organised_cloud(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcd", table(FLOATS), "binary")
    path.write_bytes(path.read_bytes().replace(b"WIDTH 6\nHEIGHT 1\n", b"WIDTH 3\nHEIGHT 2\n"))
    assert len(read_pcd(path)) == 6


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_fields_of_several_numbers_and_padding(tmp_path: Path, encoding: str) -> None:
    rows = table({"_": "u1", "x": "i2", "histogram": ("<f4", 5), "y": "u1", "z": "f8", "rgba": "i4"})
    rows["x"], rows["y"], rows["rgba"] = -np.arange(6), 200, 0x00336600
    found = read_pcd(write(tmp_path / "a.pcd", rows, encoding))
    np.testing.assert_array_equal(found.xyz, np.stack([-np.arange(6.0), np.full(6, 200), rows["z"]], axis=1))
    np.testing.assert_allclose(found.rgb, [[0.2, 0.4, 0]] * 6, atol=1e-6)
    rows = table({"_": "u1", "x": ("<f4", 2), "y": "f4", "z": "f4"})
    with pytest.raises(FormatError, match="its field x holds 2 numbers a point; expected one"):
        read_pcd(write(tmp_path / "a.pcd", rows, encoding))


def test_old_headers_zeros_behind_and_no_points(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcd", table(FLOATS), "binary")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"COUNT 1 1 1\n", b"") + bytes(4096))
    assert len(read_pcd(path)) == 6
    for encoding in ("ascii", "binary", "binary_compressed"):
        assert len(read_pcd(write(path, table(FLOATS, 0), encoding))) == 0


def test_lzf_copies_what_came_before() -> None:
    # "ab", then 5 bytes from 2 before, then 300 bytes from 1 before: runs that overlap themselves.
    packed = bytes([1]) + b"ab" + bytes([3 << 5, 1]) + bytes([7 << 5, 255, 0]) + bytes([7 << 5, 27, 0])
    assert _unpacked(packed, 307) == b"ababab" + b"a" * 301
    assert _unpacked(packed, 306) == b""
    assert _unpacked(bytes([3 << 5, 1]), 99) == b"" and _unpacked(packed[:-1], 999) == b""


DAMAGE = [
    (b"FIELDS", b"FIELD", "not a PCD file: its header has no FIELDS"),
    (b"TYPE F F F", b"TYPE F F Q", "not a PCD file"),
    (b"SIZE 4 4 4", b"SIZE 4 4 3", "not a PCD file"),
    (b"SIZE 4 4 4", b"SIZE 4 4", "not a PCD file"),
    (b"COUNT 1 1 1", b"COUNT 1 1 0", "not a PCD file"),
    (b"COUNT 1 1 1", b"COUNT 1 1 4294967296", "not a PCD file"),
    (b"COUNT 1", b"COUMT 1", "not a PCD file"),
    (b"DATA ", b"DATA x", "not a PCD file"),
    (b"FIELDS x y z", b"FIELDS x y w", r"its points have no z \(found x y w\)"),
    (b"FIELDS x y z", b"FIELDS x y y", "a field is there twice: x y y"),
    (b"POINTS 6", b"POINTS 9", "the header promises 9 points in 6 columns and 1 rows"),
    (b"POINTS 6", b"POINTS -6", "promises -6 points"),
]


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_damaged_files(tmp_path: Path, encoding: str) -> None:
    path = write(tmp_path / "a.pcd", table(FLOATS), encoding)
    whole = path.read_bytes()
    for old, new, text in DAMAGE:
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(FormatError, match=text):
            read_pcd(path)
    for count in (4, 8):
        path.write_bytes(whole.replace(b"WIDTH 6", b"WIDTH %d" % count).replace(b"POINTS 6", b"POINTS %d" % count))
        text = f"{count} points take {12 * count} bytes, but 0 could be unpacked"
        if encoding != "binary_compressed":
            text = f"promises {count} points, but {'only ' if count > 6 else ''}6 follow"
        with pytest.raises(FormatError, match=text) as error:
            read_pcd(path)
        assert "truncated or damaged" in error.value.hint
    path.write_bytes(whole[: whole.index(b"DATA")])
    with pytest.raises(FormatError, match="not a PCD file"):
        read_pcd(path)
    with pytest.raises(FormatError, match="cannot be read"):
        read_pcd(tmp_path / "absent.pcd")


def test_damaged_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write(tmp_path / "a.pcd", table(FLOATS), "ascii")
    whole = text.read_bytes()
    for new in (b"0.25 1.25\n", b"0.25 1.25 x\n", b"0.25 1.25 1_0\n"):
        text.write_bytes(whole.replace(b"0.25 1.25 2.25\n", new))
        with pytest.raises(FormatError, match=f"point 1 is not 3 numbers as the header says: '{new[:-1].decode()}'"):
            read_pcd(text)
    packed = write(tmp_path / "b.pcd", table(FLOATS), "binary_compressed")
    whole = packed.read_bytes()
    for cut in (1, 30, 72 + 3 + 8, 72 + 3 + 1):
        packed.write_bytes(whole[:-cut])
        with pytest.raises(FormatError, match="6 points take 72 bytes, but 0 could be unpacked"):
            read_pcd(packed)
    # A length beyond the file is not read: Python takes the memory first.
    at = whole.index(b"binary_compressed\n") + 18
    packed.write_bytes(whole[:at] + struct.pack("<I", 2**32 - 1) + whole[at + 4 :])
    monkeypatch.setattr(pcd, "_unpacked", lambda data, most: pytest.fail("unpacked"))
    with pytest.raises(FormatError, match="6 points take 72 bytes, but 0 could be unpacked"):
        read_pcd(packed)
    monkeypatch.undo()
    packed.write_bytes(whole[:-30] + bytes(30))
    with pytest.raises(FormatError, match="could be unpacked"):
        read_pcd(packed)


def test_open3d_reads_the_same(tmp_path: Path) -> None:
    open3d = pytest.importorskip("open3d")
    rng = np.random.default_rng(0)
    cloud = open3d.geometry.PointCloud()
    for name in ("points", "colors", "normals"):
        values = np.repeat(rng.random((40, 3)).round(1), 5, axis=0)  # repeats, so that LZF has something to copy
        setattr(cloud, name, open3d.utility.Vector3dVector(values))
    for how in ({"write_ascii": True}, {}, {"compressed": True}):
        open3d.io.write_point_cloud(str(tmp_path / "a.pcd"), cloud, **how)
        found = read_pcd(tmp_path / "a.pcd")
        np.testing.assert_allclose(found.xyz, np.asarray(cloud.points), atol=1e-6)
        np.testing.assert_allclose(found.normal, np.asarray(cloud.normals), atol=1e-6)
        np.testing.assert_allclose(found.rgb, np.asarray(cloud.colors), atol=1 / 255)
