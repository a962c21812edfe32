"""The command diagnose: what it writes and prints, that it resumes, how it refuses; and, thorough, a law that is known."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfdiff import MixtureLaw, Problem, theory
from rfdiff.cli import entry
from rfdiff.diagnosis import Setting, assembly, diagnose
from rfdiff.diagnosis.verdicts import deviations
from rfdiff.files.dataset_file import load_dataset
from rfdiff.samples import Samples
from tests import synthetic
from tests.cli.command_line import refused, run
from tests.diagnosis.made_up import GRID, network_part, theory_part
from tests.tolerances import rejects

D, COUNTS, NAMES = 4, (40, 30), ("ant", "bee")
CURVES = synthetic.theory(2, GRID)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(count, D)) * (1 + c) + c for c, count in enumerate(COUNTS)])
    np.savez(tmp_path / "two.npz", x=x, y=np.repeat(NAMES, COUNTS))
    return tmp_path / "two.npz"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Made-up theory and networks in the place of computed ones; a list of what was asked for."""
    asked: list[str] = []

    def predicted(problem: Problem, tolerance: float) -> dict[str, np.ndarray]:
        asked.append(f"theory {problem.t}")
        return theory_part(CURVES)

    def trained(problem: Problem, samples: Any, taus: np.ndarray, seed: int, replica: int) -> dict[str, np.ndarray]:
        asked.append(f"network {problem.t} {replica}")
        if len(asked) == 5:
            raise KeyboardInterrupt
        return network_part(CURVES, replica, 0.01)

    monkeypatch.setattr(assembly, "predicted", predicted)
    monkeypatch.setattr(assembly, "trained", trained)
    return asked


@pytest.mark.thorough
def test_diagnose_resumes_writes_prints_and_draws_again(
    data: Path, computed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["diagnose", str(data), "--out", str(out), "--t", "0.1", "0.3", "--networks", "2", "--remedies", "none"]
    assert entry.main(words) == entry.INTERRUPTED
    assert computed == ["theory 0.1", "theory 0.3", "network 0.1 0", "network 0.1 1", "network 0.3 0"]
    status, told = run(*words)
    assert status == 0 and computed[5:] == ["network 0.3 0", "network 0.3 1"]
    assert sorted(path.name for path in out.iterdir()) == [".lock", "diagnosis.nc", "losses.png", "report.html", "times.png"]
    assert "learned, first to last: ant" in told and "confirmed" in told and "what would help is not available: not asked for" in told
    stored = load_dataset(out / "diagnosis.nc")
    assert stored["class"].values.tolist() == list(NAMES) and stored.sizes["seed"] == 2 and stored.attrs["command"] == "diagnose"
    np.testing.assert_allclose(stored.attrs["psi_n"], 0.8 * sum(COUNTS) / D)
    assert stored.attrs["no_speciation"] == "" and stored.speciation_error.shape == (2,) and "speciation times: ant " in told
    again = run("plot", str(out / "diagnosis.nc"), "--out", str(tmp_path / "again"), "--class-names", "one", "other")
    assert again[0] == 0 and "learned, first to last: one" in again[1] and (tmp_path / "again" / "report.html").exists()
    capsys.readouterr()
    assert "already holds diagnosis.nc, losses.png, times.png" in refused(capsys, *words)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--networks", "1"], "--networks: 1; allowed: 0, or 2 to"),
        (["--t", "0.3", "0.1"], r"times: \(0.3, 0.1\); allowed: 1 to 20 increasing"),
        (["--activation", "swish"], "--activation: 'swish'; allowed: tanh"),
        (["--psi-n", "17.5"], "two.npz|psi_n"),
        (["--psi-p", "-1"], "--psi-p: -1.0; allowed: "),
        (["--classes", "ant"], "data: 1 class; allowed: at least 2|'ant'"),
        (["--classes", "ant", "wasp"], "classes: 'wasp'; allowed: labels of .*two.npz: ant, bee"),
        (["--samples-per-class", "2", "--psi-n", "1"], "--networks 0|allowed"),
        (["--class-names", "a"], "--class-names: 1 names; allowed: 2"),
        (["--tolerance", "2"], "--tolerance: 2.0; allowed"),
    ],
)
def test_refusals(more: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "diagnose", str(data), "--out", str(tmp_path / "out"), *more)
    assert re.search(message, line), line
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
def test_a_known_law_is_recovered_within_its_sampling_error(full_optimisation: None) -> None:
    """Three Gaussian classes, drawn four times: the times of the fitted laws scatter around those of the exact one."""
    d, counts, spreads = 8, (2000, 1200, 800), np.array([[1.6, 0.6], [0.5, 1.1], [0.9, 0.9]])
    centroids = np.zeros((3, d))
    deviations = np.sqrt(np.repeat(spreads, d // 2, axis=1))
    asked = Setting(times=(0.3,), psi_n=3.0, num_seeds=0, remedies="none", tolerance=1e-3)
    law = MixtureLaw.from_covariances(np.array(counts) / sum(counts), np.stack([np.diag(row**2) for row in deviations]), centroids)
    exact = theory.times(Problem(law, "tanh", 0.3, 4.0, 3.0), tolerance=1e-4)
    found = []
    for draw in range(4):
        rng = np.random.default_rng(draw)
        x = np.concatenate([rng.normal(size=(count, d)) * row for count, row in zip(counts, deviations, strict=True)])
        data = diagnose(Samples(x, np.repeat(np.arange(3), counts)), asked)
        found.append(np.log(data["time"].isel(t=0).sel(quantity=["tau_gen", "tau_mem"]).values))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / 2
    expected = np.log([exact.tau_gen, exact.tau_mem])

    def agree(shift: float) -> None:
        assert np.all(abs(mean - expected - shift) < 4 * error + 0.01) and error.max() < 0.05

    agree(0.0)
    rejects(lambda: agree(0.2))


@pytest.mark.slow
def test_digits_of_scikit_learn(tmp_path: Path, full_optimisation: None) -> None:
    """Two of its digits, one of them rare, as bytes of an archive: networks learn them in theory's order, and early losses are theory's."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    rows = np.concatenate([np.flatnonzero(digits.target == 1), np.flatnonzero(digits.target == 8)[:60]])
    np.savez(tmp_path / "digits.npz", x=digits.images[rows].astype(np.uint8), y=digits.target[rows])
    words = ["--t", "0.1", "--networks", "4", "--remedies", "none", "--tolerance", "1e-2"]
    assert run("diagnose", str(tmp_path / "digits.npz"), "--out", str(tmp_path / "out"), *words)[0] == 0
    data = load_dataset(tmp_path / "out" / "diagnosis.nc")
    off = deviations(data)
    assert off is not None and abs(off[:, 0]).max() < 0.1
    assert data.sizes["class"] == 2 and data.attrs["d"] == 64 and (tmp_path / "out" / "report.html").stat().st_size > 50_000
