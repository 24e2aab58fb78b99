"""Where the numbers come from: versions, machines and rulers of the runs, and the command that does each again."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from .tables import Cell, Results, Row

# Column → what it is called. What differs in the first decides quality; in the second, seconds.
_VERSIONS = {"splatinit": "splatinit", "git": "commit", "torch": "torch", "backend": "backend"}
_MACHINES = {"machine": "processor", "cores": "cores", "threads": "threads"}
_NAMED = 3  # runs of a value that few have


def reason(row: Row) -> str:
    """Why a run failed, in one line."""
    return (row["error"] or "no reason was kept").splitlines()[0]


def failures(rows: Sequence[Row], named: bool = True) -> list[tuple[str, str]]:
    """Failed runs in words, those of one scene and one reason together, and the reason.

    Args:
        named: with the scene's name.
    """
    found: dict[tuple[str, str], dict[str, list[int]]] = {}
    for row in rows:
        variants = found.setdefault((str(row["scene"]), reason(row)), {})
        variants.setdefault(str(row["label"]), []).append(row["seed"])
    return [(f"{scene} · " * named + _variants(variants), why) for (scene, why), variants in found.items()]


def missing(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Runs that are planned and not there, as :func:`failures` does it."""
    found: dict[str, dict[str, list[int]]] = {}
    for scene, label, seed in cells:
        found.setdefault(scene, {}).setdefault(label, []).append(seed)
    return [(f"{scene} · {_variants(variants)}", "not run yet") for scene, variants in found.items()]


def _variants(seeds: Mapping[str, Sequence[int]]) -> str:
    """``sfm, dense (seeds 0, 1), random (seed 1)``."""
    alike: dict[tuple[int, ...], list[str]] = {}
    for label, each in seeds.items():
        alike.setdefault(tuple(each), []).append(label)
    return ", ".join(
        f"{', '.join(labels)} (seed{'s' * (len(each) > 1)} {', '.join(map(str, each))})"
        for each, labels in alike.items()
    )


def budget(results: Results) -> str:
    """What each run was given, steps or time; "" where the results do not say it."""
    found: dict[str, set[str]] = {}
    for row in _done(results):
        with suppress(TypeError, ValueError, LookupError, AttributeError):
            train = json.loads(row["settings"])["train"]
            seconds = train.get("seconds")
            told = f"{seconds:g} s for start and training" if seconds else f"{train['steps']} steps of training"
            found.setdefault(told, set()).add(str(row["label"]))
    if len(found) < 2:
        return "".join(f"the same {told}" for told in found)
    return "; ".join(f"{', '.join(sorted(labels))}: {told}" for told, labels in found.items())


def made_with(results: Results) -> dict[str, str]:
    """Name → the values of the finished runs, with how many have each where they differ."""
    told = {}
    for key, name in (_VERSIONS | _MACHINES).items():
        found = Counter(str(row[key]) for row in _done(results) if row.get(key) is not None)
        if len(found) == 1:
            told[name] = next(iter(found))
        elif found:
            told[name] = ", ".join(f"{value} ({_runs(count)})" for value, count in found.most_common())
    return told


def warnings(results: Results) -> list[tuple[str, str]]:
    """What makes runs of this sweep hard to compare: a few words, and why."""
    told = []
    if results.mixed:
        told.append(
            (
                "Not one ruler:",
                f"the truth images differ between the runs of {', '.join(results.mixed)}. Their scores cannot be "
                "compared, and are left out of all means, ranks and differences.",
            )
        )
    versions, machines = _differing(results, _VERSIONS), _differing(results, _MACHINES)
    if versions:
        told.append(
            ("Not one version:", f"{versions}. A difference between these runs may be that of the versions."),
        )
    if machines:
        told.append(("Not one machine:", f"{machines}. Seconds do not compare between these runs."))
    return told


def _differing(results: Results, keys: Mapping[str, str]) -> str:
    """In words, which values the runs do not share; runs are named where few have a value."""
    told = []
    for key, name in keys.items():
        runs: dict[str, list[str]] = {}
        for row in _done(results):
            if row.get(key) is not None:
                runs.setdefault(str(row[key]), []).append(f"{row['scene']} {row['label']} seed {row['seed']}")
        if len(runs) > 1:
            values = sorted(runs.items(), key=lambda item: -len(item[1]))
            told.append(f"{name} {_few(values[0])}, {', '.join(map(_few, values[1:]))}")
    return "; ".join(told)


def _few(value: tuple[str, Sequence[str]]) -> str:
    what, runs = value
    return f"{what} ({', '.join(runs) if len(runs) <= _NAMED else _runs(len(runs))})"


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _done(results: Results) -> list[Row]:
    return [row for row in results.runs if row["status"] == "done"]


def command(results: Results, row: Row) -> str:
    """The command that does this run again, in the sweep's folder."""
    words = ["splatinit", "run", _place(results, row)]
    config = results.of(row, "config.yaml")
    words += ["--config", f"{row['folder']}/config.yaml"] if config else _words(row["settings"])
    return shlex.join([*words, "--out", f"again/{row['run']}"])


def _place(results: Results, row: Row) -> str:
    """Where the run's scene lies: as the run kept it, or another of the scene, else as the sweep file says it."""
    scene = str(row["scene"])
    for each in (row, *(other for other in _done(results) if other["scene"] == row["scene"])):
        env = results.of(each, "env.json")
        if env is not None:
            with suppress(OSError, ValueError, KeyError, TypeError):
                return str(json.loads(env.read_text(encoding="utf-8"))["inputs"]["scene"])
    return results.paths.get(scene, scene)


def _words(settings: Any) -> list[str]:
    """A frozen config as the words of a command line."""
    try:
        tree = json.loads(settings or "{}")
    except (TypeError, ValueError):
        return []
    words = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, each in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), each)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            words.append(f"{prefix}={','.join(map(str, value))}")
        else:
            words.append(f"{prefix}={value if isinstance(value, str) else json.dumps(value)}")

    walk("", tree)
    return words
