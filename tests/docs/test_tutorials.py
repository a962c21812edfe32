"""Pages whose cells the site runs, tutorials above all: the cells run from top to bottom here too."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from rfdiff.sweep import sweep_from_dict

DOCS = Path(__file__).resolve().parents[2] / "docs"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN = ("_repr_html_", "_repr_png_", "_repr_svg_")  # how a notebook shows the value of a cell's last line


def cells(text: str) -> list[str]:
    return CELL.findall(text)


def run_cell(code: str, name: str, namespace: dict[str, object]) -> object:
    """Run a cell; its value is that of its last line, if that is an expression."""
    tree = ast.parse(code, name)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, name, "exec"), namespace)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), name, "exec"), namespace)
    return eval(compile(ast.Expression(last.value), name, "eval"), namespace)


PAGES = [path for path in sorted(DOCS.glob("*/*.md")) if cells(path.read_text(encoding="utf-8"))]


@pytest.mark.thorough
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_cells_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for i, code in enumerate(cells(page.read_text(encoding="utf-8"))):
        value = run_cell(code, f"{page.name}, cell {i + 1}", namespace)
        views = [getattr(value, method)() for method in SHOWN if hasattr(value, method)]
        assert not views or any(view is not None for view in views)


def test_every_tutorial_has_cells() -> None:
    tutorials = {path for path in (DOCS / "tutorials").glob("*.md") if path.stem != "index"}
    assert tutorials <= set(PAGES) and DOCS / "howto" / "figure-examples.md" in PAGES


def test_cells_are_found_and_run() -> None:
    assert cells("```{code-cell}\nx = 1\n```\ntext\n```bash\nls\n```\n```{code-cell} python\nx + 1\n```\n") == ["x = 1\n", "x + 1\n"]
    namespace: dict[str, object] = {}
    assert run_cell("x = 1\n", "first", namespace) is None
    assert run_cell("y = x\ny + 1\n", "second", namespace) == 2
    with pytest.raises(NameError):
        run_cell("z\n", "third", namespace)


def test_sweep_files_are_sweeps() -> None:
    found = [block for path in PAGES for block in TOML.findall(path.read_text(encoding="utf-8")) if "[axes]" in block]
    assert found
    for block in found:
        sweep_from_dict(tomllib.loads(block))
