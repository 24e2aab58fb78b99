"""How the CUDA engine handles library, device and memory, with libraries that are a few Python functions."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cuda_library import Library

from splatinit import native
from splatinit.errors import BackendError, ConfigError, NotBuilt, OutOfMemory, SplatinitError
from splatinit.native import cuda, driver, engines

needs_native = pytest.mark.skipif(not native.available(), reason="the native library is not built")


def forward(workspace: native.Workspace) -> None:
    view, image = native.ViewArg(), native.ImageArg()
    native.forward(workspace, native.GaussiansArg(), view, image, native.AuxArg(), native.FrameInfo())


def says(error: SplatinitError) -> str:
    return str(error)


# ----------------------------------------------------------------------------------------------------------- finding it
def refusal(error: type[SplatinitError], attempt: Callable[[], object]) -> str:
    with pytest.raises(error) as caught:
        attempt()
    return says(caught.value)


@pytest.mark.parametrize(
    ("gpus", "text"),
    [
        (None, "this machine has no NVIDIA driver.\n  --backend cpu works on every machine."),
        (
            ("NVIDIA H200",),
            r"has an NVIDIA driver (NVIDIA H200): no CUDA compiler was found when splatinit was installed.",
        ),
        ((), "has an NVIDIA driver (which gives no GPU to this process)"),
    ],
)
def test_a_library_that_was_not_built(gpus, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(native.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(driver, "gpus", lambda: gpus)
    said = refusal(NotBuilt, lambda: native.cuda_library(tmp_path / "absent.so"))
    assert said.startswith("The CUDA engine is not in this installation") and text in said
    if gpus is not None:
        assert "Install the CUDA toolkit" in said and "pip install --force-reinstall --no-deps ." in said


def test_a_library_that_a_variable_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(native.LIBRARY_VARIABLE, str(tmp_path / "absent.so"))
    assert native.cuda_library_path() == tmp_path / "absent.so"
    said = refusal(NotBuilt, native.cuda_engine)
    assert "SPLATINIT_CUDA_LIBRARY names" in said and "absent.so, which is not there" in said
    monkeypatch.delenv(native.LIBRARY_VARIABLE)
    assert native.cuda_library_path() == native.library_path("splat_cuda")


@needs_native
def test_a_library_that_is_none_or_another(tmp_path: Path) -> None:
    text = tmp_path / "text.so"
    text.write_text("no library")
    assert "The CUDA engine could not be loaded: " in refusal(NotBuilt, lambda: native.cuda_library(text))
    other = native.library_path("splat_cpu")
    said = refusal(NotBuilt, lambda: native.cuda_library(other))
    assert "The CUDA engine is of another version of splatinit: " in said and "splat_cuda_device_count" in said


# -------------------------------------------------------------------------------------------------- mixed installations
@pytest.mark.parametrize(
    ("gpus", "text"),
    [
        (
            None,
            "is built (0.1.0, CUDA runtime 13.0, sm_90), but this machine has no NVIDIA driver.\n  --backend cpu",
        ),
        (("NVIDIA H200",), "can use none of the GPUs here (NVIDIA H200)"),
    ],
)
def test_a_cuda_build_without_a_device(gpus, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "gpus", lambda: gpus)
    library = Library("0.1.0, CUDA runtime 13.0, sm_90", devices=0)
    said = refusal(NotBuilt, lambda: native.usable_engine(library, 0))
    assert text in said
    assert gpus is None or "The driver may be older than that CUDA, or CUDA_VISIBLE_DEVICES may hide them" in said


def test_a_device_that_is_not_there() -> None:
    assert refusal(ConfigError, lambda: native.usable_engine(Library(devices=2), 2)) == (
        "There is no device cuda:2; expected 0 to 1."
    )


def test_a_device_older_than_the_build() -> None:
    said = refusal(NotBuilt, lambda: native.usable_engine(Library(runs=False), 0))
    assert (
        "has no code for cuda:0 (A card), of compute capability 7.0; it was built as 0.1.0, CUDA runtime 13.0" in said
    )
    assert "SPLATINIT_CUDA_ARCHITECTURES=70" in said


def test_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library("0.1.0, CUDA runtime 13.0, sm_90")
    monkeypatch.setattr(torch.version, "cuda", None)
    said = refusal(NotBuilt, lambda: native.usable_engine(library, 0))
    assert "The CUDA engine and cuda:0 (A card) are there, but this torch" in said and "was built without CUDA" in said
    assert "--index-url https://download.pytorch.org/whl/cu" in said


def test_a_torch_that_cannot_use_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = refusal(NotBuilt, lambda: native.usable_engine(Library("0.1.0"), 0))
    assert "(CUDA 12.6) cannot use the GPU.\n  Mostly the driver is too old for torch's CUDA" in said


def test_a_torch_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    engine = native.usable_engine(Library("0.1.0", devices=2), 1)
    assert (engine.device, engine.emulated, engine.index) == (torch.device("cuda", 1), False, 1)


def test_the_emulation_needs_no_gpu_and_computes_on_the_host() -> None:
    engine = native.usable_engine(Library(), 0)
    assert engine.emulated and engine.device == torch.device("cpu") and engine.stream() == 0
    assert engine.describe() == "cuda:0 (A card)"


def test_tensors_on_a_device_without_an_engine_are_left_to_torch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(native.LIBRARY_VARIABLE, str(tmp_path / "absent.so"))
    cuda._engine_on.cache_clear()
    assert native.engine_for(torch.device("cuda", 0)) is None and native.engine_for(torch.device("meta")) is None
    cuda._engine_on.cache_clear()
    if native.available():
        assert native.engine_for(torch.device("cpu")) is native.cpu_engine()


class Driver:
    """libcuda: what it answers to cuInit, and its devices."""

    def __init__(self, code: int, *names: bytes) -> None:
        self.code, self.names = code, names

    def cuInit(self, flags: int) -> int:
        return self.code

    def cuDeviceGetCount(self, count) -> int:
        count._obj.value = len(self.names)
        return 0

    def cuDeviceGetName(self, name, size: int, index: int) -> int:
        name.value = self.names[index]
        return 0 if name.value else 1


@pytest.mark.parametrize(
    ("answer", "gpus"),
    [
        (OSError("no such file"), None),
        (Driver(100), ()),
        (Driver(0, b"NVIDIA H200", b""), ("NVIDIA H200", "GPU 1")),
    ],
)
def test_the_driver_is_asked_for_gpus(answer, gpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(driver.ctypes, "CDLL", load)
    assert driver.gpus.__wrapped__() == gpus


# --------------------------------------------------------------------------------------------------------------- memory
def test_memory_is_given_aligned_and_kept_until_the_buffer_grows() -> None:
    given: list[int | None] = []
    sizes = iter((1000, 5000))

    def work(give: Callable[[int, int], int | None]) -> int:
        given.append(give(3, next(sizes)))
        return native.loading.OK

    library = Library(work=work)
    workspace = native.Workspace(native.usable_engine(library, 0))
    kept = workspace.buffers.memory._tensors
    for size in (1000, 5000):
        forward(workspace)
        assert list(kept) == [3] and kept[3].dtype == torch.uint8 and len(kept[3]) >= size
        start, end = kept[3].data_ptr(), kept[3].data_ptr() + len(kept[3])
        assert given[-1] % engines.ALIGNMENT == 0 and start <= given[-1] and given[-1] + size <= end


def test_out_of_memory_names_the_buffer_its_bytes_and_what_is_free() -> None:
    library = Library(work=lambda give: native.loading.OUT_OF_MEMORY if give(3, 1 << 60) is None else 1)
    with pytest.raises(OutOfMemory) as caught:
        forward(native.Workspace(native.usable_engine(library, 0)))
    assert says(caught.value).startswith(
        "render: out of memory on cuda:0 (A card); 1 099 511 627 776 MB were wanted for sorted pairs; "
        "3 000 of 8 000 MB are free, which is room for 0 % of it.\n  "
        "Use fewer Gaussians (densify.max_count) or a smaller --max-size."
    )
    assert (caught.value.buffer, caught.value.bytes) == ("sorted pairs", 1 << 60)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_out_of_memory_of_the_library_itself_says_what_is_free() -> None:
    library = Library(work=lambda give: native.loading.OUT_OF_MEMORY)
    said = refusal(OutOfMemory, lambda: forward(native.Workspace(native.usable_engine(library, 0))))
    assert "render: out of memory on cuda:0 (A card); 3 000 of 8 000 MB are free.\n" in said


def test_a_failed_allocation_is_told_even_if_the_library_goes_on() -> None:
    def work(give: Callable[[int, int], int | None]) -> int:
        give(7, 1 << 60)
        return native.loading.OK

    said = refusal(OutOfMemory, lambda: forward(native.Workspace(native.usable_engine(Library(work=work), 0))))
    assert "MB were wanted for buffer 7" in said


def test_a_library_may_ask_again_for_less() -> None:
    def work(give: Callable[[int, int], int | None]) -> int:
        assert give(7, 1 << 60) is None
        return native.loading.OK if give(7, 1000) else native.loading.OUT_OF_MEMORY

    forward(native.Workspace(native.usable_engine(Library(work=work), 0)))


def test_what_is_raised_while_memory_is_given_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **keywords: object):
        raise KeyboardInterrupt

    library = Library(work=lambda give: native.loading.OUT_OF_MEMORY if give(3, 10) is None else 1)
    workspace = native.Workspace(native.usable_engine(library, 0))
    with monkeypatch.context() as patch:
        patch.setattr(engines.DeviceMemory, "_empty", interrupted)
        with pytest.raises(KeyboardInterrupt):
            forward(workspace)
    library.work = lambda give: native.loading.OK
    forward(workspace)  # and is not told again


def test_workspaces_that_wait_are_freed_before_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(work=lambda give: native.loading.OUT_OF_MEMORY if give(3, 10) is None else native.loading.OK)
    engine = native.usable_engine(library, 0)
    workspace, other = native.Workspace(engine), native.Workspace(engine)
    del other
    assert len(library.alive) == 2
    empty, calls = torch.empty, []

    def once(*arguments: object, **keywords: object) -> torch.Tensor:
        calls.append(arguments)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return empty(*arguments, **keywords)

    monkeypatch.setattr(torch, "empty", once)
    forward(workspace)
    assert len(calls) == 2 and list(library.alive) == [workspace.buffers.handle]


def test_memory_goes_with_the_last_reference_and_needs_no_collection() -> None:
    library = Library(work=lambda give: native.loading.OK if give(3, 10) else 1)
    engine = native.usable_engine(library, 0)
    workspaces = [native.Workspace(engine) for _ in range(4)]
    for workspace in workspaces:
        forward(workspace)
    memories = [weakref.ref(each.buffers.memory) for each in workspaces]
    gc.disable()
    try:
        del workspace, workspaces
        assert len(library.alive) == engines._KEPT == sum(memory() is not None for memory in memories)
        assert engine.free_idle()
        assert not library.alive and not any(memory() for memory in memories)
        assert not engine.free_idle()
    finally:
        gc.enable()


def test_a_workspace_that_dies_in_a_cycle_gives_back_what_still_lives() -> None:
    """As one does that the traceback of an error refers to."""
    library = Library()
    engine = native.usable_engine(library, 0)
    cycle: list[object] = [native.Workspace(engine)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert list(library.alive) == [native.Workspace(engine).buffers.handle] == [1]


# ------------------------------------------------------------------------------------------------- options and streams
def test_options_are_set_where_they_differ_and_unset_for_the_next() -> None:
    library = Library()
    engine = native.usable_engine(library, 0)
    native.Workspace(engine, {"deterministic": 1})
    native.Workspace(engine, {"deterministic": 1})
    native.Workspace(engine, {"plain_emit": 1})
    assert library.made == 1
    assert sorted(library.options[1:]) == [(1, "deterministic", 0), (1, "plain_emit", 1)]
    assert library.options[0] == (1, "deterministic", 1)
    said = refusal(BackendError, lambda: native.Workspace(engine, {"fast": 1}))
    assert said == "the option 'fast': the native engine refused its arguments (code -2)."


class TwoStreams(native.CudaEngine):
    current = 11

    def stream(self) -> int:
        return self.current


def test_calls_go_to_the_current_stream_and_a_workspace_keeps_to_its_own() -> None:
    library = Library()
    engine = TwoStreams(library, 0)
    first = native.Workspace(engine)
    forward(first)
    engine.current = 0
    said = refusal(BackendError, lambda: forward(first))
    assert "render: this workspace was made on another CUDA stream" in said
    assert "Use one stream for all of a step" in said
    forward(native.Workspace(engine))
    assert library.streams == [11, None]


def test_a_workspace_waits_for_its_own_stream() -> None:
    engine = TwoStreams(Library(), 0)
    assert native.Workspace(engine).buffers.handle == 1
    engine.current = 0
    assert native.Workspace(engine).buffers.handle == 2
    engine.current = 11
    assert native.Workspace(engine).buffers.handle == 1


# --------------------------------------------------------------------------------------------------------------- errors
def test_an_error_of_the_device_says_what_and_where() -> None:
    library = Library(work=lambda give: native.loading.DEVICE_ERROR)
    said = refusal(BackendError, lambda: forward(native.Workspace(native.usable_engine(library, 0))))
    assert "render: cuda:0 (A card) failed: an illegal memory access was encountered.\n  Start again: " in said


def test_a_workspace_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(library, "splat_cuda_workspace_create", lambda *arguments: None)
    said = refusal(BackendError, lambda: native.Workspace(native.usable_engine(library, 0)))
    assert said.startswith("making a workspace: cuda:0 (A card) failed: ")
