"""What there is to take, what a training takes, and what is said when the one is more than the other."""

from __future__ import annotations

import math
import os
import resource
import sys
from pathlib import Path

import pytest
import torch

from splatinit import device as devices
from splatinit import environment, memory
from splatinit.device import DeviceMemory
from splatinit.errors import ConfigError, OutOfMemory
from splatinit.initializers.random import Random, RandomConfig
from splatinit.memory import (
    TrainingMemory,
    available,
    is_no_memory,
    require_evaluation,
    require_points,
    resident,
    room,
    total,
)

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch) -> Path:
    """A machine of files: 8 GiB available of 16, this process using 1 GiB of 3 GiB of addresses, no groups."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    groups.mkdir()
    kib = GIB // 1024
    (proc / "meminfo").write_text(f"MemTotal:       {16 * kib} kB\nMemAvailable: {8 * kib} kB\nHugePages_Total: x\n\n")
    page = os.sysconf("SC_PAGE_SIZE")
    (proc / "self" / "statm").write_text(f"{3 * GIB // page} {GIB // page} 0 0 0 0 0\n")
    (proc / "self" / "cgroup").write_text("0::/\n")
    monkeypatch.setattr(memory, "_PROC", proc)
    monkeypatch.setattr(memory, "_CGROUP", groups)
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    return tmp_path


def group(folder: Path, limit: str | int, used: int, inactive: int, *, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {inactive}\nfile\n")


def test_the_machine_without_limits(machine: Path) -> None:
    assert available() == 8 * GIB and total() == 16 * GIB and resident() == GIB
    assert room() == 8 * GIB - memory.RESERVE
    assert environment.memory_mb() == (8192.0, 16384.0)


def test_the_group_of_a_container_counts_and_its_file_pages_do_not(machine: Path) -> None:
    group(machine / "cgroup", 4 * GIB, 3 * GIB, GIB // 2)
    assert available() == 3 * GIB // 2 and total() == 4 * GIB
    group(machine / "cgroup", "max", 3 * GIB, 0)
    assert available() == 8 * GIB


def test_every_group_above_counts_too(machine: Path) -> None:
    (machine / "proc" / "self" / "cgroup").write_text("0::/user/me\n")
    group(machine / "cgroup" / "user" / "me", 6 * GIB, GIB, 0)
    group(machine / "cgroup" / "user", 3 * GIB, 2 * GIB, 0)
    assert available() == GIB and total() == 3 * GIB


def test_groups_of_version_1(machine: Path) -> None:
    (machine / "proc" / "self" / "cgroup").write_text("5:cpu,memory:/docker/a\n1:cpu:/\n0::/\nrubbish\n")
    group(machine / "cgroup" / "memory", 9223372036854771712, GIB, 0, version=1)
    assert available() == 8 * GIB
    group(machine / "cgroup" / "memory" / "docker" / "a", 2 * GIB, GIB, GIB // 4, version=1)
    assert available() == 5 * GIB // 4


def test_the_limit_of_the_process(machine: Path, monkeypatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (5 * GIB, 5 * GIB))
    assert available() == 2 * GIB
    monkeypatch.setattr(resource, "getrlimit", lambda what: (GIB, GIB))
    assert available() == 0 == room()


def test_the_users_word_takes_the_place_of_all(machine: Path, monkeypatch) -> None:
    monkeypatch.setenv(memory.VARIABLE, " 20480 ")
    assert available() == 19 * GIB
    monkeypatch.setenv(memory.VARIABLE, "100")
    assert available() == 0
    for wrong in ("0", "-3", "2 GB", "1.5"):
        monkeypatch.setenv(memory.VARIABLE, wrong)
        with pytest.raises(ConfigError, match=f"SPLATINIT_MEMORY_MB = '{wrong}'; expected a whole number of MB"):
            available()


def test_where_nothing_can_be_told_nothing_is_refused(machine: Path) -> None:
    for path in (machine / "proc").rglob("*"):
        if path.is_file():
            path.unlink()
    assert available() is None and total() is None and resident() == 0 and room() == math.inf
    assert environment.memory_mb() is None
    TrainingMemory(3, 10**4, 10**4, 0).require(10**9, str)
    require_points(10**12, 100)
    require_evaluation([(10**6, 10**6)], vgg=True)


def test_this_machine_can_be_told() -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells what is available")
    assert 0 < available() <= total()
    assert 10**7 < resident() < total()


# ------------------------------------------------------------------------------------------------- what does not fit
NEEDS = TrainingMemory(sh_degree=3, width=1600, height=1200, photos=10**9)


def test_a_start_that_does_not_fit_says_what_would(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: int(30e9))
    with pytest.raises(OutOfMemory) as caught:
        NEEDS.require(40_000_000, lambda fits: f"Use init.count={fits}.")
    fits = caught.value.fits
    assert caught.value.message == (
        "Training 40 000 000 Gaussians at 1600×1200 needs about 53.6 GB, 29.9 GB are available; 21 800 000 would fit."
    )
    assert caught.value.hint.startswith(f"Use init.count={fits}. A smaller --max-size")
    NEEDS.require(fits, str)
    with pytest.raises(OutOfMemory):
        NEEDS.require(int(1.01 * fits), str)
    with pytest.raises(OutOfMemory, match="would fit"):
        NEEDS.require(fits, str, given=False)  # the Gaussians themselves are to come, too


def test_photos_that_do_not_fit_alone(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: int(1e9))
    with pytest.raises(OutOfMemory, match="needs about 1.2 GB for photos and drawing alone, 0.9 GB") as caught:
        NEEDS.require(1, str)
    assert caught.value.fits == 0 and "train.image_cache_mb" in caught.value.hint


def test_growth_that_does_not_fit_says_what_would(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: int(2e9))
    with pytest.raises(OutOfMemory, match=r"After step 700, training would grow from 3 000 000 to 5 000 000") as caught:
        NEEDS.require_growth(3_000_000, 5_000_000, step=700, photos=0)
    fits = caught.value.fits
    assert f"densify.max_count={fits}" in caught.value.hint
    NEEDS.require_growth(3_000_000, fits, step=700, photos=0)
    with pytest.raises(OutOfMemory, match="more; 0.9 GB are available"):
        NEEDS.require_growth(3_000_000, fits, step=700, photos=10**9)
    monkeypatch.setattr(memory, "available", lambda: 0)
    NEEDS.require_growth(3_000_000, 3_000_000, step=700, photos=0)  # what runs goes on


def test_points_that_do_not_fit(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: int(1e9))
    with pytest.raises(OutOfMemory, match="Drawing 1 000 000 000 points needs about 73.0 GB, 0.9 GB") as caught:
        Random(RandomConfig(count=10**9)).initialize(None, seed=0, progress=None)
    assert f"init.count={caught.value.fits}" in caught.value.hint


def test_views_that_are_too_large_to_measure(monkeypatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: int(4e9))
    sizes = [(800, 600), (8000, 6000)]
    with pytest.raises(OutOfMemory, match=r"Measuring views of 8000×6000 needs about 88.8 GB") as caught:
        require_evaluation(sizes, vgg=True)
    side = caught.value.fits
    assert f"--max-size {side} or eval.lpips=alex" in caught.value.hint
    require_evaluation([(side, side * 3 // 4)], vgg=True)
    with pytest.raises(OutOfMemory, match="26.9 GB") as caught:
        require_evaluation(sizes, vgg=False)
    assert "alex" not in caught.value.hint
    require_evaluation([], vgg=True)


# --------------------------------------------------------------------------------------------------- a device's memory
@pytest.fixture
def card(monkeypatch) -> torch.device:
    """A device with memory of its own, of which 10 GB and the reserve are free."""
    free = int(10e9) + memory.DEVICE_RESERVE
    answer = DeviceMemory("Card", total=int(24e9), free=free, taken=int(4e9))
    monkeypatch.setattr(devices, "device_memory", lambda device: answer)
    monkeypatch.setattr(memory, "available", lambda: int(4e9))
    return torch.device("cuda:0")


def test_a_training_on_a_device_takes_the_devices_memory(card) -> None:
    needs = TrainingMemory(sh_degree=3, width=1600, height=1200, photos=10**9, device=card)
    with pytest.raises(OutOfMemory) as caught:
        needs.require(40_000_000, lambda fits: f"Use init.count={fits}.")
    fits = caught.value.fits
    # 3 × 236 for parameters and moments, 170 + 288 for the engine, 236 + 41 for gradients and statistics, 236 to come.
    assert fits == int((10e9 - 160 * 1600 * 1200) / (3 * 236 + 458 + 277 + 236)) // 10**4 * 10**4 == 5_770_000
    assert caught.value.message == (
        "Training 40 000 000 Gaussians at 1600×1200 needs about 67.5 GB, 10.0 GB are available on cuda:0 (Card); "
        "5 770 000 would fit."
    )
    needs.require(fits, str)
    needs.require(fits, str, given=False)  # they start on the host in any case
    with pytest.raises(
        OutOfMemory, match=r"grow from 3 000 000 to 9 000 000 .* are available on cuda:0 \(Card\)"
    ) as caught:
        needs.require_growth(3_000_000, 9_000_000, step=700, photos=10**9)
    needs.require_growth(3_000_000, caught.value.fits, step=700, photos=10**9)


def test_photos_of_a_training_on_a_device_have_to_fit_on_the_host(card) -> None:
    needs = TrainingMemory(sh_degree=0, width=1600, height=1200, photos=5 * 10**9, device=card)
    with pytest.raises(OutOfMemory, match=r"needs about 5\.0 GB for photos and drawing alone, 3\.9 GB are available\."):
        needs.require(1, str)
    large = TrainingMemory(sh_degree=0, width=10_000, height=8_000, photos=0, device=card)
    with pytest.raises(
        OutOfMemory, match=r"12\.8 GB for photos .* 10\.0 GB are available on cuda:0 \(Card\)\."
    ) as caught:
        large.require(1, str)
    assert caught.value.fits == 0


def test_an_allocation_that_failed_on_a_device_says_what_would_have_fitted(card) -> None:
    needs = TrainingMemory(sh_degree=3, width=1000, height=1000, photos=0, device=card)
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ...")
    said = needs.ran_out(error, "drawing and comparing", 2_000_000, 700)
    # 4 GB are taken and 21.5 GB were wanted, of which 0.16 for images: for each Gaussian, of 14 GB, 0.16 for images.
    assert said.fits == int((14e9 - 0.16e9) / ((4e9 + 20 * 2**30 - 0.16e9) / 2e6)) // 10**4 * 10**4 == 1_090_000
    assert said.message == (
        "After step 700, cuda:0 (Card) had no room of 21.5 GB for drawing and comparing, with 2 000 000 Gaussians at "
        "1000×1000: 4.0 GB of 24.0 GB are taken by this process, 10.5 GB are free; about 1 090 000 Gaussians would fit."
    )
    assert said.hint.startswith("Train again with densify.max_count=1090000 or a smaller --max-size")
    # Torch may say it otherwise; and where most is free, it was in too small pieces: some fewer Gaussians might do.
    unknown = needs.ran_out(torch.OutOfMemoryError("CUDA error: out of memory"), "a photo", 1000, 3)
    assert "had no room for a photo" in unknown.message and unknown.fits == 900


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_which_errors_are_a_want_of_memory(error, is_one) -> None:
    assert is_no_memory(error) == is_one


def test_views_that_are_too_large_to_measure_on_a_device(card) -> None:
    with pytest.raises(OutOfMemory, match=r"needs about 88\.8 GB, 10\.0 GB are available on cuda:0 \(Card\); 2684 px"):
        require_evaluation([(8000, 6000)], vgg=True, device=card)
    require_evaluation([(2684, 2013)], vgg=True, device=card)
