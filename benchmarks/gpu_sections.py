"""The parts of benchmarks/gpu.py that compute: agreement, kernels, cases, training."""

from __future__ import annotations

import gc
import math
import operator
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import torch
from gpu_builds import ROOT, GsplatBuild
from gpu_race import (
    DEGREE,
    SETTINGS,
    Clock,
    Contender,
    Counts,
    CudaClock,
    HostClock,
    Ours,
    Theirs,
    Times,
    copy_rate,
    counts,
    forward,
    forward_backward,
    least_bytes,
    make_tasks,
    race,
    step,
    turn,
)
from gpu_report import Budget, Report, Sheet
from scenes import cube, ring, surfaces, walk

from splatinit import native
from splatinit.densify.adc import Adc
from splatinit.errors import BackendError
from splatinit.evaluation import mean_psnr
from splatinit.initializers.random import Random, RandomConfig
from splatinit.io.read import ReadConfig, read_images
from splatinit.losses import l1_dssim_torch
from splatinit.native import selfcheck
from splatinit.posers.given import Given, GivenConfig
from splatinit.progress import Silent
from splatinit.raster.base import Rasterizer
from splatinit.raster.gsplat import GsplatRasterizer, PackedGsplatRasterizer
from splatinit.raster.native import CudaRasterizer
from splatinit.raster.reference import ReferenceRasterizer
from splatinit.seeding import SeedConfig, seed_gaussians
from splatinit.steps import StepTask
from splatinit.training import TrainConfig, TrainResult, train
from splatinit.types import Camera, Gaussians

GOAL = 0.6  # of gsplat's time for a step
GOAL_DB = 0.05  # that two backends' PSNR may differ by after a training
WARM_STEPS = 20  # of a training that does not count
EVEN = 0.03  # two times that differ by less are called equal
KINDS: dict[str, tuple[Callable[[int], Gaussians], Callable[[int, int, int], list[Camera]]]] = {
    "surfaces": (surfaces, walk),
    "random": (cube, ring),
}
PLAIN = {  # option of a workspace → stages that it changes
    "plain_project": ("project", "project_vjp"),
    "plain_emit": ("sort_and_bin",),
    "plain_blend": ("blend",),
    "plain_blend_vjp": ("blend_vjp",),
    "plain_loss": ("loss",),
}
MODES = {"cuda": True, "cuda, atomic sums": False}  # name → deterministic; the first is the backend's default
STOCK = "gsplat, torch loss and Adam"


@dataclass
class Bench:
    """What all parts share.

    Attributes:
        engine: of the CUDA library.       build: of gsplat's kernels, until it is done.
        steps: of each engine in a case, in this number of ``rounds``, through this number of ``views``.
        gsplat: rasterizers by name, as soon as they are there.       rate: bytes a second of a copy of memory.
        grid: a row for each engine in each case.
        scenes: Gaussians that were made, by kind and number.
    """

    report: Report
    budget: Budget
    clock: Clock
    engine: native.CudaEngine
    build: GsplatBuild | None
    steps: int = 200
    rounds: int = 5
    views: int = 8
    gsplat: dict[str, Rasterizer] = field(default_factory=dict)
    rate: float = math.nan
    grid: list[dict] = field(default_factory=list)
    scenes: dict[tuple[str, int], Gaussians] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.engine.device

    def gaussians(self, kind: str, n: int) -> Gaussians:
        """On the host."""
        if (kind, n) not in self.scenes:
            self.scenes[kind, n] = KINDS[kind][0](n)
        return self.scenes[kind, n]

    def forget(self) -> None:
        """Free what no contender holds any more."""
        gc.collect()
        self.engine.free_idle()

    def look_for_gsplat(self, wait: float = 0.0) -> bool:
        """Whether there is a gsplat to compare with, after at most ``wait`` seconds."""
        if self.gsplat or self.build is None:
            return bool(self.gsplat)
        if self.build.running and wait > 0:
            self.report.say(f"waiting for gsplat's kernels, {wait:.0f} s at most")
            self.build.wait(wait)
        if self.build.running:
            return False
        build, self.build = self.build, None
        self.report.record["gsplat_build_seconds"] = build.seconds
        if build.error is not None:
            self.report.record["gsplat_log"] = build.log
            self.report.say(f"gsplat is left out: {build.error}")
            return False
        self.report.record["gsplat"] = version("gsplat")
        self.report.say(f"gsplat {version('gsplat')}: its kernels were there or compiled in {build.seconds:.0f} s")
        for made in (GsplatRasterizer, PackedGsplatRasterizer):
            try:
                self.gsplat[made.name] = made()
            except Exception as error:
                self.report.failed(made.name, error)
        return bool(self.gsplat)


