"""``splatinit list``: the parts, the presets and the settings, from the registries and the docstrings themselves."""

from __future__ import annotations

from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..config import RUN_KEYS, SECTIONS, Section, describe, presets
from ..errors import ConfigError
from ..registry import Registry, Spec, load_object, nearest

# What can be listed: heading → (registry, the option that selects from it).
KINDS = {
    "Initializers": ("splatinit.initializers:INITIALIZERS", "--init NAME"),
    "Posers": ("splatinit.posers:POSERS", "poser.name=NAME"),
    "Densifiers": ("splatinit.densify:DENSIFIERS", "densify.name=NAME"),
    "Backends": ("splatinit.raster:BACKENDS", "--backend NAME"),
    "Formats": ("splatinit.io.read:READERS", "detected, or --format NAME"),
    "Executors": ("splatinit.sweep.executors:EXECUTORS", "sweep --executor NAME"),
}


def show_parts(console: Console) -> None:
    """One table per kind of part, and the presets."""
    for heading, (path, how) in KINDS.items():
        registry: Registry[Any] = load_object(path)
        table = _table(f"{heading}  [dim]{escape(how)}[/]", "name", "what it does", "source", "status", "needs")
        for spec in registry:
            table.add_row(f"[cyan]{spec.name}[/]", *map(escape, (spec.summary, spec.source, spec.status)), _needs(spec))
        console.print(table)
    table = _table("Presets  [dim]--config NAME[/]", "name", "what it is for")
    for preset in presets():
        table.add_row(f"[cyan]{preset.name}[/]", escape(preset.about))
    console.print(table)
    console.print("[dim]splatinit list NAME explains one part and its settings; list --settings shows every key.[/]")


def _needs(spec: Spec) -> str:
    if not spec.needs:
        return ""
    missing = spec.missing()
    names = escape(", ".join(spec.needs))
    return f"[yellow]{names} (missing)[/]" if missing else f"{names} [green](installed)[/]"


def show_part(console: Console, name: str) -> None:
    """Everything about one part (any kind), one section or one preset."""
    shown = False
    for section in SECTIONS.values():
        if section.registry and name in section.choices().names():
            _show_spec(console, section, section.choices().spec(name))
            shown = True
        elif name == section.name:
            _show_section(console, section)
            shown = True
    for registry in _without_settings():
        if name in registry.names():
            _show_about(console, registry, registry.spec(name))
            shown = True
    for preset in presets():
        if name in (preset.name, preset.name.rpartition("/")[2]):
            console.print(f"[bold]preset {preset.name}[/]  {escape(preset.about)}")
            console.print(preset.path.read_text(encoding="utf-8"), markup=False)
            shown = True
    if not shown:
        raise ConfigError(f"Nothing is called '{name}'.", hint=nearest(name, _all_names()), name=name)


def _all_names() -> list[str]:
    parts = [name for section in SECTIONS.values() if section.registry for name in section.choices().names()]
    others = [name for registry in _without_settings() for name in registry.names()]
    return list(dict.fromkeys([*parts, *others, *SECTIONS, *(preset.name for preset in presets())]))


def _without_settings() -> list[Registry[Any]]:
    """The kinds that are chosen by an option alone."""
    return [load_object(KINDS[kind][0]) for kind in ("Formats", "Executors")]


def _show_about(console: Console, registry: Registry[Any], spec: Spec) -> None:
    console.print(f"[bold]{registry.kind} {spec.name}[/]  {escape(spec.summary)}")
    if spec.source or spec.status:
        console.print(f"  source: {escape(spec.source)}\n  status: {escape(spec.status)}")
    if spec.needs:
        console.print(f"  needs: {_needs(spec)}")


def _show_spec(console: Console, section: Section, spec: Spec) -> None:
    _show_about(console, section.choices(), spec)
    cls = section.config_class(spec.name)
    if cls is None:
        console.print("  no settings")
    else:
        console.print(_settings_table("", [(section.name, cls)]))


def _show_section(console: Console, section: Section) -> None:
    console.print(f"[bold]section {section.name}[/]  {section.about}")
    if section.registry:
        key = f"{section.name}.{section.selector}"
        console.print(f"  {key}: {', '.join(section.names())} [dim](default {section.default})[/]")
    if section.config:
        console.print(_settings_table("", [(section.name, load_object(section.config))]))
    else:
        console.print("[dim]  splatinit list NAME shows the settings of one of them.[/]")


def show_all_settings(console: Console) -> None:
    """Every key of every part."""
    for section in SECTIONS.values():
        if section.config:
            table = _settings_table(f"{section.name}: {section.about}", [(section.name, load_object(section.config))])
            console.print(_with_selector(table, section))
        elif section.registry:
            console.print(_with_selector(_settings_table(f"{section.name}: {section.about}", []), section))
            for name in section.choices().names():
                cls = section.config_class(name)
                if cls is not None:
                    key = f"{section.name}.{section.selector}={name}"
                    console.print(_settings_table(f"with {key}", [(section.name, cls)]))
    table = _table("run", "key", "default", "what it is")
    for key, (default, about) in RUN_KEYS.items():
        table.add_row(f"[cyan]{key}[/]", str(default), about)
    console.print(table)


def _with_selector(table: Table, section: Section) -> Table:
    if section.registry:
        names = ", ".join(section.names())
        table.add_row(f"[cyan]{section.name}.{section.selector}[/]", section.default, f"one of {escape(names)}")
    return table


def _settings_table(title: str, classes: list[tuple[str, type]]) -> Table:
    table = _table(title, "key", "default", "what it is")
    for section, cls in classes:
        for setting in describe(cls, section):
            table.add_row(f"[cyan]{setting.key}[/]", escape(_show(setting.default)), escape(setting.about))
    return table


def _show(value: Any) -> str:
    """A default as it may be typed."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("\n...").removesuffix("...").strip()


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title or None, title_justify="left", title_style="bold", header_style="dim", box=None)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0)
    return table
