"""The command fit: a problem file from labelled data, which the other commands take, and refusals that leave everything as it was."""

from pathlib import Path

import numpy as np
import pytest

from rfdiff import MixtureLaw, Problem
from rfdiff.cli import entry
from rfdiff.files import result_file
from tests.cli.command_line import refusal, run
from tests.tolerances import rejects

D, COUNTS = 6, (60, 40)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of unlike matrices and centroids, labelled by names whose order is not that of the file."""
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(2, D, D)) / np.sqrt(D)
    samples = [rng.normal(size=(count, D)) @ root + c for c, (count, root) in enumerate(zip(COUNTS, roots, strict=True))]
    path = tmp_path_factory.mktemp("data") / "two.npz"
    np.savez(path, x=np.concatenate(samples), y=np.repeat(["zebra", "ant"], COUNTS))
    return path


@pytest.fixture(scope="module")
def fitted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The problem file of the data, and what the command printed."""
    out = tmp_path_factory.mktemp("fit") / "two.toml"
    status, text = run("fit", str(data), "-o", str(out), "--standardise", "none", "--psi-p", "2")
    assert status == 0
    return out, text


def test_the_file_holds_the_law_of_the_data(data: Path, fitted: tuple[Path, str]) -> None:
    out, text = fitted
    problem = Problem.from_toml(out)
    with np.load(data) as stored:
        expected = MixtureLaw.fit(stored["x"], stored["y"])
    assert problem.mixture.equals(expected) and problem.mixture.class_names == ("ant", "zebra")
    assert (problem.psi_p, problem.psi_n, problem.t, problem.activation.name) == (2.0, sum(COUNTS) / D, 0.1, "tanh")
    assert [line.split()[:2] for line in text.splitlines()[1:3]] == [["ant", "40"], ["zebra", "60"]]
    assert sorted(path.name for path in out.parent.iterdir()) == ["two.matrices.npz", "two.toml"]
    found, exchanged = np.asarray(problem.mixture.covariances), np.asarray(expected.covariances)[::-1]
    rejects(lambda: np.testing.assert_allclose(found, exchanged))


@pytest.mark.thorough
def test_other_commands_take_the_file(fitted: tuple[Path, str], tmp_path: Path) -> None:
    for command in ("predict", "simulate"):
        more = ["--d", str(D), "--num-seeds", "2"] if command == "simulate" else ["--tolerance", "1e-3"]
        assert run(command, str(fitted[0]), "--taus", "1", "10", "100", "--out", str(tmp_path / command), *more)[0] == 0
        found = result_file.load(tmp_path / command / "result.nc")
        assert found.problem.equals(Problem.from_toml(fitted[0]))


def test_matrices_that_are_not_those_of_the_file_are_refused(fitted: tuple[Path, str], tmp_path: Path) -> None:
    text = fitted[0].read_text()
    here, matrices = tmp_path / "two.toml", tmp_path / "two.matrices.npz"
    here.write_text(text)
    with pytest.raises(ValueError, match=r"matrices: .*two\.matrices\.npz: cannot be read \(No such file"):
        Problem.from_toml(here)
    matrices.write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(ValueError, match=r"matrices: .*not a file of a law's matrices"):
        Problem.from_toml(here)
    with np.load(fitted[0].with_name("two.matrices.npz")) as stored:
        arrays = dict(stored)
    np.savez(matrices, **{**arrays, "covariances": 1.001 * arrays["covariances"]})
    with pytest.raises(ValueError, match=r"matrices: .*has the checksum \w{64}; allowed: \w{64}"):
        Problem.from_toml(here)
    np.savez_compressed(matrices, **arrays)  # another file of the same numbers
    assert Problem.from_toml(here).equals(Problem.from_toml(fitted[0]))
    for old, new, message in [
        ("sha256", "sha", "unknown key 'sha'"),
        ("matrices = ", "variances = [1.0, 2.0]\nmatrices = ", "unknown key 'variances'"),
        ('matrices = "two.matrices.npz"\n', "", "key 'matrices' is missing"),
        ('"two.matrices.npz"', "3", "matrices: 3, "),
    ]:
        here.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            Problem.from_toml(here)


def test_a_record_tells_problems_apart_and_is_no_problem(fitted: tuple[Path, str]) -> None:
    problem = Problem.from_toml(fitted[0])
    law = problem.mixture
    other = problem.with_mixture(MixtureLaw.from_covariances(law.weights, 1.001 * np.asarray(law.covariances), law.centroids))
    assert problem.record() == Problem.from_toml(fitted[0]).record() != other.record()
    with pytest.raises(ValueError, match="key 'matrices' is missing"):
        Problem.from_text(problem.record())
    with pytest.raises(ValueError, match=r"^mixture: has covariances of 6 x 6 numbers.*rfdiff\.save\(problem, 'NAME\.toml'\)"):
        problem.to_toml()


def test_nothing_is_overwritten(fitted: tuple[Path, str], data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in fitted[0].parent.iterdir()}
    assert "exists already; choose another name or add --overwrite" in refusal(capsys, ["fit", str(data), "-o", str(fitted[0])])
    assert {path: path.read_bytes() for path in fitted[0].parent.iterdir()} == before
    assert entry.main(["fit", str(data), "-o", str(tmp_path / "a.toml")]) == 0
    assert entry.main(["fit", str(data), "-o", str(tmp_path / "a.toml"), "--overwrite", "--t", "0.2"]) == 0
    assert Problem.from_toml(tmp_path / "a.toml").t == 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--activation", "swish"], "--activation: 'swish'; allowed: tanh"),
        (["--t", "0"], "t: 0.0; allowed: a finite number > 0"),
        (["--psi-p", "-1"], "--psi-p: -1.0; allowed: "),
        (["--psi-n", "nan"], "--psi-n: nan; allowed: "),
        (["--shrinkage", "1"], "shrinkage: 1.0; allowed: "),
        (["--classes", "ant", "bee"], "two.npz: ant, zebra"),
        (["--labels", "labels.npy"], "--labels: labels.npy beside "),
        (["--pixels", "3"], "two.npz"),
        (["--components", "0"], "components: 0; allowed: "),
        (["-o", "law.json"], "--out: law.json; allowed: a name that ends in .toml"),
    ],
)
def test_refusals(words: list[str], message: str, data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = [] if "-o" in words else ["-o", str(tmp_path / "out.toml")]
    assert message in refusal(capsys, ["fit", str(data), *words, *out])
    assert not list(tmp_path.iterdir())


def test_refusals_of_the_library_name_the_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert "labels are missing; allowed: --labels OTHER.npy, or" in refusal(capsys, ["fit", str(tmp_path / "x.npy")])
    assert "or its name as --label-column, one of" in refusal(capsys, ["fit", str(tmp_path / "x.csv")])
    assert "no column 'c' (--label-column)" in refusal(capsys, ["fit", str(tmp_path / "x.csv"), "--label-column", "c"])
