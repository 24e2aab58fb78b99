"""A run's folder: what lies where, whose it is, and what may be re-used.

    runs/<name>/  config.yaml  env.json  stages.json
                  scene/       what the poser left, with scene/sparse/0 (COLMAP model)
                  init/        points.ply  depths/*.npz  stats.json   (sparse/0 when asked for: for other trainers)
                  checkpoints/ step_*.safetensors     train.jsonl     splat.ply     eval/

A folder belongs to one config and one input. Another config, or photos that changed, are refused with the key that
differs, so that nothing is ever a mixture of two runs. Every file appears whole or not at all, one process at a time
works in the folder, and stages.json keeps size and hash of what a stage left: a file that was damaged or deleted since
is noticed, and its stage is computed again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, FormatError
from ..types import DepthPrior, ImageSet, Initialization, StartQuality
from . import text
from .arrays import read_npz
from .atomic import append_text, atomic_path, is_temporary, remove_leftovers, write_json, write_text
from .locks import NAME as LOCK_NAME
from .locks import hold


@dataclass(frozen=True)
class RunFolder:
    """The paths inside one run's folder. Make it with :func:`take_run` or :func:`find_run`."""

    root: Path
    notes: tuple[str, ...] = field(default=(), compare=False)  # what the user should know about taking it up

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def env(self) -> Path:
        return self.root / "env.json"

    @property
    def stages(self) -> Path:
        return self.root / "stages.json"

    @property
    def scene(self) -> Path:
        return self.root / "scene"

    @property
    def points(self) -> Path:
        return self.root / "init" / "points.ply"

    @property
    def depths(self) -> Path:
        return self.root / "init" / "depths"

    @property
    def start_stats(self) -> Path:
        return self.root / "init" / "stats.json"

    @property
    def field(self) -> Path:
        """The radiance field that the start was drawn from, where it was."""
        return self.root / "init" / "field.safetensors"

    @property
    def start_work(self) -> Path:
        """What an initializer that was interrupted goes on from."""
        return self.root / "init" / "work"

    @property
    def start_model(self) -> Path:
        return self.root / "init" / "sparse" / "0"

    @property
    def start_images(self) -> Path:
        return self.root / "init" / "images"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def train_log(self) -> Path:
        return self.root / "train.jsonl"

    @property
    def splat(self) -> Path:
        return self.root / "splat.ply"

    @property
    def eval(self) -> Path:
        return self.root / "eval"

    # ------------------------------------------------------------------------------------------------ what is done
    def record(self) -> dict[str, dict[str, Any]]:
        """Stage name → what was recorded when it was finished: ``files`` (their seal), ``seconds`` and more."""
        found = read_json(self.stages) if self.stages.exists() else {}
        if not isinstance(found, dict) or not all(isinstance(facts, dict) for facts in found.values()):
            raise FormatError(f"{self.stages} is not a record of stages.", hint="Delete it to compute them again.")
        return found

    def finish_stage(self, stage: str, files: Iterable[Path], **facts: Any) -> None:
        """Record that ``stage`` is done and left ``files``. Call it last: from then on they are re-used."""
        write_json(self.stages, self.record() | {stage: {**facts, "files": seal(self.root, files)}})

    def forget_stage(self, stage: str) -> None:
        """Have ``stage`` computed again."""
        write_json(self.stages, {name: facts for name, facts in self.record().items() if name != stage})

    def damage(self, stage: str) -> str | None:
        """What became of the files of a finished stage, or None when they are as the stage left them.

        Raises KeyError for a stage that was not finished.
        """
        return broken(self.root, self.record()[stage].get("files"))

    # --------------------------------------------------------------------------------------------------- the start
    def write_start(self, start: Initialization) -> list[Path]:
        """``init/``: the points, the depth priors, attachments, and how they were made (stats.json last: it says
        "complete"). What the initializer kept on the way is removed.

        Returns the files.
        """
        from .pointcloud import write_ply_points

        write_ply_points(self.points, start.points)
        files = {}
        for number, (view, prior) in enumerate(sorted(start.depth_priors.items())):
            files[view] = f"{number:05d}.npz"
            with atomic_path(self.depths / files[view]) as temporary:
                np.savez_compressed(temporary, depth=prior.depth, confidence=prior.confidence)
        stats = {
            "points": len(start.points),
            "seconds": dict(start.seconds),
            "peak_memory_mb": start.peak_memory_mb,
            "recipe": dict(start.recipe),
            "notes": list(start.notes),
            "depth_priors": files,
            "quality": None if start.quality is None else start.quality.to_json(),
        }
        attached = [self.start_stats.parent / name for name in start.attachments]
        for path, made in zip(attached, start.attachments.values(), strict=True):
            made.save(path)
        write_json(self.start_stats, stats)
        shutil.rmtree(self.start_work, ignore_errors=True)
        return [self.points, *(self.depths / name for name in files.values()), *attached, self.start_stats]

    def read_start(self) -> Initialization:
        """What :meth:`write_start` wrote. Raises FormatError when a file of it is damaged."""
        from .pointcloud import read_ply_points

        stats = read_json(self.start_stats)
        kinds = {"seconds": dict, "peak_memory_mb": int | float, "recipe": dict, "notes": list, "depth_priors": dict}
        whole = isinstance(stats, dict) and all(isinstance(stats.get(key), kind) for key, kind in kinds.items())
        if not whole or not abs(stats["peak_memory_mb"]) < 1e15:
            raise FormatError(
                f"{self.start_stats} is not what splatinit wrote; expected {', '.join(kinds)}.",
                hint="Delete the folder 'init' to compute it again.",
            )
        return Initialization(
            points=read_ply_points(self.points),
            depth_priors={view: self._prior(view, name) for view, name in stats["depth_priors"].items()},
            seconds=stats["seconds"],
            peak_memory_mb=stats["peak_memory_mb"],
            recipe=stats["recipe"],
            notes=tuple(map(str, stats["notes"])),
            quality=self._quality(stats.get("quality")),
        )

    def _quality(self, value: Any) -> StartQuality | None:
        if value is None:  # not measured, or by a version that measured none
            return None
        try:
            return StartQuality.from_json(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"{self.start_stats}: 'quality' is not what splatinit wrote ({type(error).__name__}: {error}).",
                hint="Delete the folder 'init' to compute it again.",
                path=self.start_stats,
            ) from error

    def _prior(self, view: str, name: Any) -> DepthPrior:
        path = self.depths / Path(str(name)).name
        arrays = read_npz(path)
        depth, confidence = (arrays.get(key, np.empty(0)).astype(np.float32) for key in ("depth", "confidence"))
        finite = np.isfinite(depth).all() and np.isfinite(confidence).all()
        if depth.ndim != 2 or confidence.shape != depth.shape or not finite:
            raise FormatError(
                f"{path}: depth {list(depth.shape)} and confidence {list(confidence.shape)}; expected finite arrays "
                "[height, width] of one size.",
                hint="Delete the folder 'init' to compute it again.",
                path=path,
            )
        return DepthPrior(view, depth, confidence)


