"""Meshes through Open3D: files of every format, written by hand, against what stands in them."""

from __future__ import annotations

import importlib.util
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from meshes import Gltf
from PIL import Image

from splatinit.errors import FormatError
from splatinit.io.mesh import Mesh, _joined, _Part, read_mesh

pytestmark = pytest.mark.skipif(importlib.util.find_spec("open3d") is None, reason="open3d is not installed")

QUAD = np.array([[0.0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]])
FACES = np.array([[0, 1, 2], [0, 2, 3]])
UV = QUAD[:, :2] / (2, 1)  # (0, 0) is the lower left corner
# Red and green above, blue and yellow below.
TEXTURE = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)
V = "".join(f"v {x:g} {y:g} {z:g}\n" for x, y, z in QUAD) + "".join(f"vt {u:g} {v:g}\n" for u, v in UV)


def png(pixels: np.ndarray = TEXTURE, mode: str | None = None) -> bytes:
    buffer, picture = io.BytesIO(), Image.fromarray(pixels)
    (picture.quantize(4) if mode == "P" else picture).save(buffer, "PNG")
    return buffer.getvalue()


def at(mesh: Mesh, x: float, y: float, z: float = 0.0) -> np.ndarray:
    """Colour [3] of the point (x, y) of the quad at height ``z`` of its corners."""
    corners = mesh.vertices[mesh.triangles]
    for triangle, (a, b, c) in enumerate(corners):
        if abs(a[2] - z) > 1e-6:
            continue
        u, v = np.linalg.solve(np.stack([b - a, c - a], axis=1)[:2], np.array([x, y]) - a[:2])
        if min(u, v, 1 - u - v) >= -1e-9:
            return mesh.colours(np.array([triangle]), np.array([[1 - u - v, u, v]]))[0]
    raise AssertionError(f"no triangle of {corners.tolist()} holds ({x}, {y}, {z})")


def quadrants(mesh: Mesh, z: float = 0.0) -> list[list[int]]:
    """Colours, 0 to 255, left and right above, left and right below."""
    places = [(0.3, 0.9), (1.7, 0.8), (0.4, 0.1), (1.6, 0.2)]
    return [np.rint(255 * at(mesh, x, y, z)).astype(int).tolist() for x, y in places]


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_nodes_of_gltf_stand_on_each_other(tmp_path: Path, suffix: str) -> None:
    gltf = Gltf()
    mesh = gltf.mesh(gltf.primitive(QUAD, FACES))
    # Doubled, turned by 90° about z and moved by 10; below it one shifted copy, and one that a matrix mirrors in z.
    turn = {"translation": [10, 0, 0], "rotation": [0, 0, 0.5**0.5, 0.5**0.5], "scale": [2, 2, 2]}
    gltf.add("nodes", {**turn, "children": [1, 2]})
    gltf.add("nodes", {"translation": [1, 0, 0], "mesh": mesh})
    gltf.add("nodes", {"matrix": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, -1, 0, 0, 0, 5, 1], "mesh": mesh})
    gltf.add("nodes", {"translation": [99, 0, 0], "mesh": mesh})  # in no scene
    found = read_mesh(gltf.write(tmp_path / f"a{suffix}"))

    def placed(xyz: np.ndarray) -> np.ndarray:
        return 2 * xyz[:, [1, 0, 2]] * (-1, 1, 1) + (10, 0, 0)

    expected = np.concatenate([placed(QUAD + (1, 0, 0)), placed(QUAD * (1, 1, -1) + (0, 0, 5))])
    np.testing.assert_allclose(found.vertices, expected, atol=1e-6)
    assert found.triangles.tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]
    assert found.rgb is None and found.uv is None and not found.notes


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_colours_of_gltf_are_linear(tmp_path: Path, suffix: str) -> None:
    gltf = Gltf()
    down = UV * (1, -1) + (0, 1)  # in glTF v goes down
    half = (0.5, 0.5, 0.5, 1.0)  # sRGB 188
    corners = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]
    parts = [
        {"material": gltf.material((1, 0.5, 0, 1))},
        {"material": gltf.material(png=png()), "uv": down},
        {"material": gltf.material(half, png()), "uv": down},
        {"colours": (corners, "f4")},
        {"colours": (np.array([[*c, 1] for c in corners]) * 255, "u1"), "material": gltf.material(half)},
        {},
    ]
    mesh = gltf.mesh(*(gltf.primitive(QUAD + (0, 0, z), FACES, **more) for z, more in enumerate(parts)))
    gltf.add("nodes", {"mesh": mesh})
    found = read_mesh(gltf.write(tmp_path / f"a{suffix}"))
    assert len(found.triangles) == 12
    np.testing.assert_allclose(255 * at(found, 1, 0.2, 0), [255, 188, 0], atol=0.5)
    assert quadrants(found, 1) == TEXTURE.reshape(-1, 3).tolist()
    assert quadrants(found, 2) == np.where(TEXTURE > 0, 188, 0).reshape(-1, 3).tolist()
    for (x, y), bright, tinted in zip(QUAD[:, :2], corners[:3] + [[0.735] * 3], [0.735] * 3 + [0.537], strict=True):
        np.testing.assert_allclose(at(found, x, y, 3), bright, atol=0.003)
        np.testing.assert_allclose(at(found, x, y, 4), np.where(np.array(bright) > 0, tinted, 0), atol=0.003)
    np.testing.assert_allclose(at(found, 1, 0.5, 5), 0.5)  # without any colour: grey


