"""A command line run in this process."""

import io
import sys

import pytest

from rfdiff.cli import entry


def run(*arguments: str) -> tuple[int, str]:
    """Exit status, and what is printed on standard output."""
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", told)
        return entry.main(list(arguments)), told.getvalue()
