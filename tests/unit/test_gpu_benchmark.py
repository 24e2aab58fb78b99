"""benchmarks/gpu.py, all of it, on the emulated engine: no line of it may run for the first time on a lent GPU."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from splatinit.io.images import write_png

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))
import gpu  # noqa: E402
import gpu_builds  # noqa: E402
import gpu_race  # noqa: E402
from gpu_report import Budget, Report, Sheet  # noqa: E402
from rich.console import Console  # noqa: E402

OURS = {"cuda", "cuda, atomic sums"}
GSPLAT = {"gsplat", "gsplat-packed", "gsplat, torch loss and Adam"}
PTXAS = """\
ptxas info    : Compiling entry function '_ZN5splat11emit_kernelIjEEvNS_5FrameEPT_Pjj' for 'sm_90'
ptxas info    : Function properties for _ZN5splat11emit_kernelIjEEvNS_5FrameEPT_Pjj
    24 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 48 registers, used 1 barriers, 24 bytes cumulative stack size, 2048 bytes smem
ptxas info    : Compiling entry function '_ZN3cub6detail10sort_kernelEv' for 'sm_90'
ptxas info    : Function properties for _ZN3cub6detail10sort_kernelEv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 99 registers, used 0 barriers
ptxas info    : Compiling entry function 'last' for 'sm_999'
ptxas info    : Function properties for last
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine photos in a circle, two of which are for testing."""
    frames = []
    for k in range(9):
        write_png(tmp_path / "photos" / "images" / f"{k}.png", np.full((20, 24, 3), 20 * k, np.uint8))
        pose = np.eye(4)
        turn = 0.7 * k
        pose[:3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
        pose[:3, 3] = 3 * pose[:3, 2]
        frames.append({"file_path": f"images/{k}.png", "transform_matrix": pose.tolist()})
    scene = {"fl_x": 24.0, "fl_y": 24.0, "cx": 12.0, "cy": 10.0, "w": 24, "h": 20, "frames": frames}
    (tmp_path / "photos" / "transforms.json").write_text(json.dumps(scene))
    return tmp_path / "photos"


def run(library: Path, out: Path, *more: str) -> dict:
    small = ["--gaussians", "30", "--sizes", "16x16", "--steps", "2", "--rounds", "1", "--views", "2"]
    small += [
        "--agreement",
        "30,16x16",
        "--train-steps",
        "2",
        "--train-gaussians",
        "30",
        "--max-size",
        "24",
        "--train-seeds",
        "1",
    ]
    assert gpu.main(["--emulated", str(library), *small, "--out", str(out), *more]) == 0
    return json.loads(out.with_suffix(".json").read_text())


class Memory(gpu_race.HostClock):
    """What torch's allocator would say on a GPU: each engine takes more than the one before."""

    bytes = 0

    def start_peak(self) -> int:
        return 1000

    def peak(self) -> int:
        Memory.bytes += 2**20
        return 1000 + Memory.bytes


