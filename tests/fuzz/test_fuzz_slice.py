"""The first cases of every target; ``make fuzz`` runs thousands more."""

from __future__ import annotations

from pathlib import Path

import pytest

from .engine import Stage, scratch
from .targets import TARGETS

CASES = 150


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_refused_or_read_rightly(name):
    with scratch() as folder:
        stage = Stage(TARGETS[name], Path(folder) / "scene")
        for index in range(CASES):
            case = stage.case(0, index)
            repeat = f"python -m tests.fuzz --target {name} --show {index}"
            assert case.outcome != "finding", f"{case.file}: {case.damage}\n{case.detail}\nRepeat it: {repeat}"
