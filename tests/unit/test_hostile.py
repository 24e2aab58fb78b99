"""What damaged and hostile files once did to a reader (found by tests/fuzz), each by its name."""

from __future__ import annotations

import io
import json
import os
import struct
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.markup import escape
from rich.table import Table
from typer.testing import CliRunner

from splatinit.cli.app import app
from splatinit.cli.console import ConsoleProgress, SafeConsole
from splatinit.errors import BadPoints, BadPoses, FormatError, SceneError, SplatinitError, printable
from splatinit.evaluation import file_names
from splatinit.io.cameras import read_cameras
from splatinit.io.colmap_model import read_model
from splatinit.io.depths import with_depth
from splatinit.io.images import DepthFile, MaskFile, probe_image
from splatinit.io.pointcloud import read_ply_points
from splatinit.io.read import ReadConfig, read_images
from splatinit.io.runs import RunFolder, broken
from splatinit.io.text import read_json, read_lines, to_array, to_floats, to_ints
from splatinit.report.figures import SheetRow, contact_sheet
from splatinit.types import DepthPrior, Initialization, PointCloud


# ------------------------------------------------------------------------------------------------------ error messages
def test_messages_show_control_characters_instead_of_sending_them():
    error = SplatinitError("a\x1b[31mb\nc\u202ed\ud800", hint="do\rthis")
    assert error.message == r"a\x1b[31mb\nc\u202ed\ud800" and error.hint == r"do\rthis"
    assert str(error) == f"{error.message}\n  {error.hint}"
    assert printable("tab\tline\n", keep="\n") == "tab\\tline\n"


def test_messages_are_bounded():
    error = SplatinitError("begins " + "x" * 100_000 + " ends.")
    assert len(error.message) < 2100 and error.message.startswith("begins ") and error.message.endswith(" ends.")


# --------------------------------------------------------------------------------------------------------- text, JSON
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"one\ntw\x1bo\n", r"line 2: holds the control character '\\x1b'"),
        ("a\u2028b".encode(), "line 1: holds the control character"),
        (b"a\rb", r"control character '\\r'"),
        (b"\xff", "cannot be read as text"),
    ],
)
def test_text_files_hold_plain_text(tmp_path, data, says):
    (tmp_path / "names.txt").write_bytes(data)
    with pytest.raises(FormatError, match=says):
        read_lines(tmp_path / "names.txt")


def test_text_files_of_other_systems_are_read(tmp_path):
    (tmp_path / "names.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\tthree")
    assert read_lines(tmp_path / "names.txt") == ["one", "two\tthree"]
    with pytest.raises(FormatError, match="cannot be read .No such file"):
        read_lines(tmp_path / "absent.txt")


@pytest.mark.parametrize("words", [["1_0"], ["\u0663"], ["one"], [""]])
def test_only_numbers_are_numbers(words):
    for convert in (to_floats, to_ints):
        with pytest.raises(ValueError):
            convert(words)


@pytest.mark.parametrize("value", [["1"], [True], [None], {"a": 1}, [[1, 2], [3]], [10**400], "1"])
def test_only_lists_of_numbers_are_arrays(value):
    with pytest.raises(ValueError):
        to_array(value)
    assert to_array([[1, 2.5]]).tolist() == [[1.0, 2.5]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"b": [{"a": 1, "a": 1}]}', "the key 'a' stands twice"),
        ("{\n,}", "line 2, column 1: not valid JSON"),
        ("[" * 100_000 + "]" * 100_000, "not a JSON text file"),
        ("1" * 10_000, "not a JSON text file"),
    ],
)
def test_json_is_read_strictly(tmp_path, text, says):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FormatError, match=says):
        read_json(tmp_path / "a.json")


def test_absent_json(tmp_path):
    with pytest.raises(FormatError, match="cannot be read .No such file"):
        read_json(tmp_path / "a.json")


# ------------------------------------------------------------------------------------------------------------- COLMAP
IMAGE_LINES = "1 1 0 0 0 0 0 0 1 a.png\n1.5 2.5 7\n"
POINT_LINE = "7 1 2 3 10 20 30 0.5 1 0\n"


