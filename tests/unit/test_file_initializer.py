"""``file``: every kind of file that brings points, how it is placed into the scene, and what is wrong with it."""

from __future__ import annotations

import importlib.util
import io
import json
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_alignment import room
from test_initializers import CENTERS, POINTS, scene

from splatinit.config import Layer, build_config
from splatinit.errors import BadPoints, ConfigError, FormatError, MissingExtra
from splatinit.geometry import alignment
from splatinit.geometry.rigid import Similarity
from splatinit.initializers import needs_points, require_packages
from splatinit.initializers.file import File, FileConfig, aligning
from splatinit.initializers.file import reading as module
from splatinit.io import clouds, las, mesh
from splatinit.io.clouds import read_cloud, read_xyz
from splatinit.io.las import read_las
from splatinit.io.mesh import Mesh
from splatinit.io.ply import has_faces, write_vertices
from splatinit.io.pointcloud import read_ply_raw, write_ply_points
from splatinit.io.transforms import as_affine, read_affine, read_pairs
from splatinit.progress import Silent
from splatinit.types import PointCloud

laspy = pytest.mark.skipif(importlib.util.find_spec("laspy") is None, reason="laspy is not installed")


def start(path, seed=0, **settings):
    return File(FileConfig(path=path, **settings)).initialize(scene(CENTERS), seed=seed, progress=Silent())


def picking(*rows):
    return lambda total: np.array(rows)


# --------------------------------------------------------------------------------------------------------------- text
def test_text_of_several_layouts(tmp_path):
    path = tmp_path / "a.xyz"
    path.write_text("# a scan\nX Y Z R G B\n500000.123 5000000.25 1 255 0 51\n\n1,2;3,0,0,0\n")
    raw = read_xyz(path)
    np.testing.assert_array_equal(raw.xyz, [[500000.123, 5000000.25, 1], [1, 2, 3]])
    np.testing.assert_allclose(raw.rgb, [[1, 0, 0.2], [0, 0, 0]])
    path.write_text("3\n1 2 3 77\n4 5 6 78\n7 8 9 79\n")
    raw = read_xyz(path, picking(1))
    np.testing.assert_array_equal(raw.xyz, [[4, 5, 6]])
    assert raw.total == 3 and raw.rgb is None
    path.write_text("1 2 3 0.5 0.25 1\n")
    np.testing.assert_allclose(read_xyz(path).rgb, [[0.5, 0.25, 1]])
    for normal in ("0 0 1", "0 -1 0", "-0.6 0 0.8"):
        path.write_text(f"1 2 3 9 {normal}\n")
        raw = read_xyz(path)
        np.testing.assert_allclose(raw.normal, [[float(x) for x in normal.split()]])
        assert raw.rgb is None
    path.write_text("# nothing\n")
    assert len(read_xyz(path)) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n", r"line 1 has 2 numbers; expected 3 \(x y z\), 6"),
        ("1 2 3\n4 5\n", "line 2 is not 3 numbers as the first: '4 5'"),
        ("1 2 3\n4 5 x\n", "line 2 is not 3 numbers as the first: '4 5 x'"),
        ("3\n1 2 3\n4 5 6\n", "its first line promises 3 points, but 2 follow"),
        ("1.x 2 3\n4 5 6\n", "line 1 is not 3 numbers as the first: '1.x 2 3'"),
        ("1 2 3 0 0 256\n", "range from 0 to 256; expected colours from 0 to 255"),
        ("1 2 3 -1e308 0 9\n", "range from -1e\\+308 to 9; expected colours"),
        ("1 2 3 -9 0 9\n", "range from -9 to 9; expected colours"),
    ],
)
def test_text_that_is_no_cloud(tmp_path, text, message):
    path = tmp_path / "a.xyz"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_xyz(path)
    with pytest.raises(FormatError, match="cannot be read"):
        read_xyz(tmp_path / "absent.xyz")


# ---------------------------------------------------------------------------------------------------------------- LAS
def las_file(path: Path, xyz: np.ndarray, colours=None) -> Path:
    import laspy

    header = laspy.LasHeader(point_format=2, version="1.2")
    header.offsets, header.scales = np.floor(xyz.min(axis=0)), [0.001] * 3
    data = laspy.LasData(header)
    data.x, data.y, data.z = xyz.T
    if colours is not None:
        data.red, data.green, data.blue = np.asarray(colours, np.uint16).T
    data.write(str(path))
    return path


UTM = np.array([500_000.0, 5_000_000.0, 400.0])