def open_bench(report: Report, budget: Budget, build: GsplatBuild | None, emulated: Path | None) -> Bench:
    """The engine, tried out, and the clock that fits it.

    Where it does not compute what splat_cpu does, that is said with all numbers, and it is measured all the same.
    """
    try:
        engine = native.cuda_engine(0, emulated)
        report.say(f"the engine's check of itself: passed ({engine.describe()}, {engine.version})")
    except BackendError as error:
        report.failed("the engine's check of itself", error)
        engine = native.usable_engine(native.cuda_library(emulated or native.cuda_library_path()), 0)
        check_in_full(report, engine)
    clock = HostClock() if engine.emulated else CudaClock(engine.device)
    bench = Bench(report, budget, clock, engine, build)
    bench.rate = copy_rate(clock, bench.device, 1 if engine.emulated else 1024)
    report.record["copy_gb_per_s"] = bench.rate / 1e9
    report.say(f"a copy of memory: {bench.rate / 1e9:.0f} GB/s, read and written; times by {clock.kind}")
    if native.engine_for(bench.device) is None:
        report.say("gsplat's steps have the loss in plain torch: our fused one cannot be used")
    return bench


def check_in_full(report: Report, engine: native.CudaEngine) -> None:
    """Every number of the self-check beside splat_cpu's."""
    expected = selfcheck.results(native.cpu_engine())
    sheet = Sheet("The engine beside splat_cpu, relative differences by norm", ("what", "deterministic", "atomic sums"))
    found = [selfcheck.results(engine, {"deterministic": mode}) for mode in (1, 0)]
    for name, wanted in expected.items():
        wanted = wanted.double()
        errors = [float((each[name].cpu().double() - wanted).norm() / wanted.norm().clamp_min(1e-12)) for each in found]
        sheet.rows.append((name, *(f"{error:.2g}" for error in errors)))
    report.show(sheet)


def install_double(bench: Bench) -> None:
    """gsplat with the tests' kernels in place of its own, for a run on the emulated engine; nothing where it is not
    installed."""
    sys.path.append(str(ROOT / "tests"))
    patch = SimpleNamespace(
        setitem=operator.setitem,
        setattr=lambda path, value: setattr(import_module(path.rpartition(".")[0]), path.rpartition(".")[2], value),
    )
    try:
        import_module("gsplat_kernels").install(patch)
        bench.gsplat = {made.name: made() for made in (GsplatRasterizer, PackedGsplatRasterizer)}
        bench.report.say("gsplat draws with the tests' kernels in place of its own")
    except Exception as error:
        bench.report.failed("gsplat", error)


def ours(bench: Bench, name: str, source: Gaussians, **options: int) -> Ours:
    """A contender in one of our modes, with more options of the workspace."""
    rasterizer = CudaRasterizer(bench.engine, deterministic=MODES[name])
    rasterizer.options |= options
    return Ours(name, rasterizer, source)


