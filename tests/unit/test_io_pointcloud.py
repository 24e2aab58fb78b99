"""PLY in both uses: point clouds and trained splats; headers that lie and files that end early."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from splatinit.errors import BadPoints, FormatError
from splatinit.io.ply import read_vertices
from splatinit.io.pointcloud import read_ply_points, write_ply_points
from splatinit.io.splat import read_splat_ply, write_splat_ply
from splatinit.seeding import SeedConfig, seed_gaussians
from splatinit.types import POINT_FIELDS, Gaussians, PointCloud


def cloud(n=7, **more):
    rng = np.random.default_rng(0)
    return PointCloud(rng.normal(size=(n, 3)), rng.integers(0, 256, (n, 3)) / 255.0, **more)


def header(lines, format="binary_little_endian"):
    return f"ply\nformat {format} 1.0\n{lines}end_header\n".encode()


XYZ = "property float x\nproperty float y\nproperty float z\n"


def test_points_there_and_back(tmp_path):
    rng = np.random.default_rng(1)
    normal = rng.normal(size=(7, 3))
    full = cloud(
        radius=rng.random(7),
        opacity=rng.random(7),
        confidence=rng.random(7),
        normal=normal / np.linalg.norm(normal, axis=1, keepdims=True),
        sh=rng.normal(size=(7, 3, 3)),
    )
    for points in (cloud(), full, cloud(1), cloud(sh=rng.normal(size=(7, 15, 3)))):
        write_ply_points(tmp_path / "p.ply", points)
        back = read_ply_points(tmp_path / "p.ply")
        for name in POINT_FIELDS:
            before, after = getattr(points, name), getattr(back, name)
            assert (before is None) == (after is None)
            if before is not None:
                np.testing.assert_allclose(after, before, atol=1e-7 if name == "rgb" else 0)


def test_layout_is_what_other_trainers_read(tmp_path):
    write_ply_points(tmp_path / "p.ply", PointCloud([[1, 2, 3]], [[1.0, 0.5, 0.0]]))
    data = (tmp_path / "p.ply").read_bytes()
    names = [line.split()[2] for line in data.split(b"end_header")[0].decode().splitlines() if "property" in line]
    assert names == ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]
    assert data.endswith(struct.pack("<6f3B", 1, 2, 3, 0, 0, 0, 255, 128, 0))


def test_sh_has_the_columns_that_a_splat_has(tmp_path):
    sh = np.random.default_rng(0).normal(size=(5, 3, 3)).astype(np.float32)
    points = cloud(5, sh=sh, radius=np.ones(5))
    write_ply_points(tmp_path / "p.ply", points)
    write_splat_ply(tmp_path / "s.ply", seed_gaussians(points, SeedConfig(sh_degree=1)))
    one, other = (read_vertices(tmp_path / name) for name in ("p.ply", "s.ply"))
    for i in range(9):
        np.testing.assert_array_equal(one[f"f_rest_{i}"], other[f"f_rest_{i}"])


@pytest.mark.parametrize(("names", "count"), [(["f_rest_0"], 1), ([f"f_rest_{i}" for i in range(1, 10)], 9)])
def test_an_impossible_number_of_sh_coefficients(tmp_path, names, count):
    path = tmp_path / "p.ply"
    lines = f"element vertex 1\n{XYZ}" + "".join(f"property float {name}\n" for name in names)
    path.write_bytes(header(lines) + bytes(4 * (3 + len(names))))
    with pytest.raises(FormatError, match=f"has {count} f_rest columns; expected f_rest_0 to f_rest_8, _23 or _44"):
        read_ply_points(path)


def test_other_writers(tmp_path):
    path = tmp_path / "p.ply"
    colour = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    lines = f"comment by hand\nelement vertex 2\n{XYZ}{colour}element face 1\nproperty list uchar int vertex_indices\n"
    path.write_bytes(header(lines, "ascii") + b"1 2 3 255 0 51\n\n4 5 6.5 0 0 0\n3 0 1 1\n")
    points = read_ply_points(path)
    np.testing.assert_array_equal(points.xyz, [[1, 2, 3], [4, 5, 6.5]])
    np.testing.assert_allclose(points.rgb, [[1, 0, 0.2], [0, 0, 0]])
    # Big endian doubles behind another element, no colours, Windows line ends in the header.
    lines = f"element camera 2\nproperty short a\nelement vertex 1\n{XYZ.replace('float', 'double')}"
    path.write_bytes(
        header(lines, "binary_big_endian").replace(b"\n", b"\r\n") + struct.pack(">2h3d", 7, 8, 1.5, -2.0, 3.0)
    )
    points = read_ply_points(path)
    np.testing.assert_array_equal(points.xyz, [[1.5, -2, 3]])
    np.testing.assert_array_equal(points.rgb, 0.5)
    # Float colours; zero normals are no normals.
    lines = f"element vertex 1\n{XYZ}" + "".join(f"property float {n}\n" for n in ["nx", "ny", "nz", "r", "g", "b"])
    path.write_bytes(header(lines) + struct.pack("<9f", 0, 0, 0, 0, 0, 0, 0.25, 0.5, 1))
    points = read_ply_points(path)
    np.testing.assert_array_equal(points.rgb, [[0.25, 0.5, 1]])
    assert points.normal is None


def test_empty_and_nan(tmp_path):
    path = tmp_path / "p.ply"
    path.write_bytes(header(f"element vertex 0\n{XYZ}"))
    with pytest.raises(BadPoints, match="empty"):
        read_ply_points(path)
    path.write_bytes(header(f"element vertex 2\n{XYZ}") + struct.pack("<6f", 1, 2, 3, float("nan"), 0, 0))
    with pytest.raises(BadPoints, match=r"1 of 2 points have non-finite xyz \(the first is number 1\)"):
        read_ply_points(path)
    path.write_bytes(header(f"element vertex 1\n{XYZ.replace('float', 'double')}") + struct.pack("<3d", 1e300, 0, 0))
    with pytest.raises(BadPoints, match="non-finite"):
        read_ply_points(path)
    before = path.read_bytes()
    for bad in (cloud(0), PointCloud([[np.inf, 0, 0]], [[0, 0, 0]])):
        with pytest.raises(BadPoints):
            write_ply_points(path, bad)
    assert path.read_bytes() == before


def test_truncation_and_trailing_bytes(tmp_path):
    path = tmp_path / "p.ply"
    write_ply_points(path, cloud(3))
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match="p.ply"):
            read_ply_points(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(FormatError, match="1 bytes follow"):
        read_ply_points(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "does not begin"),
        (b"PNG nonsense", "does not begin"),
        (b"ply\nformat ascii 1.0\n" + b"comment x\n" * 200_000, "no end"),
        (header(f"element vertex 99999999999999\n{XYZ}"), "promises 99999999999999 vertices"),
        (header(f"element vertex -1\n{XYZ}"), "not understood"),
        (header(f"element vertex 1\n{XYZ}property float x\n"), "there twice"),
        (header(f"element vertex 1\n{XYZ}property quad w\n"), "not understood"),
        (header("element vertex 1\nproperty list uchar float x\n"), "list properties"),
        (header("element vertex 1\n"), "no properties"),
        (header("element face 1\nproperty int a\n"), "no element 'vertex'"),
        (header(f"element face 1\nproperty list uchar int i\nelement vertex 1\n{XYZ}"), "lists stand before"),
        (header("element vertex 1\nproperty float x\nproperty float y\n") + bytes(8), "have no x y z"),
        (header(f"element vertex 1\n{XYZ}", "morse"), "not understood"),
        (f"ply\nelement vertex 1\n{XYZ}end_header\n".encode() + bytes(12), "no known format"),
        (header(f"element vertex 2\n{XYZ}", "ascii") + b"1 2 3\n", "promises 2 vertices"),
        (header(f"element vertex 1\n{XYZ}", "ascii") + b"1 2\n", "is not 3 numbers"),
        (header(f"element vertex 1\n{XYZ}", "ascii") + b"1 2 three\n", "is not 3 numbers"),
        (header(f"element vertex 1\n{XYZ}property uchar red\n", "ascii") + b"1 2 3 256\n", "cannot hold"),
        (
            header(f"element vertex 1\n{XYZ}" + "".join(f"property float {c}\n" for c in "rgb"), "ascii")
            + b"1 2 3 0 128 255\n",
            "colours range from 0 to 255",
        ),
        (header(f"element vertex 1\n{XYZ}property float f_dc_0\n") + bytes(16), "trained splat"),
    ],
)
def test_bad_headers(tmp_path, data, says):
    path = tmp_path / "p.ply"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=says):
        read_ply_points(path)


def test_absent_file(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        read_ply_points(tmp_path / "absent.ply")


# ------------------------------------------------------------------------------------------------------------- splat
def gaussians(n, k):
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g)

    return Gaussians(
        draw(n, 3), torch.nn.functional.normalize(draw(n, 4)), draw(n, 3), draw(n), draw(n, 1, 3), draw(n, k, 3)
    )


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("k", [0, 3, 8, 15])
def test_splat_there_and_back(tmp_path, n, k):
    before = gaussians(n, k)
    write_splat_ply(tmp_path / "s.ply", before)
    after = read_splat_ply(tmp_path / "s.ply")
    for name, tensor in before.tensors().items():
        torch.testing.assert_close(after.tensors()[name], tensor, rtol=0, atol=1e-6)


def test_splat_layout(tmp_path):
    """The order of 3DGS, f_rest channel-major: red of all coefficients, then green, then blue."""
    g = gaussians(1, 3)
    g.quats *= 3  # the length of a quaternion means nothing, and some viewers do not normalise
    write_splat_ply(tmp_path / "s.ply", g)
    data = (tmp_path / "s.ply").read_bytes()
    head, body = data.split(b"end_header\n")
    names = [line.split()[2] for line in head.decode().splitlines() if line.startswith("property float ")]
    rest = [f"f_rest_{i}" for i in range(9)]
    tail = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert names == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, *tail]
    row = dict(zip(names, np.frombuffer(body, "<f4"), strict=True))
    assert row["f_rest_1"] == g.shN[0, 1, 0].item() and row["f_rest_3"] == g.shN[0, 0, 1].item()
    assert row["rot_0"] == pytest.approx(g.quats[0, 0].item() / 3, rel=1e-6)


def test_bad_splats(tmp_path):
    path = tmp_path / "s.ply"
    write_splat_ply(path, gaussians(4, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(FormatError, match="promises 4 vertices"):
        read_splat_ply(path)
    path.write_bytes(whole.replace(b"float f_rest_8\n", b"float g_rest_8\n"))
    with pytest.raises(FormatError, match="8 f_rest columns"):
        read_splat_ply(path)
    path.write_bytes(whole.replace(b"float opacity\n", b"float opaqueness\n"))
    with pytest.raises(FormatError, match="the columns opacity are missing"):
        read_splat_ply(path)
    bad = gaussians(4, 3)
    bad.means[2, 1] = float("nan")
    write_splat_ply(path, bad)
    with pytest.raises(FormatError, match=r"1 of 4 Gaussians have non-finite numbers \(the first is number 2\)"):
        read_splat_ply(path)
