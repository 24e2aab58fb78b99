"""Kills whole runs with −9 at random points, lets each go on, and compares every file with an undisturbed run.

    python tests/e2e/kill_points.py --points 50 [--seed S] [--folder DIR]

One run is two commands into one folder: ``splatinit init --images`` (SfM, points, export for other trainers) and
``splatinit run`` (training, evaluation), on nine photos that splatinit draws. Every other point is drawn uniformly over
the time that the undisturbed run took; the rest go through the stages in turn, at a random moment of each, so that the
short ones are hit as well. A third of the processes that go on are killed once more. After the run has ended, the files
must be those of the undisturbed one, and nothing may be left of the killed processes, in the folder or elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

SETTINGS = ["--max-size", "120", "poser.name=colmap", "poser.max_size=240", "poser.max_features=1000"]
SETTINGS += ["eval.lpips=none", "seeding.sh_degree=1", "train.steps=300", "train.checkpoint_seconds=0"]
SETTINGS += ["densify.every=0.1", "densify.min_every_steps=1", "densify.max_count=1500"]
COMMANDS = (["init", "--images"], ["run"])
# A line that a stage leaves when it is finished: a check mark, its name of one or more words, a result, its seconds.
STAGES = r"export photos|SIFT features|match features|verify pairs|incremental mapping|\w+"
FINISHED = re.compile(rf"✓ (?P<stage>{STAGES}) .* [\d.]+ s$")
STARTING = "starting"  # imports and reading
PATIENCE = 120  # s


def draw_photos(folder: Path, views: int = 9, width: int = 240, height: int = 180) -> Path:
    """Neighbouring views of the demo's yard, without poses."""
    from splatinit.demo.layout import build_cameras
    from splatinit.demo.render import DemoRenderer
    from splatinit.io.images import write_png

    renderer = DemoRenderer()
    for number, camera in enumerate(build_cameras()[36 : 36 + views]):
        write_png(folder / f"{number:02d}.png", renderer.render(camera.resized(width, height)).rgb)
    return folder


