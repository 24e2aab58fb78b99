"""benchmarks/starts.py on a wall with depth maps: its numbers are arithmetic, its second view is where it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from splatinit.geometry.rigid import project
from splatinit.types import Camera, PointCloud, Scene, View

ROOT = Path(__file__).parents[2]
W, H, FOCAL, FAR = 40, 32, 40.0, 2.0


@pytest.fixture
def wall(tmp_path: Path) -> Path:
    """A test and three training cameras, 2 before a wall in the plane z = 0; depth in mm, and the wall as mesh."""
    frames = []
    for index, x in enumerate((0.25, -0.5, 0.0, 0.5)):
        # nerfstudio's cameras look along −z, as these do.
        pose = np.eye(4)
        pose[:3, 3] = x, 0, FAR
        (tmp_path / "images").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"images/{index}.png"), np.full((H, W, 3), 60 + 40 * index, np.uint8))
        cv2.imwrite(str(tmp_path / f"images/depth_{index}.tiff"), np.full((H, W), 2000, np.uint16))
        place = {"file_path": f"images/{index}.png", "depth_file_path": f"images/depth_{index}.tiff"}
        frames.append({**place, "transform_matrix": pose.tolist()})
    size = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": W / 2, "cy": H / 2, "w": W, "h": H}
    (tmp_path / "transforms.json").write_text(json.dumps({**size, "frames": frames}))
    header = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    header += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "wall.ply").write_text(header + "-2 -2 0\n2 -2 0\n2 2 0\n-2 2 0\n4 0 1 2 3\n")
    return tmp_path


def starts(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "benchmarks" / "starts.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})


@pytest.mark.e2e
def test_the_table_the_picture_and_the_starts_that_fail(wall: Path) -> None:
    out, numbers = wall / "out" / "starts.png", wall / "starts.json"
    done = starts(
        wall, "--inits", "depth", "--start", "few", "depth", "count=30", "--start", "none", "file",
        "--gt", wall / "wall.ply", "--picture", out, "--json", numbers,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "none: init.name=file needs the file." in done.stdout and "few" in done.stdout
    found = json.loads(numbers.read_text())
    assert found["extent"] == pytest.approx(1.1 * 0.5)
    every, few = found["starts"]
    assert (every["points"], every["coverage"]) == (3 * W * H, 1.0)
    # A point covers its pixel in the views that see it, its own at least.
    assert 10 / (W * H) <= few["coverage"] <= 30 / (W * H)
    assert every["score"]["accuracy_median"] == pytest.approx(0, abs=1e-6)
    # The cameras stand a whole number of pixels apart: 60 × 32 places, each with a disc of 1 % of the extent around it.
    recall = 60 * 32 * np.pi * (0.01 * 0.55) ** 2 / 16
    assert every["score"]["thresholds"][0]["recall"] == pytest.approx(recall, abs=4 * np.sqrt(recall / 100_000))
    sheet = cv2.imread(str(out))
    assert sheet.shape[1] > 4 * W and len(np.unique(sheet.reshape(-1, 3), axis=0)) > 10


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--inits", "rnadom"), "Unknown preset 'rnadom'"),
        (("--inits", ""), "nothing to start from"),
        (("--start", "label"), "--start takes a LABEL and the NAME"),
        (("--gt", "nowhere.ply"), "nowhere.ply: no such file"),
        (("--inits", "depth", "--view", "x.png"), "--view x.png: no such photo; for example images/2.png"),
    ],
)
def test_wrong_arguments(wall: Path, arguments: tuple[str, ...], text: str) -> None:
    done = starts(wall, *arguments)
    assert done.returncode == 2
    assert text in done.stdout + done.stderr


def test_the_second_view_is_30_degrees_beside_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from starts import beside, visible_colours

    camera = Camera(np.array([[FOCAL, 0, W / 2], [0, FOCAL, H / 2], [0, 0, 1]]), np.eye(4), W, H)
    other = Camera(camera.K, np.array([[0.0, 0, 1, -4], [0, 1, 0, 0], [-1, 0, 0, 4], [0, 0, 0, 1]]), W, H)
    scene = Scene(root=Path("wall"), train=(View("a", camera, None), View("b", other, None)), test=())
    side = beside(camera, scene)
    # Their axes meet at (0, 0, 4), which stays in the middle of the picture.
    px, z = project(side.K, side.cam_from_world, np.array([[0.0, 0, 4]]))
    np.testing.assert_allclose(np.column_stack([px, z]), [[W / 2, H / 2, 4]], atol=1e-9)
    assert np.degrees(np.arccos(side.cam_from_world[2, 2])) == pytest.approx(30)
    assert side.center[1] == pytest.approx(0) and np.linalg.norm(side.center) == pytest.approx(8 * np.sin(np.pi / 12))
    # Cameras that look outwards have their focus, here (0, 0, −3), behind them.
    behind = Camera(camera.K, np.array([[0.0, 0, -1, -3], [0, 1, 0, 0], [1, 0, 0, -1], [0, 0, 0, 1]]), W, H)
    outwards = Scene(root=Path("wall"), train=(View("a", camera, None), View("b", behind, None)), test=())
    _, z = project(beside(camera, outwards).K, beside(camera, outwards).cam_from_world, [[0, 0, outwards.extent]])
    assert z[0] == pytest.approx(outwards.extent)

    points = np.array([[0.0, 0, 4], [0.1, 0, 4]])
    grey = PointCloud(xyz=points, rgb=np.full((2, 3), 0.5))
    upright = PointCloud(xyz=points, rgb=grey.rgb, normal=np.array([[0, 0, 1], [0, -1, 0]]))
    np.testing.assert_allclose(visible_colours(upright, camera).rgb, [[0.5, 0.5, 1], [0.5, 0, 0.5]])
    deep = PointCloud(xyz=np.array([[0, 0, 1], [0, 0, 2.0]]), rgb=grey.rgb)
    assert visible_colours(deep, camera).rgb[:, 0].tolist() == pytest.approx([1.0, 0.2])
