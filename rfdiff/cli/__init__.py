"""The command line `rfdiff`: options, one file per command, and what is printed. Nothing else in the package imports it."""

from rfdiff.cli.entry import main

__all__ = ["main"]
