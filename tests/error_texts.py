"""Which errors a user can cause have a test that looks at their text.

A *site* is a place in ``splatinit/`` that makes an error: a call of an error class, or of a function that returns one.
It is covered when an error that it made is looked at: matched by ``pytest.raises(match=...)``, read as text by a test,
or printed by the command line in a test. ``pytest --error-texts`` lists what is not covered; a run of all tests fails
on it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

import splatinit
from splatinit import errors

PACKAGE = Path(splatinit.__file__).parent
TESTS = Path(__file__).parent
# The fuzz tests ask of a message only that it can be printed.
_NO_TESTS = (str(TESTS / "fuzz"), __file__)

Site = tuple[str, int]  # file below the package, line


def sites() -> dict[Site, tuple[int, str]]:
    """Every site → its last line and its source."""
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.SplatinitError)
    }
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    del trees[PACKAGE / "errors.py"]
    makers = {
        node.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and _name(node.returns) in classes
    }
    found = {}
    for path, tree in trees.items():
        for call in _calls(tree, classes, makers):
            last = call.end_lineno or call.lineno
            found[path.relative_to(PACKAGE).as_posix(), call.lineno] = last, ast.unparse(call)
    return found


def _name(node: ast.AST | None) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _calls(node: ast.AST, classes: set[str], makers: set[str]) -> Iterator[ast.Call]:
    """Calls of error classes, but for those in functions that make errors for others; and calls of these functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and _name(child.func) in classes | makers:
            yield child
        makes = isinstance(child, ast.FunctionDef) and child.name in makers
        yield from _calls(child, set() if makes else classes, makers)


class ErrorTexts:
    """The pytest plugin: notes where errors are made and which are looked at."""

    def __init__(self) -> None:
        self.sites = sites()
        self._spans: dict[str, list[tuple[int, int]]] = {}
        for (file, first), (last, _) in self.sites.items():
            self._spans.setdefault(file, []).append((first, last))
        self.covered: set[Site] = set()
        self.failed = False

    def watch(self) -> None:
        """Make SplatinitError remember the sites on its stack, and say when its text is read."""
        base, noted = errors.SplatinitError, self
        make = base.__init__

        def init(error: errors.SplatinitError, *arguments: object, **context: object) -> None:
            error.made_at = noted.on_stack(sys._getframe(1))
            make(error, *arguments, **context)

        def attribute(error: errors.SplatinitError, name: str) -> object:
            if name in ("message", "hint"):
                noted.read(error, sys._getframe(1))
            return Exception.__getattribute__(error, name)

        def text(error: errors.SplatinitError) -> str:
            noted.read(error, sys._getframe(1))
            values = vars(error)
            return values["message"] if values["hint"] is None else f"{values['message']}\n  {values['hint']}"

        base.__init__, base.__getattribute__, base.__str__ = init, attribute, text

    def on_stack(self, frame: FrameType | None) -> set[Site]:
        found = set()
        while frame is not None:
            name = frame.f_code.co_filename
            if name.startswith(str(PACKAGE)):
                file = Path(name).relative_to(PACKAGE).as_posix()
                for first, last in self._spans.get(file, ()):
                    if first <= frame.f_lineno <= last:
                        found.add((file, first))
            frame = frame.f_back
        return found

    def read(self, error: errors.SplatinitError, reader: FrameType) -> None:
        name = reader.f_code.co_filename
        by_test = name.startswith(str(TESTS)) and not name.startswith(_NO_TESTS)
        if by_test or "_pytest" in name or name == str(PACKAGE / "cli" / "base.py"):
            self.covered |= vars(error).get("made_at", set())

    def uncovered(self) -> list[str]:
        missing = sorted(set(self.sites) - self.covered)
        return [f"splatinit/{file}:{line}: {self.sites[file, line][1][:150]}" for file, line in missing]

    # ----------------------------------------------------------------------------------------------------------- hooks
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Where all tests ran, and passed, an error without a test of its text is a failure too."""
        options = session.config.option
        chosen = any(getattr(options, name, None) for name in ("keyword", "markexpr", "lf", "deselect", "ignore"))
        all_of_them = session.config.args in (["tests"], [str(TESTS)]) and not chosen and not options.collectonly
        self.failed = exitstatus == 0 and all_of_them and bool(self.uncovered())
        if self.failed:
            session.exitstatus = 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.failed or terminalreporter.config.option.error_texts:
            missing = self.uncovered()
            terminalreporter.section(f"no test looks at the text of {len(missing)} of {len(self.sites)} errors")
            for line in missing:
                terminalreporter.write_line(line)
