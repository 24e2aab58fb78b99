"""Runs of the same photos pose them once, and tell what it cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from splatinit.errors import TooFewMatches
from splatinit.posers.base import kept_files
from splatinit.posers.sharing import shared_result


class Poser:
    """Fills a folder as a poser does: only where its key is not there already."""

    def __init__(self, key: str = "a") -> None:
        self.key, self.calls = key, 0

    def __call__(self, folder: Path) -> None:
        *model, index = kept_files(folder)
        if index.is_file() and index.read_text() == self.key:
            return
        self.calls += 1
        for path in model:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path.name} {self.key}")
        index.write_text(self.key)


def contents(folder: Path) -> list[str]:
    return [path.read_text() for path in kept_files(folder)]


def test_computed_once_and_copied(tmp_path):
    pose = Poser()
    assert 0 <= shared_result(tmp_path / "shared", tmp_path / "0", pose) < 12
    cost = tmp_path / "shared" / "cost.json"
    cost.write_text('{"seconds": 12.5}')
    assert shared_result(tmp_path / "shared", tmp_path / "second", pose) == 12.5, "what the first one paid"
    assert pose.calls == 1
    assert contents(tmp_path / "second") == contents(tmp_path / "0") == contents(tmp_path / "shared")
    assert sorted(path.name for path in (tmp_path / "shared").iterdir()) == ["cost.json", "poser.json", "sparse"]


def test_other_photos_fill_it_anew(tmp_path):
    shared_result(tmp_path / "shared", tmp_path / "run", Poser("a"))
    cost = tmp_path / "shared" / "cost.json"
    cost.write_text('{"seconds": 99}')
    other = Poser("b")
    assert shared_result(tmp_path / "shared", tmp_path / "run", other) < 99 and other.calls == 1
    assert contents(tmp_path / "run")[-1] == "b"


@pytest.mark.parametrize("text", ["", "[]", '{"seconds": "x"}'])
def test_a_cost_that_is_lost_is_none(tmp_path, text):
    pose = Poser()
    shared_result(tmp_path / "shared", tmp_path / "run", pose)
    assert json.loads((tmp_path / "shared" / "cost.json").read_text())["seconds"] >= 0
    (tmp_path / "shared" / "cost.json").write_text(text)
    assert shared_result(tmp_path / "shared", tmp_path / "run", pose) == 0.0


def test_a_failure_leaves_no_poses(tmp_path):
    def fail(folder: Path) -> None:
        raise TooFewMatches("1 of 9")

    with pytest.raises(TooFewMatches):
        shared_result(tmp_path / "shared", tmp_path / "run", fail)
    assert list((tmp_path / "shared").iterdir()) == [] and not (tmp_path / "run").exists()