# ---------------------------------------------------------------------------------------------------------- agreement
def gradients(
    rasterizer: Rasterizer, gaussians: Gaussians, camera: Camera, v_rgb: torch.Tensor | None
) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Picture, gradients by field, and what they are the gradients of (``v_rgb``, or of the loss beside grey)."""
    leaves = gaussians.map(lambda tensor: tensor.detach().clone().requires_grad_())
    rgb = rasterizer.render(leaves, camera, settings=SETTINGS, sh_degree=DEGREE).rgb
    if v_rgb is None:
        picture = rgb.detach().requires_grad_()
        l1_dssim_torch(picture, torch.full_like(picture, 0.5), 0.2).backward()
        v_rgb = picture.grad
    rgb.backward(v_rgb.to(rgb))
    return rgb.detach(), {name: tensor.grad for name, tensor in leaves.tensors().items()}, v_rgb


def difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> dict[str, float]:
    """Field → relative difference by norm.

    The gradient of a rotation, which is 0 for a ball, counts beside that of the scales where that is larger: both turn
    one covariance into another.
    """
    errors, norms = {}, {name: float(wanted.double().norm()) for name, wanted in expected.items()}
    norms["quats"] = max(norms["quats"], norms["log_scales"])
    for name, wanted in expected.items():
        off = (found[name].to(wanted.device).double() - wanted.double()).norm()
        errors[name] = float(off) / max(norms[name], 1e-30)
    return errors


def agreement(bench: Bench, n: int, width: int, height: int) -> None:
    """Every engine against the reference in float64, on scenes small enough for that."""
    engines = {name: CudaRasterizer(bench.engine, deterministic=mode) for name, mode in MODES.items()} | bench.gsplat
    fields = tuple(Gaussians.__dataclass_fields__)[:6]
    sheet = Sheet(
        f"Against the float64 reference: {n:,} Gaussians, {width}×{height}",
        ("scene", "engine", "picture, most", *(f"∂ {name}" for name in fields)),
        texts=2,
        caption="relative differences by norm; of the picture the largest absolute difference",
    )
    rows = bench.report.record.setdefault("agreement", [])
    for kind, (make, look) in KINDS.items():
        gaussians, camera = make(n), look(8, width, height)[1]
        picture, expected, v_rgb = gradients(
            ReferenceRasterizer(), gaussians.map(lambda tensor: tensor.double()), camera, None
        )
        there = gaussians.map(lambda tensor: tensor.to(bench.device))
        worst = {}
        for name, rasterizer in engines.items():
            try:
                drawn, found, _ = gradients(rasterizer, there, camera, v_rgb.float())
            except Exception as error:
                bench.report.failed(f"agreement of {name}", error)
                continue
            errors = difference({key: value.cpu() for key, value in found.items()}, expected)
            most = float((drawn.cpu().double() - picture).abs().max())
            worst[name] = max(errors.values())
            rows.append({"scene": kind, "engine": name, "picture_most": most, "gradients": errors})
            sheet.rows.append((kind, name, f"{most:.1e}", *(f"{errors[name]:.1e}" for name in fields)))
        if "gsplat" in worst and "cuda" in worst:
            better = "no worse than" if worst["cuda"] <= worst["gsplat"] else "WORSE than"
            bench.report.say(
                f"{kind}: our largest error of a gradient is {worst['cuda']:.1e}, {better} gsplat's "
                f"{worst['gsplat']:.1e}"
            )
    bench.report.show(sheet)


# ------------------------------------------------------------------------------------------------------------ kernels
def stages(contenders: dict[str, Ours], tasks: Sequence[StepTask], rounds: int) -> dict[str, dict]:
    """name → stage → median seconds; the contenders take turns, view by view."""
    found: dict[str, dict[str, list[float]]] = {name: {stage: [] for stage in native.STAGES} for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            for task in tasks:
                contender.step(task)
                for stage, seconds in contender.seconds().items() if number else ():
                    found[name][stage].append(seconds)
    return {
        name: {stage: statistics.median(values) for stage, values in by_stage.items()}
        for name, by_stage in found.items()
    }


def kernels(bench: Bench, kind: str, n: int, width: int, height: int) -> None:
    """Each fast kernel beside its plain version, what the deterministic mode costs, and how near each stage comes to
    the speed of the memory."""
    source = bench.gaussians(kind, n).map(lambda tensor: tensor.to(bench.device))
    tasks = make_tasks(KINDS[kind][1](-(-bench.views // 2), width, height), bench.device)
    if bench.build is not None and bench.build.running:
        bench.report.say("kernels are timed while other processors compile gsplat's")
    where = f"{n:,} Gaussians ({kind}), {width}×{height}"
    verdicts = Sheet(
        f"Fast and plain kernels: {where}",
        ("kernel", "sums", "stage", "verdict", "fast ms", "plain ms"),
        texts=4,
        caption="medians over views, stages of a whole step",
    )
    speeds = Sheet(
        f"Stages of a step: {where}",
        ("sums", "stage", "ms", "least MB", "GB/s", "% of a copy"),
        texts=2,
        caption="least MB: each array once for each kernel that uses it (gpu_race.least_bytes says what is counted)",
    )
    record = bench.report.record.setdefault("kernels", {"where": where})
    fast: dict[str, dict[str, float]] = {}
    for name, deterministic in MODES.items():
        sums = "in order" if deterministic else "atomic"
        contenders = {"fast": ours(bench, name, source, timings=1)}
        contenders |= {option: ours(bench, name, source, timings=1, **{option: 1}) for option in PLAIN}
        found = stages(contenders, tasks, bench.rounds)
        fast[name] = found["fast"]
        record[name] = found
        for option, changed in PLAIN.items():
            for stage in changed:
                a, b = found["fast"][stage], found[option][stage]
                verdicts.rows.append((option, sums, stage, verdict(a, b), f"{1e3 * a:.3f}", f"{1e3 * b:.3f}"))
        with_gradients = source.map(lambda tensor: tensor.detach().clone().requires_grad_())
        counted = counts(contenders["fast"].rasterizer, with_gradients, tasks)
        for stage, least in least_bytes(n, counted, width, height, deterministic=deterministic).items():
            seconds = max(found["fast"][stage], 1e-9)
            rate = least / seconds
            speeds.rows.append(
                (
                    sums,
                    stage,
                    f"{1e3 * seconds:.3f}",
                    f"{least / 2**20:.1f}",
                    f"{rate / 1e9:.0f}",
                    f"{100 * rate / bench.rate:.0f}",
                )
            )
        del contenders
        bench.forget()
    bench.report.show(verdicts)
    bench.report.show(speeds)
    in_order, atomic = (1e3 * sum(fast[name].values()) for name in MODES)
    bench.report.say(
        f"the same bits in every run cost {in_order:.2f} ms a step, atomic sums {atomic:.2f} ms: "
        f"{100 * (in_order / max(atomic, 1e-9) - 1):+.0f} %"
    )


def verdict(fast: float, plain: float) -> str:
    """Of two times of one stage."""
    ratio = plain / max(fast, 1e-12)
    if abs(ratio - 1) < EVEN:
        return f"no difference ({ratio:.2f}×)"
    return f"fast wins ({ratio:.2f}×)" if ratio > 1 else f"PLAIN wins ({1 / max(ratio, 1e-12):.2f}×)"


# -------------------------------------------------------------------------------------------------------------- cases
def case(bench: Bench, kind: str, n: int, width: int, height: int, seconds: float) -> None:
    """One scene at one size: every engine in turn, in ``seconds`` or about that. Rows go to ``bench.grid``."""
    report = bench.report
    where = f"{kind}, {n:,}, {width}×{height}"
    began = time.perf_counter()
    bench.look_for_gsplat()
    source = bench.gaussians(kind, n).map(lambda tensor: tensor.to(bench.device))
    tasks = make_tasks(KINDS[kind][1](bench.views, width, height), bench.device)
    makers: dict[str, Callable[[], Contender]] = {name: lambda name=name: ours(bench, name, source) for name in MODES}
    makers |= {name: lambda name=name: Theirs(name, bench.gsplat[name], source) for name in bench.gsplat}
    if "gsplat" in bench.gsplat:
        makers[STOCK] = lambda: Theirs(STOCK, bench.gsplat["gsplat"], source, stock=True)
    contenders, memory, each = entered(bench, makers, tasks, where)
    if not contenders:
        return

    # Forward passes, and these with gradients, take about as long together as steps; they get a quarter of the calls.
    count = -(-bench.steps // bench.rounds)
    some = max(2, count // 4)
    a_round = sum(each.values()) * (count + 2 + 1.6 * (some + 2))
    room = seconds - (time.perf_counter() - began)
    rounds = min(bench.rounds, int(room / max(a_round, 1e-9)))
    if rounds < 1:
        report.say(f"{where}: left out, a round takes {a_round:.0f} s and {room:.0f} s are left for it")
        return
    failed = lambda name, error: report.failed(f"{where}, {name}", error)  # noqa: E731
    with_pictures = [contender for contender in contenders if contender.name != STOCK]
    calls = {"forward": (forward, with_pictures, some), "both": (forward_backward, with_pictures, some)}
    calls["step"] = (step, contenders, count)
    times = {
        name: race(bench.clock, racing, call, tasks, rounds=rounds, count=number, failed=failed)
        for name, (call, racing, number) in calls.items()
    }
    counted, boxes = pairs(bench, contenders, tasks, where)
    equal = equality(bench, contenders, tasks[-1].camera, where)
    best = {what: best_of(found) for what, found in times.items()}
    least = min((memory[name] for name in bench.gsplat if memory.get(name)), default=None)
    for contender in contenders:
        name = contender.name
        row = {"data": kind, "n": n, "size": [width, height], "engine": name, "peak_bytes": memory[name]}
        for what, found in times.items():
            if name in found:
                row[what] = found[name].record()
                row[f"{what}_of_gsplat"] = found[name].median / best[what] if best[what] else None
        row["memory_of_gsplat"] = memory[name] / least if least and memory[name] else None
        row["equality"] = equal.get(name)
        row["pairs"] = boxes.get(name) if name in bench.gsplat else counted and counted.pairs
        if counted is not None and name in MODES:
            pixels = width * height
            row |= {"visible": counted.visible, "evaluated_per_pixel": counted.evaluated / pixels}
            row["blended_per_pixel"] = counted.blended / pixels
        bench.grid.append(row)
        report.say(told(row))
    if rounds < bench.rounds:
        report.say(f"{where}: {rounds} of {bench.rounds} rounds, for want of time")
    report.record["cases"] = bench.grid
    report.save()


def entered(
    bench: Bench, makers: dict[str, Callable[[], Contender]], tasks: Sequence[StepTask], where: str
) -> tuple[list[Contender], dict[str, int | None], dict[str, float]]:
    """Those that can do it; name → bytes that each takes at most, its Gaussians, their moments and the step; name →
    seconds of a step, roughly."""
    contenders: list[Contender] = []
    memory: dict[str, int | None] = {}
    each: dict[str, float] = {}
    for name, make in makers.items():
        bench.forget()
        try:
            before = bench.clock.start_peak()
            contender = make()
            for task in tasks:
                contender.step(task)
            bench.clock.synchronize()
            peak = bench.clock.peak()
            memory[name] = None if peak is None or before is None else peak - before
            times = Times()
            turn(bench.clock, contender, step, tasks, 3, times)
            each[name] = times.wall / 3
            contenders.append(contender)
        except Exception as error:
            bench.report.failed(f"{where}, {name}", error)
    return contenders, memory, each


def best_of(times: dict[str, Times]) -> float | None:
    """The best median of gsplat's, None where there is none."""
    return min((found.median for name, found in times.items() if name not in MODES), default=None)