@laspy
@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_surveyors_coordinates_lose_no_precision(tmp_path, suffix):
    # Millimetres beside millions of metres: float32 would keep half metres.
    xyz = UTM + np.random.default_rng(0).integers(0, 50_000, (2000, 3)) / 1000
    path = las_file(tmp_path / f"a{suffix}", xyz)
    begun = start(path)
    offset = np.array(begun.recipe["offset"])
    np.testing.assert_allclose(begun.points.xyz.astype(np.float64) + offset, xyz, atol=1e-5)
    assert np.abs(offset - UTM - 25).max() < 10 and (offset == np.rint(offset)).all()
    (note,) = [text for text in begun.notes if "subtracted" in text]
    assert f"init.offset={','.join(f'{x:.12g}' for x in offset)}" in note
    given = start(path, offset=tuple(UTM), scale=0.1, axes=("x", "-z", "y"))
    expected = 0.1 * (xyz - UTM)[:, [0, 2, 1]] * [1, -1, 1]
    np.testing.assert_allclose(given.points.xyz, expected, atol=1e-6)
    matrix = np.eye(4)
    matrix[:3, 3] = -UTM
    moved = start(path, transform=tuple(matrix.ravel()))
    np.testing.assert_allclose(moved.points.xyz, xyz - UTM, atol=1e-5)


@laspy
def test_las_is_read_in_chunks_and_its_colours_are_scaled(tmp_path, monkeypatch):
    monkeypatch.setattr(las, "_TOGETHER", 7)
    xyz = np.random.default_rng(0).integers(0, 999, (50, 3)) / 1000.0
    path = las_file(tmp_path / "a.las", xyz, np.arange(150).reshape(50, 3))
    raw = read_las(path, picking(0, 6, 7, 30, 49))
    np.testing.assert_allclose(raw.xyz, xyz[[0, 6, 7, 30, 49]], atol=1e-9)
    np.testing.assert_allclose(raw.rgb[-1] * 255, [147, 148, 149], atol=1e-4)
    assert raw.total == 50
    deep = las_file(tmp_path / "b.las", xyz, np.arange(150).reshape(50, 3) * 400)
    np.testing.assert_allclose(read_las(deep).rgb[-1] * 65535, [58_800, 59_200, 59_600], rtol=1e-6)
    assert read_las(las_file(tmp_path / "c.las", xyz)).rgb is None


@laspy
def test_damaged_las(tmp_path, monkeypatch):
    xyz = np.random.default_rng(0).random((500, 3))
    for suffix, cuts in ((".las", (10, 5000)), (".laz", (10, 300, 1000))):
        data = las_file(tmp_path / f"a{suffix}", xyz).read_bytes()
        for cut in cuts:
            path = tmp_path / f"cut{suffix}"
            path.write_bytes(data[:cut])
            text = "promises 500 points of 26 bytes, but the file ends after" if cut == 5000 else "not a readable"
            with pytest.raises(FormatError, match=text) as error:
                read_cloud(path)
            assert "truncated or damaged" in error.value.hint


def laz_file(path: Path, *, kind: int, version: str, count: int, extra: bool = False) -> tuple[bytes, np.ndarray]:
    """Written with points of a format; its bytes, and the points."""
    import laspy

    header = laspy.LasHeader(point_format=kind, version=version)
    header.scales = [0.001] * 3
    if extra:
        header.add_extra_dim(laspy.ExtraBytesParams("more", "f8"))
    data = laspy.LasData(header)
    xyz = np.random.default_rng(kind).random((count, 3)).round(3)
    data.x, data.y, data.z = xyz.T
    data.write(str(path))
    return path.read_bytes(), xyz


@laspy
@pytest.mark.parametrize("kind, version", [(0, "1.2"), (3, "1.2"), (6, "1.4"), (7, "1.4"), (8, "1.4")])
@pytest.mark.parametrize("count", [0, 1, 700])
def test_laz_of_any_points_is_read(tmp_path, monkeypatch, kind, version, count):
    path = tmp_path / "a.laz"
    for extra in (False, True):
        _, xyz = laz_file(path, kind=kind, version=version, count=count, extra=extra)
        np.testing.assert_allclose(read_las(path).xyz, xyz, atol=1e-9)
        with monkeypatch.context() as patch:
            patch.setattr(las, "_LARGE_CHUNK", 1)
            np.testing.assert_allclose(read_las(path).xyz, xyz, atol=1e-9)


@laspy
def test_laz_of_a_writer_that_could_not_go_back(tmp_path):
    path = tmp_path / "a.laz"
    data, xyz = laz_file(path, kind=2, version="1.2", count=9)
    (start,) = struct.unpack_from("<I", data, 96)
    place = data[start : start + 8]
    path.write_bytes(data[:start] + struct.pack("<q", -1) + data[start + 8 :] + place)
    np.testing.assert_allclose(read_las(path).xyz, xyz, atol=1e-9)


