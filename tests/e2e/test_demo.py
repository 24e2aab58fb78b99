"""The demo from end to end, on a corner of its scene and for a few steps: a table, a picture, nothing done twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from splatinit import native
from splatinit.demo import dataset, read_truth, run_demo
from splatinit.demo.flow import STARTS
from splatinit.demo.layout import build_cameras
from splatinit.errors import FolderInUse
from splatinit.io.locks import hold

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not native.available(), reason="the demo uses the native engine, which is not built"),
]


@pytest.fixture
def few_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine neighbouring views at 200×150: enough overlap for SfM points, and two test views."""
    cameras = [camera.resized(200, 150) for camera in build_cameras()[36:45]]
    monkeypatch.setattr(dataset, "build_cameras", lambda: cameras)
    monkeypatch.setenv("SPLATINIT_THREADS", "1")
    monkeypatch.setitem(STARTS, "nerf", {"init.count": 3000, "init.fit_steps": 60, "init.rays": 512})


def test_the_demo_compares_all_starts_and_keeps_what_it_did(few_cameras: None, tmp_path: Path) -> None:
    result = run_demo(tmp_path, steps=12)
    assert [row[0] for row in result.rows] == list(STARTS)
    assert all(len(row) == len(result.columns) for row in result.rows)
    table = {row[0]: dict(zip(result.columns, row, strict=True)) for row in result.rows}
    # Triangulated points lie on the surface, to centimetres; random ones do not.
    accuracy = {start: float(row["accuracy"].split()[0]) for start, row in table.items()}
    assert max(accuracy["sfm"], accuracy["dense"]) < 5 < accuracy["random"]
    assert float(table["sfm"]["F@15 cm"]) > float(table["random"]["F@15 cm"])
    assert float(table["dense"]["F@15 cm"]) > float(table["sfm"]["F@15 cm"])
    assert table["random"]["points"] == "30000"
    picture = np.asarray(Image.open(result.picture))
    assert picture.shape[1] > 3 * 400 and picture.std() > 20
    assert len(read_truth(tmp_path / "scene")) > 10_000

    kept = [*tmp_path.rglob("splat.ply"), *tmp_path.rglob("points.ply")]
    written = {path: path.stat().st_mtime_ns for path in kept}
    again = run_demo(tmp_path, steps=12)
    assert again.rows == result.rows
    assert written == {path: path.stat().st_mtime_ns for path in written}


def test_only_one_demo_works_in_a_folder(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(FolderInUse, match="is in use by this very process"):
        run_demo(tmp_path, steps=1)
