"""Training in several processes: what one is told, and two processes under torchrun, which draw by gsplat's own
distributed mode over kernels in plain torch and talk by gloo (see distributed_worker.py)."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from compare import assert_matches
from tolerances import COLOR, DEPTH

from splatinit import distributed
from splatinit.densify.adc import Adc, AdcConfig
from splatinit.densify.base import Change
from splatinit.densify.none import NoDensify
from splatinit.errors import ConfigError, TrainingError
from splatinit.io.checkpoints import save_checkpoint
from splatinit.training import TrainConfig

pytest.importorskip("gsplat", reason="gsplat is not installed")
import distributed_worker as worker  # noqa: E402
import gsplat_kernels  # noqa: E402

TESTS = Path(__file__).parents[1]
TWO = distributed.Group(rank=1, size=2)


# --------------------------------------------------------------------------------------- two processes under torchrun
@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    """What each of the two processes found."""
    out = tmp_path_factory.mktemp("processes")
    paths = [str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")]
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        + [str(TESTS / "distributed_worker.py"), str(out)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr[-6000:]
    assert "FutureWarning" not in run.stderr
    return [torch.load(out / f"process_{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module", params=worker.MODES)
def alone(request) -> tuple[str, dict[str, torch.Tensor]]:
    """The same two views of the same model in one process, with the losses of both."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        gsplat_kernels.install(patch)
        from splatinit.raster import make_rasterizer

        rasterizer = make_rasterizer("gsplat")
        gaussians = worker.CASE.gaussians.map(lambda tensor: tensor.requires_grad_())
        adc = Adc(AdcConfig())
        adc.begin(steps=1000, extent=1.0)
        for rank in range(2):
            render, loss = worker.step(rasterizer, gaussians, rank, worker.MODES[request.param])
            loss.backward()
            found |= {f"{rank} {image}": getattr(render, image).detach() for image in ("rgb", "alpha", "depth")}
            for field in ("v_means2d", "visible", "means2d", "depths", "radii"):
                found[f"view {rank} {field}"] = getattr(render.aux, field).detach().clone()
            adc.observe(1, render.aux, worker.CASE.camera)
        found |= {f"gradient {name}": tensor.grad for name, tensor in gaussians.tensors().items()}
    return request.param, found | {"adc sum": adc._gradient_sum, "adc seen": adc._seen}


def test_each_process_draws_its_view_with_the_gaussians_of_all(processes, alone) -> None:
    mode, expected = alone
    for rank, found in enumerate(processes):
        for image, tolerance in (("rgb", COLOR), ("alpha", COLOR), ("depth", DEPTH)):
            assert_matches(f"{image} of {rank}", found[f"{mode}: {image}"], expected[f"{rank} {image}"], tolerance)
    assert expected["0 alpha"].max() > 0.5 and expected["1 alpha"].max() > 0.5


def test_gradients_come_back_from_the_views_of_all(processes, alone) -> None:
    mode, expected = alone
    for rank, found in enumerate(processes):
        for name in worker.CASE.gaussians.tensors():
            key = f"gradient {name}"
            assert_matches(f"{key} of {rank}", found[f"{mode}: {key}"], expected[key][rank::2], 1e-5, by_norm=True)


def test_densifiers_learn_from_the_views_of_all(processes, alone) -> None:
    mode, expected = alone
    for rank, found in enumerate(processes):
        for view in range(2):
            for field in ("v_means2d", "visible", "means2d", "depths", "radii"):
                key = f"view {view} {field}"
                assert_matches(f"{key} of {rank}", found[f"{mode}: {key}"], expected[key][rank::2], 1e-5, by_norm=True)
        assert torch.equal(found[f"{mode}: adc seen"], expected["adc seen"][rank::2])
        assert_matches("adc", found[f"{mode}: adc sum"], expected["adc sum"][rank::2], 1e-5, by_norm=True)
    assert expected["adc seen"].max() == 2 and expected["adc seen"].min() < 2


def test_the_leading_process_gets_the_whole(processes) -> None:
    first, second = processes
    for name, tensor in worker.CASE.gaussians.tensors().items():
        assert torch.equal(first[f"words: whole {name}"], torch.cat([tensor[0::2], tensor[1::2]]))
        assert torch.equal(second[f"words: whole {name}"], tensor[1::2])


def test_processes_agree(processes) -> None:
    for found in processes:
        assert found["words: total"] == 21
        assert found["words: agreed"].tolist() == [True, False], "the second process alone wished to stop"
        assert found["words: start"].tolist() == [True, False], "the first says whether there is anything to do"


def test_every_process_knows_the_masks_of_all(processes) -> None:
    for found in processes:
        assert found["words: counts first"].shape == (4, 6, 3) and found["words: counts first"].all()
        assert found["words: counts second"].shape == (4, 6, 3) and not found["words: counts second"].any()


def test_processes_go_on_from_the_newest_step_that_all_have(processes) -> None:
    assert [int(found["words: common"]) for found in processes] == [20, 21]


# ------------------------------------------------------------------------------------------------- alone and joining
def test_a_group_of_one_changes_nothing(tmp_path: Path) -> None:
    alone = distributed.ALONE
    gaussians, aux, rates = worker.CASE.gaussians, object(), {"means": 0.1}
    assert alone.leads and alone.part(gaussians) is gaussians and alone.whole(gaussians) is gaussians
    assert alone.rates(rates) == rates and alone.moments(0.9, 0.999, 1e-15) == (0.9, 0.999, 1e-15)
    assert alone.share(5) == 5 and alone.summed(Change(cloned=3)) == Change(cloned=3)
    assert alone.turn(5) == 5 and alone.purpose("densify") == "densify" and alone.identity() == {}
    assert alone.seen(aux, None, (1, 1)) == [(aux, None)] and alone.total(7) == 7
    assert alone.agreed(3, True, False) == (True, False)
    assert alone.folder(tmp_path) == tmp_path and alone.latest(tmp_path).checkpoint is None
    assert alone.wait_for_start(True) is True and alone.wait_for_start(False) is False
    densifier = Adc(AdcConfig(max_count=10))
    assert alone.densifier(densifier) is densifier
    drawing = object()
    assert alone.rasterizer(drawing) is drawing
    alone.check(None, gaussians, None, None)
    alone.leave()