@laspy
def test_laz_that_claims_more_than_its_bytes_can_hold(tmp_path):
    """Each of these once took all of the memory, or ended the process."""
    import lazrs

    path = tmp_path / "a.laz"
    for kind, version in ((2, "1.2"), (7, "1.4")):
        whole, _ = laz_file(path, kind=kind, version=version, count=9)
        (start,) = struct.unpack_from("<I", whole, 96)
        record, (each,) = whole.index(b"laszip encoded") + 52, struct.unpack_from("<H", whole, 105)
        (table,) = struct.unpack_from("<q", whole, start)
        counts = "the number of points or of chunks"
        damages = [
            ((107, "I", 50_001), (247, "Q", 50_001)),
            ((107, "I", 2**32 - 1), (247, "Q", 2**60), (record + 12, "I", 2**32 - 2)),
            ((record + 12, "I", 0),),
            ((record + 12, "I", 8),),
            ((table + 4, "I", 2**32 - 1),),
            ((table + 4, "I", 2**32 - 1), (record + 12, "I", 2**32 - 1)),
            ((table + 4, "I", 0),),
        ]
        cases = [(damage, counts) for damage in damages]
        cases += [(((start, "q", place),), "where the table of chunks begins") for place in (0, -9, -1, 2**62)]
        cases += [(((start, "q", len(whole) - 7),), "where the table of chunks begins")]
        cases += [(((record + at, "H", 9),), "the record of LASzip") for at in (32, 36)]
        if version == "1.4":
            cases += [(((start + 8 + each + 4 + 4 * k, "I", 2**32 - 1),), "the length of a layer") for k in (0, 9)]
        for damage, text in cases:
            data = bytearray(whole)
            for at, letter, value in damage:
                if version == "1.4" or at != 247:
                    struct.pack_into("<" + letter, data, at, value)
            path.write_bytes(data)
            with pytest.raises(FormatError, match=f"not a readable .laz file: {text} cannot be right") as error:
                read_las(path)
            assert "truncated or damaged" in error.value.hint
        # Of one chunk with a length of its own, or with a number of points of its own.
        room = table - start - 8
        for points, entry in ((50_000, (9, room + 1)), (50_000, (9, 7)), (2**32 - 1, (8, room)), (2**32 - 1, (9, 7))):
            data = bytearray(whole)
            struct.pack_into("<I", data, record + 12, points)
            packed = io.BytesIO()
            lazrs.write_chunk_table(packed, [entry], lazrs.LazVlr(bytes(data[record:start])))
            path.write_bytes(data[:table] + packed.getvalue())
            with pytest.raises(FormatError, match="not a readable .laz file: the table of chunks cannot be right"):
                read_las(path)
        data = bytearray(whole)
        struct.pack_into("<H", data, record, 1)
        path.write_bytes(data)
        with pytest.raises(FormatError, match="packed by LASzip's compressor 1; expected 2 or 3") as error:
            read_las(path)
        assert "pdal" in error.value.hint


ROOM, POINT, LAYERS = 200, 36, 10  # bytes of the one chunk and of a point, layers of points with colours


def laz_by_hand(
    *, compressor=3, points=50_000, sizes=(30, 6), table=None, chunks=1, layers=(10,) * LAYERS
) -> tuple[bytes, bytes]:
    """A file without a header: where its points begin, the table of chunks (without its entries); and, as laspy gives
    it, the record of LASzip."""
    chunk = bytes(POINT) + struct.pack(f"<I{LAYERS}I", 9, *layers)
    place = 8 + ROOM if table is None else table
    record = struct.pack("<H10xI16xH", compressor, points, len(sizes))
    record += b"".join(struct.pack("<3H", 10 + k, size, 3) for k, size in enumerate(sizes))
    return struct.pack("<q", place) + chunk.ljust(ROOM, b"\0") + struct.pack("<II", 0, chunks), record


@pytest.mark.parametrize(
    "what, entry, total, text",
    [
        ({}, (50_000, ROOM), 9, None),
        ({"points": 2**32 - 1}, (9, ROOM), 9, None),
        ({"chunks": 0}, None, 0, None),
        ({"compressor": 1}, None, 9, "packed by LASzip's compressor 1; expected 2 or 3 .in chunks"),
        ({"sizes": (30,)}, None, 9, "the record of LASzip cannot be right"),
        ({"table": 7}, None, 9, "where the table of chunks begins cannot be right"),
        ({"chunks": 2**31}, None, 9, "the number of points or of chunks cannot be right"),
        ({}, None, 2**60, "the number of points or of chunks cannot be right"),
        ({"points": 2**32 - 2}, None, 2**31, "the number of points or of chunks cannot be right"),
        ({}, (50_000, ROOM + 1), 9, "the table of chunks cannot be right"),
        ({"points": 2**32 - 1}, (8, ROOM), 9, "the table of chunks cannot be right"),
        ({}, (50_000, POINT - 1), 9, "the table of chunks cannot be right"),
        ({}, (50_000, POINT + 43), 9, "the length of a layer cannot be right"),
        ({"layers": (10,) * 9 + (31,)}, (50_000, ROOM), 9, "the length of a layer cannot be right"),
        ({"layers": (10,) * 9 + (30,)}, (50_000, ROOM), 9, None),
    ],
)
def test_what_laz_says_of_its_chunks(tmp_path, monkeypatch, what, entry, total, text):
    """Without laspy and lazrs, of which the second tells the entries of the table."""
    data, record = laz_by_hand(**what)
    path = tmp_path / "a.laz"
    path.write_bytes(data)
    lazrs = SimpleNamespace(LazVlr=bytes, read_chunk_table=lambda file, told: [entry])
    monkeypatch.setitem(__import__("sys").modules, "lazrs", lazrs)

    class Records(list):
        def index(self, name):
            return ["LasZipVlr"].index(name)

    header = SimpleNamespace(
        vlrs=Records([SimpleNamespace(record_data=record)]),
        point_format=SimpleNamespace(size=POINT),
        offset_to_point_data=0,
    )
    if text is None:
        points = 9 if what.get("points") == 2**32 - 1 else 50_000
        assert las._check_chunks(path, header, total) == (POINT * points if total else 0)
    else:
        with pytest.raises(FormatError, match=text):
            las._check_chunks(path, header, total)


