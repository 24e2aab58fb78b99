"""What the doctor says of GPUs, engine and torch, in every mixture of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cuda_library import Library

from splatinit import doctor, environment, native
from splatinit.doctor import BROKEN, MISSING, OK, Finding
from splatinit.native import driver


def findings(
    monkeypatch: pytest.MonkeyPatch, library: Library | None, gpus: tuple[str, ...] | None, torch_cuda: str | None
) -> dict[str, Finding]:
    """By topic and name."""
    monkeypatch.delenv(native.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(driver, "gpus", lambda: gpus)
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if library is None:
        monkeypatch.setattr(native.cuda, "library_path", lambda name: Path("absent.so"))
    else:
        monkeypatch.setattr(native.cuda, "cuda_library", lambda path: library)
        monkeypatch.setattr(native, "cuda_library", lambda path: library)
    native.cuda._engine.cache_clear()
    found = [*doctor._machine(), *doctor._engines(), *doctor._devices()]
    return {f"{each.topic} {each.name}": each for each in found}


def test_a_cpu_only_install_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, None, None, None)
    assert (found["machine GPU"].state, found["machine GPU"].text) == (OK, "no NVIDIA driver")
    assert found["engines cuda"].state == MISSING and "this machine has no NVIDIA driver" in found["engines cuda"].text
    assert (found["devices torch"].state, found["devices torch"].text) == (OK, "built without CUDA")
    assert not any(each.state == BROKEN for name, each in found.items() if name != "engines cpu")


def test_a_cpu_only_install_on_a_machine_with_a_gpu_says_how_to_get_the_cuda_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = findings(monkeypatch, None, ("NVIDIA H200",), None)
    assert found["machine GPU"].text == "NVIDIA H200"
    assert found["engines cuda"].state == MISSING and "(NVIDIA H200): no CUDA compiler" in found["engines cuda"].text
    assert "Install the CUDA toolkit" in found["engines cuda"].advice
    assert found["devices torch"].state == MISSING and "--index-url" in found["devices torch"].advice


def test_a_cuda_build_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, Library("0.1.0, CUDA runtime 13.0, sm_90", devices=0), None, "13.0")
    assert found["engines cuda"].state == MISSING and "is built (0.1.0, CUDA runtime" in found["engines cuda"].text
    assert found["devices torch"] == Finding("devices", "torch", OK, "CUDA 13.0")


def test_a_driver_that_gives_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, None, (), None)
    assert found["machine GPU"].state == MISSING and "gives no GPU to this process" in found["machine GPU"].text


def test_a_device_that_the_engine_has_no_code_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, Library("0.1.0, sm_90", devices=2, runs=False), ("A card", "A card"), "13.0")
    device = found["devices cuda:1"]
    assert device.text == "A card, compute capability 7.0, 7.8 GB: the CUDA engine has no code for it"
    assert (device.state, device.advice) == (MISSING, "It was built as 0.1.0, sm_90.")
    assert "has no code for cuda:0" in found["engines cuda"].text


@pytest.mark.skipif(not native.available(), reason="the native library is not built")
def test_an_engine_that_computes_something_else_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library of this test computes nothing at all."""
    library = Library()
    for name in ("splat_cuda_l1_ssim", "splat_cuda_backward", "splat_cuda_adam"):
        setattr(library, name, lambda *arguments: 0)
    found = findings(monkeypatch, library, ("A card",), "13.0")
    assert found["engines cuda"].state == BROKEN
    assert "does not compute on cuda:0 (A card) what the cpu engine does: " in found["engines cuda"].text
    assert "Use --backend cpu" in found["engines cuda"].advice


@pytest.mark.skipif(not native.available(), reason="the native library is not built")
def test_an_engine_that_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.selfcheck, "check_engine", lambda engine, trusted: None)
    found = findings(monkeypatch, Library(), ("A card",), "13.0")
    assert found["engines cuda"].state == OK
    assert found["engines cuda"].text.startswith("native, 0.1.0, CUDA runtime 13.0, sm_80 sm_90")
    assert found["devices cuda:0"] == Finding("devices", "cuda:0", OK, "A card, compute capability 7.0, 7.8 GB")


def test_a_run_records_the_device_it_used(monkeypatch: pytest.MonkeyPatch) -> None:
    here = environment.session(3, "cpu")
    assert (here["device"], here["cuda"]) == ("cpu", None)
    monkeypatch.setattr(driver, "gpus", lambda: ("A card",))
    monkeypatch.setattr(native, "cuda_library", lambda path: Library("0.1.0, sm_90"))
    there = environment.session(3, "cuda", "cuda:0")
    assert there["device"] == "cuda:0" and there["cuda"]["engine"] == "0.1.0, sm_90"
    assert there["cuda"]["gpus"] == ["A card"]
    assert there["cuda"]["devices"] == [{"name": "A card", "capability": "7.0", "memory_gb": 7.8, "runs": True}]
