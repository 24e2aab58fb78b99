"""One run's settings, composed from the configs of its parts: which keys exist, where values come from, who checks.

Order: dataclass default < presets (``--config``, in the order given) < command line (``any.key=value``). Keys are
``section.field``, e.g. ``train.steps`` or ``init.count``; a section whose part can be chosen has a key for its name
(``init.name``, ``raster.backend``). Choosing another part drops what earlier layers said about the one it replaces,
because those settings were meant for that part. The fields live in the config dataclass of each part, in the part's
own file: this module only finds them, converts what was typed, and names the nearest match of what does not exist.

A part that takes others of its kind together (``init.name=union``) is also chosen by their names, ``init.name=a+b``,
and holds the settings of each under its name: ``init.b.count``.

Importing this module imports no part; building a config imports the parts that it selects.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .registry import Registry, load_object, nearest

# --------------------------------------------------------------------------------------------------------- sections


@dataclass(frozen=True, kw_only=True)
class Section:
    """One group of keys.

    Attributes:
        name: first half of its keys.
        about: one line for help.
        config: import string of its config dataclass; None when the chosen part brings it.
        registry: import string of the registry to choose from; None for a section without a choice.
        selector: the key that chooses, e.g. ``name``.
        default: what is chosen where nothing is said.
        automatic: name that stands for "decided when the input is known", or None.
    """

    name: str
    about: str
    config: str | None = None
    registry: str | None = None
    selector: str = "name"
    default: str = ""
    automatic: str | None = None

    def choices(self) -> Registry[Any]:
        """The registry to choose from; only for a section that has one."""
        return load_object(str(self.registry))

    def names(self) -> list[str]:
        return [*([self.automatic] if self.automatic else []), *self.choices().names()]

    def config_class(self, choice: str) -> type | None:
        """The config dataclass in force when ``choice`` is chosen (None: it has no settings)."""
        if self.config is not None:
            return load_object(self.config)
        if choice == self.automatic:
            return None
        return self.choices().config_class(choice)


SECTIONS: dict[str, Section] = {
    section.name: section
    for section in (
        Section(name="data", about="how the input is read", config="splatinit.io.read:ReadConfig"),
        Section(
            name="poser",
            about="where the cameras come from",
            registry="splatinit.posers:POSERS",
            default="auto",
            automatic="auto",
        ),
        Section(
            name="init",
            about="where the Gaussians start",
            registry="splatinit.initializers:INITIALIZERS",
            default="sfm",
        ),
        Section(name="seeding", about="points → Gaussians", config="splatinit.seeding:SeedConfig"),
        Section(
            name="raster",
            about="how Gaussians are drawn",
            config="splatinit.raster.base:RasterSettings",
            registry="splatinit.raster:BACKENDS",
            selector="backend",
            default="cpu",
        ),
        Section(
            name="densify",
            about="how their number changes while training",
            registry="splatinit.densify:DENSIFIERS",
            default="adc",
        ),
        Section(name="train", about="the optimisation", config="splatinit.training:TrainConfig"),
        Section(name="eval", about="how the result is scored", config="splatinit.evaluation:EvalConfig"),
    )
}
# Settings of the run as a whole: key → (default, what it is).
RUN_KEYS: dict[str, tuple[Any, str]] = {
    "seed": (0, "of every random number in the run; the same seed gives the same splat.ply, bit for bit")
}


@dataclass(frozen=True)
class Choice:
    """A replaceable part: its name in the registry and its settings (None when it has none)."""

    name: str
    settings: Any = None

    @property
    def label(self) -> str:
        """What a user calls it: its name, or ``a+b`` where it is made of others."""
        return "+".join(self.settings.of) if is_combined(type(self.settings)) else self.name


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of one run, each in the type that its part takes. Build it with :func:`build_config`."""

    data: Any
    poser: Choice
    init: Choice
    seeding: Any
    raster: Choice
    densify: Choice
    train: Any
    eval: Any
    seed: int

    def expand(self) -> dict[str, Any]:
        """Every key with its value, as plain values: what config.yaml holds, and itself a valid preset."""
        out: dict[str, Any] = {}
        for name, section in SECTIONS.items():
            value = getattr(self, name)
            if isinstance(value, Choice):
                out[name] = {section.selector: value.name}
                value = value.settings
            else:
                out[name] = {}
            if value is not None:
                out[name] |= _expanded(value)
        return out | {key: getattr(self, key) for key in RUN_KEYS}


