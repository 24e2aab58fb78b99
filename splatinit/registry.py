"""Registries of the replaceable parts: posers, initializers, densifiers, backends, readers.

A spec holds *import strings*, so that listing parts imports no implementation and no heavy package. To add a part:
write its file, then add one spec line to the registry of its room; tests, ``--help``, ``splatinit list`` and sweeps
find it by themselves.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .errors import ConfigError, MissingExtra


def nearest(name: str, known: list[str]) -> str:
    """A hint that names the nearest match of ``name`` among ``known``, and all of them when there are few."""
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f"Did you mean '{match[0]}'? " if match else ""
    return f"{guess}Known: {', '.join(known)}." if len(known) <= 24 or not match else guess.strip()


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What is known about a part without importing it.

    Attributes:
        name: how a user selects it.
        impl: import string ``package.module:attribute`` of its class or function.
        config: import string of its frozen config dataclass, or None when it has no settings.
        summary: one line for ``splatinit list`` and ``--help``.
        source: paper or code base the method is from (``arXiv:...``), or "splatinit".
        status: honest state, e.g. "as published", "as published, without X", "experimental".
        needs: packages that are not dependencies of splatinit but needed by this part.
        extra: name of the extra that installs ``needs``.
        gpu: whether it works on a GPU, and cannot without one.
    """

    name: str
    impl: str
    summary: str
    config: str | None = None
    source: str = "splatinit"
    status: str = "complete"
    needs: tuple[str, ...] = ()
    extra: str | None = None
    gpu: bool = False

    def missing(self) -> list[str]:
        """The packages of ``needs`` that are not installed."""
        return [package for package in self.needs if importlib.util.find_spec(package) is None]


S = TypeVar("S", bound=Spec)


def load_object(path: str) -> Any:
    """The object that an import string ``package.module:attribute`` names."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry(Generic[S]):
    """Parts of one kind, in the order in which they were registered; a name can be taken only once.

    Args:
        kind: what its parts are called.
        combined: name of the part that ``a+b`` stands for, which takes several others together; None where parts are
            not combined. Its config has a field ``of``, the names of the others, and a field ``parts``, their settings
            by name, that is marked with ``metadata={"parts": True}`` (see :mod:`splatinit.config`).
    """

    def __init__(self, kind: str, combined: str | None = None) -> None:
        self.kind = kind
        self.combined = combined
        self._specs: dict[str, S] = {}

    def register(self, spec: S) -> S:
        if spec.name in self._specs:
            raise ValueError(f"{self.kind} '{spec.name}' is registered twice")
        self._specs[spec.name] = spec
        return spec

    def __iter__(self) -> Iterator[S]:
        return iter(self._specs.values())

    def names(self) -> list[str]:
        return list(self._specs)

    def split(self, name: str) -> tuple[str, list[str]]:
        """The part that ``name`` selects, and where that is ``a+b``, the names of which it is made."""
        if self.combined is None or "+" not in name:
            return name, []
        return self.combined, [each.strip() for each in name.split("+")]

    def spec(self, name: str) -> S:
        """The spec called ``name``. Raises ConfigError that names the nearest match."""
        if name not in self._specs:
            raise ConfigError(
                f"Unknown {self.kind} '{name}'.", hint=nearest(name, self.names()), kind=self.kind, name=name
            )
        return self._specs[name]

    def load(self, name: str) -> Any:
        """The implementation called ``name``. Raises MissingExtra when a package that it needs is absent."""
        spec = self.spec(name)
        missing = spec.missing()
        if missing:
            install = f'pip install "splatinit[{spec.extra}]"' if spec.extra else f"pip install {' '.join(missing)}"
            raise MissingExtra(
                f"{self.kind} '{name}' needs {', '.join(missing)}, which is not installed.",
                hint=f"Install it: {install}",
                missing=missing,
            )
        return load_object(spec.impl)

    def config_class(self, name: str) -> type | None:
        """The config dataclass of the part called ``name``, or None when it has no settings."""
        config = self.spec(name).config
        return None if config is None else load_object(config)
