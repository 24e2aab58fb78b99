"""A slice of kill_points.py: one process killed with −9 in each kind of stage, resumed to the same files."""

from __future__ import annotations

import random
from pathlib import Path

import kill_points
import pytest
from kill_points import Moment

from splatinit import native

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not native.available(), reason="whole runs need the native engine, which is not built"),
]


@pytest.mark.parametrize("stage", ["match features", "incremental mapping", "photos", "train", "evaluate"])
def test_killed_in_a_stage_and_resumed(plain: kill_points.Undisturbed, drawn_photos: Path, tmp_path: Path, stage: str):
    (tmp_path / "tmp").mkdir()
    command = next(number for number, stages in enumerate(plain.stages) if stage in stages)
    seconds = random.SystemRandom().uniform(0, plain.stages[command][stage])
    outcome = kill_points.kill_and_go_on(
        Moment(command, stage, seconds), None, plain, drawn_photos, tmp_path, to_the_end=False
    )
    assert outcome.differs == (), f"killed in {outcome.killed_in}, {seconds:.3f} s after its begin"