@pytest.mark.usefixtures("one_thread")
def test_all_of_it_runs_on_the_emulated_engine(
    emulated_library: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gsplat = importlib.util.find_spec("gsplat") is not None
    if gsplat:  # its kernels are replaced for good by the benchmark, here until the test ends
        monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", None)
        from splatinit.raster import gsplat as ours

        monkeypatch.setattr(ours, "cuda_device", ours.cuda_device)
    monkeypatch.setattr("gpu_sections.HostClock", Memory)
    record = run(emulated_library, tmp_path / "result", "--scene", str(photos))
    errors = [error["what"] for error in record["errors"]]
    assert errors == ([] if gsplat else ["gsplat"]), record["errors"]
    engines = OURS | (GSPLAT if gsplat else set())

    assert {(row["data"], row["engine"]) for row in record["cases"]} == {
        (kind, engine) for kind in ("surfaces", "random") for engine in engines
    }
    for row in record["cases"]:
        assert row["step"]["calls"] == 2 and row["step"]["median_ms"] > 0 and row["step"]["wall_ms"] > 0
        assert row["peak_bytes"] > 0
        if row["engine"] in OURS:
            assert 0 < row["visible"] <= 30 and row["blended_per_pixel"] <= row["evaluated_per_pixel"]
            if gsplat:
                assert row["equality"]["picture_most"] < 1e-4 and max(row["equality"]["gradients"].values()) < 1e-3
                assert row["step_of_gsplat"] > 0 and row["memory_of_gsplat"] < 1
    assert {row["engine"] for row in record["agreement"]} == engines - {"gsplat, torch loss and Adam"}
    assert all(max(row["gradients"].values()) < 1e-3 for row in record["agreement"])
    for mode in OURS:
        assert record["kernels"][mode]["fast"]["blend"] > 0 and record["kernels"][mode]["plain_blend"]["blend"] > 0
    assert {row["backend"] for row in record["training"]} == {"cuda", "gsplat"} & engines
    assert all(row["steps"] == 2 and row["psnr"] > 0 for row in record["training"])

    told = "\n".join(record["lines"])
    state = "reached" if gsplat else "NOT MEASURED"
    for goal in ("goal, cuda: a step ≤ 0.6×", "goal, cuda: memory ≤ 1×", "goal: PSNR within 0.05 dB"):
        (line,) = [line for line in record["lines"] if line.startswith(goal)]
        assert state in line
    assert "the same bits in every run cost" in told and "says anything of speed" in told
    text = (tmp_path / "result.md").read_text()
    assert "| surfaces | 30 | 16×16 | cuda |" in text and "Fast and plain kernels" in text


class Built:
    """A build of gsplat that is done."""

    running = False
    seconds = 60.0
    log = ("what it said",)

    def __init__(self, architecture: str, wheels: Path | None, error: str | None = None) -> None:
        assert architecture == "9.0"
        self.error, self.stopped = error, False

    def wait(self, seconds: float) -> None:
        raise AssertionError("there is nothing to wait for")

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def pretended(emulated_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, whose engine is the emulated one."""
    import splatinit

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(splatinit, "__path__", list(splatinit.__path__))
    monkeypatch.setenv("SPLATINIT_CUDA_LIBRARY", str(emulated_library))
    made = gpu_builds.Libraries(emulated_library.parent / "splatinit", 70.0, gpu_builds.resources(PTXAS))
    monkeypatch.setattr(gpu, "build_ours", lambda architecture, timeout: made)


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("error", [None, "x.cu: error: no"])
def test_the_way_that_it_takes_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str | None) -> None:
    """Builds, and gsplat when its own is done."""
    import gpu_sections

    import splatinit

    class Drawn:
        name = "gsplat"

    def unusable():
        raise RuntimeError("it needs a GPU")

    unusable.name = "gsplat-packed"
    found = []
    monkeypatch.setattr(gpu, "GsplatBuild", lambda *given: found.append(Built(*given, error)) or found[0])
    monkeypatch.setattr(gpu_sections, "GsplatRasterizer", Drawn)
    monkeypatch.setattr(gpu_sections, "PackedGsplatRasterizer", unusable)
    monkeypatch.setattr(gpu_sections, "version", lambda name: "1.5.3")
    monkeypatch.setattr(gpu_sections, "agreement", lambda bench, *size: found.append(dict(bench.gsplat)))
    assert gpu.main(["--sections", "agreement", "--out", str(tmp_path / "result")]) == 0
    record = json.loads((tmp_path / "result.json").read_text())
    told = "\n".join(record["lines"])
    assert "A GPU, compute capability 9.0" in told and "built for 90 in 70 s" in told
    assert splatinit.__path__[0].endswith("splatinit") and record["build_seconds"] == 70
    assert found[0].stopped and record["gsplat_build_seconds"] == 60
    if error is None:
        assert set(found[1]) == {"gsplat"} and "gsplat 1.5.3" in told and "it needs a GPU" in told
    else:
        assert (
            record["gsplat_log"] == ["what it said"]
            and found[1] == {}
            and "gsplat is left out: x.cu: error: no" in told
        )


@pytest.mark.usefixtures("pretended")
def test_a_build_that_fails_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(gpu, "GsplatBuild", lambda *given: found.append(Built(*given)) or found[0])

    def refused(architecture, timeout):
        raise gpu_builds.BuildFailed("api.cu: error")

    monkeypatch.setattr(gpu, "build_ours", refused)
    assert gpu.main(["--out", str(tmp_path / "result")]) == 1
    assert found[0].stopped and "api.cu: error" in (tmp_path / "result.md").read_text()


@pytest.mark.usefixtures("pretended")
def test_an_engine_that_cannot_be_opened_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLATINIT_CUDA_LIBRARY", str(tmp_path / "none.so"))
    assert gpu.main(["--without-gsplat", "--out", str(tmp_path / "result")]) == 0
    record = json.loads((tmp_path / "result.json").read_text())
    assert (
        record["errors"][-1]["what"] == "the CUDA engine cannot be used" and "none.so" in record["errors"][-1]["text"]
    )


def test_a_build_of_gsplat_that_takes_too_long(capsys: pytest.CaptureFixture) -> None:
    from gpu_sections import Bench

    waited = []
    build = SimpleNamespace(running=True, wait=waited.append)
    bench = Bench(Report(Console(), None), Budget(10), gpu_race.HostClock(), None, build)
    assert not bench.look_for_gsplat(3.0) and waited == [3.0] and bench.build is build  # asked again later
    assert "waiting for gsplat's kernels, 3 s at most" in capsys.readouterr().out


def test_what_does_not_fit_is_left_out_and_that_is_said(emulated_library: Path, tmp_path: Path) -> None:
    record = run(emulated_library, tmp_path / "late", "--sections", "cases", "--budget", "0.5", "--without-gsplat")
    assert record["errors"] == [] and "cases" not in record
    left_out = [line for line in record["lines"] if "left out" in line]
    assert len(left_out) == 2 and left_out[0].startswith("surfaces, 30, 16×16: left out, ")
    assert any(line.startswith("goal, cuda: a step ≤ 0.6×") and "NOT MEASURED" in line for line in record["lines"])


def test_an_engine_that_fails_leaves_the_others(
    emulated_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_sections

    real = gpu_sections.ours

    def broken(bench, name, source, **options):
        if name == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return real(bench, name, source, **options)

    monkeypatch.setattr(gpu_sections, "ours", broken)
    more = ("--sections", "cases", "--kinds", "surfaces", "--without-gsplat")
    record = run(emulated_library, tmp_path / "broken", *more)
    assert [row["engine"] for row in record["cases"]] == ["cuda, atomic sums"]
    (line,) = [line for line in record["lines"] if "9 GiB" in line]
    assert line.startswith("surfaces, 30, 16×16, cuda: out of memory: ")
    assert "OutOfMemoryError" in record["errors"][0]["traceback"]


def test_an_engine_that_computes_wrongly_is_measured_and_told_of(
    emulated_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from splatinit.errors import BackendError

    def refused(index, library):
        raise BackendError("rgb differs by 0.5")

    monkeypatch.setattr("splatinit.native.cuda_engine", refused)
    more = ("--sections", "kernels", "--kinds", "surfaces", "--without-gsplat")
    record = run(emulated_library, tmp_path / "wrong", *more)
    assert [error["what"] for error in record["errors"]] == ["the engine's check of itself"]
    assert "| gradient of means |" in (tmp_path / "wrong.md").read_text() and "kernels" in record


def test_sections_that_do_not_exist_are_refused() -> None:
    with pytest.raises(SystemExit, match="--sections: speed; expected some of agreement, kernels, cases, training"):
        gpu.main(["--sections", "speed"])


def test_a_race_goes_on_without_the_one_that_fails() -> None:
    order, heard = [], []

    def call(contender, task) -> None:
        order.append(contender.name)
        if contender.name == "b" and order.count("b") > 5:
            raise RuntimeError("broken")

    racing = [SimpleNamespace(name=name) for name in "abc"]
    times = gpu_race.race(
        gpu_race.HostClock(),
        racing,
        call,
        [0],
        rounds=3,
        count=2,
        failed=lambda name, error: heard.append((name, str(error))),
    )
    assert heard == [("b", "broken")] and set(times) == {"a", "c"}
    assert all(len(each.ms) == 6 and each.wall >= 0 for each in times.values())
    turns = ["".join(order[k : k + 4]) for k in range(0, 12, 4)]
    assert turns == ["aaaa", "bbbb", "cccc"] and order[12] == "b"  # in another order in the next round


def test_events_and_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CudaClock on a torch.cuda that is not there."""
    asked = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = time.perf_counter()

        def elapsed_time(self, other: Event) -> float:
            return 1e3 * (other.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda *device, name=name: asked.append((name, *device)) or len(asked))
    clock = gpu_race.CudaClock(torch.device("cuda", 0))
    assert clock.start_peak() < clock.peak()
    times = gpu_race.Times()
    gpu_race.turn(clock, SimpleNamespace(name="it"), lambda contender, task: time.sleep(0.002), [0], 5, times)
    assert times.median >= 2 and len(times.ms) == 5 and sum(times.ms) == pytest.approx(1e3 * times.wall, rel=0.2)
    names = [name for name, *_ in asked]
    assert names == [
        "empty_cache",
        "reset_peak_memory_stats",
        "memory_allocated",
        "max_memory_allocated",
        *["synchronize"] * 2,
    ]
    assert all(device == [torch.device("cuda", 0)] for name, *device in asked if name != "empty_cache")


def test_what_ptxas_says() -> None:
    spilling, last = gpu_builds.resources(PTXAS)
    assert spilling.name in ("emit_kernel<unsigned int>", "_ZN5splat11emit_kernelIjEEvNS_5FrameEPT_Pjj")
    assert (spilling.registers, spilling.shared, spilling.stack, spilling.spills) == (48, 2048, 24, 12)
    assert spilling.warps == 40 and spilling.blocks == 32  # 4 × ⌊16384 / (48 × 32)⌋; 233472 / (2048 + 1024) = 76
    assert last.name == "last" and last.warps == 8 and last.blocks is None
    assert gpu_builds.resources("nothing was compiled") == []


def test_without_a_gpu_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    compiled = gpu_builds.Libraries(tmp_path, 40.0, gpu_builds.resources(PTXAS))
    monkeypatch.setattr(gpu, "build_ours", lambda architecture, cuda_only: compiled)
    assert gpu.main(["--out", str(tmp_path / "none")]) == 0
    record = json.loads((tmp_path / "none.json").read_text())
    assert "NOTHING WAS MEASURED" in record["lines"][0] and "12 cases" in record["lines"][0]
    assert any("2 kernels, of which 1 spill registers" in line for line in record["lines"])
    assert len(record["resources"]) == 2

    def refused(architecture, cuda_only):
        raise gpu_builds.BuildFailed("there is no nvcc")

    monkeypatch.setattr(gpu, "build_ours", refused)
    assert gpu.main(["--out", str(tmp_path / "none")]) == 0
    assert "there is no nvcc" in (tmp_path / "none.md").read_text()


def test_libraries_of_the_checkout_are_used_while_they_are_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(gpu_builds, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_builds, "FOLDER", tmp_path / "build")
    monkeypatch.setattr(gpu_builds, "_cmake", lambda: "cmake")

    def said(command: list[str], timeout: float) -> str:
        asked.append(command[1])
        (tmp_path / "build" / "native-90").mkdir(parents=True, exist_ok=True)
        return PTXAS if command[1] == "--build" and len(asked) < 4 else "ninja: no work to do."

    monkeypatch.setattr(gpu_builds, "_said", said)
    source = tmp_path / "cuda" / "gpu" / "api.cu"
    libraries = [tmp_path / "splatinit" / "_lib" / name for name in gpu_builds.LIBRARIES]
    for path in (source, *libraries):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.utime(source, (1, 1))
    assert gpu_builds.build_ours("90") == gpu_builds.Libraries(tmp_path / "splatinit", None, []) and asked == []
    os.utime(libraries[1], (0, 0))
    made = gpu_builds.build_ours("90")
    assert asked == ["-S", "--build", "--install"]
    assert made.package == tmp_path / "build" / "installed-90" / "splatinit" and len(made.resources) == 2
    assert len(gpu_builds.build_ours("90").resources) == 2  # of what was compiled before


def test_a_build_that_fails_says_why() -> None:
    with pytest.raises(gpu_builds.BuildFailed, match="no such header"):
        gpu_builds._said([sys.executable, "-c", "raise SystemExit('no such header')"], timeout=30)
    with pytest.raises(gpu_builds.BuildFailed, match="took more than 0 s"):
        gpu_builds._said([sys.executable, "-c", "import time; time.sleep(30)"], timeout=0.2)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A build folder, and an environment that may be changed."""
    monkeypatch.setattr(gpu_builds, "FOLDER", tmp_path)
    for name in ("PYTHONPATH", "TORCH_CUDA_ARCH_LIST", "TORCH_EXTENSIONS_DIR", "MAX_JOBS", "CUDA_HOME"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def package(folder: Path, source: str) -> None:
    (folder / "gsplat" / "cuda").mkdir(parents=True)
    (folder / "gsplat" / "__init__.py").touch()
    (folder / "gsplat" / "cuda" / "__init__.py").touch()
    (folder / "gsplat" / "cuda" / "_backend.py").write_text(source)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import os; _C = os.environ['TORCH_CUDA_ARCH_LIST'] + os.environ['MAX_JOBS']", None),
        ("_C = None", "gsplat found no CUDA toolkit"),
        ("raise RuntimeError('x.cu: error: no')", "x.cu: error: no"),
    ],
)
def test_gsplat_is_compiled_beside(
    outside: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: str | None
) -> None:
    package(outside / "it", source)
    monkeypatch.setenv("PYTHONPATH", str(outside / "it"))
    build = gpu_builds.GsplatBuild("9.0", None)
    build.wait(60)
    assert not build.running and build.seconds is not None
    assert build.error is None if error is None else error in build.error
    build.stop()  # there is nothing to stop any more


def test_the_toolkit_is_the_one_that_nvcc_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not the folder above a script of that name."""
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho '#$ _NVVM_BRANCH_=nvvm' >&2\necho '#$ _HERE_=/opt/cuda-13.0/bin' >&2\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{nvcc.parent}{os.pathsep}{os.environ['PATH']}")
    assert gpu_builds.cuda_home() == "/opt/cuda-13.0"
    nvcc.write_text("#!/bin/sh\n")
    assert gpu_builds.cuda_home() is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_builds.cuda_home() is None


def test_a_build_of_gsplat_can_be_ended(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(outside / "it", "import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(outside / "it"))
    build = gpu_builds.GsplatBuild("9.0", None)
    build.wait(0.1)
    assert build.running
    began = time.perf_counter()
    build.stop()
    assert not build.running and time.perf_counter() - began < 20


def test_wheels_that_cannot_be_installed_are_told_of(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []
    monkeypatch.setattr(gpu_builds, "_said", lambda command, timeout: commands.append(command))
    (outside / "wheels").mkdir()
    (outside / "wheels" / "gsplat-1.5.3-py3-none-any.whl").touch()
    build = gpu_builds.GsplatBuild("9.0", outside / "wheels")
    build.stop()
    assert commands[0][-1].endswith("gsplat-1.5.3-py3-none-any.whl") and "--no-index" in commands[0]
    assert sys.path[0] == str(outside / "site")

    def refused(command, timeout):
        raise gpu_builds.BuildFailed("not a wheel")

    monkeypatch.setattr(gpu_builds, "_said", refused)
    build = gpu_builds.GsplatBuild("9.0", outside / "wheels")
    assert not build.running and "could not be installed: not a wheel" in build.error


def test_a_table_in_markdown() -> None:
    sheet = Sheet("Times", ("engine", "ms"), caption="medians")
    sheet.rows.append(("cuda [x]", "1.5"))
    printed = io.StringIO()
    Report(Console(file=printed), None).show(sheet)  # without a path nothing is written
    assert "cuda [x]" in printed.getvalue()
    assert sheet.markdown() == "## Times\n\n| engine | ms |\n| --- | ---: |\n| cuda [x] | 1.5 |\n\nmedians\n"
    assert Budget(5).left <= 5


@pytest.mark.parametrize(
    ("fast", "plain", "expected"),
    [(1.0, 2.0, "fast wins (2.00×)"), (2.0, 1.0, "PLAIN wins (2.00×)"), (1.0, 1.01, "no difference (1.01×)")],
)
def test_the_verdict_on_a_kernel(fast: float, plain: float, expected: str) -> None:
    from gpu_sections import verdict

    assert verdict(fast, plain) == expected