def _expanded(settings: Any) -> dict[str, Any]:
    out = {f.name: plain(getattr(settings, f.name)) for f in setting_fields(type(settings))}
    if is_combined(type(settings)):
        out |= {name: _expanded(part) for name, part in settings.parts.items() if part is not None}
    return out


def setting_fields(cls: type) -> list[dataclasses.Field]:
    """The fields of a config dataclass that are settings: all but the one that holds the settings of other parts."""
    return [f for f in dataclasses.fields(cls) if not f.metadata.get("parts")]


def is_combined(cls: type | None) -> bool:
    """Whether this is the config of a part that takes others together."""
    return cls is not None and dataclasses.is_dataclass(cls) and len(setting_fields(cls)) < len(dataclasses.fields(cls))


def plain(value: Any) -> Any:
    """``value`` as YAML and JSON hold it: tuples as lists, paths as text."""
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


# ----------------------------------------------------------------------------------------------------------- layers
@dataclass(frozen=True)
class Layer:
    """Values by dotted key, and where they were written, for error messages."""

    where: str
    values: Mapping[str, Any] = field(default_factory=dict)


def parse_overrides(arguments: Iterable[str], where: str = "command line") -> Layer:
    """``["train.steps=100"]`` → a Layer. Raises ConfigError for what is not ``key=value`` or is said twice."""
    values: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"{where}: '{argument}' is not a setting; expected key=value.",
                hint="For example train.steps=3000. `splatinit list --settings` shows every key.",
                argument=argument,
            )
        if key in values:
            raise ConfigError(f"{where}: '{key}' is given twice ({values[key]} and {value}).", key=key)
        values[key] = value
    return Layer(where, values)


def preset_folder() -> Path:
    """Where the presets lie: inside an installed package, or beside it in a source tree."""
    packaged = Path(__file__).with_name("configs")
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "configs"


@dataclass(frozen=True)
class Preset:
    """A preset file: its name (``train/quick``), where it lies and what its first comment line says."""

    name: str
    path: Path
    about: str


def presets() -> list[Preset]:
    """All presets that come with splatinit, in order of their names."""
    folder = preset_folder()
    found = []
    for path in sorted(folder.glob("*/*.yaml")):
        if path.parent.name == "sweeps":  # many runs each, not the settings of one
            continue
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        about = first.removeprefix("#").strip() if first.startswith("#") else ""
        found.append(Preset(path.relative_to(folder).with_suffix("").as_posix(), path, about))
    return found


def find_preset(name: str) -> Path:
    """A preset by name (``quick`` or ``train/quick``) or the path of a YAML file. Raises ConfigError."""
    path = Path(name).expanduser()
    if path.suffix.lower() in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(
            f"Preset file '{name}' does not exist.",
            hint="Presets that come with splatinit are chosen by name, without .yaml: `splatinit list`.",
            name=name,
        )
    known = presets()
    matches = [preset.path for preset in known if name in (preset.name, preset.name.rpartition("/")[2])]
    if len(matches) == 1:
        return matches[0]
    if matches:
        several = ", ".join(preset.name for preset in known if preset.path in matches)
        raise ConfigError(f"Preset '{name}' is ambiguous: {several}.", hint="Say which one.", name=name)
    raise ConfigError(f"Unknown preset '{name}'.", hint=nearest(name, [preset.name for preset in known]), name=name)