# -------------------------------------------------------------------------------------------------------------- seals
def seal(root: Path, files: Iterable[Path]) -> dict[str, list]:
    """Path relative to ``root`` → [bytes, sha256] of files that are complete."""
    return {path.relative_to(root).as_posix(): [path.stat().st_size, _sha256(path)] for path in files}


def broken(root: Path, sealed: Any) -> str | None:
    """The first file below ``root`` that is not what its seal says, in words; None when all are."""
    if not isinstance(sealed, dict):
        return "its files were not recorded"
    for name, expected in sealed.items():
        path = root / name
        if not os.path.isfile(path):  # no name is too long for it, unlike for Path.is_file
            return f"{path} is missing"
        size = path.stat().st_size
        if [size, _sha256(path)] != expected:
            return f"{path} ({size} bytes) is not as it was written"
    return None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# --------------------------------------------------------------------------------------------------- opening a folder
@contextmanager
def take_run(
    root: Path, config: Mapping[str, Any], inputs: Mapping[str, Any], session: Mapping[str, Any]
) -> Iterator[RunFolder]:
    """:func:`open_run`, with the folder held by this process for the block and freed of what killed ones left in it.

    Raises FolderInUse as well, when another process holds it.
    """
    _refuse_other_run(RunFolder(Path(root)), config, inputs)  # before anything is written, a lock file included
    with held_run(RunFolder(Path(root))) as notes:
        yield dataclasses.replace(open_run(root, config, inputs, session), notes=notes)