def pairs(
    bench: Bench, contenders: Sequence[Contender], tasks: Sequence[StepTask], where: str
) -> tuple[Counts | None, dict[str, float]]:
    """What our engine counts; name → (tile, Gaussian) pairs of gsplat's, in the mean over the views."""
    counted, boxes = None, {}
    for contender in contenders:
        try:
            if contender.name in MODES:
                counted = counted or counts(contender.rasterizer, contender.gaussians, tasks)
            elif contender.name != STOCK:
                boxes[contender.name] = gsplat_pairs(contender, tasks)
        except Exception as error:
            bench.report.failed(f"{where}, counting pairs of {contender.name}", error)
    return counted, boxes


def gsplat_pairs(contender: Contender, tasks: Sequence[StepTask]) -> float:
    import gsplat

    found, real = [], gsplat.rasterization

    def counting(**arguments):
        image, alpha, meta = real(**arguments)
        found.append(len(meta["flatten_ids"]))
        return image, alpha, meta

    gsplat.rasterization = counting
    try:
        for task in tasks:
            forward(contender, task)
    finally:
        gsplat.rasterization = real
    return statistics.mean(found)


def equality(bench: Bench, contenders: Sequence[Contender], camera: Camera, where: str) -> dict[str, dict]:
    """name → how far picture and gradients are from those of the first that is there, of gsplat's if it is."""
    base = next((each for each in contenders if each.name == "gsplat"), contenders[0])
    found: dict[str, dict] = {}
    try:
        picture, expected, v_rgb = gradients(base.rasterizer, base.gaussians, camera, None)
        for contender in contenders:
            if contender is base or contender.name == STOCK:
                continue
            drawn, those, _ = gradients(contender.rasterizer, contender.gaussians, camera, v_rgb)
            off = (drawn - picture).abs()
            found[contender.name] = {
                "beside": base.name,
                "picture_most": float(off.max()),
                "picture_mean": float(off.mean()),
                "gradients": difference(those, expected),
            }
    except Exception as error:
        bench.report.failed(f"{where}, comparing pictures", error)
    return found


