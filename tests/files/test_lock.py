"""One process at a time: the kernel's lock, and the lock file where there is none."""

import errno
import fcntl
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from rfdiff.errors import InputError
from rfdiff.files import lock
from rfdiff.files.lock import FALLBACK_NAME, locked


@pytest.fixture(params=["flock", "lock file"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of holding a folder; the second as on a file system that answers ENOSYS."""
    if request.param == "lock file":

        def refuse(*_: object) -> None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(fcntl, "flock", refuse)
    return str(request.param)


def test_one_at_a_time_and_again_afterwards(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    with locked(folder, "sweep"):
        assert (folder / FALLBACK_NAME).exists() == (kind == "lock file")
        with pytest.raises(InputError, match="here: .*works on the sweep in it; allowed: one at a time"), locked(folder, "sweep"):
            pass
        with locked(tmp_path / "another"):
            pass
    with locked(folder):
        pass
    assert not (folder / FALLBACK_NAME).exists()


def test_it_is_freed_by_an_error(kind: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path):
        raise KeyboardInterrupt
    with locked(tmp_path):
        pass


def test_a_killed_process_holds_nothing(kind: str, tmp_path: Path) -> None:
    refuse = "fcntl.flock = refuse" if kind == "lock file" else ""
    script = (
        "import errno, fcntl, os, sys\nfrom rfdiff.files.lock import locked\n"
        "def refuse(*_):\n    raise OSError(errno.ENOSYS, 'no')\n"
        f"{refuse}\nwith locked(sys.argv[1]):\n    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False, timeout=120).returncode == 9
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "1 another-machine", "nonsense here now", f"{os.getpid()} {platform.node()}"])
def test_a_lock_file_that_may_be_held_is_respected(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_flock", lambda *_: False)
    (tmp_path / FALLBACK_NAME).write_text(content)
    with pytest.raises(InputError, match=rf"one at a time \(if none does any more, delete .*{FALLBACK_NAME}\)"), locked(tmp_path):
        pass


def test_other_faults_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="I/O error"), locked(tmp_path):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), locked(tmp_path / "file"):
        pass