@contextmanager
def held_run(run: RunFolder) -> Iterator[tuple[str, ...]]:
    """Hold a run's folder for this block, freed of temporary files of killed processes; yields notes for the user."""
    with hold(run.root) as notes:
        # In the folder itself only what belongs to a run's own files: somebody may be rendering a film into it.
        own = (run.config, run.env, run.stages, run.train_log, run.splat)
        remove_leftovers(path for path in run.root.iterdir() if any(is_temporary(path, of) for of in own))
        for folder in (run.scene, run.points.parent, run.checkpoints, run.eval):
            remove_leftovers(folder.rglob("*"))
        yield notes


def open_run(root: Path, config: Mapping[str, Any], inputs: Mapping[str, Any], session: Mapping[str, Any]) -> RunFolder:
    """The run folder at ``root``, new or one of the same config and inputs.

    Args:
        config: every key with its plain value (RunConfig.expand()).
        inputs: name → fingerprint of what is read; ``scene`` is the path, kept for people and not compared.
        session: versions and machine, appended to env.json.

    Raises ConfigError, and writes nothing, when the folder belongs to another config or other inputs, or is not a
    run folder and not empty.
    """
    import yaml

    run = RunFolder(Path(root))
    _refuse_other_run(run, config, inputs)
    if not run.config.exists():  # first, because it makes the folder one of ours
        write_text(run.config, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    sessions = _read_env(run)["sessions"] if run.env.exists() else []
    # The folder may have been moved together with its photos: the newest place is the true one.
    write_json(run.env, {"inputs": dict(inputs), "sessions": [*sessions, dict(session)]})
    return run


def _refuse_other_run(run: RunFolder, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Raise ConfigError unless the folder is free, or a run of the same config and inputs."""
    import yaml

    if run.config.exists():
        refuse_other_config(run, yaml.safe_load(yaml.safe_dump(dict(config), sort_keys=False)))
        if run.env.exists():
            _refuse_other_inputs(run, _read_env(run)["inputs"], inputs)
    elif run.root.exists() and (not run.root.is_dir() or not all(map(_may_stand_in_new, run.root.iterdir()))):
        raise ConfigError(
            f"Output folder {run.root} exists, is not empty and is not a run of splatinit (it has no config.yaml).",
            hint="Choose another --out.",
            path=run.root,
        )


def _may_stand_in_new(path: Path) -> bool:
    """What a process that was killed while it made its folder leaves there."""
    return path.name == LOCK_NAME or is_temporary(path)


def _read_env(run: RunFolder) -> dict[str, Any]:
    env = read_json(run.env)
    if not (isinstance(env, dict) and isinstance(env.get("inputs"), dict) and isinstance(env.get("sessions"), list)):
        raise FormatError(
            f"{run.env} is not an env.json that splatinit wrote.",
            hint="Delete it: only the history of the run's sessions is lost.",
        )
    return env


def find_run(root: Path) -> RunFolder:
    """The existing run folder at ``root``. Raises ConfigError where there is none."""
    run = RunFolder(Path(root))
    if not run.config.is_file():
        raise ConfigError(
            f"{root} is not a run folder: it has no config.yaml.",
            hint="Make one with `splatinit run`, or give a splat.ply together with its scene.",
            path=Path(root),
        )
    return run


def refuse_other_config(run: RunFolder, config: Mapping[str, Any]) -> None:
    """Raise ConfigError, naming each key that differs, unless the run was made with exactly ``config``."""
    import yaml

    try:
        old = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        old = None
    if not isinstance(old, dict):
        raise FormatError(f"{run.config} is not a config that splatinit wrote.", hint="Choose another --out.")
    changed = differences(old, config)
    if changed:
        shown = ", ".join(f"{key} was {_show(was)}, is now {_show(now)}" for key, was, now in changed[:8])
        more = f", and {len(changed) - 8} more" if len(changed) > 8 else ""
        raise ConfigError(
            f"Output folder {run.root} belongs to another config: {shown}{more}.",
            hint="Choose another --out, or give the same settings to go on with that run.",
            changed=[key for key, _, _ in changed],
            path=run.root,
        )


def _refuse_other_inputs(run: RunFolder, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    changed = [key for key in {**old, **new} if key != "scene" and old.get(key) != new.get(key)]
    if changed:
        raise ConfigError(
            f"Output folder {run.root} was made from another input: {', '.join(changed)} changed "
            f"(it read {old.get('scene')}, this run reads {new.get('scene')}).",
            hint="Choose another --out.",
            changed=changed,
            path=run.root,
        )


def _show(value: Any) -> str:
    return "unset" if value is None else str(value)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) wherever two nested mappings differ; None for what one of them lacks."""
    flat_old, flat_new = _dotted(old), _dotted(new)
    keys = dict.fromkeys([*flat_new, *flat_old])
    missing = object()
    return [
        (key, flat_old.get(key), flat_new.get(key))
        for key in keys
        if flat_old.get(key, missing) != flat_new.get(key, missing)
    ]


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


# ------------------------------------------------------------------------------------------------------- fingerprints
def fingerprint_images(images: ImageSet) -> str:
    """Short hash of what an ImageSet is: names, file sizes, working sizes, cameras, split. Not of its place."""
    digest = hashlib.sha256()
    for photo in images.photos:
        width, height = images.sizes[photo.name]
        digest.update(f"{photo.name}\0{photo.path.stat().st_size}\0{width}x{height}\n".encode())
        camera = images.cameras.get(photo.name)
        if camera is not None:
            digest.update(camera.K.tobytes() + camera.cam_from_world.tobytes())
    digest.update(repr(None if images.test_names is None else sorted(images.test_names)).encode())
    return digest.hexdigest()[:16]


def fingerprint_path(path: Path) -> str:
    """Short hash of a file's content, or of the files directly in a folder. Raises ConfigError where there is none."""
    if not path.exists():
        raise ConfigError(f"{path} does not exist.", path=path)
    digest = hashlib.sha256()
    for part in sorted(path.iterdir()) if path.is_dir() else [path]:
        if part.is_file():
            digest.update(part.name.encode() if path.is_dir() else b"")
            with open(part, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------------------------------------------------- small files
def read_json(path: Path) -> Any:
    """A JSON file of a run. Raises FormatError when it is damaged."""
    try:
        return text.read_json(path)
    except FormatError as error:
        raise FormatError(error.message, hint="Delete it to compute it again.", path=path) from None


class TrainLog:
    """Appends one JSON object per call to train.jsonl.

    A resumed training repeats the steps after its checkpoint: at the first row, older rows of that step or later are
    dropped, so that the file reads as if nothing had happened. A measurement of the test views is the last row of its
    step, and drops none of the rows before it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = False

    def __call__(self, row: Mapping[str, Any]) -> None:
        if not self._started:
            self._drop_from(row)
            self._started = True
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        append_text(self.path, json.dumps(clean) + "\n")

    def _drop_from(self, first: Mapping[str, Any]) -> None:
        kept = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    break  # the last line of a killed process
                if _place(row) >= _place(first):
                    break
                kept.append(line + "\n")
        write_text(self.path, "".join(kept))


def _place(row: Mapping[str, Any]) -> tuple[int, bool]:
    """Where a row of train.jsonl stands among the others."""
    return row.get("step", 0), "test_psnr" in row
