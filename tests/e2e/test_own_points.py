"""Points of one's own through the command line: what is odd about them is said, or refused in words."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from splatinit import native
from splatinit.cli.app import app
from splatinit.io.ply import write_vertices
from splatinit.io.pointcloud import read_ply_points, read_ply_raw

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not native.available(), reason="the native library is not built"),
]
TURN = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
UTM = np.array([500_000.0, 5_000_000.0, 400.0])


def call(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(
        app, list(map(str, words)), env={"COLUMNS": "400", "TERM": "dumb", "SPLATINIT_THREADS": "1"}
    )
    return done.exit_code, " ".join(done.output.split())


def points(scene: Path) -> np.ndarray:
    return read_ply_raw(scene.parent / "points.ply").xyz


def table(xyz: np.ndarray) -> np.ndarray:
    rows = np.zeros(len(xyz), [(name, "<f4") for name in "xyz"])
    for axis, name in enumerate("xyz"):
        rows[name] = xyz[:, axis]
    return rows


def begun(out: Path) -> np.ndarray:
    return read_ply_points(out / "init" / "points.ply").xyz.astype(np.float64)


def test_points_with_nan_and_without_colours(tiny_scene: Path, tmp_path: Path) -> None:
    xyz = points(tiny_scene).copy()
    xyz[3, 1] = np.nan
    write_vertices(tmp_path / "scan.ply", table(xyz))
    out = tmp_path / "out"
    code, text = call("train", tiny_scene, tmp_path / "scan.ply", "--steps", 3, "--out", out)
    assert code == 0, text
    assert f"1 of {len(xyz)} points are not finite and were left out" in text
    assert "it has no colours: the points start grey" in text
    assert len(begun(out)) == len(xyz) - 1
    write_vertices(tmp_path / "scan.ply", table(np.full((5, 3), np.nan)))
    code, text = call(
        "init", tiny_scene, "--init", "file", f"init.path={tmp_path / 'scan.ply'}", "--out", tmp_path / "n"
    )
    assert code == 2 and "none of its 5 points has a finite place and colour" in text


def test_more_points_than_are_wanted(tiny_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splatinit.initializers.file.reading.MOST", 2000)
    xyz = np.random.default_rng(0).normal(size=(20_000, 3))
    write_vertices(tmp_path / "scan.ply", table(xyz))
    out = tmp_path / "out"
    code, text = call("init", tiny_scene, "--init", "file", f"init.path={tmp_path / 'scan.ply'}", "--out", out)
    assert code == 0 and "2 000 of its 20 000 points were drawn at random (init.count)" in text, text
    assert len(begun(out)) == 2000


def test_a_mesh_without_faces(tiny_scene: Path, tmp_path: Path) -> None:
    cloud = tiny_scene.parent / "points.ply"
    settings = ("--init", "file", f"init.path={cloud}", "init.sample=surface", "--out", tmp_path / "out")
    code, text = call("init", tiny_scene, *settings)
    assert code == 2 and "has no faces, so that it has no surface to sample (init.sample=surface)" in text
    if importlib.util.find_spec("open3d") is not None:
        (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\n")
        code, text = call("train", tiny_scene, tmp_path / "a.obj", "--steps", 3, "--out", tmp_path / "mesh")
        assert code == 2 and "Open3D finds no triangles in it; expected a mesh as .obj that has faces" in text


@pytest.mark.skipif(importlib.util.find_spec("laspy") is None, reason="laspy is not installed")
def test_a_survey_with_huge_offsets(tiny_scene: Path, tmp_path: Path) -> None:
    import laspy

    xyz = points(tiny_scene)
    header = laspy.LasHeader(point_format=2, version="1.2")
    header.offsets, header.scales = UTM, [1e-6] * 3
    data = laspy.LasData(header)
    data.x, data.y, data.z = (xyz + UTM).T
    data.write(str(tmp_path / "scan.las"))
    offset, out = ",".join(map(repr, UTM.tolist())), tmp_path / "out"
    settings = ("--init", "file", f"init.path={tmp_path / 'scan.las'}", f"init.offset={offset}", "--out", out)
    code, text = call("init", tiny_scene, *settings)
    assert code == 0, text
    # Steps of float32 at 5 000 000 are 0.5.
    np.testing.assert_allclose(begun(out), xyz, atol=2e-6)


def test_pairs_and_alignment(tiny_scene: Path, tmp_path: Path) -> None:
    xyz = points(tiny_scene)
    away = 3 * xyz @ TURN.T + UTM
    (tmp_path / "scan.xyz").write_text("".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in away.tolist()))
    rows = [" ".join(map(repr, [*away[k].tolist(), *xyz[k].tolist()])) for k in (0, 8, 20, 40)]
    (tmp_path / "pairs.txt").write_text("\n".join(rows) + "\n")
    settings = ("--init", "file", f"init.path={tmp_path / 'scan.xyz'}", f"init.pairs={tmp_path / 'pairs.txt'}")
    for more in ((), ("init.align=rigid",)):
        out = tmp_path / f"out{len(more)}"
        code, text = call("init", tiny_scene, *settings, *more, "--out", out)
        assert code == 0 and "4 pairs of points fit with a scale of 0.333333 within" in text, text
        np.testing.assert_allclose(begun(out), xyz, atol=1e-4)
    assert "aligned (rigid): 100% of the scene's sparse points have one of the cloud within" in text
    code, text = call("init", tiny_scene, *settings, "init.scale=2", "--out", tmp_path / "refused")
    assert code == 2 and "init.pairs and init.scale both say where the points belong" in text
