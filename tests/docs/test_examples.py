"""The examples of the public names: each has one, and prints what it shows."""

import doctest
from pathlib import Path

import pytest

from tests.docs.extensions import extension

CHEAP = ("datasets",)  # the others compile for long


examples = extension("examples")
NAMES: dict[str, list[str]] = examples.public_names()


def report(text: str, name: str) -> str:
    """What doctest says of examples that share one namespace; "" if they print what they show."""
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(text, {"__name__": "__main__"}, name, name, 0)
    doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    return "".join(said)


@pytest.mark.parametrize("page", NAMES)
def test_every_public_name_has_an_example(page: str) -> None:
    shared, shown = examples.of_page(page, NAMES[page])
    assert shared and list(shown) == NAMES[page]  # in the order of the page
    lines = (examples.FOLDER / f"{page}.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 140 and line.startswith((">>>", "..."))] == []


def test_there_is_a_page_for_every_file() -> None:
    assert sorted(path.stem for path in examples.FOLDER.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("page", [page if page in CHEAP else pytest.param(page, marks=pytest.mark.thorough) for page in NAMES])
def test_examples_print_what_they_show(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = report((examples.FOLDER / f"{page}.txt").read_text(encoding="utf-8"), f"docs/examples/{page}.txt")
    assert not said, said


def test_a_wrong_example_is_seen() -> None:
    assert report(">>> x = 1\n\n## name\n\n>>> x + 1\n2\n", "right") == ""
    assert "Expected:\n    3\nGot:\n    2" in report(">>> 1 + 1\n3\n", "wrong")
    assert "NameError" in report(">>> y\n", "undefined")


def test_missing_and_foreign_examples_are_refused() -> None:
    shared, shown = examples.split(">>> x = 1\n\n## one\n\nWords:\n\n>>> x\n1\n\n## two\n\n>>> 2\n2\n")
    assert shared == ">>> x = 1" and list(shown) == ["one", "two"]
    assert examples.markdown(shown["one"]) == "Words:\n\n```pycon\n>>> x\n1\n```"
    with pytest.raises(examples.ExampleError, match=r"page\.txt has no example of three$"):
        examples.check("page", shown, ["one", "two", "three"])
    with pytest.raises(examples.ExampleError, match=r"page\.txt has examples of two, which are not public"):
        examples.check("page", shown, ["one"])
    with pytest.raises(examples.ExampleError, match="two examples of one"):
        examples.split("## one\n\n>>> 1\n1\n\n## one\n")
