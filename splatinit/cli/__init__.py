"""The command line: ``splatinit COMMAND``; ``splatinit --help`` shows all."""

from .app import main

__all__ = ["main"]
