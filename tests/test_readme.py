"""The README: its Python runs, and the commands it shows exist."""

import contextlib
import functools
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rfdiff.cli import entry

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"


def blocks(text: str, *languages: str) -> list[str]:
    """Fenced code blocks in one of the languages."""
    pattern = rf"^```(?:{'|'.join(languages)})[ \t]*\n(.*?)^```[ \t]*$"
    return re.findall(pattern, text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    """Commands of the shell blocks as words: prompts and comments taken off, continued lines joined, lists split at && and ;."""
    found = []
    for block in blocks(text, "bash", "console", "sh", "shell"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            parts = " ".join("\0" if word in ("&&", ";", "|") else shlex.quote(word) for word in words).split("\0")
            found += [shlex.split(part) for part in parts if part.strip()]
    return found


def unknown_commands(text: str, subcommands: set[str], targets: set[str]) -> list[str]:
    """`rfdiff` and `make` commands of a text that name no existing subcommand, target or file."""
    bad = []
    for words in commands(text):
        rest = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        if words[0] == "make" and not set(rest) <= targets:
            bad.append(shlex.join(words))
        if words[0].split("/")[-1] == "rfdiff":
            missing = [word for word in rest if word.startswith("experiments/") and not (ROOT / word).exists()]
            if missing or (rest and rest[0] not in subcommands) or (not rest and "--help" not in words):
                bad.append(shlex.join(words))
    return bad


def rfdiff(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line of this tree."""
    command = [sys.executable, "-c", "import sys; from rfdiff.cli import main; sys.exit(main())", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def readme() -> str:
    assert README.exists(), "README.md is missing"
    return README.read_text(encoding="utf-8")


def make_targets() -> set[str]:
    """Targets declared phony in the Makefile."""
    (line,) = re.findall(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(line.split())


def run_blocks(code: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks in order, in one namespace, as a reader would type them, in an empty directory that holds the experiments."""
    (folder / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(folder)
    namespace: dict[str, object] = {"__name__": "readme"}
    for i, block in enumerate(code):
        exec(compile(block, f"README.md, Python block {i + 1}", "exec"), namespace)


def test_python_blocks_run(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = blocks(readme, "python")
    assert code, "the README shows no Python"
    run_blocks(code, tmp_path, monkeypatch)


@pytest.mark.slow
def test_long_python_blocks_run(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those marked `py` take most of a minute to compile; they go on from the others."""
    code = blocks(readme, "python", "py")
    assert len(code) > len(blocks(readme, "python"))
    run_blocks(code, tmp_path, monkeypatch)


def placeholders(text: str) -> list[str]:
    """Lines that hold one word in capitals alone: places where something was to be put in."""
    return re.findall(r"^[ \t]*[^\w\n]*([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)[^\w\n]*$", text, re.MULTILINE)


def test_nothing_is_left_to_fill_in(readme: str) -> None:
    assert placeholders(readme) == []
    assert placeholders("# Title\n\nBENCHMARK_TABLE\n\n<RESULT>\n| ID | THIS |\nUSE_THIS and that\n") == ["BENCHMARK_TABLE", "RESULT"]


def test_commands_exist(readme: str) -> None:
    shown = commands(readme)
    assert {"make", "rfdiff"} <= {words[0].split("/")[-1] for words in shown}
    helped = rfdiff("--help")
    assert helped.returncode == 0, helped.stderr
    names = ("predict", "simulate", "compare", "plan", "phase-map", "times", "plot", "sweep", "collect", "speciate", "generate", "images")
    subcommands = {name for name in names if re.search(rf"\b{name}\b", helped.stdout)}
    assert unknown_commands(readme, subcommands, make_targets()) == []


@functools.cache
def explained(*names: str) -> str:
    """What `rfdiff NAME --help` prints, or `rfdiff images NAME --help`."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert entry.main([*names, "--help"]) == 0
    return told.getvalue()


def test_options_exist(readme: str) -> None:
    """Each `rfdiff` command's long options are ones its subcommand explains."""
    for words in commands(readme):
        if words[0].split("/")[-1] != "rfdiff" or len(words) < 2 or words[1].startswith("-"):
            continue
        names = words[1 : 3 if words[1] == "images" else 2]
        for word in words:
            assert not word.startswith("--") or word.split("=")[0] in explained(*names), f"{shlex.join(words)}: no option {word}"


def test_linked_files_exist(readme: str) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", readme) + re.findall(r'src="(?!https?:)([^"]+)"', readme)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_make_targets_are_explained() -> None:
    helped = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert all(f"make {target}" in helped for target in make_targets())
    assert {"demo", "test", "lint", "smoke", "experiments", "bench", "clean", "help"} == make_targets()


def test_the_readers_reject() -> None:
    text = (
        "```bash\n$ make demo && make deploy  # twice\nrfdiff compare a.toml \\\n  --d 10\nrfdiff frobnicate\n```\n```python\nx = 1\n```\n"
    )
    assert blocks(text, "python") == ["x = 1\n"]
    assert commands(text)[:3] == [["make", "demo"], ["make", "deploy"], ["rfdiff", "compare", "a.toml", "--d", "10"]]
    assert unknown_commands(text, {"compare"}, {"demo"}) == ["make deploy", "rfdiff frobnicate"]
    missing = "```sh\n.venv/bin/rfdiff predict experiments/none.toml\n```\n"
    assert len(unknown_commands(missing, {"predict"}, set())) == 1