def told(row: dict) -> str:
    """One line of a row, as it comes."""
    ratio = row.get("step_of_gsplat")
    beside = "" if ratio is None else f", {ratio:.2f}× of gsplat's best"
    width, height = row["size"]
    took = f"step {row['step']['median_ms']:.3f} ms" if "step" in row else "failed"
    return f"{row['data']}, {row['n']:,}, {width}×{height}, {row['engine']}: {took}{beside}"


def grid_sheet(bench: Bench) -> Sheet:
    """The table of all cases."""
    sheet = Sheet(
        "Medians in ms, SH degree 3; of gsplat: over the best of its ways",
        (
            "data", "Gaussians", "image", "engine", "forward", "of gsplat", "fwd+bwd", "of gsplat", "step", "10–90 %",
            "wall", "of gsplat", "peak MB", "of gsplat", "pairs M", "Δ picture", "Δ gradients",
        ),
        texts=4,
        caption="peak: Gaussians, moments and everything else of an engine while it trains. Δ: largest absolute "
        "difference of the picture, largest relative one of a gradient by norm, to gsplat's",
    )  # fmt: skip
    order = {name: k for k, name in enumerate(KINDS)}
    for row in sorted(bench.grid, key=lambda row: (row["size"], order[row["data"]], row["n"])):
        cells = []
        for what in ("forward", "both", "step"):
            times = row.get(what)
            cells.append(f"{times['median_ms']:.3f}" if times else "–")
            if what == "step":
                cells.append(f"{times['p10_ms']:.2f}–{times['p90_ms']:.2f}" if times else "–")
                cells.append(f"{times['wall_ms']:.3f}" if times else "–")
            cells.append(_ratio(row.get(f"{what}_of_gsplat")))
        cells.append(f"{row['peak_bytes'] / 2**20:.0f}" if row["peak_bytes"] else "–")
        cells.append(_ratio(row["memory_of_gsplat"]))
        cells.append(f"{row['pairs'] / 1e6:.2f}" if row["pairs"] else "–")
        equal = row["equality"]
        cells.append(f"{equal['picture_most']:.1e}" if equal else "–")
        cells.append(f"{max(equal['gradients'].values()):.1e}" if equal else "–")
        sheet.rows.append((row["data"], f"{row['n']:,}", "×".join(map(str, row["size"])), row["engine"], *cells))
    return sheet


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"