@pytest.mark.parametrize(
    ("pixels", "mode", "shown"),
    [
        (np.full((2, 2), 7, np.uint8), None, 7),
        (np.full((2, 2, 2), 77, np.uint8), None, 77),
        (np.full((2, 2, 4), 9, np.uint8), None, 9),
        (np.full((2, 2), 30_069, np.uint16), None, 117),
        (np.full((2, 2, 3), 40, np.uint8), "P", 40),
    ],
)
def test_textures_of_every_kind(tmp_path: Path, pixels: np.ndarray, mode: str | None, shown: int) -> None:
    gltf = Gltf()
    material = gltf.material(png=png(pixels, mode))
    gltf.add("nodes", {"mesh": gltf.mesh(gltf.primitive(QUAD, FACES, uv=UV, material=material))})
    assert quadrants(read_mesh(gltf.write(tmp_path / "a.glb"))) == [[shown] * 3] * 4


def test_gltf_of_strips_and_of_what_has_no_surface(tmp_path: Path) -> None:
    gltf = Gltf()
    strip = gltf.primitive(QUAD[[0, 1, 3, 2]], [[0, 1, 2, 3]], mode=5)
    points, line = gltf.primitive(QUAD, mode=0), gltf.primitive(QUAD, [[0, 1]], mode=1)
    gltf.add("nodes", {"mesh": gltf.mesh(strip, points, line)})
    found = read_mesh(gltf.write(tmp_path / "a.glb"))
    area = np.cross(*np.moveaxis(np.diff(found.vertices[found.triangles], axis=1), 1, 0))
    assert len(found.triangles) == 2 and np.abs(area).sum() == pytest.approx(4)
    for number, primitive in enumerate((points, line)):
        gltf.tree["meshes"][0]["primitives"] = [primitive]
        with pytest.raises(FormatError, match="Open3D finds no triangles in it; expected a mesh as .glb"):
            read_mesh(gltf.write(tmp_path / f"{number}.glb"))
    whole = (tmp_path / "a.glb").read_bytes()
    (tmp_path / "a.glb").write_bytes(whole[:300])
    with pytest.raises(FormatError, match="finds no triangles") as error:
        read_mesh(tmp_path / "a.glb")
    assert "truncated, damaged or compressed" in error.value.hint


def obj(path: Path, body: str) -> Mesh:
    path.write_text(body)
    return read_mesh(path)


def test_obj_with_several_materials(tmp_path: Path) -> None:
    Image.fromarray(TEXTURE).save(tmp_path / "t.png")
    Image.fromarray(np.full((8, 8, 3), 51, np.uint8)).save(tmp_path / "t.jpg", quality=95)
    (tmp_path / "a.mtl").write_text(
        # Beside a map, Kd is what other tools show where they know no textures: it does not tint it.
        "newmtl png\nKd 0.5 0.5 0.5\nmap_Kd t.png\nnewmtl plain\nKd 1 0.5 0\n"
        "newmtl jpg\nmap_Kd t.jpg\nnewmtl gone\nKd 0.2 0.4 0.6\nmap_Kd absent.png\n"
    )
    above = "".join(f"v {x:g} {y:g} {z}\n" for z in (1, 2, 3) for x, y, _ in QUAD)
    body = f"mtllib a.mtl\n{V}{above}usemtl png\nf 1/1 2/2 3/3 4/4\nusemtl plain\nf 5 6 7 8\n"
    body += "usemtl jpg\nf 9/1 10/2 11/3 12/4\nusemtl gone\nf 13/1 14/2 15/3 16/4\n"
    found = obj(tmp_path / "a.obj", body)
    assert len(found.triangles) == 8 and len(found.textures) == 2
    assert quadrants(found) == TEXTURE.reshape(-1, 3).tolist()
    assert quadrants(found, 1) == [[255, 128, 0]] * 4
    assert np.abs(np.array(quadrants(found, 2)) - 51).max() <= 1
    assert quadrants(found, 3) == [[51, 102, 153]] * 4
    assert found.notes == (
        "2 of its triangles have texture coordinates and no texture that can be read: it lies beside the mesh under "
        "the name that the file says, as PNG or JPEG",
    )