def text_model(folder, cameras="1 PINHOLE 8 6 9 9 4 3\n", images=IMAGE_LINES, points=POINT_LINE):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("cameras", cameras), ("images", images), ("points3D", points)):
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("part", "text", "says"),
    [
        ("cameras", "1 PINHOLE 8 6 9 9 4 3\n1 PINHOLE 8 6 5 5 4 3\n", "camera 1 is there twice"),
        ("images", IMAGE_LINES + IMAGE_LINES.replace("a.png", "b.png"), "image 1 is there twice"),
        ("points", POINT_LINE + POINT_LINE, "1 of 2 points have the number of another one"),
        ("cameras", "1 PINHOLE 8 6 9_0 9 4 3\n", "line 1: damaged; expected CAMERA_ID"),
        ("cameras", "1 PINHOLE\n", "line 1: damaged; expected CAMERA_ID"),
        ("images", "1 1 0 0 0 0 0 0 1 a.png\n1.5 2.5 7.5\n", "line 2: damaged; expected triples"),
        ("images", "1 1 0 0 0 0 0 0 1 a.png\n1.5 2.5\n", "line 2: damaged; expected triples"),
        ("images", "1 1 0 0 0 0 0 0 1 a.png\nnan 2.5 1\n", "line 2: damaged; expected triples"),
        ("images", f"1 1 0 0 0 0 0 0 1 a.png\n1 2 {2**70}\n", "line 2: damaged; expected triples"),
        ("images", "1 1 0 0 0 0 0 1 a.png\n\n", "line 1: damaged; expected IMAGE_ID"),
        ("points", "7 1 2 3 10 20 30 0.5 1 0 8 1 2 3 10 20 30 0.5\n", "line 1: damaged; expected POINT3D_ID"),
        ("points", "7 1 2 3 10 20 300 0.5 1 0\n", "line 1: damaged; expected POINT3D_ID"),
        ("points", "7 1 2 3 10 20 30 0.5 1 \u0663\n", "line 1: damaged; expected POINT3D_ID"),
    ],
)
def test_colmap_text_that_once_passed(tmp_path, part, text, says):
    with pytest.raises(FormatError, match=says):
        read_model(text_model(tmp_path, **{part: text}))


def binary_model(folder, twice="", xy=1.5):
    folder.mkdir(parents=True, exist_ok=True)
    camera = struct.pack("<iiQQ4d", 1, 1, 8, 6, 9.0, 9.0, 4.0, 3.0)
    image = struct.pack("<i7di", 1, 1, 0, 0, 0, 0, 0, 0, 1) + b"a.png\0" + struct.pack("<Qddq", 1, xy, 2.5, 7)
    point = struct.pack("<q3d3BdQ", 7, 1, 2, 3, 10, 20, 30, 0.5, 0)
    for name, record in (("cameras", camera), ("images", image), ("points3D", point)):
        count = 2 if name == twice else 1
        (folder / f"{name}.bin").write_bytes(struct.pack("<Q", count) + record * count)
    return folder


@pytest.mark.parametrize(
    ("twice", "says"),
    [
        ("cameras", "camera 1 is there twice"),
        ("images", "image 1 is there twice"),
        ("points3D", "1 of 2 points have the number of another one"),
    ],
)
def test_colmap_binary_with_a_number_twice(tmp_path, twice, says):
    assert len(read_model(binary_model(tmp_path / "once")).points) == 1
    with pytest.raises(FormatError, match=says):
        read_model(binary_model(tmp_path / "twice", twice))


def test_colmap_feature_positions_are_finite(tmp_path):
    with pytest.raises(FormatError, match="image 1 has a feature whose position is not finite"):
        read_model(binary_model(tmp_path, xy=float("nan")))


@pytest.mark.parametrize("bits", [0x7FF0000000000001, 0x7FF0000000000000, 0x7FEFFFFFFFFFFFFF])
def test_colmap_point_that_no_float32_holds(tmp_path, bits):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.png")
    folder = binary_model(tmp_path / "sparse" / "0")
    data = bytearray((folder / "points3D.bin").read_bytes())
    struct.pack_into("<Q", data, 16, bits)
    (folder / "points3D.bin").write_bytes(data)
    with pytest.raises(BadPoints, match="1 of 1 points have non-finite xyz"):
        read_images(tmp_path)


# ---------------------------------------------------------------------------------------------------------------- PLY
PROPERTIES = "property float x\nproperty float y\nproperty float z\n"
FACES = "element face 2\nproperty list uchar int vertex_indices\n"