def load_preset(name: str) -> Layer:
    """The preset called ``name``, or the YAML file at that path. Raises ConfigError (FormatError's file, ours line)."""
    path = find_preset(name)
    return Layer(str(name), read_yaml(path))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as dotted keys → values. Nested mappings and dotted keys may be mixed; a key may be said once."""
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}.", path=path) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file in UTF-8.", path=path) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected 'section: key: value' mappings, got a {type(tree).__name__}.", path=path)
    return dotted_keys(tree, str(path))


def dotted_keys(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Nested mappings (what :meth:`RunConfig.expand` returns) as dotted keys → values.

    Raises ConfigError, naming ``where`` they were written, for a key that is there twice, nested and dotted.
    """
    values: dict[str, Any] = {}
    _flatten(tree, "", values, where)
    return values


def _flatten(tree: Mapping[str, Any], prefix: str, out: dict[str, Any], where: str) -> None:
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict):
            _flatten(value, dotted + ".", out, where)
        elif dotted in out:
            raise ConfigError(f"{where}: '{dotted}' is given twice.", key=dotted)
        else:
            out[dotted] = value


# --------------------------------------------------------------------------------------------------------- building
def build_config(*layers: Layer) -> RunConfig:
    """The run's settings: the defaults with ``layers`` over them, later ones winning.

    Raises ConfigError for an unknown key (naming the nearest match and where it was written), a value of the wrong
    type or out of range, and an unknown or uninstalled part.
    """
    said: dict[str, dict[str, tuple[Any, str]]] = {name: {} for name in SECTIONS}
    chosen = {section.name: section.default for section in SECTIONS.values() if section.registry}
    run_values = {key: default for key, (default, _) in RUN_KEYS.items()}
    for layer in layers:
        for key, value in layer.values.items():
            name, dot, last = key.partition(".")
            if key in RUN_KEYS:
                run_values[key] = convert(value, type(RUN_KEYS[key][0]), key, layer.where)
            elif not dot or name not in SECTIONS:
                raise _unknown_key(key, layer.where)
            elif SECTIONS[name].registry and last == SECTIONS[name].selector:
                chosen[name] = _replace_part(SECTIONS[name], chosen[name], value, said[name], layer)
        # Only now, because a layer may name its part after the settings of that part.
        for key, value in layer.values.items():
            name, _, last = key.partition(".")
            if name in SECTIONS and not (SECTIONS[name].registry and last == SECTIONS[name].selector):
                said[name][last] = (value, layer.where)
    parts: dict[str, Any] = {}
    for name, section in SECTIONS.items():
        settings = _build_settings(section, chosen.get(name, ""), said[name])
        parts[name] = Choice(chosen[name], settings) if section.registry else settings
    return RunConfig(**parts, **run_values)


def _replace_part(section: Section, old: str, value: Any, said: dict, layer: Layer) -> str:
    """The part that ``layer`` chooses; settings of another part chosen before are forgotten."""
    key = f"{section.name}.{section.selector}"
    new, of = section.choices().split(convert(value, str, key, layer.where))
    if of and f"{section.name}.of" in layer.values:
        raise ConfigError(
            f"{layer.where}: {key}={value} says of what it is made, and so does {section.name}.of.",
            hint="Leave one of them out.",
            key=key,
        )
    if new != section.automatic:
        try:
            section.choices().spec(new)
        except ConfigError:
            raise ConfigError(
                f"{layer.where}: {key}: unknown {section.choices().kind} '{new}'.",
                hint=nearest(new, section.names()),
                key=key,
            ) from None
    if new != old and section.config is None:
        said.clear()
    if of:
        for name in [name for name in said if "." in name and name.partition(".")[0] not in of]:
            del said[name]
        said["of"] = (of, layer.where)
    return new


