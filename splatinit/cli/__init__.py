"""The command line: ``splatinit run | init | train | eval | render | list | doctor | demo``."""

from .app import main

__all__ = ["main"]
