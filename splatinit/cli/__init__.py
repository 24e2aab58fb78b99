"""The command line: ``splatinit run | init | train | eval | render | list | report | doctor | demo``."""

from .app import main

__all__ = ["main"]
