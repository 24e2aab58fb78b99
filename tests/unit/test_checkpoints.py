from __future__ import annotations

import errno

import pytest
import safetensors
import safetensors.torch
import torch

from splatinit.errors import FormatError, OutputError
from splatinit.io.checkpoints import digest, load_checkpoint, load_latest, save_checkpoint


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"a": torch.full((3, 2), value), "empty": torch.zeros(0, 3), "count": torch.arange(4)}


def test_round_trip(tmp_path):
    save_checkpoint(tmp_path, 12, tensors(1.5), {"seed": 3, "nested": {"x": None}})
    found = load_latest(tmp_path).checkpoint
    assert found.step == 12
    assert found.meta == {"seed": 3, "nested": {"x": None}}
    assert digest(found.tensors) == digest(tensors(1.5))


def test_the_newest_two_stay_and_half_written_files_go(tmp_path):
    (tmp_path / ".step_00000001.tmp-abcd_123.safetensors").write_bytes(b"killed here")
    for step in (9, 10, 100):
        save_checkpoint(tmp_path, step, tensors(step), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000010.safetensors", "step_00000100.safetensors"]
    assert load_latest(tmp_path).checkpoint.step == 100


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_newest_file_is_passed_over_with_a_note(tmp_path, damage):
    save_checkpoint(tmp_path, 1, tensors(1.0), {})
    path = save_checkpoint(tmp_path, 2, tensors(2.0), {})
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[-5] ^= 1
    path.write_bytes({"truncated": data[:-9], "flipped": data, "empty": b"", "text": b"hello"}[damage])
    latest = load_latest(tmp_path)
    assert latest.checkpoint.step == 1
    assert len(latest.notes) == 1 and "step_00000002" in latest.notes[0]
    with pytest.raises(FormatError, match="step_00000002"):
        load_checkpoint(path)


def test_nothing_there(tmp_path):
    assert load_latest(tmp_path / "no such folder").checkpoint is None
    (tmp_path / "step_00000001.safetensors").write_bytes(b"x")
    latest = load_latest(tmp_path)
    assert latest.checkpoint is None and len(latest.notes) == 1


def test_a_file_without_our_header_is_no_checkpoint(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "step_00000003.safetensors"
    save_file(tensors(0.0), path)
    with pytest.raises(FormatError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_digest_sees_names_shapes_types_and_values():
    base = digest({"a": torch.zeros(6)})
    others = [{"b": torch.zeros(6)}, {"a": torch.zeros(2, 3)}, {"a": torch.zeros(6, dtype=torch.int32)}]
    others.append({"a": torch.tensor([0, 0, 0, 0, 0, 1e-30])})
    assert len({base, *(digest(other) for other in others)}) == 5


@pytest.fixture
def small_disk(monkeypatch):
    """A disk on which the next checkpoints do not fit while more than ``room`` of them are there."""
    from splatinit.io import checkpoints

    real = checkpoints._write

    def full_beyond(room: int, number: int = errno.ENOSPC, text: str = "I/O error: no room (os error {})") -> None:
        def write(path, *arguments) -> None:
            with monkeypatch.context() as patch:
                if len(list(path.parent.glob("step_*"))) > room:
                    patch.setattr(safetensors.torch, "save_file", fails)
                real(path, *arguments)

        def fails(*arguments, **options) -> None:
            raise safetensors.SafetensorError(f"Error while serializing: {text.format(number)}")

        monkeypatch.setattr(checkpoints, "_write", write)

    return full_beyond


def test_a_full_disk_takes_the_older_checkpoint_and_never_the_newest(tmp_path, small_disk):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, tensors(step), {})
    small_disk(1)
    save_checkpoint(tmp_path, 3, tensors(3), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000002.safetensors", "step_00000003.safetensors"]
    small_disk(0)
    with pytest.raises(OutputError, match="step_00000004.safetensors could not be written: No space left on device"):
        save_checkpoint(tmp_path, 4, tensors(4), {})
    assert [p.name for p in tmp_path.iterdir()] == ["step_00000003.safetensors"]
    assert load_latest(tmp_path).checkpoint.step == 3


def test_other_failures_of_writing_take_nothing(tmp_path, small_disk):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, tensors(step), {})
    small_disk(0, errno.EIO, "I/O error: broken (code: {})")
    with pytest.raises(OutputError, match="could not be written: Input/output error"):
        save_checkpoint(tmp_path, 3, tensors(3), {})
    small_disk(0, text="not of the system")
    with pytest.raises(safetensors.SafetensorError, match="not of the system"):
        save_checkpoint(tmp_path, 3, tensors(3), {})
    assert len(list(tmp_path.iterdir())) == 2