def ply(
    path,
    properties=PROPERTIES,
    rows=((1, 2, 3), (4, 5, 6)),
    count=None,
    format="ascii 1.0",
    more="",
    tail=b"",
    first="",
):
    count = len(rows) if count is None else count
    header = f"ply\nformat {format}\n{first}element vertex {count}\n{properties}{more}end_header\n"
    if format.startswith("ascii"):
        body = "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
    else:
        body = b"".join(struct.pack(("<" if "little" in format else ">") + "f" * len(row), *row) for row in rows)
    path.write_bytes(header.encode() + body + tail)
    return path


LITTLE = "binary_little_endian 1.0"
TRIANGLES = struct.pack("<B3iB3i", 3, 0, 1, 1, 3, 1, 0, 1)
MIXED = struct.pack("<B3iB4i", 3, 0, 1, 1, 4, 1, 0, 1, 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": "ascii 2.0"}, "header line 'format ascii 2.0' is not understood"),
        ({"count": 1}, "2 lines follow the header, which promises 1"),
        ({"rows": ((1, 2, "3_0"),)}, "vertex 0 is not 3 numbers"),
        (
            {"properties": PROPERTIES.replace("float z", "int z"), "rows": ((1, 2, 3.5),)},
            "'z' has a value that its type",
        ),
        ({"more": "element vertex 0\n"}, "has 2 elements 'vertex'"),
        ({"first": FACES, "format": LITTLE}, "lists stand before the vertices"),
        (
            {"first": "element q 9\nproperty int i\n", "format": LITTLE},
            "promises 9 × 'q', but the file ends within them",
        ),
        ({"properties": PROPERTIES + "property list float int q\n"}, "property list float int q' is not understood"),
        ({"properties": PROPERTIES.rstrip("\n")}, "its header has no end"),
        ({"format": LITTLE, "tail": b"\0"}, "1 bytes follow the 2 vertices of the header"),
        (
            {"format": LITTLE, "more": FACES, "tail": TRIANGLES + b"\0"},
            "1 bytes follow the 2 vertices and the face data",
        ),
        (
            {"format": LITTLE, "more": FACES, "tail": TRIANGLES[:-1]},
            "promises 2 × 'face', but the file ends within them",
        ),
        ({"format": LITTLE, "more": FACES, "tail": MIXED[:-1]}, "promises 2 × 'face', but the file ends within them"),
        ({"format": LITTLE, "more": FACES.replace("2", "9" * 30)}, "× 'face', but the file ends within them"),
        ({"format": LITTLE, "more": FACES.replace("uchar", "char"), "tail": b"\xff" * 26}, "the file ends within them"),
        (
            {"format": LITTLE, "more": "element q 1\nproperty int i\n", "tail": b"\0" * 5},
            "1 bytes follow the 2 vertices",
        ),
    ],
)
def test_ply_that_once_passed(tmp_path, change, says):
    with pytest.raises(FormatError, match=says):
        read_ply_points(ply(tmp_path / "a.ply", **change))


@pytest.mark.parametrize("tail", [TRIANGLES, MIXED])
def test_ply_with_faces_is_walked_to_its_end(tmp_path, tail):
    cloud = read_ply_points(
        ply(tmp_path / "a.ply", format=LITTLE, more=FACES, tail=tail, first=FACES.replace("2", "0"))
    )
    assert cloud.xyz.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_ply_without_faces_may_name_them(tmp_path):
    more = FACES.replace("2", "0")
    assert len(read_ply_points(ply(tmp_path / "a.ply", format=LITTLE, more=more))) == 2
    assert len(read_ply_points(ply(tmp_path / "b.ply", more=more))) == 2


def test_ply_colours_of_different_types(tmp_path):
    colours = "property uchar red\nproperty float green\nproperty ushort blue\n"
    cloud = read_ply_points(ply(tmp_path / "a.ply", PROPERTIES + colours, ((1, 2, 3, 255, 0.5, 65535),)))
    np.testing.assert_allclose(cloud.rgb, [[1, 0.5, 1]])


def test_ply_normal_that_is_a_signalling_nan(tmp_path):
    properties = PROPERTIES + PROPERTIES.replace("float ", "float n")
    path = ply(tmp_path / "a.ply", properties, ((1, 2, 3, 4, 5, 6),), format="binary_big_endian 1.0")
    path.write_bytes(path.read_bytes()[:-4] + b"\x7f\x80\0\1")
    with pytest.raises(BadPoints, match="non-finite normal"):
        read_ply_points(path)


def test_ply_number_beyond_float32(tmp_path):
    with pytest.raises(BadPoints, match="non-finite xyz"):
        read_ply_points(ply(tmp_path / "a.ply", rows=((1, 2, -1e308),)))


