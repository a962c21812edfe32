"""Pages that are made from the package itself: the gallery, the interface, the command line, how to contribute, what changed."""

import contextlib
import importlib
import io
import os
import re
import shutil
from pathlib import Path

import examples
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]
WIDTH = 100  # characters of a line of help


def write(path: Path, text: str) -> None:
    """Write a page, but leave one that is the same as it is, so that it is not built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def verdict(text: str) -> str:
    """Whether every criterion in the README of an experiment holds."""
    words = re.findall(r"\| (yes|no) \|$", text, re.MULTILINE)
    return f"{words.count('yes')} of {len(words)} criteria hold" if words else "no criteria"


def gallery(docs: Path) -> None:
    """A page for each experiment, from its committed README and figures, and the cards that lead to them."""
    cards = []
    for readme in sorted((ROOT / "experiments").glob("*/README.md")):
        name, text = readme.parent.name, readme.read_text()
        title = re.search(r"^# (.*)$", text, re.MULTILINE)
        claim = re.search(r"\*\*Claim\.\*\*\s+(.*?)\n\n", text, re.DOTALL)
        if title is None or claim is None:
            raise ExtensionError(f"{readme}: no title or no claim")
        for picture in readme.parent.glob("*.png"):
            (docs / "gallery" / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(picture, docs / "gallery" / name / picture.name)
        text = re.sub(r"\]\(([\w.-]+\.png)\)", rf"]({name}/\1)", text)
        text = re.sub(r"\]\(\.\./(\w+)/README\.md\)", r"](\1.md)", text)
        text = re.sub(r"\]\((CHANGELOG|CONTRIBUTING)\.md\)", lambda found: f"]({found[1].lower()}.md)", text)
        text = re.sub(r"\[([^\]]*)\]\((?!http|#|\w+\.md|[\w/]+\.png)[^)]*\)", r"\1", text)
        run = f"python -m experiments.{name}.run"
        command = f"\n## Command\n\n```bash\n{run}          # everything\n{run} --smoke  # a small version with the same criteria\n```\n"
        write(docs / "gallery" / f"{name}.md", re.sub(r"<!--.*?-->\n?", "", text) + command)
        first = next(iter(sorted(path.name for path in readme.parent.glob("figure*.png"))), None)
        image = f":img-top: {name}/{first}\n" if first else ""
        said = " ".join(claim[1].split())
        footer = f":::{{card-footer}}\n{verdict(text)}\n:::"
        cards.append(f"::::{{grid-item-card}} {title[1]}\n:link: {name}\n:link-type: doc\n{image}\n{said}\n\n{footer}\n::::\n")
    names = "\n".join(sorted(path.parent.name for path in (ROOT / "experiments").glob("*/README.md")))
    lead = "Every experiment states a claim as criteria that can fail, and shows whether they hold. What stands here is committed."
    grid = ":::::{grid} 1 2 2 2\n:gutter: 3\n\n" + "\n".join(cards) + ":::::"
    write(docs / "gallery" / "index.md", f"# Gallery\n\n{lead}\n\n{grid}\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n")


def described(page: str, names: list[str]) -> str:
    """What the examples of a page share, and for each of its names the directive and the example.

    Raises:
        ExtensionError: one has no docstring, or no example.
    """
    module = "rfdiff" if page == "rfdiff" else f"rfdiff.{page}"
    home = importlib.import_module(module)
    try:
        shared, shown = examples.of_page(page, names)
    except examples.ExampleError as err:
        raise ExtensionError(str(err)) from err
    parts = [f"# {module}", lead(home), examples.markdown(shared)]
    for name in names:
        parts += [f"## {name}", directive(module, name, getattr(home, name))]
        parts += ["```{rubric} Example\n```", examples.markdown(shown[name])]
    return "\n\n".join(parts) + "\n"


def directive(module: str, name: str, thing: object) -> str:
    """What describes a public name: its docstring, or the value of a constant.

    Raises:
        ExtensionError: it has no docstring.
    """
    if not callable(thing):
        return f"```python\n{module}.{name} = {thing!r}\n```"
    if not (thing.__doc__ or "").strip():
        raise ExtensionError(f"{module}.{name} is public and has no docstring")
    kind, members = ("autoclass", "   :members:\n") if isinstance(thing, type) else ("autofunction", "")
    return f"```{{eval-rst}}\n.. {kind}:: {module}.{name}\n{members}```"


def interface(docs: Path) -> None:
    """A page for the front door and one for each subpackage, with every public name."""
    pages = examples.public_names()
    for page, names in pages.items():
        write(docs / "api" / f"{page}.md", described(page, names))
    listed = "\n".join(pages)
    write(
        docs / "api" / "index.md",
        "# Python interface\n\nEvery public name, with its formula, shapes, units and errors, and an example. The examples of a page\n"
        "share the lines at its top; the test suite runs them. [](../python.md) is the guided tour.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n",
    )


def lead(module: object) -> str:
    """First paragraph of a module's docstring."""
    return " ".join((module.__doc__ or "").split("\n\n")[0].split())


