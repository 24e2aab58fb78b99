"""Run folders → the sweep's four tables, and back.

    results/runs.parquet     one row per run that is finished or failed
    results/views.parquet    one row per run and test view
    results/steps.parquet    one row per run and evaluation step: the mean over all test views where they were measured
                             (setting eval.during, and after the last step), one test view where training looked at it
    results/starts.parquet   one row per run: what can be said of its start before training

    pandas.read_parquet("results/runs.parquet")

The tables hold nothing that the run folders do not: they are made anew each time, so that they can be deleted. Only
stages that are finished and whole count. What is read from a file (scores, statistics) is held against its hash; of the
others, which may be large, name and size must be right.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import ConfigError, FormatError, MissingExtra, SplatinitError
from ..io.atomic import atomic_path
from ..io.locks import hold_when_free
from ..io.runs import RunFolder, broken, differences
from ..io.text import read_json
from .folder import KeptRun, SweepFolder

if TYPE_CHECKING:
    import pyarrow

_TEXT, _INT, _FLOAT = "string", "int64", "float64"
TABLES: dict[str, dict[str, str]] = {
    "runs": {
        **dict.fromkeys(("run", "sweep", "scene", "label", "init", "densify"), _TEXT),
        "seed": _INT,
        **dict.fromkeys(("settings", "status", "error"), _TEXT),
        **dict.fromkeys(("psnr", "ssim", "lpips_alex", "lpips_vgg"), _FLOAT),
        **dict.fromkeys(("points", "gaussians", "steps"), _INT),
        **{f"seconds_{stage}": _FLOAT for stage in ("read", "pose", "init", "train", "eval")},
        "peak_memory_mb": _FLOAT,
        **dict.fromkeys(("backend", "splatinit", "git", "torch", "machine"), _TEXT),
        **dict.fromkeys(("cores", "threads"), _INT),
        **dict.fromkeys(("started", "folder", "renders_hash", "truth_hash"), _TEXT),
    },
    "views": {
        **dict.fromkeys(("run", "view"), _TEXT),
        **dict.fromkeys(("psnr", "ssim", "lpips_alex", "lpips_vgg"), _FLOAT),
        **dict.fromkeys(("render", "truth", "error"), _TEXT),
    },
    "steps": {
        "run": _TEXT,
        "step": _INT,
        **dict.fromkeys(("seconds", "psnr", "preview_psnr", "loss"), _FLOAT),
        "gaussians": _INT,
    },
    "starts": {
        "run": _TEXT,
        "points": _INT,
        **dict.fromkeys(
            ("filled", "coverage", "photoconsistency", "accuracy", "completeness", "fscore", "threshold"), _FLOAT
        ),
    },
}
STAGES = ("pose", "init", "train", "eval")  # of a finished run


def require_arrow() -> None:
    """Raise MissingExtra, with the command that installs it, where pyarrow is absent."""
    if importlib.util.find_spec("pyarrow") is None:
        raise MissingExtra(
            "The tables of a sweep need pyarrow, which is not installed.",
            hint='Install it: pip install "splatinit[sweep]"',
            missing=["pyarrow"],
        )


# ---------------------------------------------------------------------------------------------------------- collecting
@dataclass
class Collected:
    """The rows of each table, and notes on what was left out of them."""

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in TABLES})
    notes: list[str] = field(default_factory=list)


def collect(folder: SweepFolder) -> Collected:
    """Read all run folders of the plan and write the tables; what is there already is replaced, table by table.

    Two processes may collect at once: one waits for the other. Raises ConfigError where ``folder`` is no sweep,
    OutputError where it cannot be written, MissingExtra without pyarrow.
    """
    require_arrow()
    with hold_when_free(folder.results):
        found = gather(folder)
        for name, rows in found.tables.items():
            _write(folder.results / f"{name}.parquet", rows, name)
    return found


def gather(folder: SweepFolder) -> Collected:
    """The rows of all tables, read from the run folders alone; nothing is written."""
    sweep, runs = folder.read_plan()
    found = Collected()
    for planned in runs:
        run, notes = read_run(folder, planned)
        found.notes += notes
        if run is not None:
            _add(found.tables, run, sweep)
            continue
        failure = folder.failure(planned.run)
        if failure is not None:
            found.tables["runs"].append(_failed_row(folder, planned, sweep, failure["error"]))
    known = {planned.run for planned in runs}
    others = [path for path in folder.runs.glob("*") if path.is_dir() and path.name not in known]
    if others:
        found.notes.append(f"{len(others)} run folders in {folder.runs} are not of this plan, and are left out.")
    return found


@dataclass(frozen=True)
class FinishedRun:
    """A whole run: the plan's words on it, its folder, and what its files hold."""

    planned: KeptRun
    folder: RunFolder
    record: Mapping[str, Mapping[str, Any]]
    env: Mapping[str, Any]
    metrics: Mapping[str, Any]
    stats: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]


