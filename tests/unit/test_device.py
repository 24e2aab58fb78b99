"""What the host asks of a device: a CUDA device where there is one, a pretended one, answers in torch's place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pretend
import pytest
import tiny
import torch
from pretend import DEVICE, Pretend

from splatinit import device as devices
from splatinit.device import DeviceMemory, device_memory, device_of, moved, sent
from splatinit.late import AHEAD, LateLosses, Loss
from splatinit.stopwatch import Stopwatch
from splatinit.targets import Targets, unsee_masked
from splatinit.training import TrainConfig
from splatinit.types import RasterAux

CPU = torch.device("cpu")
MEMORY = DeviceMemory("a pretended card", 24 * 10**9, 20 * 10**9, 2 * 10**9)


@pytest.fixture
def there(monkeypatch):
    pretend.take_place(monkeypatch, MEMORY)
    with Pretend() as mode:
        yield mode


# ----------------------------------------------------------------------------------------------------------- the host
def test_the_host_is_a_device_that_is_always_done():
    model = tiny.random_model(3, seed=0)
    assert device_of(tiny.rasterizer()) == CPU
    assert device_of(SimpleNamespace(name="other", device="meta")) == DEVICE
    pairs = zip(moved(model, CPU).tensors().values(), model.tensors().values(), strict=True)
    assert all(one is other for one, other in pairs)
    devices.synchronize(CPU)
    devices.give_back(CPU)
    array = np.arange(3, dtype=np.float32)
    array[1] = 7
    assert sent(array, CPU).tolist() == [0, 7, 2] and np.shares_memory(sent(array, CPU).numpy(), array)


def test_losses_on_the_host_are_read_at_once():
    losses = LateLosses(CPU)
    exact = torch.tensor(0.1, dtype=torch.float64)
    assert losses.put(1, "a", exact) == [Loss(1, "a", 0.1)]
    assert losses.put(2, "b", torch.tensor(0.5, requires_grad=True)) == [Loss(2, "b", 0.5)]
    assert losses.put(3, "c", 0.25) == [Loss(3, "c", 0.25)] and losses.rest() == []


# ------------------------------------------------------------------------------------------------------- another device
def test_losses_come_in_order_when_they_are_there_and_are_waited_for_only_at_the_end(there):
    there.strict = True
    losses = LateLosses(DEVICE)
    there.strict = False
    values = [torch.tensor(value).to(DEVICE) for value in (1.0, 2.0, 3.0, 4.0)]
    there.strict = True
    arrived = [losses.put(step, str(step), value) for step, value in enumerate(values, 1)]
    # A mark is passed two marks later (pretend.Mark.lag): that of step 1 when step 3 is put.
    assert arrived == [[], [], [Loss(1, "1", 1.0)], [Loss(2, "2", 2.0)]] and pretend.Mark.waited == []
    assert losses.rest() == [Loss(3, "3", 3.0), Loss(4, "4", 4.0)] and pretend.Mark.waited == [2, 3]
    assert losses.rest() == []


def test_no_more_losses_than_some_are_on_their_way(there, monkeypatch):
    monkeypatch.setattr(pretend.Mark, "lag", 10**9)
    losses = LateLosses(DEVICE)
    values = [torch.tensor(float(step)).to(DEVICE) for step in range(10)]
    arrived = [len(losses.put(step, "", value)) for step, value in enumerate(values)]
    assert arrived == [0] * AHEAD + [1] * (10 - AHEAD) and len(losses.rest()) == AHEAD


def test_a_view_that_cannot_judge_a_gaussian_says_so_without_waiting(there):
    n, (height, width) = 8, (5, 7)
    random = torch.Generator().manual_seed(3)
    means2d = torch.rand(n, 2, generator=random) * 12 - 2
    means2d[0], means2d[1], means2d[2] = torch.nan, torch.inf, -3e30
    counts = (torch.rand(height, width, 1, generator=random) > 0.5).float().repeat(1, 1, 3)
    v_means2d = torch.zeros(n, 2)
    v_means2d[4] = 1.0

    def judged(place) -> torch.Tensor:
        aux = RasterAux(
            means2d=place(means2d.clone()),
            depths=place(torch.ones(n)),
            radii=place(torch.ones(n)),
            visible=place(torch.ones(n, dtype=torch.bool)),
            v_means2d=place(v_means2d.clone()),
        )
        unsee_masked(aux, place(counts))
        return aux.visible

    host = judged(lambda tensor: tensor)
    there.strict = True
    assert torch.equal(judged(pretend.There).raw, host) and bool(host[4])
    for number, (x, y) in enumerate(means2d[3:].tolist(), 3):
        column, row = min(max(int(x), 0), width - 1), min(max(int(y), 0), height - 1)
        assert bool(host[number]) == (number == 4 or bool(counts[row, column, 0] > 0))


def test_laps_can_wait_for_a_device():
    waited = []
    watch = Stopwatch(lambda: waited.append(len(watch.seconds)))
    watch.lap("one")
    watch.lap("two", {"part": 0.0})
    assert waited == [0, 1] and list(watch.seconds) == ["one", "part", "two"]


# ------------------------------------------------------------------------------------------------------ torch's answers
def test_what_is_free_counts_what_torch_keeps_for_its_next_tensors(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 24))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 10)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    assert device_memory(torch.device("cuda:0")) == DeviceMemory("Card", total=24, free=8, taken=7)


# -------------------------------------------------------------------------------------------------------- a CUDA device
@pytest.fixture
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device, or a torch without CUDA")
    yield torch.device("cuda", torch.cuda.current_device())
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_photos_reach_a_cuda_device_without_waiting_for_it(cuda):
    scene, room = tiny.scene(alpha=True), 3 * 24 * 28 * 4
    config = TrainConfig(steps=100, resolution=0.5, resolution_until=0.3)
    with Targets(scene, config, 0, cuda, room=room) as targets, Targets(scene, config, 0, CPU) as host:
        torch.zeros(1, device=cuda).add_(1)
        for done in range(60):
            torch.cuda.set_sync_debug_mode("error")
            target = targets.get(done, config.resolution_after(done))
            torch.cuda.set_sync_debug_mode("default")
            expected = host.get(done, config.resolution_after(done))
            # lerp may be contracted to one rounding there.
            assert torch.allclose(target.rgb.cpu(), expected.rgb, atol=1e-6, rtol=0)
            assert torch.equal(target.background, expected.background)


@pytest.mark.gpu
def test_losses_of_a_cuda_device_come_late_and_are_right(cuda):
    losses, work = LateLosses(cuda), torch.ones(1000, 1000, device=cuda)
    torch.cuda.set_sync_debug_mode("error")
    arrived = []
    for step in range(50):
        work = work @ work / 1000
        arrived += losses.put(step, "", work.mean() * step)
    arrived += losses.rest()
    assert [loss.step for loss in arrived] == list(range(50))
    assert [loss.value for loss in arrived] == pytest.approx([float(step) for step in range(50)], rel=1e-4)


@pytest.mark.gpu
def test_the_memory_of_a_cuda_device(cuda):
    before = device_memory(cuda)
    kept = torch.empty(64 * 2**20, dtype=torch.uint8, device=cuda)
    after = device_memory(cuda)
    assert 0 < after.free < after.total and after.name
    assert after.taken - before.taken == kept.nbytes and before.free - after.free >= kept.nbytes // 2
    devices.give_back(cuda)
    devices.synchronize(cuda)