class ShortLas:
    """What laspy gives of a file whose points end early."""

    class header:
        point_count, are_points_compressed, offset_to_point_data = 9, False, 227

        class point_format:
            dimension_names, size = ("X",), 20

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def chunk_iterator(self, _):
        return iter(())


def las_header() -> bytes:
    """Of version 1.2, without points."""
    head = bytearray(227)
    struct.pack_into("<4s20xBB68xHII", head, 0, b"LASF", 1, 2, 227, 227, 0)
    struct.pack_into("<6d", head, 131, 1, 1, 1, 0, 0, 0)
    return bytes(head)


def test_las_that_ends_without_a_word(tmp_path, monkeypatch):
    fake = type("laspy", (), {"open": staticmethod(lambda path: ShortLas())})
    monkeypatch.setitem(__import__("sys").modules, "laspy", fake)
    (tmp_path / "a.las").write_bytes(las_header() + bytes(180))
    with pytest.raises(FormatError, match="promises 9 points, but only 0 follow"):
        read_las(tmp_path / "a.las")
    (tmp_path / "b.las").write_bytes(las_header() + bytes(50))
    with pytest.raises(FormatError, match="promises 9 points of 20 bytes, but the file ends after 2"):
        read_las(tmp_path / "b.las")
    for at, kind, value, wrong in (
        (0, "4s", b"LASG", "the signature"),
        (25, "B", 9, "the signature, the version"),
        (96, "I", 90, "where the points begin"),
        (96, "I", 9999, "where the points begin"),
        (100, "I", 2**32 - 1, "the number of variable length records"),
        (104, "B", 66, "the format of the points"),
        (131, "d", 0.0, "the scale or the offset"),
        (155, "d", float("nan"), "the scale or the offset"),
    ):
        data = bytearray(las_header())
        struct.pack_into("<" + kind, data, at, value)
        (tmp_path / "c.las").write_bytes(data)
        with pytest.raises(FormatError, match=f"not a readable .las file: {wrong}.* cannot be right"):
            read_las(tmp_path / "c.las")
    with pytest.raises(FormatError, match="cannot be read"):
        read_las(tmp_path / "absent.las")

    class PanicException(BaseException):
        """As lazrs raises, which is no Exception."""

    def refuse(kind):
        def opened(path):
            raise kind("no")

        monkeypatch.setattr(fake, "open", staticmethod(opened))

    for kind in (ZeroDivisionError, PanicException):
        refuse(kind)
        with pytest.raises(FormatError, match=f"not a readable .las file .{kind.__name__}: no"):
            read_las(tmp_path / "b.las")
    refuse(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        read_las(tmp_path / "b.las")


def test_packages_that_are_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(clouds.importlib.util, "find_spec", lambda name: None)
    for name, package, extra in (
        ("a.las", "laspy", "las"),
        ("a.glb", "open3d", "open3d"),
    ):
        config = build_config(Layer("x", {"init.name": "file", "init.path": str(tmp_path / name)}))
        with pytest.raises(MissingExtra, match=f"reading {name[1:]} files needs {package}") as error:
            require_packages("file", config.init.settings)
        assert f'pip install "splatinit[{extra}]"' in error.value.hint
    monkeypatch.setattr(clouds.importlib.util, "find_spec", lambda name: name == "laspy" or None)
    with pytest.raises(MissingExtra, match="needs lazrs"):
        read_cloud(tmp_path / "a.laz")
    require_packages("file", FileConfig(path=tmp_path / "a.ply"))
    require_packages("file", FileConfig(path=tmp_path))
    require_packages("file", FileConfig())


# --------------------------------------------------------------------------------------------------------------- mesh
CORNERS = np.array([[0.0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])


def ply_mesh(path: Path, faces=FACES, colours=True) -> Path:
    names = "".join(f"property uchar {c}\n" for c in ("red", "green", "blue")) if colours else ""
    head = f"ply\nformat ascii 1.0\nelement vertex 4\nproperty double x\nproperty double y\nproperty double z\n{names}"
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [
        " ".join(f"{x:g}" for x in corner) + (f" {127.5 * corner[0]:.0f} 0 0" if colours else "") for corner in CORNERS
    ]
    path.write_text(head + "\n".join([*rows, *(f"3 {a} {b} {c}" for a, b, c in faces)]) + "\n")
    return path


def test_a_mesh_is_sampled_evenly_with_its_colours(tmp_path):
    path = ply_mesh(tmp_path / "a.ply")
    begun = start(path, count=4000)
    points = begun.points
    assert len(points) == 4000 and "4 000 points on the surface of 2 triangles" in begun.notes
    assert (points.xyz[:, 2] == 0).all()
    cells = np.histogram2d(points.xyz[:, 0], points.xyz[:, 1], bins=(4, 2), range=((0, 2), (0, 1)))[0]
    assert cells.min() > 400 and cells.max() < 600  # of equal area, 500 on average
    np.testing.assert_allclose(points.rgb[:, 0], points.xyz[:, 0] / 2, atol=0.003)  # interpolated, 8 bit
    np.testing.assert_allclose(np.abs(points.normal), np.tile([0, 0, 1], (4000, 1)), atol=1e-6)
    np.testing.assert_array_equal(start(path, count=50, seed=3).points.xyz, start(path, count=50, seed=3).points.xyz)
    assert len(start(path).points) == module.ON_MESH
    vertices = start(path, sample="vertices").points
    np.testing.assert_array_equal(vertices.xyz, CORNERS)
    assert has_faces(path) and "the points start grey" in " ".join(start(ply_mesh(path, colours=False)).notes)


def test_a_mesh_far_out_is_sampled_without_loss(tmp_path):
    path = tmp_path / "a.ply"
    head = "ply\nformat ascii 1.0\nelement vertex 3\nproperty double x\nproperty double y\nproperty double z\n"
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    path.write_text(head + "5000000 500000 0\n5000001 500000 0\n5000000 500001 0.5\n3 0 1 2\n")
    begun = start(path, count=100, offset=(5e6, 5e5, 0.0))
    x, y, z = begun.points.xyz.T.astype(float)
    np.testing.assert_allclose(z, y / 2, atol=1e-7)
    assert x.min() >= 0 and (x + y).max() <= 1 + 1e-6


def test_meshes_without_faces(tmp_path, monkeypatch):
    cloud = tmp_path / "a.ply"
    write_ply_points(cloud, POINTS)
    with pytest.raises(BadPoints, match=r"has no faces, so that it has no surface to sample \(init.sample=surface\)"):
        start(cloud, sample="surface")
    assert not has_faces(cloud)
    monkeypatch.setattr(mesh, "require_package", lambda *_: None)
    monkeypatch.setattr(mesh, "_open3d_parts", lambda path: [])
    (tmp_path / "a.obj").write_text("v 0 0 0\n")
    with pytest.raises(FormatError, match="Open3D finds no triangles in it; expected a mesh as .obj that has faces"):
        start(tmp_path / "a.obj")
    with pytest.raises(FormatError, match="cannot be read"):
        has_faces(tmp_path / "absent.ply")


def test_textures_and_materials():
    texture = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)  # blue at (0, 0)
    uv = np.array([[[0, 0], [1, 0], [1, 1]]], float)
    parts = [
        mesh._Part(CORNERS[:3], FACES[:1], uv=uv, texture=texture),
        mesh._Part(CORNERS[:3], FACES[:1], colour=np.float32([1, 0.5, 0])),
        mesh._Part(CORNERS[:3], FACES[:1], colour=np.float32([1, 1, 1])),
    ]
    joined = mesh._joined(parts, linear=False)
    assert joined.triangles.tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]] and joined.material.tolist() == [0, -1, -1]
    weights = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.05, 0.05, 0.9], [1, 0, 0], [1, 0, 0]])
    rgb = joined.colours(np.array([0, 0, 0, 1, 2]), weights)
    np.testing.assert_allclose(rgb, [[0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 0.5, 0], [0.5, 0.5, 0.5]])
    linear = mesh._joined(parts[1:], linear=True).colours(np.array([0]), weights[:1])
    np.testing.assert_allclose(linear, [[1, 0.7354, 0]], atol=1e-4)
    assert mesh._joined(parts[2:], linear=True).colours(np.array([0]), weights[:1]) is None
    grey = mesh._as_rgb(np.full((2, 2), 7, np.uint8))
    assert grey.shape == (2, 2, 3) and mesh._as_rgb(np.zeros((2, 2, 3), np.float32)) is None
    np.testing.assert_array_equal(mesh._as_rgb(np.full((1, 2, 3), 51 * 257, np.uint16)), 51)
    assert mesh._as_rgb(np.zeros((2, 2, 4), np.uint8)).shape == (2, 2, 3)


