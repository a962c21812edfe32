"""Where a command's words and files go: standard output, and a folder that is checked before anything is computed."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rfdiff.errors import InputError


def say(text: str) -> None:
    """Print on standard output, whatever characters it can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
    print(text)


def prepare_folder(out: Path, files: Sequence[str], overwrite: bool) -> None:
    """Make the folder of the results, and refuse one that holds some already or cannot be written to.

    Raises:
        InputError: results stand there, or it is no folder that can be written to.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    standing = [name for name in files if (out / name).exists()]
    if standing and not overwrite:
        raise InputError(f"--out: {out} already holds {', '.join(standing)}; choose another folder or add --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".probe.{os.getpid()}.partial"
        probe.touch()
        probe.unlink()
    except OSError as err:
        raise InputError(f"--out: cannot write to {out} ({err.strerror or err})") from err