def help_of(words: list[str]) -> str:
    """What a command prints with --help, without the frame around it."""
    from rfdiff.cli import main

    printed = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue())
    lines = []
    for line in text.splitlines():
        if line.startswith("╭"):
            lines.append(line.strip("╭─╮ ").strip() + ":")
        elif not line.startswith("╰"):
            lines.append(line.strip("│").rstrip())
    return "\n".join(lines).strip()


def command_line(docs: Path) -> None:
    """The reference of every command and action, from the options themselves."""
    from rfdiff.cli.registry import all_commands

    parts = ["# Command reference\n\nWhat `--help` prints. [](command-line.md) explains files, exit statuses, interrupting and resuming.\n"]
    for command in all_commands():
        parts.append(f"## rfdiff {command.name}\n")
        for words in [[command.name, action] for action in command.actions] or [[command.name]]:
            if len(words) > 1:
                parts.append(f"### rfdiff {' '.join(words)}\n")
            parts.append(f"```text\n{help_of(words)}\n```\n")
    write(docs / "command-reference.md", "\n".join(parts))


def of_the_repository(docs: Path) -> None:
    """Pages for files at the root of the repository: how to contribute, and what changed."""
    for name in ("CONTRIBUTING", "CHANGELOG"):
        text = re.sub(r"\]\(docs/([\w/-]+\.md)\)", r"](\1)", (ROOT / f"{name}.md").read_text())
        text = re.sub(r"\]\(experiments/(\w+)/README\.md\)", r"](gallery/\1.md)", text)
        text = re.sub(r"\]\((CHANGELOG|CONTRIBUTING)\.md\)", lambda found: f"]({found[1].lower()}.md)", text)
        text = re.sub(r"\[([^\]]*)\]\((?!http|#|\w[\w/-]*\.md)[^)]*\)", r"\1", text)
        write(docs / f"{name.lower()}.md", text)


def linked(app: Sphinx, name: str, source: list[str]) -> None:
    """Links that lead out of this folder on disk lead to the gallery here, or are plain words."""
    text = re.sub(r"\]\(\.\./experiments/(\w+)/README\.md\)", r"](gallery/\1.md)", source[0])
    text = text.replace("](../experiments/README.md)", "](gallery/index.md)")
    outside = r"(?<!!)\[([^\]]*)\]\(\.\./(?:[\w./-]*\.(?:txt|toml|py|cff|png)|README\.md|CHANGELOG\.md|CONTRIBUTING\.md)\)"
    source[0] = re.sub(outside, r"`\1`", text)


def setup(app: Sphinx) -> dict[str, bool]:
    """The pages are made before Sphinx looks for its sources."""
    docs = Path(app.srcdir)
    gallery(docs)
    interface(docs)
    command_line(docs)
    of_the_repository(docs)
    app.connect("source-read", linked)
    return {"parallel_read_safe": True}