def test_a_mesh_without_colours_has_none():
    assert Mesh(CORNERS, FACES).colours(np.array([0]), np.ones((1, 3)) / 3) is None


# ------------------------------------------------------------------------------------------------------------ placing
def test_many_points_are_drawn_and_it_is_said(tmp_path, monkeypatch):
    path = tmp_path / "a.ply"
    write_ply_points(path, POINTS)
    begun = start(path, count=100, seed=4)
    assert len(begun.points) == 100
    assert "100 of its 500 points were drawn at random (init.count)" in begun.notes
    known = {tuple(row) for row in POINTS.xyz.tolist()}
    drawn = {tuple(row) for row in begun.points.xyz.tolist()}
    assert len(drawn) == 100 and drawn <= known
    assert {tuple(row) for row in start(path, count=100, seed=5).points.xyz.tolist()} != drawn
    monkeypatch.setattr(module, "MOST", 60)
    assert len(start(path).points) == 60
    assert len(start(path, count=500).points) == 500


def test_memory_is_bounded_by_what_is_drawn(tmp_path):
    import tracemalloc

    path = tmp_path / "a.xyz"
    path.write_text("".join(f"{k} {k % 7} {k % 5}\n" for k in range(200_000)))
    tracemalloc.start()
    raw = read_cloud(path, lambda total: np.arange(0, total, 1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(raw) == 200 and raw.total == 200_000
    assert peak < 2e6  # the file has 2.3 MB, its table 4.8 MB


def test_points_that_are_not_finite_are_left_out(tmp_path):
    xyz = POINTS.xyz.copy()
    xyz[3], xyz[7, 1] = np.nan, np.inf
    table = np.zeros(500, [(name, "f4") for name in ("x", "y", "z", "nx", "ny", "nz")])
    for axis, name in enumerate("xyz"):
        table[name] = xyz[:, axis]
    table["nx"], table["ny"][9] = 1, np.nan
    path = tmp_path / "a.ply"
    write_vertices(path, table)
    begun = start(path)
    assert len(begun.points) == 498 and begun.points.normal is None
    assert "2 of 500 points are not finite and were left out" in begun.notes
    assert any("normals are not used" in text for text in begun.notes)
    assert "it has no colours: the points start grey" in begun.notes and (begun.points.rgb == 0.5).all()
    for name in "xyz":
        table[name] = np.nan
    write_vertices(path, table)
    with pytest.raises(BadPoints, match="none of its 500 points has a finite place and colour"):
        start(path)


def test_everything_turns_and_grows_with_the_points(tmp_path):
    path = tmp_path / "a.ply"
    n = len(POINTS)
    normal = np.tile([0.0, 1.0, 0.0], (n, 1))
    full = PointCloud(POINTS.xyz, POINTS.rgb, radius=np.full(n, 0.5), normal=normal, sh=np.ones((n, 3, 3)))
    write_ply_points(path, full)
    begun = start(path, scale=2.0, axes=("x", "-z", "y"), offset=(1.0, 0.0, 0.0))
    x, y, z = full.xyz.T
    np.testing.assert_allclose(begun.points.xyz, 2 * np.stack([x - 1, -z, y], axis=1), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(begun.points.radius, 1.0)
    np.testing.assert_allclose(begun.points.normal, np.tile([0, 0, 1.0], (n, 1)), atol=1e-7)
    assert begun.points.sh is None and any("SH coefficients are not used" in text for text in begun.notes)
    assert start(path, scale=2.0).points.sh is not None
    mirrored = start(path, axes=("x", "y", "-z"))
    assert "the axes or the transform mirror it" in mirrored.notes
    file = tmp_path / "m.txt"
    file.write_text("[[0, -1, 0, 5],\n [1, 0, 0, 6],\n [0, 0, 1, 7]]\n")
    turned = start(path, transform=file)
    np.testing.assert_allclose(turned.points.xyz, np.stack([5 - y, 6 + x, 7 + z], axis=1), atol=1e-6)
    assert turned.recipe["matrix"][0] == [0, -1, 0, 5] and json.dumps(turned.recipe)


def test_points_elsewhere_are_said(tmp_path):
    path = tmp_path / "a.ply"
    write_ply_points(path, POINTS)
    assert not start(path).notes
    behind = start(path, offset=(0.0, 0.0, -60.0))
    assert any("0.0% of the points are in the view of a camera" in text for text in behind.notes)
    far = start(path, transform=tuple(np.block([[np.eye(3), np.full((3, 1), 1e6)], [0, 0, 0, 1]]).ravel()))
    assert any("float32 keeps steps of 0.062 scene units" in text for text in far.notes)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([1.0] * 9, "a transform of 9 numbers; expected 16"),
        ([float("inf"), *[0.0] * 11], "a number that is not finite"),
        (
            [1.0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 5, 6, 7, 1],
            "the last row of the transform is 5 6 7 1; expected 0 0 0 1",
        ),
        ([1.0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0], "singular: it flattens the points"),
        ([0.0] * 12, "singular"),
        ([1e308, 0, 0, 0, 0, 1e-308, 2, 0, 0, 2, 1e-308, 0], "singular"),
    ],
)
def test_transforms_that_are_none(tmp_path, numbers, text):
    with pytest.raises(ConfigError, match=f"here: .*{text}"):
        as_affine(numbers, "here")
    with pytest.raises(ConfigError, match=text):
        FileConfig(transform=tuple(numbers))


def test_files_of_transforms_that_are_none(tmp_path):
    path = tmp_path / "m.txt"
    path.write_text("1 0 0 zero")
    with pytest.raises(FormatError, match="'zero' is not a number; expected the 16 numbers of a 4×4"):
        read_affine(path)
    with pytest.raises(FormatError, match="cannot be read"):
        read_affine(tmp_path / "absent.txt")
    path.write_text(" ".join(f"{x:g}" for x in np.eye(4).ravel()))
    np.testing.assert_array_equal(read_affine(path), np.eye(4))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"count": 0}, "init.count is 0; expected at least 1 point"),
        ({"sample": "faces"}, "init.sample is 'faces'"),
        ({"offset": (0.0, np.inf, 0.0)}, "init.offset is .*; expected three finite numbers"),
        ({"scale": 0.0}, "init.scale is 0; expected a positive factor"),
        ({"axes": ("x", "y", "y")}, "init.axes is x,y,y; expected x, y and z once each"),
        ({"axes": ("x", "y", "--z")}, "init.axes is x,y,--z"),
    ],
)
def test_bad_settings(settings, text):
    with pytest.raises(ConfigError, match=text):
        FileConfig(**settings)


