"""A sweep file → its runs, in order, each with every setting frozen.

A sweep file is YAML::

    name: starts                          # of the sweep and its folder; the file's own name if left out
    scenes:                               # paths from the current folder; the name is the path's last part if left out
      - ../data/fox
      - {name: garden, path: data/garden, downscale: 4, settings: {data.masks: off}}
      - {name: hall, path: data/hall, inits: [{file: {path: data/hall/scan.laz}}]}   # here besides those of all scenes
    presets: [train/quick]                # of all runs; then
    settings: {train.steps: 2000}         # any keys, over the presets
    inits: [sfm, init/frusta, {dense: {count: 20000}}]    # names or presets, with settings of their own
    densify: [adc, none]                  # × these
    grid: {train.ssim_weight: [0.1, 0.2]} # × each value of any key
    runs:                                 # × variants that are spelt out
      - {name: fast, presets: [train/fast], settings: {densify.max_count: 50000}}
    seeds: [0, 1, 2]                      # or their number: 3

Later words win: presets, ``settings``, those of the run, of the initializer, of the densifier, ``grid``, of the scene.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config import Layer, RunConfig, build_config, convert, dotted_keys, known_keys, load_preset, plain, preset_folder
from ..data.benchmarks import VARIABLE, known_scene, located
from ..errors import ConfigError
from ..initializers import require_packages
from ..registry import nearest

_KEYS = ("name", "scenes", "presets", "settings", "inits", "densify", "grid", "runs", "seeds")
_SCENE_KEYS = ("name", "path", "downscale", "max_size", "settings", "inits")
_RUN_KEYS = ("name", "presets", "settings")
# More runs than this are asked about before they start: a grid multiplies sooner than one thinks.
MANY_RUNS = 200


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        scene: its name.     path: where the scene lies, as it was given.
        label: the variant's name: the same for all scenes and seeds of one variant, and for no other.
        config: every setting, the seed among them.
    """

    scene: str
    path: str
    label: str
    config: RunConfig

    @property
    def seed(self) -> int:
        return self.config.seed

    @cached_property
    def hash(self) -> str:
        """12 hex digits of a hash of the expanded config and of the scene's path as it was given."""
        return run_hash(self.path, self.config.expand())

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.scene} {self.label} seed {self.seed}"


@dataclass(frozen=True)
class SweepPlan:
    """A sweep's name and its runs, no two of them equal, in the order in which they are to be done."""

    name: str
    runs: tuple[PlannedRun, ...]


