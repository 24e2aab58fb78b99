"""PLY meshes: triangles, polygons, all three encodings; files that are no mesh."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from splatinit.errors import FormatError
from splatinit.io.mesh import read_ply_mesh

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5]], np.float32)


def write(
    path: Path, faces: list[tuple[int, ...]], format: str = "binary_little_endian", name: str = "vertex_indices"
) -> Path:
    """A mesh whose faces carry a number before the list and one after it, as exporters with colours or flags write."""
    lines = f"element vertex {len(VERTICES)}\nproperty float x\nproperty float y\nproperty float z\n"
    lines += f"element face {len(faces)}\nproperty uchar flags\nproperty list uchar int {name}\nproperty float q\n"
    if format == "ascii":
        body = "".join(f"{x} {y} {z}\n" for x, y, z in VERTICES.tolist())
        body += "".join(f"7 {len(face)} {' '.join(map(str, face))} 0.5\n" for face in faces)
        data = body.encode()
    else:
        order = "<" if "little" in format else ">"
        data = VERTICES.astype(f"{order}f4").tobytes()
        data += b"".join(struct.pack(f"{order}BB{len(face)}if", 7, len(face), *face, 0.5) for face in faces)
    path.write_bytes(f"ply\nformat {format} 1.0\n{lines}end_header\n".encode() + data)
    return path


@pytest.mark.parametrize("format", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("name", ["vertex_indices", "vertex_index"])
def test_meshes_of_all_encodings(tmp_path: Path, format: str, name: str) -> None:
    vertices, triangles = read_ply_mesh(write(tmp_path / "m.ply", [(0, 1, 2), (0, 2, 3)], format, name))
    np.testing.assert_array_equal(vertices, VERTICES)
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize("format", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_polygons_become_fans(tmp_path: Path, format: str) -> None:
    _, triangles = read_ply_mesh(write(tmp_path / "q.ply", [(3, 0, 1, 2)], format))
    assert triangles.tolist() == [[3, 0, 1], [3, 1, 2]]
    _, triangles = read_ply_mesh(write(tmp_path / "m.ply", [(3, 0, 1, 2), (1, 2, 3), (0, 1, 2)], format))
    assert sorted(triangles.tolist()) == [[0, 1, 2], [1, 2, 3], [3, 0, 1], [3, 1, 2]]


@pytest.mark.parametrize(
    ("faces", "format", "text"),
    [
        ([], "binary_little_endian", "has no faces"),
        ([], "ascii", "has no faces"),
        ([(0, 1, 4)], "binary_little_endian", "name vertices 0 to 4; expected 0 to 3"),
        ([(0, -1, 2)], "ascii", "name vertices -1 to 2; expected 0 to 3"),
        ([(0, 1), (0, 1, 2)], "binary_big_endian", "a face has 2 corners; expected at least 3"),
        ([()], "binary_little_endian", "a face has 0 corners"),
    ],
)
def test_files_that_are_no_mesh(tmp_path: Path, faces: list, format: str, text: str) -> None:
    with pytest.raises(FormatError, match=text):
        read_ply_mesh(write(tmp_path / "m.ply", faces, format))


@pytest.mark.parametrize("line", ["7 3 0 1", "7 x 0 1 2 0.5", "7 -3 0 1 2 0.5", "7"])
def test_ascii_faces_that_are_no_lists(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "m.ply", [(0, 1, 2)], "ascii")
    path.write_text(path.read_text().replace("7 3 0 1 2 0.5", line))
    with pytest.raises(FormatError, match="a face is not a list of vertex numbers"):
        read_ply_mesh(path)


def test_a_truncated_mesh_and_one_without_coordinates(tmp_path: Path) -> None:
    path = write(tmp_path / "m.ply", [(0, 1, 2), (0, 2, 3)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(FormatError, match="the file ends within them"):
        read_ply_mesh(path)
    path.write_bytes(whole.replace(b"property float z", b"property float q"))
    with pytest.raises(FormatError, match="the vertices have no x y z"):
        read_ply_mesh(path)