def goals(bench: Bench) -> None:
    """Reached or not, for each of our modes."""
    for name in MODES:
        rows = [row for row in bench.grid if row["engine"] == name]
        for what, key, limit in (("a step", "step_of_gsplat", GOAL), ("memory", "memory_of_gsplat", 1.0)):
            ratios = [row[key] for row in rows if row.get(key) is not None]
            if not ratios:
                bench.report.say(f"goal, {name}: {what} ≤ {limit:g}× of gsplat's best: NOT MEASURED")
                continue
            reached = sum(ratio <= limit for ratio in ratios)
            state = "reached" if reached == len(ratios) else "NOT reached"
            bench.report.say(
                f"goal, {name}: {what} ≤ {limit:g}× of gsplat's best: {state}: in {reached} of {len(ratios)} cases; "
                f"{min(ratios):.2f}× to {max(ratios):.2f}×"
            )


# ----------------------------------------------------------------------------------------------------------- training
def training(
    bench: Bench, folder: Path | None, *, steps: int, count: int, max_size: int, seeds: int, seconds: float
) -> None:
    """The same training by both backends: seconds, PSNR of the test views, Gaussians; more seeds while there is time.

    Args:
        folder: photos with poses; None: the demo scene.       steps: of each training.       count: of the start.
        max_size: px of the photos.       seeds: at most.       seconds: for all of them, or about that.
    """
    until = time.perf_counter() + seconds
    if folder is None:
        from splatinit.demo.dataset import make_demo_scene

        folder = make_demo_scene(Path(tempfile.mkdtemp()) / "demo")
    images = read_images(folder, ReadConfig(max_size=max_size))
    scene = Given(GivenConfig(triangulate=False)).pose(images, work_dir=None, progress=Silent())
    camera = scene.train[0].camera
    rasterizers: dict[str, Rasterizer] = {"cuda": CudaRasterizer(bench.engine)}
    rasterizers |= {name: bench.gsplat[name] for name in ("gsplat",) if name in bench.gsplat}
    sheet = Sheet(
        f"{steps} steps on {images.root.name}: {len(scene.train)} views, {camera.width}×{camera.height}, from "
        f"{count:,} random Gaussians, with adaptive density control",
        ("backend", "seed", "seconds", "ms a step", "test PSNR dB", "Gaussians"),
        texts=1,
    )
    rows = bench.report.record.setdefault("training", [])

    def trained(rasterizer: Rasterizer, gaussians: Gaussians, seed: int, steps: int) -> TrainResult:
        return train(
            scene,
            gaussians,
            rasterizer=rasterizer,
            settings=SETTINGS,
            densifier=Adc(),
            config=TrainConfig(steps=steps, preview=1.0),
            seed=seed,
            stop=lambda: time.perf_counter() > until,
        )

    for seed in range(seeds):
        start = Random(RandomConfig(count=count)).initialize(scene, seed=seed, progress=Silent())
        gaussians = seed_gaussians(start.points, SeedConfig())
        longest = max((row["seconds"] for row in rows), default=0.0)
        if seed and time.perf_counter() + 1.2 * longest * len(rasterizers) > until:
            break
        for name, rasterizer in rasterizers.items():
            bench.forget()
            try:
                if seed == 0:
                    # What is loaded and tried out at a first use is no part of either's time.
                    trained(rasterizer, gaussians, seed, min(WARM_STEPS, steps))
                result = trained(rasterizer, gaussians, seed, steps)
                psnr = mean_psnr(scene, result.gaussians, rasterizer=rasterizer, settings=SETTINGS)
            except Exception as error:
                bench.report.failed(f"training with {name}", error)
                continue
            row = {"backend": name, "seed": seed, "seconds": result.seconds, "steps": result.steps_done, "psnr": psnr}
            rows.append(row | {"n": len(result.gaussians), "whole": not result.interrupted})
            if result.interrupted:
                bench.report.say(f"training with {name}: out of time after {result.steps_done} of {steps} steps")
            each = 1e3 * result.seconds / max(1, result.steps_done)
            shown = "–" if psnr is None else f"{psnr:.2f}"
            sheet.rows.append(
                (name, str(seed), f"{result.seconds:.1f}", f"{each:.2f}", shown, f"{len(result.gaussians):,}")
            )
    bench.report.show(sheet)
    whole = {
        name: [row for row in rows if row["backend"] == name and row["whole"] and row["psnr"] is not None]
        for name in rasterizers
    }
    if len(whole) < 2 or not all(whole.values()):
        bench.report.say(f"goal: PSNR within {GOAL_DB} dB of gsplat's: NOT MEASURED")
        return
    means = {name: statistics.mean(row["psnr"] for row in found) for name, found in whole.items()}
    took = {name: statistics.mean(row["seconds"] for row in found) for name, found in whole.items()}
    spread = max(max(row["psnr"] for row in found) - min(row["psnr"] for row in found) for found in whole.values())
    off = means["cuda"] - means["gsplat"]
    state = "reached" if abs(off) <= GOAL_DB else "NOT reached"
    bench.report.say(
        f"goal: PSNR within {GOAL_DB} dB of gsplat's: {state}: {off:+.3f} dB (seeds differ by up to {spread:.2f} dB); "
        f"training took {took['cuda'] / took['gsplat']:.2f}× of gsplat's time"
    )