def run_hash(path: str, expanded: Mapping[str, Any]) -> str:
    """See :attr:`PlannedRun.hash`. It depends on no order of keys, and on nothing of the machine."""
    text = json.dumps([path, expanded], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# ------------------------------------------------------------------------------------------------------------- reading
def read_plan(file: Path | str, *, scenes: Sequence[str] = (), scenes_exist: bool = True) -> SweepPlan:
    """The plan of a sweep file, or of one that comes with splatinit by its name.

    ``scenes``: names of those to plan for; none: all. ``scenes_exist=False`` plans for scenes that are not here. Raises
    ConfigError: not a sweep, or an unknown scene, initializer, preset or key (the nearest match is named), a value that
    does not fit, or two variants of one name; MissingExtra where a part is not installed.
    """
    file = _found(Path(file))
    return expand(_load(file), str(file), default_name=file.stem, only=scenes, scenes_exist=scenes_exist)


def _found(file: Path) -> Path:
    """The sweep file that is meant: a path, or the name of one that comes with splatinit (``tiny``)."""
    if file.is_file():
        return file
    ready = {path.stem: path for path in sorted((preset_folder() / "sweeps").glob("*.yaml"))}
    if file.name == str(file) and file.stem in ready:
        return ready[file.stem]
    beside = sorted(path.name for path in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
    hint = nearest(file.name, beside) if beside and file.suffix else nearest(file.stem, list(ready))
    raise ConfigError(f"Sweep file {file} does not exist.", hint=hint, path=file)


def _load(file: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{file}{line}: not valid YAML: {problem}.", path=file) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not a text file in UTF-8.", path=file) from None


def make_plan(
    scenes: Sequence[str | Path], *, name: str, inits: Sequence[str], seeds: int | Sequence[int] = 1, **more: Any
) -> SweepPlan:
    """A plan from Python values; ``more`` are further keys of a sweep file (``settings``, ``grid``, …)."""
    seeds = seeds if isinstance(seeds, int) else list(seeds)
    tree = {"name": name, "scenes": list(map(str, scenes)), "inits": list(inits), "seeds": seeds, **more}
    return expand(tree, name, default_name=name)


# ----------------------------------------------------------------------------------------------------------- expanding
def expand(
    tree: Any, where: str, *, default_name: str = "sweep", only: Sequence[str] = (), scenes_exist: bool = True
) -> SweepPlan:
    """The plan that ``tree``, the content of a sweep file, stands for; ``where`` it was written, for errors.

    ``only``, ``scenes_exist``: see :func:`read_plan`.

    Runs that are equal in every setting, the scene and the seed collapse into the first of them. The seed changes
    slowest and the variant fastest, so that a sweep that is stopped early has compared whatever it has done.
    """
    top = _table(tree, _KEYS, where)
    name = _text(top.get("name", default_name), f"{where}: name")
    scenes = [_scene(each, where) for each in _list(top, "scenes", where, needed=True)]
    _only_once([scene.name for scene in scenes], f"{where}: scenes", "name", "Give one of them another `name`.")
    for wanted in only:
        names = [scene.name for scene in scenes]
        if wanted not in names:
            raise ConfigError(f"{where}: no scene is called '{wanted}'.", hint=nearest(wanted, names), name=wanted)
    scenes = [scene for scene in scenes if not only or scene.name in only]
    if scenes_exist:
        for scene in scenes:
            _require_scene(scene, where)
    variants = {scene.name: _variants_of(scene, top, where) for scene in scenes}
    found: dict[str, PlannedRun] = {}
    for seed, scene in itertools.product(_seeds(top, where), scenes):
        own = Layer(f"{where}: scene {scene.name}", scene.settings)
        for variant in variants[scene.name]:
            config = build_config(*variant.layers, own, Layer(where, {"seed": seed}))
            run = PlannedRun(scene.name, scene.path, variant.label, config)
            found.setdefault(run.hash, run)
    for run in {run.label: run for run in found.values()}.values():
        require_packages(run.config.init.name, run.config.init.settings)
    return SweepPlan(name, tuple(found.values()))


@dataclass(frozen=True)
class _Scene:
    name: str
    path: str
    settings: Mapping[str, Any]
    inits: tuple[Any, ...]  # as they are written; besides those of all scenes


@dataclass(frozen=True)
class _Variant:
    label: str
    layers: tuple[Layer, ...]


def _scene(entry: Any, where: str) -> _Scene:
    if isinstance(entry, str):
        entry = {"path": entry}
    place = f"{where}: scenes"
    table = _table(entry, _SCENE_KEYS, place)
    if "path" not in table:
        raise ConfigError(f"{place}: {entry!r} has no path.", hint="For example {name: fox, path: ../data/fox}.")
    path = _text(table["path"], f"{place}: path")
    settings = _settings(table, f"{place}: {path}")
    settings |= {f"data.{key}": table[key] for key in ("downscale", "max_size") if key in table}
    name = _text(table.get("name", Path(path).stem), f"{place}: name")
    return _Scene(name, path, settings, tuple(_list(table, "inits", f"{place}: {name}")))


def _require_scene(scene: _Scene, where: str) -> None:
    if located(scene.path).exists():
        return
    path = Path(scene.path).expanduser()
    # What is missing may be a folder above the scene: the nearest match is sought where the path stops to exist.
    missing = path
    while not missing.parent.exists() and missing.parent != missing:
        missing = missing.parent
    beside = sorted(each.name for each in missing.parent.iterdir()) if missing.parent.is_dir() else []
    hint = f"In {missing.parent.absolute()}: {nearest(missing.name, beside)}" if beside else None
    public = known_scene(path)
    if public is not None:
        hint = (
            f"`splatinit data fetch {public.benchmark}` gets all its scenes, `splatinit data fetch {public.key}` this "
            f"one. If they are here already, name the folder in which {public.key} lies in {VARIABLE}; "
            "`splatinit sweep --scene NAME` takes single scenes of a file."
        )
    raise ConfigError(
        f"{where}: unknown scene '{scene.name}': {scene.path} does not exist (paths count from {Path.cwd()}).",
        hint=hint,
        path=path,
    )


def _seeds(top: Mapping[str, Any], where: str) -> list[int]:
    """``seeds: 3`` → 0, 1, 2; a list stays."""
    seeds = top.get("seeds", [0])
    if type(seeds) is int and seeds > 0:
        return list(range(seeds))
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        raise ConfigError(
            f"{where}: seeds = {seeds!r} does not fit; expected whole numbers, [0, 1, 2], or how many there are: 3."
        )
    return list(dict.fromkeys(seeds))


def _variants_of(scene: _Scene, top: Mapping[str, Any], where: str) -> list[_Variant]:
    """Those of all scenes, then those that this scene has besides; no two of one label."""
    found = list(_variants(top, where))
    if scene.inits:
        found += _variants({**top, "inits": list(scene.inits)}, f"{where}: scene {scene.name}")
    _only_once(
        [variant.label for place, variant in enumerate(found) if variant not in found[:place]],
        f"{where}: scene {scene.name}: variants" if scene.inits else f"{where}: variants",
        "label",
        "Spell them out under `runs`, each with a `name`.",
    )
    return found


def _variants(top: Mapping[str, Any], where: str) -> Iterator[_Variant]:
    """Every combination of runs × inits × densify × grid, in the order in which they are written."""
    common = [*_presets(top, where), Layer(f"{where}: settings", _settings(top, where))]
    axes = [
        _runs(top, where),
        _parts(top, "inits", "init", where),
        _parts(top, "densify", "densify", where),
        *_grid(top, where),
    ]
    if not any(key in top for key in ("runs", "inits", "densify", "grid")):
        raise ConfigError(
            f"{where}: nothing says what differs between the runs; expected inits, densify, grid or runs.",
            hint="For example inits: [sfm, random].",
        )
    for each in itertools.product(*axes):
        label = "-".join(part.label for part in each if part.label)
        yield _Variant(label or "default", (*common, *(layer for part in each for layer in part.layers)))


def _runs(top: Mapping[str, Any], where: str) -> list[_Variant]:
    found = []
    for entry in _list(top, "runs", where):
        table = _table(entry, _RUN_KEYS, f"{where}: runs")
        name = _text(table.get("name", ""), f"{where}: runs: name")
        place = f"{where}: run {name}"
        found.append(_Variant(name, (*_presets(table, place), Layer(place, _settings(table, place)))))
    return found or [_Variant("", ())]


def _parts(top: Mapping[str, Any], key: str, section: str, where: str) -> list[_Variant]:
    """``[adc, {none: {...}}]`` as variants of one section; their names are labels where they tell anything apart.

    A name with a "/" is a preset, whatever it sets. Whole keys (train.steps) may be among the settings.
    """
    found = []
    for entry in _list(top, key, where):
        name, settings = entry, {}
        if isinstance(entry, Mapping) and len(entry) == 1:
            ((name, settings),) = entry.items()
        if not isinstance(name, str) or not isinstance(settings, Mapping):
            raise ConfigError(
                f"{where}: {key}: {entry!r} does not fit; expected a name, or {{name: {{setting: value}}}}.",
                hint="For example [sfm, {random: {count: 5000}}].",
            )
        values = {str(k) if str(k) in known_keys() else f"{section}.{k}": value for k, value in settings.items()}
        own = Layer(f"{where}: {key}", dotted_keys(values, f"{where}: {key}"))
        if "/" in name:
            found.append(_Variant(name.rpartition("/")[2].removesuffix(".yaml"), (load_preset(name), own)))
        else:
            found.append(_Variant(name, (Layer(own.where, {f"{section}.name": name}), own)))
    if key == "densify" and len(found) == 1:
        return [_Variant("", found[0].layers)]
    return found or [_Variant("", ())]


def _grid(top: Mapping[str, Any], where: str) -> list[list[_Variant]]:
    place = f"{where}: grid"
    grid = top.get("grid", {})
    if not isinstance(grid, Mapping):
        raise ConfigError(f"{place}: expected key: [values], got a {type(grid).__name__}.")
    axes = []
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{place}: {key} = {values!r} does not fit; expected a list of values.")
        last = str(key).rpartition(".")[2]
        axes.append([_Variant(f"{last}={_shown(value)}", (Layer(place, {str(key): value}),)) for value in values])
    return axes


def _shown(value: Any) -> str:
    return ",".join(map(_shown, value)) if isinstance(value, list) else str(plain(value))


def _presets(table: Mapping[str, Any], where: str) -> list[Layer]:
    return [load_preset(_text(name, f"{where}: presets")) for name in _list(table, "presets", where)]


def _settings(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    settings = table.get("settings", {})
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where}: settings: expected key: value, got a {type(settings).__name__}.")
    return dotted_keys(settings, f"{where}: settings")


def _list(table: Mapping[str, Any], key: str, where: str, *, needed: bool = False) -> list[Any]:
    found = table.get(key, [])
    if not isinstance(found, list) or (not found and (needed or key in table)):
        raise ConfigError(f"{where}: {key} = {found!r} does not fit; expected a list that is not empty.")
    return found


def _table(tree: Any, keys: Sequence[str], where: str) -> Mapping[str, Any]:
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where}: expected {', '.join(keys)} with their values, got {tree!r}.")
    for key in tree:
        if key not in keys:
            hint = nearest(str(key), list(keys))
            if "." in str(key) and str(key) in known_keys():
                hint = "It is a setting of runs: put it under `settings`, or under `grid` with a list of values."
            raise ConfigError(f"{where}: unknown key '{key}'.", hint=hint, key=key)
    return tree


def _text(value: Any, where: str) -> str:
    return convert(str(value) if type(value) in (int, float) else value, str, where.rpartition(": ")[2], where)


def _only_once(names: Sequence[str], where: str, what: str, hint: str) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"{where}: two of them have the {what} '{twice[0]}'.", hint=hint)
