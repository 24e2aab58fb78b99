"""The command line as a whole. Each command turns what was typed into a config, calls the pipeline, and shows what came
out.

Nothing here imports torch before a command needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import importlib
from typing import Annotated

import typer

from .. import __version__, environment
from .base import app
from .console import make_console

# Importing them registers their commands: the panels of the help come in this order.
for _name in ("line", "comparing", "knowing"):
    importlib.import_module(f".{_name}", __package__)


def _version(wanted: bool) -> None:
    if wanted:
        make_console().print(f"splatinit {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Replaced by OVERVIEW in the help; here for --version."""


def main() -> None:
    """Entry point of the ``splatinit`` command."""
    environment.shorten_thread_spin()
    app()