def test_settings_as_they_are_typed():
    typed = {"init.name": "file", "init.axes": "x,-z,y", "init.offset": "5e5,5e6,0", "init.transform": "m.txt"}
    config = build_config(Layer("command line", typed))
    assert config.init.settings.axes == ("x", "-z", "y") and config.init.settings.transform == Path("m.txt")
    again = build_config(Layer("config.yaml", {f"init.{k}": v for k, v in config.expand()["init"].items()}))
    assert again == config
    numbers = build_config(Layer("x", {"init.name": "file", "init.transform": "1,0,0,0,0,1,0,0,0,0,1,0"}))
    assert len(numbers.init.settings.transform) == 12


def test_endings_that_nothing_is_known_of(tmp_path):
    path = tmp_path / "a.fbx"
    path.write_text("x")
    with pytest.raises(FormatError, match="neither a point cloud nor a mesh is known by the ending '.fbx'"):
        start(path)
    with pytest.raises(FormatError, match="a point cloud cannot be known by the ending '.fbx'; expected one of .ply"):
        read_cloud(path)


def test_ply_in_double_precision_and_in_part(tmp_path):
    table = np.zeros(4, [("x", "f8"), ("y", "f8"), ("z", "f8")])
    table["x"] = 5e6 + np.arange(4) / 1000
    for format in ("binary", "ascii"):
        path = tmp_path / f"{format}.ply"
        write_vertices(path, table)
        if format == "ascii":
            rows = "\n".join(f"{x!r} 0 0" for x in table["x"].tolist())
            names = "".join(f"property double {c}\n" for c in "xyz")
            path.write_text(f"ply\nformat ascii 1.0\nelement vertex 4\n{names}end_header\n{rows}\n")
        raw = read_ply_raw(path, picking(1, 3))
        np.testing.assert_array_equal(raw.xyz[:, 0], table["x"][[1, 3]])
        assert raw.total == 4 and raw.rgb is None


