"""``python -m tests.fuzz``: damaged input for every reader, and a table of what became of it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from .engine import Stage, reset, run_target, scratch, table, worker_main
from .targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", default="all", help=f"all, or names with commas between: {', '.join(TARGETS)}")
    parser.add_argument("--cases", type=int, default=10_000, help="of each target")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--engine", choices=("own", "hypothesis", "atheris"), default="own")
    parser.add_argument("--seconds", type=int, default=60, help="of each target, for --engine atheris")
    parser.add_argument("--show", type=int, metavar="CASE", help="run this one case and show everything about it")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--steered", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, seed, first, last, folder = options.worker
        worker_main(TARGETS[name], int(seed), int(first), int(last), Path(folder))
        return 0
    if options.steered:
        from .guided import with_atheris

        with_atheris(TARGETS[options.steered[0]], options.seconds, options.seed, Path(options.steered[1]))
        return 0
    names = list(TARGETS) if options.target == "all" else options.target.split(",")
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        parser.error(f"unknown target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    if options.show is not None:
        return show(names[0], options.seed, options.show)
    if options.engine == "hypothesis":
        return max(drawn(name, options.cases, options.seed) for name in names)
    if options.engine == "atheris":
        return max(steered(name, options.seconds, options.seed) for name in names)
    tallies = []
    for name in names:
        tallies.append(run_target(name, options.seed, options.cases, options.first))
        print(table(tallies[-1:]).splitlines()[0 if len(tallies) == 1 else 1 :][0], flush=True)
        if len(tallies) == 1:
            print(table(tallies[-1:]).splitlines()[1], flush=True)
        for finding in tallies[-1].findings[:10]:
            print(f"  case {finding['index']} of seed {options.seed}: {finding['file']}: {finding['damage']}")
            print("    " + finding["detail"].strip().replace("\n", "\n    "), flush=True)
    return 1 if any(tally.findings for tally in tallies) else 0


def drawn(name: str, cases: int, seed: int) -> int:
    from .guided import with_hypothesis

    began = time.perf_counter()
    findings = with_hypothesis(TARGETS[name], cases, seed)
    print(f"{name:<20} {len(findings)} findings of hypothesis in {time.perf_counter() - began:.0f} s", flush=True)
    for case in findings[:10]:
        print(f"  {case.file}: {case.detail}")
    return 1 if findings else 0


def steered(name: str, seconds: int, seed: int) -> int:
    """One process a target, because atheris ends it; it leaves the bytes of a finding in the current folder."""
    with scratch() as folder:
        command = [sys.executable, "-m", __package__, "--seconds", str(seconds), "--seed", str(seed)]
        return subprocess.run([*command, "--steered", name, folder]).returncode


def show(name: str, seed: int, index: int) -> int:
    with scratch() as folder:
        stage = Stage(TARGETS[name], Path(folder) / "scene")
        case = stage.case(seed, index)
        print(f"{case.outcome}\n{case.file}: {case.damage}\n{case.detail}")
        reset(Path(folder) / "scene")
    return 1 if case.outcome == "finding" else 0


if __name__ == "__main__":
    sys.exit(main())