def test_obj_of_every_face(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    quad = obj(path, f"{V}f -4 -3 -2 -1\n")
    np.testing.assert_array_equal(quad.vertices, QUAD)
    assert quad.triangles.tolist() == FACES.tolist() and quad.rgb is None
    five = obj(path, "v 0 0 0\nv 2 0 0\nv 3 1 0\nv 1 3 0\nv -1 1 0\nf 1 2 3 4 5\n")
    a, b, c = np.moveaxis(five.vertices[five.triangles], 1, 0)
    assert len(five.triangles) == 3 and np.cross(b - a, c - a)[:, 2].sum() / 2 == pytest.approx(7)
    two = obj(path, f"o one\n{V}f 1 2 3\no two\nv 5 0 0\nv 6 0 0\nv 6 1 0\nf 5 6 7\n")
    np.testing.assert_array_equal(two.vertices[two.triangles[:, 0]], [[0, 0, 0], [5, 0, 0]])
    tinted = obj(path, "v 0 0 0 1 0 0\nv 2 0 0 0 1 0\nv 2 1 0 0 0 0.5\nf 1 2 3\n")
    np.testing.assert_allclose(tinted.rgb, [[1, 0, 0], [0, 1, 0], [0, 0, 0.5]])
    absent = obj(path, f"mtllib absent.mtl\n{V}usemtl z\nf 1/1 2/2 3/3\n")
    assert absent.rgb is None and len(absent.notes) == 1
    for body in ("", "v 0 0 0\nv 1 0 0\nv 1 1 0\n", f"{V}l 1 2 3\n", f"{V}f 1 2 9\n"):
        with pytest.raises(FormatError, match="Open3D finds no triangles in it; expected a mesh as .obj"):
            obj(path, body)


def test_coordinates_that_float32_cannot_hold_are_said(tmp_path: Path) -> None:
    far = "v 500000.123 5000000.25 0\nv 500001.123 5000000.25 0\nv 500001.123 5000001.25 0\nf 1 2 3\n"
    (note,) = obj(tmp_path / "a.obj", far).notes
    assert note.startswith("at coordinates of 5e+06, its vertices were rounded to 0.5 units of the file")


def test_stl_and_off(tmp_path: Path) -> None:
    corners = QUAD[FACES].astype("<f4")
    binary = bytes(80) + struct.pack("<I", 2)
    binary += b"".join(struct.pack("<3f", 0, 0, 1) + each.tobytes() + b"\0\0" for each in corners)
    text = "solid a\n"
    for each in corners:
        rows = "".join(f"vertex {x:g} {y:g} {z:g}\n" for x, y, z in each)
        text += f"facet normal 0 0 1\nouter loop\n{rows}endloop\nendfacet\n"
    rows = "".join(f"{x:g} {y:g} {z:g}" + "{}\n" for x, y, z in QUAD)
    files = {
        "binary.stl": binary,
        "text.stl": f"{text}endsolid a\n".encode(),
        "quad.off": f"OFF\n4 1 0\n{rows.replace('{}', '')}4 0 1 2 3\n".encode(),
        "colours.off": f"COFF\n4 2 0\n{rows.replace('{}', ' 255 0 51 255')}3 0 1 2\n3 0 2 3\n".encode(),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        found = read_mesh(tmp_path / name)
        np.testing.assert_array_equal(found.vertices[found.triangles].reshape(-1, 3), QUAD[FACES].reshape(-1, 3))
        if name == "colours.off":
            np.testing.assert_allclose(found.rgb, np.tile([1, 0, 0.2], (4, 1)))
        else:
            assert found.rgb is None
    empty = {
        "empty.stl": bytes(84),
        "cut.stl": binary[:-20],
        "none.off": f"OFF\n4 0 0\n{rows.replace('{}', '')}".encode(),
    }
    for name, data in empty.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match="Open3D finds no triangles"):
            read_mesh(tmp_path / name)


def test_what_trimesh_writes_is_read_back(tmp_path: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.Scene()
    box = trimesh.creation.box((1, 2, 3))
    scene.add_geometry(
        box, node_name="a", geom_name="box", transform=trimesh.transformations.rotation_matrix(0.7, (1, 2, 3))
    )
    scene.graph.update(frame_to="b", frame_from="a", geometry="box", matrix=np.diag([2.0, 2, 2, 1]))
    expected = scene.to_geometry()
    for name in ("a.glb", "a.obj", "a.stl", "a.off"):
        (expected if name != "a.glb" else scene).export(tmp_path / name)
        found = read_mesh(tmp_path / name)
        read = trimesh.Trimesh(found.vertices, found.triangles)
        assert read.area == pytest.approx(expected.area, rel=1e-5) and len(read.faces) == 24
        np.testing.assert_allclose(read.bounds, expected.bounds, atol=1e-5)


def test_parts_with_and_without_colours_are_joined() -> None:
    parts = [_Part(QUAD, FACES, rgb=np.zeros((4, 3), np.float32)), _Part(QUAD, FACES)]
    np.testing.assert_allclose(_joined(parts, linear=False).rgb[[0, 4]], [[0, 0, 0], [0.5, 0.5, 0.5]])