# ----------------------------------------------------------------------------------------------------------- aligning
def photographed():
    """A scene whose 900 sparse points lie in a furnished room, and a scan of that, 8000 points."""
    rng = np.random.default_rng(0)
    sparse, dense = (0.3 * room(rng, n) for n in (900, 8000))
    return scene(CENTERS, PointCloud(sparse + rng.normal(0, 0.001, sparse.shape), np.full_like(sparse, 0.5))), dense


def aligned(path, where, **settings):
    return File(FileConfig(path=path, **settings)).initialize(where, seed=0, progress=Silent())


def scan(path, xyz):
    path.write_text("".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in xyz.tolist()))
    return path


TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])


def test_a_scan_is_brought_onto_the_sparse_points(tmp_path):
    where, xyz = photographed()
    near = scan(tmp_path / "near.xyz", xyz * 1.02 + (0.02, -0.03, 0.02))
    begun = aligned(near, where, align="similarity")
    assert np.abs(begun.points.xyz - xyz).max() < 5e-3
    (note,) = [text for text in begun.notes if text.startswith("aligned (similarity): ")]
    assert "of the scene's sparse points have one of the cloud within" in note and "grew by 0.98" in note
    assert begun.seconds["align"] > 0 and needs_points("file", FileConfig(align="similarity"))
    rigid = aligned(scan(near, xyz + 0.03), where, align="rigid")
    assert np.abs(rigid.points.xyz - xyz).max() < 5e-3 and "grew by 1" in " ".join(rigid.notes)
    assert not needs_points("file") and not needs_points("file", FileConfig(pairs=near))


