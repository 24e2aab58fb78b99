"""A training that was killed or stopped and taken up again ends with the same numbers as one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import tiny

from splatinit import native
from splatinit.densify.adc import Adc, AdcConfig
from splatinit.densify.prune import Prune, PruneConfig
from splatinit.errors import ConfigError, FormatError
from splatinit.evaluation import mean_psnr
from splatinit.io.checkpoints import digest
from splatinit.io.runs import TrainLog
from splatinit.training import Measurement, TrainConfig, TrainResult, train

STEPS = 150 if native.available() else 60  # the reference is slow
TESTS = Path(__file__).resolve().parents[1]
ADC = AdcConfig(
    begin=0.05,
    end=0.9,
    every=0.09,
    min_every_steps=1,
    reset=0.4,
    min_reset_steps=1,
    grow_gradient=1e-4,
    max_count=80,
)


def run(
    checkpoints: Path | None = None,
    *,
    seed: int = 7,
    lr_means: float = 1.6e-4,
    settings: Mapping = {},
    densifier=None,
    **more,
) -> TrainResult:
    """A training with all that has state: random backgrounds, clones, splits, resets."""
    return train(
        tiny.scene(alpha=True),
        tiny.random_model(30, seed=1),
        rasterizer=tiny.rasterizer(),
        settings=tiny.SETTINGS,
        densifier=densifier or Adc(ADC),
        config=TrainConfig(steps=STEPS, checkpoint_seconds=0.0, lr_means=lr_means, **settings),
        seed=seed,
        checkpoints=checkpoints,
        **more,
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with tiny.threads(1):
        yield


@pytest.fixture(scope="module")
def uninterrupted() -> str:
    result = run()
    assert len(result.gaussians) > 40, "the test has to see growth"
    return digest(result.gaussians.tensors())


def test_killed_at_a_random_step_and_resumed(tmp_path, uninterrupted):
    step = random.SystemRandom().randrange(5, STEPS - 15)
    # The native engine gives the same numbers for any number of threads, so the killed process may have had another.
    threads = 2 if native.available() else 1
    code = (
        f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(TESTS / 'e2e')!r}]\n"
        f"from pathlib import Path\n"
        f"import test_resume\n"
        f"def told(steps=iter(range(1, 1000))): print(next(steps), flush=True)\n"
        f"test_resume.run(Path({str(tmp_path)!r}), stop=told)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as child:
        for line in child.stdout:
            if int(line) == step:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    result = run(tmp_path)
    assert digest(result.gaussians.tensors()) == uninterrupted, f"killed at step {step}"
    assert result.steps_done == STEPS and not result.interrupted


@pytest.mark.parametrize("at", [1, 43, STEPS - 1])
def test_stopped_and_resumed(tmp_path, uninterrupted, at):
    asked = iter(range(1, STEPS + 1))
    first = run(tmp_path, stop=lambda: next(asked) == at)
    assert first.interrupted and first.steps_done == at
    second = run(tmp_path)
    assert any(f"Resumed after step {at}" in note for note in second.notes)
    assert not second.interrupted and second.seconds > first.seconds
    assert digest(second.gaussians.tensors()) == uninterrupted


@pytest.mark.parametrize("at", [1, 29, 60])
@pytest.mark.parametrize("settings", [{"resolution": 0.4, "resolution_until": 0.8}, {"low_pass": 300.0}])
def test_stopped_among_small_photos_or_under_a_filter_and_resumed(tmp_path, at, settings):
    whole = run(settings=settings)
    asked = iter(range(1, STEPS + 1))
    assert run(tmp_path, settings=settings, stop=lambda: next(asked) == min(at, STEPS - 1)).interrupted
    resumed = run(tmp_path, settings=settings)
    assert digest(resumed.gaussians.tensors()) == digest(whole.gaussians.tensors())


def measured(steps: tuple[int, ...], seconds: float = 0.0) -> Measurement:
    """The ruler itself, on the tiny scene; each look takes at least ``seconds``."""

    def psnr(gaussians):
        time.sleep(seconds)
        return mean_psnr(tiny.scene(alpha=True), gaussians, rasterizer=tiny.rasterizer(), settings=tiny.SETTINGS)

    return Measurement(tuple(step / STEPS for step in steps), psnr)


def test_looking_at_the_test_views_changes_no_number_and_takes_no_time_of_the_training(uninterrupted):
    rows = []
    began = time.perf_counter()
    steps = (1, 7, STEPS // 2, STEPS)  # before, between and after refinements, and at the end
    result = run(measurement=measured(steps, seconds=0.5), log=rows.append)
    taken = time.perf_counter() - began
    assert digest(result.gaussians.tensors()) == uninterrupted
    looks = [row for row in rows if "test_psnr" in row]
    assert [row["step"] for row in looks] == list(steps)
    assert [set(row) for row in looks] == [{"step", "test_psnr", "n", "seconds", "measured_in"}] * len(steps)
    assert looks[-1]["n"] == len(result.gaussians) and looks[-1]["test_psnr"] > looks[0]["test_psnr"] + 1
    final = mean_psnr(tiny.scene(alpha=True), result.gaussians, rasterizer=tiny.rasterizer(), settings=tiny.SETTINGS)
    assert looks[-1]["test_psnr"] == final
    assert all(row["measured_in"] >= 0.5 for row in looks)
    assert result.seconds <= taken - 2.0 and looks[-1]["seconds"] == pytest.approx(result.seconds, abs=1.0)
    assert result.profile.seconds["test views"] >= 2.0
    # In the order of the steps, each look after the other rows of its step.
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert [row["step"] for row in rows if "psnr" in row or "test_psnr" in row].count(STEPS) == 2
    assert rows[-1] is looks[-1]


@pytest.mark.parametrize("at", [29, 30, STEPS])
def test_looks_of_a_resumed_training_read_as_if_nothing_had_happened(tmp_path, uninterrupted, at):
    steps = (10, 30, STEPS)
    measurement = measured(steps)
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    run(measurement=measurement, log=TrainLog(whole))

    def fail_at(gaussians):
        if next(looks) == at:
            raise FormatError("The photo is damaged.", hint="Replace it.")
        return measurement.psnr(gaussians)

    looks = iter(steps)
    if at in steps:
        failing = Measurement(measurement.fractions, fail_at)
        with pytest.raises(FormatError, match=f"the same command goes on after step {at}"):
            run(tmp_path / "steps", measurement=failing, log=TrainLog(parts))
    else:
        asked = iter(range(1, STEPS + 1))
        stopped = {"measurement": measurement, "stop": lambda: next(asked) == at}
        assert run(tmp_path / "steps", log=TrainLog(parts), **stopped).interrupted
    result = run(tmp_path / "steps", measurement=measurement, log=TrainLog(parts))
    assert digest(result.gaussians.tensors()) == uninterrupted

    def numbers(path: Path) -> list[dict]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [{k: v for k, v in row.items() if k not in ("seconds", "measured_in", "loss")} for row in rows]

    assert numbers(parts) == numbers(whole)


def test_pruning_is_resumed_between_at_and_after_its_steps(tmp_path):
    def prune() -> Prune:
        # Removes after every 10th step and fades after every 5th, over the first 40.
        return Prune(PruneConfig(prune_opacity=0.5, end=41 / STEPS, every=10 / STEPS, min_every_steps=1, **fading))

    fading = {"fade": 0.9, "fade_every": 5 / STEPS, "min_fade_steps": 1}
    rows = []
    whole = run(densifier=prune(), log=rows.append)
    pruned = [row["pruned"] for row in rows if "pruned" in row]
    assert len(pruned) == 4 and sum(pruned) >= 4 and len(whole.gaussians) >= 4, "the test has to see removals"
    for at in (5, 19, 20, 41):
        asked = iter(range(1, STEPS + 1))
        first = run(tmp_path / str(at), densifier=prune(), stop=lambda asked=asked, at=at: next(asked) == at)
        assert first.steps_done == at
        second = run(tmp_path / str(at), densifier=prune())
        assert digest(second.gaussians.tensors()) == digest(whole.gaussians.tensors()), at


def test_a_finished_training_is_not_done_again(tmp_path, uninterrupted):
    run(tmp_path)
    rows = []
    again = run(tmp_path, log=rows.append)
    assert digest(again.gaussians.tensors()) == uninterrupted
    assert again.steps_done == STEPS and rows == []


def test_a_damaged_newest_checkpoint_costs_only_time(tmp_path, uninterrupted):
    asked = iter(range(1, STEPS + 1))
    run(tmp_path, stop=lambda: next(asked) == STEPS // 2)
    newest = max(tmp_path.glob("step_*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-100])
    result = run(tmp_path)
    assert any("passed over" in note for note in result.notes)
    assert digest(result.gaussians.tensors()) == uninterrupted


def test_another_training_does_not_take_up_the_checkpoints(tmp_path):
    run(tmp_path, stop=lambda: True)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"seed \(7 → 8\), train.lr_means \(0.00016 → 0.001\)"):
        run(tmp_path, seed=8, lr_means=1e-3)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in tmp_path.iterdir()) == before


def test_a_training_by_time_ends_with_it_and_goes_on_after_a_break(tmp_path):
    settings = {"seconds": 3.0}
    rows = []
    whole = run(settings=settings, spent=1.0, measurement=measured((STEPS // 2, STEPS)), log=rows.append)
    assert 2.0 <= whole.seconds < 2.6 and whole.steps_done > 10
    looks = [row for row in rows if "test_psnr" in row]
    assert [round(row["seconds"] / 2.0, 1) for row in looks] == [0.5, 1.0] and looks[-1]["step"] == whole.steps_done
    # Stopped half way, it has the rest of its time.
    began = time.perf_counter()
    first = run(tmp_path, settings=settings, spent=1.0, stop=lambda: time.perf_counter() - began > 1.0)
    assert first.interrupted and first.steps_done < whole.steps_done
    rest = run(tmp_path, settings=settings, spent=1.0)
    assert rest.steps_done > first.steps_done and 2.0 <= rest.seconds < 2.6
    # A start that took all the time leaves one update.
    assert run(settings=settings, spent=5.0).steps_done == 1
    with pytest.raises(ConfigError, match="train.seconds must be a positive number of seconds, got 0"):
        TrainConfig(seconds=0.0)
