"""The CUDA engine beside gsplat, on a GPU, in one call of under ten minutes, builds included.

    python benchmarks/gpu.py [--wheels DIR] [--scene DIR] [--budget 540] [--out build/gpu-bench/result] [--sections …]
    python benchmarks/gpu.py --emulated LIBRARY ...        the same on the processor, tiny, to see that all of it runs

It runs from a checkout and needs torch with CUDA, nvcc and cmake; splatinit need not be installed. Both libraries are
built for the GPU that is found, unless splatinit/_lib has newer ones than their sources; gsplat's kernels are compiled
at the same time (--wheels: a folder with gsplat's wheel, where it is not installed). Then, in this order, as far as the
time goes; what does not fit is left out, and that is said:

    agreement  pictures and gradients of every engine against the reference in float64
    kernels    each fast kernel beside its plain version; the deterministic mode's cost; stages beside a copy's GB/s
    cases      random starts and surfaces as training leaves them, by number of Gaussians and image size: forward,
               forward + backward and whole training step, the engines in turn; memory, pairs, equality of the output
    training   the same short training by both backends: seconds, PSNR, number of Gaussians

A step of ours is the trainer's own. gsplat's has our fused loss and torch's fused Adam around gsplat's kernels, packed
or not, and once, as most trainers have it, a loss in plain torch and torch's default Adam. Nobody gathers statistics
for densification, nothing waits in a step. Learning rates are too small to move a number, so all engines have the same
scene in every round. Our gradients of forward + backward are written out, as autograd wants them.

Without a GPU it says so, compiles splat_cuda, and prints what its kernels take of a multiprocessor.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
from pathlib import Path

import torch
from gpu_builds import FOLDER, ROOT, BuildFailed, GsplatBuild, Kernel, build_ours
from gpu_report import Budget, Report, Sheet
from rich.console import Console

SECTIONS = ("agreement", "kernels", "cases", "training")
TRAINING_SHARE = 0.28  # of the budget, kept for the training while cases are measured
LONGEST_WAIT = 0.6  # of the budget, after which it goes on without gsplat
WITHOUT_A_GPU = "90"  # the architecture that is compiled then: that of an H100 and H200
LAST_SECONDS = 10.0  # for the end of it


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", default="1000000,100000,3000000", help="of the cases, the most important first")
    parser.add_argument("--sizes", default="1297x840,1920x1080", help="of the cases, the most important first")
    parser.add_argument("--kinds", default="surfaces,random", help="of the cases")
    parser.add_argument("--steps", type=int, default=200, help="of each engine in a case")
    parser.add_argument("--rounds", type=int, default=5, help="in which the engines take turns")
    parser.add_argument("--views", type=int, default=8, help="that the steps of a case go through")
    parser.add_argument("--agreement", default="1500,80x60", help="Gaussians and size that the reference can hold")
    parser.add_argument("--scene", type=Path, help="to train on; else fox of SPLATINIT_TEST_DATA, else the demo scene")
    parser.add_argument("--train-steps", type=int, default=3000)
    parser.add_argument("--train-seeds", type=int, default=3, help="of the training, at most")
    parser.add_argument("--train-gaussians", type=int, default=100_000, help="of the start")
    parser.add_argument("--max-size", type=int, default=1000, help="px of the photos of the training")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="only some of them")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--wheels", type=Path, help="folder of wheels with gsplat, where it is not installed")
    parser.add_argument("--without-gsplat", action="store_true")
    parser.add_argument(
        "--emulated", type=Path, metavar="LIBRARY", help="libsplat_cuda_emulated.so of the tests' build"
    )
    parser.add_argument("--out", type=Path, default=FOLDER / "result", help="of the .json and the .md")
    return parser


def main(argv: list[str] | None = None) -> int:
    asked = arguments().parse_args(argv)
    wanted = asked.sections.split(",")
    if unknown := [name for name in wanted if name not in SECTIONS]:
        raise SystemExit(f"--sections: {', '.join(unknown)}; expected some of {', '.join(SECTIONS)}")
    budget = Budget(asked.budget)
    report = Report(Console(width=220), asked.out)
    report.record |= {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    if asked.emulated is not None:
        report.say(f"on the emulated engine {asked.emulated.name}: no number here says anything of speed")
        build = None
    elif not torch.cuda.is_available():
        return without_a_gpu(report, asked)
    else:
        major, minor = torch.cuda.get_device_capability()
        report.record["device"] = torch.cuda.get_device_name()
        report.say(
            f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}; torch {torch.__version__}; "
            f"{len(os.sched_getaffinity(0))} processors"
        )
        build = None if asked.without_gsplat else GsplatBuild(f"{major}.{minor}", asked.wheels)
        try:
            provide_libraries(report, f"{major}{minor}", asked.budget / 2)
        except BuildFailed as error:
            report.failed("building our libraries", error)
            if build is not None:
                build.stop()
            report.save()
            return 1
    try:
        measure(report, budget, build, asked, wanted)
    finally:
        if build is not None:
            build.stop()
        report.save()
    report.say(f"{asked.budget - budget.left:.0f} s in all; {asked.out}.json and .md")
    return 0


def provide_libraries(report: Report, architecture: str, timeout: float) -> None:
    """Have ``import splatinit`` find both libraries."""
    made = build_ours(architecture, timeout=timeout)
    import splatinit

    if str(made.package) not in splatinit.__path__:
        splatinit.__path__.insert(0, str(made.package))  # before a _lib of the checkout, which may be older
    report.record["build_seconds"] = made.seconds
    if made.seconds is None:
        report.say("our libraries: those of splatinit/_lib, newer than all of their sources")
    else:
        report.say(f"our libraries: built for {architecture} in {made.seconds:.0f} s")
    if made.resources:
        report.show(resource_sheet(report, made.resources, architecture))


def measure(
    report: Report, budget: Budget, build: GsplatBuild | None, asked: argparse.Namespace, wanted: list[str]
) -> None:
    """All sections, each on its own: what one of them meets does not keep the others from running."""
    import gpu_sections as sections

    try:
        bench = sections.open_bench(report, budget, build, asked.emulated)
    except Exception as error:
        report.failed("the CUDA engine cannot be used", error)
        return
    bench.steps, bench.rounds, bench.views = asked.steps, asked.rounds, asked.views
    if asked.emulated is not None and not asked.without_gsplat:
        sections.install_double(bench)
    counts = [int(count) for count in asked.gaussians.split(",")]
    sizes = [tuple(map(int, size.split("x"))) for size in asked.sizes.split(",")]
    kinds = asked.kinds.split(",")
    cases = [(kind, n, *size) for size in sizes for n in counts for kind in kinds]
    first, rest = cases[: len(kinds)], cases[len(kinds) :]
    kept = TRAINING_SHARE * budget.seconds if "training" in wanted else 0.0

    def attempt(what: str, section, *given, **named) -> None:
        try:
            section(*given, **named)
        except Exception as error:
            report.failed(what, error)

    def run_cases(some: list[tuple[str, int, int, int]], reserve: float, again: int) -> None:
        for k, (kind, n, width, height) in enumerate(some):
            room = budget.left - reserve - LAST_SECONDS
            # What a case leaves over goes to those behind it.
            share = room / max(1, min(again, len(some) - k))
            what = f"{kind}, {n:,}, {width}×{height}"
            if room <= 0:
                report.say(f"{what}: left out, no time is left")
                continue
            attempt(what, sections.case, bench, kind, n, width, height, share)

    if "kernels" in wanted:
        # Needs no gsplat: its kernels are still being compiled, by other processors.
        attempt("kernels", sections.kernels, bench, kinds[0], counts[0], *sizes[0])
    bench.look_for_gsplat(max(0.0, budget.left - (1 - LONGEST_WAIT) * budget.seconds))
    if "agreement" in wanted:
        n, size = asked.agreement.split(",")
        attempt("agreement", sections.agreement, bench, int(n), *map(int, size.split("x")))
    if "cases" in wanted:
        run_cases(first, kept, 2 * len(first))
    if "training" in wanted:
        seconds = min(budget.left - LAST_SECONDS, kept)
        scale = {"steps": asked.train_steps, "count": asked.train_gaussians, "max_size": asked.max_size}
        scale["seeds"] = asked.train_seeds
        attempt("training", sections.training, bench, scene_of(asked.scene), seconds=seconds, **scale)
    if "cases" in wanted:
        run_cases(rest, 0.0, len(rest))
        report.show(sections.grid_sheet(bench))
        sections.goals(bench)


def scene_of(named: Path | None) -> Path | None:
    """The folder of photos to train on; None for the demo scene."""
    if named is not None:
        return named
    folder = Path(os.environ.get("SPLATINIT_TEST_DATA", ROOT.parent / "shared" / "data")) / "fox"
    return folder if folder.is_dir() else None


def without_a_gpu(report: Report, asked: argparse.Namespace) -> int:
    """What can be said all the same."""
    cases = math.prod(len(given.split(",")) for given in (asked.gaussians, asked.sizes, asked.kinds))
    report.say(
        f"There is no GPU here (torch {torch.__version__}, CUDA {torch.version.cuda}): NOTHING WAS MEASURED. "
        f"On one, this would have measured {cases} cases ({asked.kinds}; {asked.gaussians} Gaussians; {asked.sizes}), "
        f"each kernel beside its plain version, and a training of {asked.train_steps} steps, ours and gsplat's in turn."
    )
    try:
        made = build_ours(WITHOUT_A_GPU, cuda_only=True)
    except BuildFailed as error:
        report.failed("splat_cuda could not be compiled", error)
        report.save()
        return 0
    report.record["build_seconds"] = made.seconds
    report.say(f"splat_cuda compiles for sm_{WITHOUT_A_GPU}: {made.seconds:.0f} s")
    report.show(resource_sheet(report, made.resources, WITHOUT_A_GPU))
    return 0


def resource_sheet(report: Report, kernels: list[Kernel], architecture: str) -> Sheet:
    """What the kernels take."""
    sheet = Sheet(
        f"Kernels on sm_{architecture}, by ptxas",
        ("kernel", "registers", "warps", "shared bytes", "blocks", "stack bytes", "spilled bytes"),
        caption="warps of at most 64 that registers leave room for on a multiprocessor; blocks of at most 32 that "
        "shared memory does; stack and spills: of a thread, in local memory",
    )
    for kernel in kernels:
        numbers = (kernel.registers, kernel.warps, kernel.shared, kernel.blocks, kernel.stack, kernel.spills)
        sheet.rows.append((kernel.name, *("–" if number is None else str(number) for number in numbers)))
    report.record["resources"] = [vars(kernel) | {"warps": kernel.warps} for kernel in kernels]
    spilled = [kernel.name for kernel in kernels if kernel.spills]
    report.say(f"{len(kernels)} kernels, of which {len(spilled)} spill registers: {', '.join(spilled) or 'none'}")
    return sheet


if __name__ == "__main__":
    sys.exit(main())