def _build_settings(section: Section, choice: str, said: dict[str, tuple[Any, str]]) -> Any:
    cls = section.config_class(choice)
    types_of = field_types(cls)
    values = {}
    parts = {name: each for name, each in said.items() if "." in name} if is_combined(cls) else {}
    own = {name: each for name, each in said.items() if name not in parts}
    for name, (value, where) in own.items():
        if name not in types_of:
            raise _unknown_setting(section, choice, name, list(types_of), where)
        values[name] = convert(value, types_of[name], f"{section.name}.{name}", where)
    if cls is None:
        return None
    if is_combined(cls):
        where = own["of"][1] if "of" in own else "default"
        of = values.get("of", cls().of)
        values["parts"] = _build_parts(section.choices(), f"{section.name}.", of, where, parts)
    return make_settings(cls, values, {k: where for k, (_, where) in own.items()})


def _build_parts(
    registry: Registry[Any], prefix: str, of: tuple[str, ...], of_where: str, said: dict[str, tuple[Any, str]]
) -> dict[str, Any]:
    """The settings of each part in ``of`` (None: it has none), from the keys ``part.setting`` that were ``said``."""
    known = [name for name in registry.names() if name != registry.combined]
    for name in of:
        if name not in known:
            raise ConfigError(
                f"{of_where}: {prefix}of: unknown {registry.kind} '{name}'.",
                hint=nearest(name, known),
                key=f"{prefix}of",
            )
    for key, (_, where) in said.items():
        name = key.partition(".")[0]
        if name not in of:
            hint = nearest(name, list(of))
            if name in known:
                hint = f"Leave it out, or take {name} along: {'+'.join([*of, name])}."
            raise ConfigError(
                f"{where}: unknown key '{prefix}{key}': '{name}' is not one of {'+'.join(of)}.", hint=hint, key=key
            )
    found = {}
    for name in of:
        cls = registry.config_class(name)
        types_of = field_types(cls)
        mine = {k.partition(".")[2]: each for k, each in said.items() if k.partition(".")[0] == name}
        values = {}
        for last, (value, where) in mine.items():
            key = f"{prefix}{name}.{last}"
            if last not in types_of:
                keys = [f"{prefix}{name}.{k}" for k in types_of]
                hint = nearest(key, keys) if keys else f"{name} has no settings."
                raise ConfigError(f"{where}: unknown key '{key}'.", hint=hint, key=key)
            values[last] = convert(value, types_of[last], key, where)
        try:
            wheres = {k: where for k, (_, where) in mine.items()}
            found[name] = None if cls is None else make_settings(cls, values, wheres)
        except ConfigError as error:
            raise ConfigError(renamed(error.message, name), hint=error.hint and renamed(error.hint, name)) from None
    return found


def renamed(text: str, part: str) -> str:
    """``text`` of an initializer with its keys as they are called where it is a part: init.count → init.part.count."""
    return re.sub(r"\binit\.(?=[a-z])(?!name\b)", f"init.{part}.", text)


def make_settings(cls: type, values: Mapping[str, Any], wheres: Mapping[str, str] | None = None) -> Any:
    """``cls(**values)``; what the dataclass itself refuses is told as ConfigError, with where it was written."""
    try:
        return cls(**values)
    except ConfigError as error:
        places = sorted(set((wheres or {}).values()))
        if not places:
            raise
        raise ConfigError(f"{', '.join(places)}: {error.message}", hint=error.hint, **error.context) from None


def settings_from_keywords(
    cls: type | None, keywords: Mapping[str, Any], where: str, registry: Registry[Any] | None = None
) -> Any:
    """A part's config from Python keywords, checked and converted as the command line's are.

    The settings of the parts of a combined part are mappings under their names; ``registry`` has these parts.
    """
    types_of = field_types(cls)
    if registry is not None and is_combined(cls):
        parts = {name: each for name, each in keywords.items() if isinstance(each, Mapping)}
        said = {f"{name}.{key}": (value, where) for name, each in parts.items() for key, value in each.items()}
        own = {name: each for name, each in keywords.items() if name not in parts}
        of = convert(own.get("of", cls().of), types_of["of"], "of", where)
        keywords = own
    for name in keywords:
        if name not in types_of:
            hint = nearest(name, list(types_of)) if types_of else "It has no settings."
            raise ConfigError(f"{where}: unknown setting '{name}'.", hint=hint, key=name)
    if cls is None:
        return None
    values = {k: convert(v, types_of[k], k, where) for k, v in keywords.items()}
    if registry is not None and is_combined(cls):
        values["parts"] = _build_parts(registry, "", of, where, said)
    return make_settings(cls, values)


