"""The application that the commands are registered with, and how their errors are told."""

from __future__ import annotations

import functools
import inspect
import os
import signal
from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape

from .. import __version__
from ..errors import SplatinitError
from ..io.atomic import HINTS
from .console import Stopped, make_console

OVERVIEW = f"""
[bold]splatinit[/] {__version__}: photos in, Gaussian splat out, from any starting point cloud.

The line: folder → [b]read[/] → [b]pose[/] → [b]init[/] → seed → [b]train[/] → [b]eval[/]. Everything after the start
is the same for every initializer, so that scores compare where the Gaussians began.

[bold]Examples[/]

  splatinit demo                         [dim]the line on a scene drawn by splatinit[/]
  splatinit run photos/                  [dim]SfM, training, scores: runs/photos-sfm[/]
  splatinit run scene/ -i random         [dim]another start[/]
  splatinit run scene/ -c quick seed=1   [dim]a preset, and any setting as key=value[/]
  splatinit sweep configs/sweeps/tiny.yaml
                                         [dim]scenes × starts × seeds, in one table[/]
  splatinit check photos/                [dim]before the minutes: is it worth it?[/]
  splatinit list                         [dim]all parts and presets; --settings: all keys[/]
  splatinit doctor                       [dim]what works on this machine[/]
"""


def paragraphs(text: str) -> str:
    """Help text with the lines of each paragraph joined, so that the terminal wraps them; indented ones stay."""
    blocks = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(block if block.startswith("  ") else " ".join(block.split("\n")) for block in blocks)


app = typer.Typer(
    name="splatinit",
    help=paragraphs(OVERVIEW),
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    # An error that is not the user's is a bug: a plain traceback is what a report needs.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(name: str, panel: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers a function as the command ``name``, with its docstring as help and its errors told in words."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        return app.command(name, help=paragraphs(function.__doc__ or ""), rich_help_panel=panel)(guarded(function))

    return register


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with what a user can cause told in words: exit 2, or 128 + the signal that stopped it."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except SplatinitError as error:
            _fail(error.message, error.hint)
        except Stopped as stopped:
            make_console(stderr=True).print(stopped.told(), markup=False, soft_wrap=True)
            raise typer.Exit(128 + stopped.signum) from None
        except KeyboardInterrupt:  # before or after anything was watched
            raise typer.Exit(128 + signal.SIGINT) from None
        except OSError as error:
            if error.errno not in HINTS:  # a missing file among them: that it was looked for is a bug
                raise
            place = f" ({error.filename})" if error.filename else ""
            _fail(f"{os.strerror(error.errno)}{place}.", HINTS[error.errno])

    return wrapper


def _fail(message: str, hint: str | None) -> None:
    console = make_console(stderr=True)
    console.print(f"[bold red]error[/] {escape(message)}", soft_wrap=True)
    if hint:
        console.print(f"      {escape(hint)}", soft_wrap=True)
    raise typer.Exit(2)