def test_checkpoints_of_another_number_of_processes_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 10, {"x": torch.zeros(1)}, {})
    assert distributed.ALONE.latest(tmp_path).checkpoint.step == 10
    with pytest.raises(ConfigError, match="are of a training in 1 process; this is one in 2") as caught:
        TWO.latest(TWO.folder(tmp_path))
    assert "as many as before" in caught.value.hint
    for rank in range(3):
        save_checkpoint(tmp_path / f"process_{rank}", 20, {"x": torch.zeros(1)}, {})
    with pytest.raises(ConfigError, match="are of a training in 3 processes; this is one in 1"):
        distributed.ALONE.latest(tmp_path)


def test_checkpoints_without_a_step_in_common_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = TWO.folder(tmp_path)
    for step in (40, 50):
        save_checkpoint(folder, step, {"x": torch.zeros(1)}, {})
    monkeypatch.setattr(
        distributed.Group, "_from_all", lambda group, mine: [mine, torch.tensor([10, 20, -1, -1, -1, -1, -1, -1])]
    )
    with pytest.raises(ConfigError, match=r"the 2 processes have no step in common") as caught:
        TWO.latest(folder)
    assert "(process 0: [40, 50]; process 1: [10, 20])" in str(caught.value)
    assert "remove these checkpoints" in caught.value.hint


def test_each_process_takes_its_part() -> None:
    assert TWO.share(61) == 31 and TWO.summed(None) is None
    assert TWO.turn(0) == 1 and TWO.turn(5) == 11
    assert len(TWO.part(worker.CASE.gaussians)) == 30 and not TWO.leads
    assert TWO.rates({"means": 1.0}) == {"means": pytest.approx(2**0.5)}
    assert TWO.moments(0.9, 0.999, 1e-15) == pytest.approx((0.81, 0.998001, 1e-15 / 2**0.5))
    assert TWO.densifier(Adc(AdcConfig(max_count=11))).config.max_count == 6
    plain = NoDensify()
    assert TWO.densifier(plain) is plain
    assert TWO.purpose("densify") != distributed.Group(0, 2).purpose("densify")


def test_without_torchrun_there_is_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in distributed.TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    assert distributed.join("cpu") is distributed.ALONE
    monkeypatch.setenv("WORLD_SIZE", "4")  # some clusters set it for every job
    assert distributed.join("cpu") is distributed.ALONE


def under_torchrun(monkeypatch: pytest.MonkeyPatch, size: int, local: int = 0) -> None:
    for name, value in zip(distributed.TORCHRUN, (local, local, size, "127.0.0.1", 1), strict=True):
        monkeypatch.setenv(name, str(value))


def test_one_process_under_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    under_torchrun(monkeypatch, 1)
    assert distributed.join("cpu") is distributed.ALONE


@pytest.mark.parametrize("backend", ["cpu", "cuda", "gsplat-packed"])
def test_other_backends_train_in_one_process(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    under_torchrun(monkeypatch, 3)
    with pytest.raises(ConfigError, match=f"started 3 processes, but backend '{backend}' trains in one") as caught:
        distributed.join(backend)
    assert "--backend gsplat, or start without torchrun" in caught.value.hint


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    under_torchrun(monkeypatch, 3, local=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="number 2 on this machine, which has 2 CUDA devices") as caught:
        distributed.join("gsplat")
    assert "--nproc-per-node 2" in caught.value.hint


# ----------------------------------------------------------------------------- what several processes cannot train
def view(width: int = 20, height: int = 10, has_mask: bool = False) -> SimpleNamespace:
    camera = replace(worker.CASE.camera, width=width, height=height)
    return SimpleNamespace(camera=camera, photo=SimpleNamespace(has_mask=has_mask))


def check(*views: SimpleNamespace, config: TrainConfig = TrainConfig(), densifier=None, n: int = 5) -> None:
    scene = SimpleNamespace(root=Path("fox"), train=list(views) or [view()])
    gaussians = replace(worker.CASE, n=n).gaussians
    densifier = densifier or Adc(AdcConfig())
    densifier.begin(steps=100, extent=1.0)
    TWO.check(scene, gaussians, config, densifier)


def test_what_can_be_trained_passes() -> None:
    check(view(), view(has_mask=True))
    check(config=TrainConfig(resolution=0.5))


def test_views_of_several_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fox have 2 sizes \(10×20, 20×10\)") as caught:
        check(view(), view(10, 20), view())
    assert "without torchrun" in caught.value.hint


def test_training_by_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="train.seconds=60: 2 processes cannot train by their clocks"):
        check(config=TrainConfig(seconds=60))


def test_small_photos_with_masks_are_refused() -> None:
    with pytest.raises(ConfigError, match="train.resolution=0.5 with masks"):
        check(view(has_mask=True), config=TrainConfig(resolution=0.5))


def test_absolute_gradients_are_refused() -> None:
    with pytest.raises(ConfigError, match="densify.absgrad: gsplat has no absolute gradients where 2 processes"):
        check(densifier=Adc(AdcConfig(absgrad=True)))


def test_fewer_gaussians_than_processes_are_refused() -> None:
    with pytest.raises(TrainingError, match="1 Gaussians cannot be shared by 2 processes"):
        check(n=1)