def read_run(sweep: SweepFolder, planned: KeptRun) -> tuple[FinishedRun | None, list[str]]:
    """The run, where it is finished and whole, else None; and notes on a folder that is not as it was left."""
    folder = sweep.run(planned.run)
    if not folder.stages.is_file():
        return None, []
    try:
        record = folder.record()
        if any(stage not in record for stage in STAGES):
            return None, []
        problem = _damage(folder, record) or _stranger(folder, planned)
        if problem is not None:
            return None, [f"{problem}: the run is left out; `splatinit sweep` does again what is damaged."]
        env = read_json(folder.env)
        version = env["sessions"][-1]["splatinit"]
        notes = []
        if version != __version__:
            notes.append(f"{folder.root} was written by splatinit {version}; this is {__version__}.")
        run = FinishedRun(
            planned=planned,
            folder=folder,
            record=record,
            env=env,
            metrics=read_json(folder.eval / "metrics.json"),
            stats=read_json(folder.start_stats),
            log=list(_log_rows(folder.train_log)),
        )
        _try_rows(run)
        return run, notes
    except (SplatinitError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = error.message if isinstance(error, SplatinitError) else f"{type(error).__name__}: {error}"
        return None, [
            f"{folder.root} cannot be read ({reason}): the run is left out. Another version may have written it."
        ]


def _try_rows(run: FinishedRun) -> None:
    """Raise LookupError or TypeError where another version wrote less, or something else, than the tables hold."""
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    _add(tables, run, "")
    kinds = {_TEXT: str, _INT: int, _FLOAT: int | float}
    for name, rows in tables.items():
        for row in rows:
            for column, kind in TABLES[name].items():
                value = row[column]
                if value is not None and (isinstance(value, bool) or not isinstance(value, kinds[kind])):
                    raise TypeError(f"{column} is {value!r}")


def is_finished(sweep: SweepFolder, planned: KeptRun) -> bool:
    """Whether the run is done, as :func:`read_run` judges it."""
    return read_run(sweep, planned)[0] is not None


def _damage(folder: RunFolder, record: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What is wrong with the files of the finished stages: content for what is read here, else sizes."""
    read_here = (folder.eval / "metrics.json", folder.start_stats)
    for stage in STAGES:
        sealed = record[stage].get("files")
        if not isinstance(sealed, dict):
            return f"{folder.root}: the files of '{stage}' were not recorded"
        for name, (size, _) in sealed.items():
            path = folder.root / name
            if not path.is_file():
                return f"{path} is missing"
            if path.stat().st_size != size:
                return f"{path} ({path.stat().st_size} bytes) is not as it was written"
        whole = broken(folder.root, {n: seal for n, seal in sealed.items() if folder.root / n in read_here})
        if whole is not None:
            return whole
    return None


def _stranger(folder: RunFolder, planned: KeptRun) -> str | None:
    """In words, that the folder was made with another config than the plan's."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    config = yaml.load(folder.config.read_text(encoding="utf-8"), Loader=loader)
    if not isinstance(config, dict):
        return f"{folder.config} is not a config that splatinit wrote"
    keys = [key for key, _, _ in differences(config, planned.config)]
    return f"{folder.root} was made with another {', '.join(keys[:3])}" if keys else None


def _log_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of train.jsonl that look at test views; others, and a last line that was cut off, are passed over."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            return
        if isinstance(row, dict) and ("loss" in row or "test_psnr" in row):
            yield row


# ---------------------------------------------------------------------------------------------------------------- rows
def _add(tables: dict[str, list[dict[str, Any]]], run: FinishedRun, sweep: str) -> None:
    name, record = run.planned.run, run.record
    mean, place = run.metrics["mean"], f"runs/{name}"
    first, last = run.env["sessions"][0], run.env["sessions"][-1]
    tables["runs"].append(
        _planned_columns(run.planned, sweep)
        | _scores(mean)
        | {
            "status": "done",
            "error": None,
            "points": record["init"]["points"],
            "gaussians": run.metrics["gaussians"],
            "steps": record["train"]["steps"],
            "seconds_read": last.get("seconds_read"),
            **{f"seconds_{stage}": float(record[stage]["seconds"]) for stage in STAGES},
            "peak_memory_mb": float(max(record["train"]["peak_memory_mb"], run.stats["peak_memory_mb"])),
            "backend": run.metrics["backend"],
            "splatinit": last["splatinit"],
            "git": last["git"],
            "torch": last["packages"]["torch"],
            "machine": last["processor"],
            "cores": last["cores"],
            "threads": last["threads"],
            "started": first["started"],
            "folder": place,
            "renders_hash": _hash_of(record["eval"]["files"], "eval/renders/"),
            "truth_hash": _hash_of(record["eval"]["files"], "eval/truth/"),
        }
    )
    for image in run.metrics["images"]:
        pictures = {key: image[key] and f"{place}/eval/{image[key]}" for key in ("render", "truth", "error")}
        tables["views"].append({"run": name, "view": image["name"], **_scores(image), **pictures})
    tables["steps"] += _step_rows(run, mean["psnr"])
    quality = run.stats.get("quality") or {}
    measured = {key: quality.get(key) for key in TABLES["starts"] if key not in ("run", "points")}
    tables["starts"].append({"run": name, "points": record["init"]["points"], **measured})


def _planned_columns(planned: KeptRun, sweep: str) -> dict[str, Any]:
    init = planned.config["init"]
    return {
        "run": planned.run,
        "sweep": sweep,
        "scene": planned.scene,
        "label": planned.label,
        "init": "+".join(init["of"]) if "of" in init else init["name"],
        "densify": planned.config["densify"]["name"],
        "seed": planned.config["seed"],
        "settings": json.dumps(planned.config, sort_keys=True),
    }


def _scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    lpips = scores["lpips"]
    return {
        **{key: scores[key] for key in ("psnr", "ssim")},
        **{f"lpips_{net}": lpips.get(net) for net in ("alex", "vgg")},
    }


def _step_rows(run: FinishedRun, psnr: float | None) -> Iterator[dict[str, Any]]:
    """One row per step that was looked at; the one after the last step has the final scores' mean."""
    steps = run.record["train"]["steps"]
    rows: dict[int, dict[str, Any]] = {}
    for line in run.log:
        row = rows.setdefault(line["step"], dict.fromkeys(TABLES["steps"]) | {"run": run.planned.run})
        row |= {"step": line["step"], "seconds": line.get("seconds"), "gaussians": line["n"]}
        if "test_psnr" in line:
            row["psnr"] = line["test_psnr"]
        else:
            row |= {"preview_psnr": line.get("psnr"), "loss": line["loss"]}
    if steps not in rows:
        rows[steps] = dict.fromkeys(TABLES["steps"]) | {"run": run.planned.run, "step": steps}
        rows[steps] |= {"seconds": run.record["train"]["seconds"], "gaussians": run.metrics["gaussians"]}
    rows[steps]["psnr"] = psnr
    yield from (rows[step] for step in sorted(rows))


def _hash_of(sealed: Mapping[str, Sequence[Any]], prefix: str) -> str:
    """Of the names and contents of the pictures below ``prefix``: equal for runs that were scored against the same."""
    digest = hashlib.sha256()
    for name in sorted(sealed):
        if name.startswith(prefix):
            digest.update(f"{name.removeprefix(prefix)}\0{sealed[name][1]}\n".encode())
    return digest.hexdigest()[:16]


def _failed_row(folder: SweepFolder, planned: KeptRun, sweep: str, error: str) -> dict[str, Any]:
    """What is known of a run that failed; the stages that it finished count."""
    row = dict.fromkeys(TABLES["runs"]) | _planned_columns(planned, sweep)
    row |= {"status": "failed", "error": error, "folder": f"runs/{planned.run}"}
    try:
        record = folder.run(planned.run).record()
        row["points"] = record["init"]["points"]
        row["gaussians"] = record["train"]["gaussians"]
    except (FormatError, LookupError, TypeError, OSError):
        pass  # it did not come that far
    return row


# ------------------------------------------------------------------------------------------------------------- parquet
def _write(path: Path, rows: Iterable[Mapping[str, Any]], table: str) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = TABLES[table]
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in columns.items()])
    rows = [{name: row[name] for name in columns} for row in rows]
    with atomic_path(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), temporary)


def read_table(folder: SweepFolder, table: str) -> pyarrow.Table:
    """One of TABLES as it was last written.

    Raises ConfigError where there is none yet, FormatError where the file is damaged, MissingExtra without pyarrow.
    """
    require_arrow()
    import pyarrow
    import pyarrow.parquet

    path = folder.results / f"{table}.parquet"
    if not path.is_file():
        raise ConfigError(
            f"{folder.root} has no {path.relative_to(folder.root)}.", hint="`splatinit sweep FILE` makes it."
        )
    try:
        return pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise FormatError(
            f"{path} cannot be read as Parquet ({str(error).splitlines()[0]}).",
            hint="Delete it: `splatinit results` makes it anew from the run folders.",
            path=path,
        ) from None