# ---------------------------------------------------------------------------------------------------------- processes
@dataclass
class Process:
    """A command in a process group of its own, and what it has told."""

    child: subprocess.Popen
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def start(cls, command: Sequence[str], photos: Path, out: Path, scratch: Path) -> Process:
        line = [sys.executable, "-m", "splatinit", command[0], str(photos), *command[1:], "-o", str(out), *SETTINGS]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(scratch), "SPLATINIT_THREADS": "1"}
        child = subprocess.Popen(
            line, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        return cls(child)

    def lines(self) -> Iterator[str]:
        yield from (line.rstrip() for line in self.child.stdout)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.communicate()

    def rest(self) -> str:
        """Wait for the end; what it told. Raises AssertionError when it failed."""
        try:
            told, _ = self.child.communicate(timeout=PATIENCE)
        finally:
            if self.child.poll() is None:
                self.kill()
        assert self.child.returncode == 0, f"exit code {self.child.returncode}:\n{told}"
        return told


@dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds after the start, or after the end of the stage before ``stage``."""

    command: int
    stage: str | None
    seconds: float


def kept_stages(out: Path) -> list[str]:
    """Stages of structure from motion that an unfinished run has behind it, and does not tell again."""
    index = out / "scene" / "work" / "steps.json"
    steps = json.loads(index.read_text())["steps"] if index.exists() else ()
    stage_of_step = {"photos": "export photos", "features": "SIFT features", "matches": "match features"}
    stage_of_step["verified"] = "verify pairs"
    newest = max((number for number, step in enumerate(stage_of_step, 1) if step in steps), default=0)
    return list(stage_of_step.values())[:newest]


def stage_of(line: str) -> str | None:
    found = FINISHED.search(line)
    return found["stage"] if found else None


def run_until(moment: Moment, stages: Sequence[str], photos: Path, out: Path, scratch: Path) -> str | None:
    """Kill the command of ``moment`` then; the stage it was in, or None when it had ended before.

    Stages that an earlier process finished are not told again, so that waiting for one ends with the process.
    """
    process = Process.start(COMMANDS[moment.command], photos, out, scratch)
    reached = STARTING
    waiting_for = None
    if moment.stage is not None and moment.stage != stages[0]:
        waiting_for = stages[stages.index(moment.stage) - 1]
        for line in process.lines():
            if stage_of(line) == waiting_for:
                break
    time.sleep(moment.seconds)
    ended = process.child.poll() is not None
    if not ended:
        os.killpg(process.child.pid, signal.SIGKILL)
    told, _ = process.child.communicate()
    if ended:
        assert process.child.returncode == 0, told
        return None
    finished = [stage for stage in map(stage_of, told.splitlines()) if stage]
    last = finished[-1] if finished else waiting_for
    if last is not None:
        following = [stage for stage in stages[stages.index(last) + 1 :] if stage not in kept_stages(out)]
        reached = following[0] if following else "ending"
    return reached


# ------------------------------------------------------------------------------------------------------- what must stay
def contents(out: Path) -> dict[str, str]:
    """File → sha256 of what a run is to leave; times, and what counts sessions, left out."""
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        data = path.read_bytes()
        if name in ("env.json", "stages.json") or name.startswith("checkpoints/"):
            continue  # sessions and seconds
        if name == "init/stats.json":
            data = _without(data, "seconds", "peak_memory_mb")
        elif name == "eval/metrics.json":
            data = _without(data, "render_seconds")
        elif name == "train.jsonl":  # the running mean of the loss starts anew in each process
            data = b"\n".join(_without(line, "seconds", "loss") for line in data.splitlines())
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def _without(data: bytes, *keys: str) -> bytes:
    """JSON without what is called so, at any depth."""

    def pruned(tree: object) -> object:
        return {k: pruned(v) for k, v in tree.items() if k not in keys} if isinstance(tree, dict) else tree

    return json.dumps(pruned(json.loads(data))).encode()


def differences(out: Path, expected: dict[str, str], scratch: Path) -> list[str]:
    """What is not as the undisturbed run left it, and what killed processes left in the folder of scratch files."""
    found = contents(out)
    names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    return names + [f"left in TMPDIR: {path.name}" for path in scratch.iterdir()]


# ----------------------------------------------------------------------------------------------------------- the points
@dataclass(frozen=True)
class Undisturbed:
    """The run that nobody killed: its files, each command's seconds, and each command's stages with theirs."""

    files: dict[str, str]
    after_init: Path  # a copy of the folder after the first command
    seconds: tuple[float, float]
    stages: tuple[dict[str, float], dict[str, float]]


def undisturbed(photos: Path, folder: Path) -> Undisturbed:
    out, after_init, scratch = folder / "undisturbed", folder / "after-init", folder / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    seconds, stages = [], []
    for command in COMMANDS:
        process = Process.start(command, photos, out, scratch)
        told: dict[str, float] = {}
        last = process.began
        for line in process.lines():
            stage = stage_of(line)
            if stage is not None:
                told[stage] = told.get(stage, 0.0) + time.monotonic() - last
                last = time.monotonic()
        process.rest()
        seconds.append(time.monotonic() - process.began)
        stages.append(told)
        if command is COMMANDS[0]:
            shutil.copytree(out, after_init)
    left = list(scratch.iterdir())
    assert not left, f"an undisturbed run left {left}"
    return Undisturbed(contents(out), after_init, tuple(seconds), tuple(stages))


def moments(plain: Undisturbed, rng: random.Random) -> Iterator[Moment]:
    """Without end: uniformly over the run, and over each stage in turn."""
    turns = [(number, stage) for number, stages in enumerate(plain.stages) for stage in stages]
    while True:
        for number, stage in turns:
            at = rng.uniform(0, sum(plain.seconds))
            first = at < plain.seconds[0]
            yield Moment(0, None, at) if first else Moment(1, None, at - plain.seconds[0])
            yield Moment(number, stage, rng.uniform(0, plain.stages[number][stage]))


@dataclass(frozen=True)
class Outcome:
    """One point: where its processes were killed, and what differs from the undisturbed run in the end."""

    killed_in: tuple[str, ...]
    moment: Moment
    differs: tuple[str, ...]


def kill_and_go_on(
    moment: Moment, again: Moment | None, plain: Undisturbed, photos: Path, folder: Path, *, to_the_end: bool = True
) -> Outcome:
    """One point: kill at ``moment``, perhaps ``again``, go on to the end (or that of the command), and compare."""
    out, scratch = folder / "run", folder / "tmp"
    for left in (out, scratch):
        shutil.rmtree(left, ignore_errors=True)
    scratch.mkdir()
    if moment.command == 1:
        shutil.copytree(plain.after_init, out)
    killed = []
    for each in filter(None, (moment, again)):
        stage = run_until(each, tuple(plain.stages[each.command]), photos, out, scratch)
        killed += [] if stage is None else [stage]
    last = len(COMMANDS) if to_the_end else moment.command + 1
    for command in COMMANDS[moment.command : last]:
        Process.start(command, photos, out, scratch).rest()
    expected = plain.files if last == len(COMMANDS) else contents(plain.after_init)
    return Outcome(tuple(killed), moment, tuple(differences(out, expected, scratch)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--points", type=int, default=50, help="how many processes to kill at least (default: 50)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments (default: a new one each time)")
    parser.add_argument("--folder", type=Path, default=None, help="where to work; kept, for a look at what differs")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    rng = random.Random(seed)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-points-"))
    photos = draw_photos(folder / "photos")
    plain = undisturbed(photos, folder)
    print(f"seed {seed}; undisturbed: init {plain.seconds[0]:.1f} s, run {plain.seconds[1]:.1f} s", flush=True)
    stages, failures, count = Counter(), 0, 0
    for number, moment in enumerate(moments(plain, rng), 1):
        again = Moment(moment.command, None, rng.uniform(1.0, plain.seconds[moment.command]))
        when = f"{COMMANDS[moment.command][0]} +{moment.seconds:.2f} s"
        when += f" of {moment.stage}" if moment.stage else ""
        try:
            outcome = kill_and_go_on(moment, again if rng.random() < 1 / 3 else None, plain, photos, folder)
            verdict = f"DIFFERS: {', '.join(outcome.differs)}" if outcome.differs else "resumed, hashes equal"
        except AssertionError as error:
            outcome = Outcome(("?",), moment, (str(error),))
            verdict = f"NOT RESUMED: {error}"
        count += len(outcome.killed_in)
        stages.update(outcome.killed_in)
        print(f"{number:3}  {when:40} killed in {' and '.join(outcome.killed_in) or 'nothing':36} {verdict}")
        sys.stdout.flush()
        if outcome.differs:
            failures += 1
            if (folder / "run").exists():
                shutil.copytree(folder / "run", folder / f"failed{number}", dirs_exist_ok=True)
        if count >= options.points:
            break
    print(f"{count} kills: " + ", ".join(f"{stage} {times}" for stage, times in stages.most_common()))
    print(f"{failures} runs differ" if failures else "every run ended as the undisturbed one")
    if options.folder is None and not failures:
        shutil.rmtree(folder)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