def test_a_scan_of_any_place_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(alignment, "_ROTATIONS", 60)
    where, xyz = photographed()
    # A surveyor's coordinates in feet.
    away = scan(tmp_path / "a.xyz", (xyz @ TURN.T) * 3.28 + (5e5, 5e6, 100))
    begun = aligned(away, where, align="global")
    assert np.abs(begun.points.xyz - xyz).max() < 5e-3
    one, other = np.random.default_rng(0).normal(size=(2, 400, 3))
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (one, other))
    round_scene = scene(CENTERS, PointCloud(one, np.full((400, 3), 0.5)))
    with pytest.raises(BadPoints, match="init.align=global found two places for the cloud that fit about") as error:
        aligned(scan(away, 2 * other), round_scene, align="global")
    assert "init.pairs" in error.value.hint


def test_alignments_that_cannot_be(tmp_path, monkeypatch):
    where, xyz = photographed()
    path = scan(tmp_path / "a.xyz", xyz + 40)
    text = "init.align=rigid found no convincing place for the cloud: .*; expected 30% at least"
    with pytest.raises(BadPoints, match=text) as error:
        aligned(scan(path, 0.01 * xyz + 3), where, align="rigid")
    assert "init.align=global" in error.value.hint
    # Half of the points are reached, but not more closely than by chance: the place is wrong.
    for share, residual, convincing in (
        (0.52, 0.034, False),
        (0.52, 0.032, True),
        (0.61, 0.05, True),
        (0.29, 0, False),
    ):
        found = alignment.Fit(Similarity(1.0, np.eye(3), np.zeros(3)), 0.1, share, share, residual)
        monkeypatch.setattr(aligning, "refine", lambda *_, found=found, **__: found)
        if convincing:
            aligned(path, where, align="rigid")
            continue
        text = (
            f"no convincing place for the cloud: {share:.0%} of .*30% at least, and less than 60% only within 0.033 in"
        )
        with pytest.raises(BadPoints, match=text):
            aligned(path, where, align="rigid")
    for without in (scene(CENTERS), scene(CENTERS, POINTS.select(np.arange(7)))):
        with pytest.raises(BadPoints, match="init.align=global needs sparse points of the scene to align to; it has"):
            aligned(path, without, align="global")


def test_pairs_of_points_place_a_scan(tmp_path):
    where, xyz = photographed()
    file = (xyz @ TURN.T) * 3.28 + (500_000, 5_000_000, 100)
    path, pairs = scan(tmp_path / "a.xyz", file), tmp_path / "pairs.txt"
    rows = [",".join(map(repr, [*file[k].tolist(), *xyz[k].tolist()])) for k in (0, 700, 2000, 5000)]
    pairs.write_text("# file, scene\n" + "\n".join(rows) + "  # the corner\n")
    begun = aligned(path, where, pairs=pairs)
    np.testing.assert_allclose(begun.points.xyz, xyz, atol=1e-6)
    (note,) = [text for text in begun.notes if "pairs" in text]
    assert note.startswith("4 pairs of points fit with a scale of 0.304878 within")
    with pytest.raises(ConfigError, match="init.pairs and init.scale both say where the points belong"):
        FileConfig(pairs=pairs, scale=2.0)
    with pytest.raises(ConfigError, match="init.align is 'icp'"):
        FileConfig(align="icp")
    for line, shown in (
        ("1 2 3 4 5", "1 2 3 4 5"),
        ("1 2 3 4 5 six", "1 2 3 4 5 six"),
        ("1 2 3 4 5 inf", "1 2 3 4 5 inf"),
    ):
        pairs.write_text(f"1 2 3 4 5 6\n{line}\n")
        with pytest.raises(FormatError, match=f"line 2 is '{shown}'; expected six numbers: x y z in the file"):
            read_pairs(pairs)
    pairs.write_text("1 2 3 4 5 6\n" * 2)
    with pytest.raises(BadPoints, match="pairs.txt: 2 pairs of points; a similarity needs at least 3"):
        aligned(path, where, pairs=pairs)
    with pytest.raises(FormatError, match="cannot be read"):
        read_pairs(tmp_path / "absent.txt")
    pairs.write_text("1 2 3 4 5 6\n" * 100_000)
    with pytest.raises(FormatError, match="longer than 1000000 bytes; expected a few lines"):
        read_pairs(pairs)


def test_triangles_that_are_not_finite_are_left_out(tmp_path):
    path = ply_mesh(tmp_path / "a.ply")
    text = path.read_text()
    path.write_text(text.replace("\n0 1 0 0 0 0\n", "\nnan 1 0 0 0 0\n"))
    begun = start(path, count=50)
    assert "1 of 2 triangles have corners that are not finite and were left out" in begun.notes
    assert (begun.points.xyz[:, 1] <= begun.points.xyz[:, 0] / 2 + 1e-6).all()
    path.write_text(text.replace("\n0 0 0 0 0 0\n", "\nnan 0 0 0 0 0\n"))
    with pytest.raises(BadPoints, match="a.ply: none of its 2 triangles has finite corners"):
        start(path, count=50)
