"""Compiled programs are kept between commands: where, for whom, how many, and that nothing about them can end a command."""

import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from rfdiff.cli import entry, program_cache
from rfdiff.cli.program_cache import kept_programs

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's cache folder, and an environment that names no other."""
    for name in (*NAMES, "RFDIFF_CACHE"):
        monkeypatch.setenv(name, "")  # so that whatever a test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *names, **options: str(tmp_path / names[0]))
    return tmp_path


def test_each_processor_has_a_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kept_programs():
        first = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert first.is_dir() and first.parent == home / "rfdiff" / "programs" and first.name.startswith("jaxlib-")
    del os.environ["JAX_COMPILATION_CACHE_DIR"]
    monkeypatch.setattr("platform.machine", lambda: "another")
    with kept_programs():
        second = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert second.is_dir() and second.parent == first.parent and second != first


@pytest.mark.parametrize("word", ["off", "OFF", "0"])
def test_it_can_be_switched_off(home: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("RFDIFF_CACHE", word)
    with kept_programs():
        assert not any(name in os.environ for name in NAMES) and not list(home.iterdir())


def test_the_user_s_own_cache_is_left_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/somewhere")
    with kept_programs():
        assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/somewhere" and NAMES[1] not in os.environ


def test_a_place_that_cannot_be_written_is_no_place(home: Path) -> None:
    (home / "rfdiff").write_text("a file where the folder would be")
    with kept_programs():
        assert not any(name in os.environ for name in NAMES)


def test_commands_called_from_python_keep_nothing(home: Path) -> None:
    assert entry.main(["--version"]) == 0
    assert not any(name in os.environ for name in NAMES) and not list(home.iterdir())


def entries(folder: Path, ages: tuple[float, ...]) -> list[Path]:
    """Entries of 100 bytes, as many seconds old."""
    paths = [folder / f"{number}-cache" for number in range(len(ages))]
    for path, age in zip(paths, ages, strict=True):
        path.write_bytes(bytes(100))
        os.utime(path, (time.time() - age,) * 2)
    return paths


def test_the_oldest_go_first_and_those_being_written_stay(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kept_programs():
        folder = Path(os.environ.pop("JAX_COMPILATION_CACHE_DIR"))
    paths = entries(folder, (500, 400, 300, 0))
    monkeypatch.setattr(program_cache, "MOST_BYTES", 250)
    with kept_programs():
        assert [path.exists() for path in paths] == [False, False, True, True]
        os.environ.pop("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setattr(program_cache, "MOST_BYTES", 0)
    with kept_programs():
        assert [path.exists() for path in paths] == [False, False, False, True]


def test_an_entry_that_cannot_be_read_is_not_told_and_is_removed(home: Path, recwarn: pytest.WarningsRecorder) -> None:
    with kept_programs():
        paths = entries(Path(os.environ["JAX_COMPILATION_CACHE_DIR"]), (500, 0))
        warnings.showwarning("Error reading persistent compilation cache entry for 'jit_f': zlib", UserWarning, "file", 1)
        assert paths[0].exists() and not recwarn.list
        warnings.warn("something else", stacklevel=1)
    assert [path.exists() for path in paths] == [False, True]
    assert [str(told.message) for told in recwarn.list] == ["something else"]


@pytest.mark.thorough
def test_a_second_process_compiles_nothing_anew_and_damage_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "problem.toml").write_text(
        'activation = "tanh"\nt = 0.1\npsi_p = 4.0\npsi_n = 3.0\n[mixture]\nweights = [1.0]\nvariances = [1.0]\n'
    )
    environment = {name: value for name, value in os.environ.items() if name not in (*NAMES, "RFDIFF_CACHE")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}

    def predict(name: str) -> str:
        words = ["predict", str(tmp_path / "problem.toml"), "--num-times", "5", "--tolerance", "1e-3", "--out", str(tmp_path / name)]
        done = subprocess.run([sys.executable, "-m", "rfdiff", *words], cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def kept() -> list[Path]:
        """JAX's programs, but those compiled once to be kept ready to run, and these."""
        programs = (path for path in (tmp_path / "cache").rglob("*-cache") if not re.search(r"_[0-9a-f]{16}-", path.name))
        return sorted([*programs, *(tmp_path / "cache" / "rfdiff" / "programs").rglob("rfdiff-*")])

    predict("first")
    found = {path: path.stat().st_mtime_ns for path in kept()}
    assert len(found) > 4 and sum(path.name.startswith("rfdiff-") for path in found) >= 2
    predict("second")
    assert {path: path.stat().st_mtime_ns for path in kept()} == found
    for path in found:
        path.write_bytes(path.read_bytes()[:50])
        os.utime(path, (0, 0))
    assert "cache" not in predict("third") and all(path.stat().st_mtime > 0 for path in kept())
    predict("fourth")
    assert set(kept()) == set(found) and all(path.stat().st_size > 50 for path in kept())