# ------------------------------------------------------------------------------------------------------------- cameras
def own_camera(**change):
    row = {"width": 8, "height": 6, "K": [[9, 0, 4], [0, 9, 3], [0, 0, 1]], "cam_from_world": np.eye(4).tolist()}
    return {"cameras": [{**row, **change}]}


def viewer_camera(**change):
    row = {"camera_to_world": np.eye(4).ravel().tolist(), "fov": 50}
    return {"camera_path": [{**row, **change}], "render_width": 8, "render_height": 6}


HUGE = np.diag([1e308, 1, 1, 1])


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (own_camera(width=8.5), FormatError, "'width' is 8.5; expected a whole number of px"),
        (own_camera(height=True), FormatError, "'height' is True"),
        (own_camera(height=-6), FormatError, "'height' is -6"),
        (own_camera(K=[[9, 1, 4], [0, 9, 3], [0, 0, 1]]), FormatError, r"'K' is not \[\[fx, 0, cx\]"),
        (own_camera(K=[["9", 0, 4], [0, 9, 3], [0, 0, 1]]), FormatError, "camera 0 cannot be read: expected numbers"),
        (own_camera(cam_from_world=np.diag([1, 1, 1, 2.0]).tolist()), BadPoses, "the last row of the pose"),
        (own_camera(cam_from_world=HUGE.tolist()), BadPoses, r"a number of size 1e\+308"),
        (viewer_camera(fov=180), FormatError, "'fov' is 180; expected degrees between 0 and 180"),
        (viewer_camera(fov=[50, 50]), FormatError, "camera 0 cannot be read"),
        (viewer_camera(fov=5e-324), FormatError, "camera 0 cannot be read: float division by zero"),
        (viewer_camera(camera_to_world=[True] * 16), FormatError, "expected numbers, got 'True'"),
        (viewer_camera(camera_to_world=[float("inf")] * 16), BadPoses, "last row"),
        (viewer_camera(camera_to_world=HUGE.ravel().tolist()), BadPoses, r"a number of size 1e\+308"),
    ],
)
def test_camera_paths_that_once_passed(tmp_path, data, error, says):
    (tmp_path / "path.json").write_text(json.dumps(data))
    with pytest.raises(error, match=says):
        read_cameras(tmp_path / "path.json")


# -------------------------------------------------------------------------------------------------------- scene files
def scene(root, path="a.png", **settings):
    root.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(root / "a.png")
    frame = {"file_path": path, "transform_matrix": np.eye(4).tolist()}
    (root / "transforms.json").write_text(json.dumps({"fl_x": 10.0, **settings, "frames": [frame]}))
    return root


def test_points_of_a_name_that_no_file_system_takes(tmp_path):
    images = read_images(scene(tmp_path, ply_file_path="x/" * 3000 + "a.ply"))
    assert images.points is None and any("have no file and were skipped" in note for note in images.notes)


@pytest.mark.parametrize("path", ["x" * 5000 + ".png", "x/" * 3000 + "a.png", "\ud800.png"])
def test_names_that_no_file_system_takes(tmp_path, path):
    with pytest.raises(SceneError, match="none of the 1 images it names exists") as caught:
        read_images(scene(tmp_path, path))
    assert len(str(caught.value)) < 4500


@pytest.mark.parametrize(
    "settings",
    [
        {"fl_x": None, "camera_angle_x": 5e-324},
        {"fl_x": 5e-324, "k1": 0.1},
        {"cx": 1e308, "k1": 0.1},
        {"cx": -1e308, "k3": 1e308},
    ],
)
def test_intrinsics_that_overflow(tmp_path, settings):
    with pytest.raises(SplatinitError):
        read_images(scene(tmp_path, **settings))


# ------------------------------------------------------------------------------------------------- paths out of a scene
def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path)
    return path


OUTSIDE = ReadConfig(allow_outside=True)


def test_paths_out_of_the_folder_need_permission(tmp_path):
    secret = image(tmp_path / "photos" / "b.png")
    for path in ("../photos/b.png", str(secret)):
        folder = scene(tmp_path / "scene", path)
        with pytest.raises(SceneError, match="leads out of the scene folder .*\\n.*--allow-outside"):
            read_images(folder)
        images = read_images(folder, OUTSIDE)
        (name,) = images.cameras
        assert images.photos[0].path == secret
        assert name == f"outside{secret.as_posix()}" and ".." not in name


