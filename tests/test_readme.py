"""README and documents: their Python runs, the commands they show exist, their links lead somewhere."""

import contextlib
import functools
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rfdiff.cli import entry

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
OF_THE_SITE = ("index.md", "command-reference.md", "contributing.md", "changelog.md")  # its front page, and what is made with it
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name not in OF_THE_SITE)
DOCUMENTS = [README, *PAGES, ROOT / "CONTRIBUTING.md"]


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
            if words[1:2] == ["--tyro-print-completion"]:
                continue
            if missing or (rest and rest[0] not in subcommands) or (not rest and "--help" not in words):
                bad.append(shlex.join(words))
    return bad


def make_targets() -> set[str]:
    """Targets declared phony in the Makefile."""
    (line,) = re.findall(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return set(line.split())


def read(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def with_blocks(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("document", [path for path in DOCUMENTS if blocks(read(path), *languages)], ids=name_of)


@pytest.mark.thorough
@with_blocks("python")
def test_python_blocks_run(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks in order, in one namespace, as a reader would type them, in an empty directory that holds the experiments."""
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "document"}
    for i, block in enumerate(blocks(read(document), "python")):
        exec(compile(block, f"{name_of(document)}, Python block {i + 1}", "exec"), namespace)


@pytest.mark.slow
@with_blocks("py")
def test_long_python_blocks_run(document: Path, tmp_path: Path) -> None:
    """Those marked `py` compile for long or need several devices; they continue the others, in a process with eight devices."""
    code = "\n".join(blocks(read(document), "python", "py"))
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_shows_python_and_is_short() -> None:
    lines = read(README).splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120] == []
    (code,) = blocks(read(README), "python")
    assert len([line for line in code.splitlines() if line]) <= 12
    assert all(f"({name_of(document)})" in read(README) for document in DOCUMENTS[1:])


@every_document
def test_prose_keeps_its_width(document: Path) -> None:
    assert [line for line in read(document).splitlines() if len(line) > 120 and not line.startswith("|")] == []


def placeholders(text: str) -> list[str]:
    """Lines that hold one word in capitals alone: places where something was to be put in."""
    return re.findall(r"^[ \t]*[^\w\n]*([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)[^\w\n]*$", text, re.MULTILINE)


@every_document
def test_nothing_is_left_to_fill_in(document: Path) -> None:
    assert placeholders(read(document)) == []


def test_placeholders_are_seen() -> None:
    assert placeholders("# Title\n\nBENCHMARK_TABLE\n\n<RESULT>\n| ID | THIS |\nUSE_THIS and that\n") == ["BENCHMARK_TABLE", "RESULT"]


@functools.cache
def subcommands() -> set[str]:
    """Commands that `rfdiff --help` lists."""
    return set(re.findall(r"• ([a-z-]+)", explained()))


@every_document
def test_commands_exist(document: Path) -> None:
    assert {"predict", "compare", "images"} <= subcommands()
    assert unknown_commands(read(document), subcommands(), make_targets()) == []


def test_the_commands_page_shows_every_command() -> None:
    page = read(ROOT / "docs" / "command-line.md")
    shown = {words[1] for words in commands(page) if words[0] == "rfdiff" and not words[1].startswith("-")}
    assert shown | {"images"} == subcommands()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shell_completion_as_documented(shell: str) -> None:
    assert f"--tyro-print-completion {shell}" in read(ROOT / "docs" / "command-line.md")
    assert "phase-map" in explained("--tyro-print-completion", shell)


@functools.cache
def explained(*names: str) -> str:
    """What `rfdiff NAME --help` prints, or `rfdiff images NAME --help`."""
    with contextlib.redirect_stdout(io.StringIO()) as told:
        assert entry.main(list(names) if "--tyro-print-completion" in names else [*names, "--help"]) == 0
    return told.getvalue()


@every_document
def test_options_exist(document: Path) -> None:
    """Each `rfdiff` command's long options are ones its subcommand explains."""
    for words in commands(read(document)):
        if words[0].split("/")[-1] != "rfdiff" or len(words) < 2 or words[1].startswith("-"):
            continue
        names = words[1 : 3 if words[1] == "images" else 2]
        for word in words:
            assert not word.startswith("--") or word.split("=")[0] in explained(*names), f"{shlex.join(words)}: no option {word}"


@pytest.mark.parametrize("document", [*DOCUMENTS, *sorted((ROOT / "experiments").rglob("README.md"))], ids=name_of)
def test_linked_files_exist(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", read(document))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_make_targets_are_explained() -> None:
    helped = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert all(f"make {target}" in helped for target in make_targets())
    assert {
        "demo",
        "test",
        "suite",
        "thorough",
        "lint",
        "smoke",
        "docs",
        "docs-check",
        "docs-serve",
        "explore-check",
        "experiments",
        "bench",
        "clean",
        "help",
    } == make_targets()


def test_the_readers_reject() -> None:
    text = (
        "```bash\n$ make demo && make deploy  # twice\nrfdiff compare a.toml \\\n  --d 10\nrfdiff frobnicate\n```\n```python\nx = 1\n```\n"
    )
    assert blocks(text, "python") == ["x = 1\n"]
    assert commands(text)[:3] == [["make", "demo"], ["make", "deploy"], ["rfdiff", "compare", "a.toml", "--d", "10"]]
    assert unknown_commands(text, {"compare"}, {"demo"}) == ["make deploy", "rfdiff frobnicate"]
    missing = "```sh\n.venv/bin/rfdiff predict experiments/none.toml\n```\n"
    assert len(unknown_commands(missing, {"predict"}, set())) == 1