@cache
def field_types(cls: type | None) -> dict[str, Any]:
    """Field name → resolved type of a config dataclass; nothing for a part without one."""
    if cls is None:
        return {}
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in setting_fields(cls)}


def known_keys() -> list[str]:
    """Every key of every part. Imports all parts, so it is for errors and tables, not for start-up."""
    keys = list(RUN_KEYS)
    for section in SECTIONS.values():
        if section.registry:
            keys.append(f"{section.name}.{section.selector}")
        for choice in section.choices().names() if section.registry and not section.config else [""]:
            keys += [f"{section.name}.{name}" for name in field_types(section.config_class(choice))]
    return list(dict.fromkeys(keys))


def _unknown_key(key: str, where: str) -> ConfigError:
    """For a key whose section does not exist."""
    keys = known_keys()
    same_field = [known for known in keys if known.rpartition(".")[2] == key.rpartition(".")[2]]
    if key in SECTIONS:
        inside = [known for known in keys if known.startswith(f"{key}.")]
        hint = f"'{key}' is a section; its keys are {', '.join(inside)}."
    elif same_field:
        hint = f"Did you mean {' or '.join(same_field)}?"
    else:
        match = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
        hint = f"Did you mean '{match[0]}'?" if match else f"Sections: {', '.join(SECTIONS)}."
    return ConfigError(f"{where}: unknown key '{key}'.", hint=f"{hint} `splatinit list --settings` shows all.", key=key)


def _unknown_setting(section: Section, choice: str, name: str, known: list[str], where: str) -> ConfigError:
    key = f"{section.name}.{name}"
    message, hint = f"{where}: unknown key '{key}'.", None
    if section.registry and not section.config:
        message = f"{where}: unknown key '{key}': {section.name}.{section.selector}={choice} has no such setting."
        others = [other for other in section.choices().names() if other != choice]
        owners = [other for other in others if name in field_types(section.config_class(other))]
        if owners:
            ways = " or ".join(f"{section.name}.{section.selector}={owner}" for owner in owners)
            hint = f"It is a setting of {' and '.join(owners)}: add {ways}."
    if hint is None:
        selector = [f"{section.name}.{section.selector}"] if section.registry else []
        hint = nearest(key, selector + [f"{section.name}.{k}" for k in known])
    return ConfigError(message, hint=hint, key=key)


# ------------------------------------------------------------------------------------------------------- conversion
_TRUE, _FALSE, _NONE = ("true", "yes", "on", "1"), ("false", "no", "off", "0"), ("none", "null", "~", "")


def convert(value: Any, kind: Any, key: str, where: str) -> Any:
    """``value``, as written on a command line (text) or in YAML (typed), in the type ``kind``.

    Raises ConfigError saying what was got and expected. Integers may be written as 1e4; a float may be an integer;
    a tuple is written a,b,c; None is written none.
    """
    try:
        return _convert(value, kind)
    except _Unfit as unfit:
        raise ConfigError(
            f"{where}: {key} = {value!r} does not fit; expected {unfit.args[0]}.", key=key, value=value
        ) from None


class _Unfit(Exception):
    """Carries what was expected."""


def _convert(value: Any, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments)
    if origin is typing.Literal:
        return _convert_literal(value, arguments)
    if origin is tuple:
        return _convert_tuple(value, arguments)
    text = value.strip() if isinstance(value, str) else None
    if kind is bool:
        if isinstance(value, bool):
            return value
        if text is not None and text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise _Unfit("true or false")
    if kind is int or kind is float:
        return _convert_number(value if text is None else text, kind)
    if kind is str:
        if text is not None:
            return text
        raise _Unfit("text")
    if kind is Path:
        if isinstance(value, Path) or text:
            return Path(value).expanduser()
        raise _Unfit("a path")
    raise TypeError(f"config fields of type {kind} are not supported")