@pytest.mark.parametrize("path", [".", "a/..", "images/../."])
def test_a_path_must_name_a_file_in_the_folder(tmp_path, path):
    for config in (ReadConfig(), OUTSIDE):
        with pytest.raises(SceneError, match="is the scene folder itself; expected a file in it"):
            read_images(scene(tmp_path, path), config)


@pytest.mark.parametrize("path", ["", "a\0.png"])
def test_a_path_must_be_possible(tmp_path, path):
    with pytest.raises(FormatError, match="empty or impossible file name"):
        read_images(scene(tmp_path, path), OUTSIDE)


def test_colmap_names_are_normalised(tmp_path):
    image(tmp_path / "scene" / "images" / "a.png")
    image(tmp_path / "b.png")
    for name, expected in (("./x/../a.png", "a.png"), ("../../b.png", f"outside{tmp_path.as_posix()}/b.png")):
        text_model(tmp_path / "scene" / "sparse" / "0", images=f"1 1 0 0 0 0 0 0 1 {name}\n\n")
        assert list(read_images(tmp_path / "scene", OUTSIDE).cameras) == [expected]
    with pytest.raises(SceneError, match="leads out of the scene folder"):
        read_images(tmp_path / "scene")


def test_colmap_two_names_of_one_file(tmp_path):
    image(tmp_path / "images" / "a.png")
    text_model(tmp_path / "sparse" / "0", images="1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 0 0 0 1 ./a.png\n\n")
    with pytest.raises(FormatError, match="two photos are called 'a.png'; expected one of each name"):
        read_images(tmp_path)


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[31m.png", os.fsdecode(b"\xff.png")])
def test_photos_whose_names_cannot_be_written(tmp_path, name):
    try:
        image(tmp_path / name)
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system does not take the name")
    with pytest.raises(FormatError, match="expected a relative path of printable characters in UTF-8"):
        read_images(tmp_path)


def test_links_in_the_folder_are_followed(tmp_path):
    target = image(tmp_path / "elsewhere" / "b.png")
    folder = scene(tmp_path / "scene", "linked/b.png")
    (folder / "linked").symlink_to(target.parent)
    assert list(read_images(folder).cameras) == ["linked/b.png"]


# -------------------------------------------------------------------------------------------------------------- images
def png_with_size(path, width, height):
    """A PNG of a few bytes whose header promises any size, with a true checksum."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_pillows_limit_of_pixels_is_not_ours(tmp_path, suffix, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    expected = np.asarray(Image.open(tmp_path / f"a.{suffix}").convert("RGB"))
    # WebP allocates while it is opened, so there Pillow's error (above twice the number) stays.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30 if suffix == "webp" else 10)
    (photo,) = read_images(tmp_path).photos
    np.testing.assert_array_equal(photo.load(8, 6).rgb, expected)


def test_image_bombs_are_refused_by_their_header(tmp_path):
    png_with_size(tmp_path / "a.png", 60_000, 60_000)
    with pytest.raises(FormatError, match="a.png: 60000×60000 px are 3600 megapixels; expected at most 256"):
        read_images(tmp_path)
    with pytest.raises(FormatError, match=r"48 megapixels|4.8e-05 megapixels"):
        scene(tmp_path / "scene")
        read_images(tmp_path / "scene", ReadConfig(max_megapixels=1e-6))


def test_an_image_that_grew_is_refused_before_it_is_decoded(tmp_path):
    image(tmp_path / "a.png")
    image(tmp_path / "mask.png")
    (photo,) = (probe_image(tmp_path / "a.png"),)
    masked = replace(photo, mask=MaskFile(tmp_path / "mask.png", "ignore"))
    measured = replace(photo, depth=DepthFile(tmp_path / "mask.png", 1.0))
    png_with_size(tmp_path / "mask.png", 200_000, 100_000)
    with pytest.raises(FormatError, match="mask.png: the mask is 200000×100000 px, its photo 8×6 px"):
        masked.load(8, 6)
    with pytest.raises(FormatError, match="mask.png: the depth map is 200000×100000 px, its photo 8×6 px"):
        measured.load_depth(8, 6)
    png_with_size(tmp_path / "a.png", 200_000, 100_000)
    with pytest.raises(FormatError, match="a.png: is 200000×100000 px, but was 8×6 px when the scene was read"):
        photo.load(8, 6)


def test_text_bombs_in_images_are_refused(tmp_path):
    image(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    body = b"zTXta\0\0" + zlib.compress(bytes(50_000_000), 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(data[:33] + chunk + data[33:])
    with pytest.raises(FormatError, match="the image cannot be read .*too large"):
        probe_image(tmp_path / "a.png")


def test_other_formats_are_not_tried(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png", format="GIF")
    with pytest.raises(FormatError, match="not an image of a known format"):
        probe_image(tmp_path / "a.png")


# ----------------------------------------------------------------------------------------------------- what is printed
HOSTILE_NAME = "[red]a[/] \x1b[31mb\x07\u202ec.png :smile:"
SHOWN_NAME = r"[red]a[/] \x1b[31mb\x07\u202ec.png :smile:"


@pytest.mark.parametrize("terminal", [False, True])
def test_names_cannot_steer_the_terminal(terminal):
    console = SafeConsole(file=io.StringIO(), force_terminal=terminal, width=200, emoji=False, highlight=False)
    progress = ConsoleProgress(console)
    progress.note(HOSTILE_NAME)
    progress.start("init")
    progress.advance(1, name=HOSTILE_NAME)
    progress.finish(HOSTILE_NAME)
    table = Table("name", title=escape(HOSTILE_NAME))
    table.add_row(escape(HOSTILE_NAME))
    console.print(table)
    console.print(HOSTILE_NAME, markup=False)
    said = console.file.getvalue()
    assert said.count(SHOWN_NAME) >= 5
    assert "\x07" not in said and "\u202e" not in said and "\x1b[31mb" not in said


def test_errors_and_notes_of_the_command_line_are_escaped(tmp_path):
    folder = tmp_path / "[bold]x\x1b[2J"
    folder.mkdir()
    result = CliRunner().invoke(app, ["run", str(folder), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert r"[bold]x\x1b[2J: no photos" in result.output.replace("\n", "") and "\x1b[2J" not in result.output


def test_pictures_are_named_safely():
    names = [
        "a/../b.png",
        HOSTILE_NAME,
        "../../etc/passwd.png",
        "-rf.png",
        "x\ny.png",
        "CON.png",
        ".hidden.png",
        "/abs.png",
    ]
    for flat in (False, True):
        files = file_names(names, flat=flat)
        assert len({file.lower() for file in files.values()}) == len(names)
        for file in files.values():
            parts = file.split("/")
            assert all(part and not part.startswith((".", "/")) and printable(part) == part for part in parts)


def test_contact_sheets_draw_any_name():
    picture = np.zeros((8, 8, 3), np.uint8)
    sheet = contact_sheet([SheetRow(HOSTILE_NAME, "1 dB\n\x1b", (picture, picture))], ("a", "b"), "caption \u202e")
    assert sheet.dtype == np.uint8


def chunks_of(path):
    data, at, chunks = path.read_bytes(), 8, []
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def write_chunks(path, chunks):
    data = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("bit", "the checksum of its chunk IDAT at byte 33 is wrong"),
        ("rows", r"its pixels end after \d+ of \d+ bytes"),
        ("size", r"its pixels end after \d+ of \d+ bytes"),
        ("end", "its end is missing"),
        ("header", "its chunk IHDR stands twice"),
    ],
)
def test_png_that_decoders_forgive(tmp_path, bits, damage, says):
    pixels = np.random.default_rng(0).integers(1, 256, (6, 8)).astype(np.uint8 if bits == 8 else np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    chunks = chunks_of(tmp_path / "a.png")
    (kind, packed), row = chunks[1], 1 + 8 * bits // 8
    if damage == "bit":
        data = bytearray((tmp_path / "a.png").read_bytes())
        data[60] ^= 1
        (tmp_path / "a.png").write_bytes(data)
    elif damage == "rows":
        chunks[1] = kind, zlib.compress(zlib.decompress(packed)[: 3 * row])
    elif damage == "size":
        chunks[0] = chunks[0][0], struct.pack(">II", 8, 60) + chunks[0][1][8:]
    elif damage == "end":
        chunks.pop()
    else:
        chunks.insert(1, chunks[0])
    if damage != "bit":
        write_chunks(tmp_path / "a.png", chunks)
    with pytest.raises(FormatError, match=f"a.png: the image cannot be read .*{says}"):
        photo = probe_image(tmp_path / "a.png")
        photo.load(photo.width, photo.height)


def test_png_palettes(tmp_path):
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).quantize(16).save(tmp_path / "a.png", bits=8)
    chunks = chunks_of(tmp_path / "a.png")
    for palette, says in ((bytes(6), r"a pixel has colour \d+ of a palette of 2"), (None, "of a palette of 0")):
        write_chunks(
            tmp_path / "b.png", [(k, palette if k == b"PLTE" else b) for k, b in chunks if k != b"PLTE" or palette]
        )
        with pytest.raises(FormatError, match=says):
            probe_image(tmp_path / "b.png").load(8, 6)


@pytest.mark.parametrize("before", [True, False])
def test_png_exif_is_read_without_decoding(tmp_path, before, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 6), "white").save(tmp_path / "a.png", exif=exif)
    chunks = chunks_of(tmp_path / "a.png")
    tags = [chunk for chunk in chunks if chunk[0] == b"eXIf"]
    rest = [chunk for chunk in chunks if chunk[0] != b"eXIf"]
    write_chunks(tmp_path / "a.png", rest[:1] + tags + rest[1:] if before else rest[:-1] + tags + rest[-1:])
    monkeypatch.setattr(Image.core, "new", None)
    photo = probe_image(tmp_path / "a.png")
    assert (photo.width, photo.height, photo.orientation) == (6, 8, 6)


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        (259, "its tags compression are missing or damaged"),
        (279, r"its tags byte counts|its strips hold 1 bytes; expected 144"),
    ],
)
def test_tiff_without_what_makes_it_a_picture(tmp_path, tag, says):
    Image.new("RGB", (8, 6), "white").save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    count = struct.unpack_from("<H", data, 8)[0]
    for at in range(10, 10 + 12 * count, 12):
        if struct.unpack_from("<H", data, at)[0] == tag:
            struct.pack_into("<I", data, at + 8, 1) if tag == 279 else struct.pack_into("<H", data, at, 60000)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(FormatError, match=says):
        probe_image(tmp_path / "a.tif").load(8, 6)


def test_depth_arrays_are_held_against_their_size(tmp_path):
    photo = probe_image(image(tmp_path / "a.png"))
    np.save(tmp_path / "a.npy", np.ones((6, 8)))
    whole = (tmp_path / "a.npy").read_bytes()
    measured = replace(photo, depth=DepthFile(tmp_path / "a.npy", 1.0))
    assert measured.load_depth(8, 6).min() == 1
    for data, says in (
        (whole.replace(b"(6, 8)", b"(6,80)"), "384 bytes after offset 128; expected 3840"),
        (whole[:-1], "383 bytes after offset 128; expected 384"),
        (whole.replace(b"'<f8'", b"'|O8'"), "holds object"),
        (b"", "its header cannot be read"),
    ):
        (tmp_path / "a.npy").write_bytes(data)
        with pytest.raises(FormatError, match=says):
            measured.load_depth(8, 6)
        with pytest.raises(FormatError, match=says):
            with_depth(photo, tmp_path / "a.npy", 1.0, ReadConfig())


# ------------------------------------------------------------------------------------------------------ a run's folder
def start(root):
    run = RunFolder(root)
    cloud = PointCloud(np.arange(9.0).reshape(3, 3), np.full((3, 3), 0.5))
    prior = DepthPrior("a.png", np.ones((2, 3), np.float32), np.ones((2, 3), np.float32))
    run.write_start(Initialization(cloud, {"a.png": prior}, {"match": 1.0}, 10.0, {"name": "x"}, ("note",)))
    return run


def test_a_start_is_read_back(tmp_path):
    found = start(tmp_path).read_start()
    assert len(found.points) == 3 and found.depth_priors["a.png"].depth.shape == (2, 3) and found.notes == ("note",)


@pytest.mark.parametrize("text", ["[]", "{}", '{"seconds": 1}', '{"a": 1, "a": 2}', "[" * 100_000])
def test_damaged_stats_of_a_start(tmp_path, text):
    run = start(tmp_path)
    run.start_stats.write_text(text)
    with pytest.raises(
        FormatError, match="stats.json.*(is not what splatinit wrote|stands twice|not a JSON text file)"
    ):
        run.read_start()


@pytest.mark.parametrize(
    "arrays", [{}, {"depth": np.ones((2, 3))}, {"depth": np.full((2, 3), np.nan), "confidence": np.ones((2, 3))}]
)
def test_damaged_depth_priors(tmp_path, arrays):
    run = start(tmp_path)
    np.savez(run.depths / "00000.npz", **arrays)
    with pytest.raises(FormatError, match="00000.npz: .*expected finite arrays"):
        run.read_start()


# ----------------------------------------------------------------------------------------------------- time and memory
def test_deep_paths_in_a_split_are_no_hang(tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "test.txt").write_text("x/" * 200_000 + "a.png\n")
    began = time.perf_counter()
    with pytest.raises(FormatError, match="none of its 1 test entries names an image"):
        read_images(tmp_path)
    assert time.perf_counter() - began < 5


def test_many_keys_in_json_are_no_hang(tmp_path):
    (tmp_path / "a.json").write_text("{" + ", ".join(f'"{i}": 0' for i in range(100_000)) + ', "99999": 1}')
    began = time.perf_counter()
    with pytest.raises(FormatError, match="the key '99999' stands twice"):
        read_json(tmp_path / "a.json")
    assert time.perf_counter() - began < 5


def test_a_split_that_leaves_nothing_to_train_on(tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "split.json").write_text('{"train": [], "test": []}')
    with pytest.raises(FormatError, match="split.json: leaves no image for training"):
        read_images(tmp_path)


def test_a_seal_of_an_impossible_name(tmp_path):
    for name in ("x" * 5000, "../" * 3000 + "x"):
        assert "is missing" in broken(tmp_path, {name: [1, "00"]})


@pytest.mark.parametrize("number", ["NaN", "1e999", "1" + "0" * 400])
def test_impossible_numbers_in_stats(tmp_path, number):
    run = start(tmp_path)
    run.start_stats.write_text(run.start_stats.read_text().replace("10.0", number))
    with pytest.raises(FormatError, match="stats.json is not what splatinit wrote"):
        run.read_start()


@pytest.mark.parametrize(
    ("key", "says"), [("K", "a number of size 1e\\+30"), ("cam_from_world", "a number of size 1e\\+30")]
)
def test_cameras_that_float32_cannot_hold(tmp_path, key, says):
    data = own_camera()
    data["cameras"][0][key][0][2 if key == "K" else 3] = 1e30
    (tmp_path / "path.json").write_text(json.dumps(data))
    with pytest.raises(BadPoses, match=says):
        read_cameras(tmp_path / "path.json")


def test_png_of_unknown_compression(tmp_path):
    image(tmp_path / "a.png")
    chunks = chunks_of(tmp_path / "a.png")
    write_chunks(tmp_path / "a.png", [(b"IHDR", chunks[0][1][:10] + b"\x06\0\0"), *chunks[1:]])
    with pytest.raises(FormatError, match="its compression, filtering or interlacing is unknown"):
        probe_image(tmp_path / "a.png").load(8, 6)


def test_png_palette_of_an_impossible_length(tmp_path):
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).quantize(16).save(tmp_path / "a.png", bits=8)
    write_chunks(tmp_path / "a.png", [(k, b + b"\0" if k == b"PLTE" else b) for k, b in chunks_of(tmp_path / "a.png")])
    with pytest.raises(FormatError, match=r"its palette has \d+ bytes; expected 3 a colour"):
        probe_image(tmp_path / "a.png").load(8, 6)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({262: 1, 277: 1}, "it has 1 bands with the bits of 3"),
        ({278: 2}, "it has 1 strips; expected 3"),
        ({262: 6}, "it does not say how its colours .YCbCr. are sampled"),
        ({284: 7}, "its planar configuration is 7; expected 1 or 2"),
    ],
)
def test_tiff_whose_tags_do_not_fit(tmp_path, changes, says):
    Image.new("RGB", (8, 6), "white").save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    for at in range(10, 10 + 12 * struct.unpack_from("<H", data, 8)[0], 12):
        (tag,) = struct.unpack_from("<H", data, at)
        if tag in changes:
            struct.pack_into("<I", data, at + 8, changes[tag])
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(FormatError, match=says):
        probe_image(tmp_path / "a.tif").load(8, 6)


@pytest.mark.parametrize(
    "w", [float("inf"), float("nan"), struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000001))[0], 1e308]
)
def test_colmap_quaternions_that_are_not_finite(tmp_path, w):
    image(tmp_path / "images" / "a.png")
    folder = binary_model(tmp_path / "sparse" / "0")
    data = bytearray((folder / "images.bin").read_bytes())
    struct.pack_into("<2d", data, 12, w, float("nan") if w != 1e308 else 1e308)
    (folder / "images.bin").write_bytes(data)
    with pytest.raises(BadPoses, match="a.png.*the pose is not finite or its quaternion is zero"):
        read_images(tmp_path)