def _convert_number(value: Any, kind: type) -> int | float:
    expected = "a whole number" if kind is int else "a number"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _Unfit(expected)
    try:
        if kind is int and isinstance(value, str) and value.lstrip("+-").replace("_", "").isdigit():
            return int(value)
        number = float(value)
    except ValueError:
        raise _Unfit(expected) from None
    if math.isnan(number) or (kind is int and (math.isinf(number) or number != int(number))):
        raise _Unfit(expected)
    return kind(value) if isinstance(value, int) else kind(number)


def _convert_union(value: Any, options: tuple) -> Any:
    if type(None) in options and (value is None or (isinstance(value, str) and value.strip().lower() in _NONE)):
        return None
    expected = []
    for option in options:
        if option is type(None):
            expected.append("none")
            continue
        try:
            return _convert(value, option)
        except _Unfit as unfit:
            expected.append(unfit.args[0])
    raise _Unfit(" or ".join(expected))


def _convert_literal(value: Any, options: tuple) -> Any:
    text = value.strip() if isinstance(value, str) else value
    for option in options:
        if text == option or (isinstance(text, str) and not isinstance(option, str) and text == str(option)):
            return option
    raise _Unfit("one of " + ", ".join(str(option) for option in options))


def _convert_tuple(value: Any, arguments: tuple) -> tuple:
    if isinstance(value, str):
        inner = value.strip().removeprefix("[").removesuffix("]").removeprefix("(").removesuffix(")")
        items: list[Any] = [item.strip() for item in inner.split(",") if item.strip()]
        if len(items) == 1 and items[0].lower() in _NONE:
            items = []
    elif isinstance(value, (list, tuple)):
        items = list(value)
    else:
        items = [value]
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(item, arguments[0]) for item in items)
    if len(items) != len(arguments):
        raise _Unfit(f"{len(arguments)} values separated by commas")
    return tuple(_convert(item, kind) for item, kind in zip(items, arguments, strict=True))


# --------------------------------------------------------------------------------------------------------- teaching
@dataclass(frozen=True)
class Setting:
    """One key as help shows it."""

    key: str
    default: Any
    kind: str
    about: str


def describe(cls: type, section: str) -> list[Setting]:
    """The settings of a config dataclass, with the text of its docstring's Attributes."""
    texts = attribute_texts((cls.__doc__ or "").replace("``", ""))
    out = []
    for f in setting_fields(cls):
        default = f.default if f.default is not dataclasses.MISSING else None
        if f.default_factory is not dataclasses.MISSING:
            default = f.default_factory()
        out.append(Setting(f"{section}.{f.name}", plain(default), str(f.type), texts.get(f.name, "")))
    return out


def attribute_texts(docstring: str) -> dict[str, str]:
    """Field name → text, from the ``Attributes:`` block of a docstring (``a, b: text`` describes two fields)."""
    texts: dict[str, str] = {}
    names: list[str] = []
    inside, indent = False, None
    # Short fields may share a line, set apart by at least three spaces.
    lines = [part for line in inspect.cleandoc(docstring).splitlines() for part in _split_columns(line)]
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() in ("Attributes:", "Args:"):
            inside, indent = True, None
        elif inside and line.strip() and depth == 0:
            inside = False
        elif inside and line.strip():
            indent = depth if indent is None else indent
            head, colon, rest = line.strip().partition(":")
            candidates = [name.strip() for name in head.split(",")]
            if depth == indent and colon and all(name.isidentifier() for name in candidates):
                names = candidates
                texts |= dict.fromkeys(names, rest.strip())
            else:
                texts |= {name: f"{texts[name]} {line.strip()}".strip() for name in names}
    return texts


def _split_columns(line: str) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    return [indent + part for part in re.split(r"\s{3,}(?=[A-Za-z_]\w*: )", line.strip())]
