"""The command calibrate: what it writes and prints, how it refuses, and that the documented callback writes what it reads."""

import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfdiff.calibration import read_losses
from rfdiff.files import result_file
from rfdiff.files.dataset_file import load_dataset, save_dataset
from tests import synthetic
from tests.calibration.test_steps_per_tau import CURVES, RHO, record
from tests.cli.command_line import ROOT, refused, run
from tests.diagnosis.made_up import diagnosis

HEAD = "step,class,train,held_out\n"


@pytest.fixture
def result(tmp_path: Path) -> Path:
    return result_file.save(result_file.Result(synthetic.problem(), covering=CURVES), tmp_path / "result.nc")


def losses(folder: Path, **options: Any) -> Path:
    rows = record(**options)
    lines = zip(rows.step, rows.member, rows.train, rows.held_out, strict=True)
    path = folder / "losses.csv"
    path.write_text(HEAD + "".join(f"{step:.0f},{c},{train},{held}\n" for step, c, train, held in lines))
    return path


def test_calibrate_writes_prints_and_draws_again(result: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, told = run("calibrate", str(result), str(losses(tmp_path, noise=0.002, last=3000)), "--out", str(out))
    assert status == 0 and sorted(path.name for path in out.iterdir()) == [".lock", "calibration.nc", "calibration.png"]
    (line,) = re.findall(r"one unit of tau is (\S+) ± (\S+) steps", told)
    assert abs(float(line[0]) - RHO) < 4 * float(line[1]) < 8
    assert len(re.findall(r"tau_gen .* reached", told)) == 2 and len(re.findall(r"tau_mem .* ahead", told)) == 2
    stored = load_dataset(out / "calibration.nc")
    np.testing.assert_allclose(stored["steps_per_tau"], RHO, rtol=0.05)
    again = run("plot", str(out / "calibration.nc"), "--out", str(tmp_path / "again"))
    assert again[0] == 0 and again[1].splitlines()[:-1] == told.splitlines()[:-1]


def test_a_diagnosis_serves_as_well(tmp_path: Path) -> None:
    path = save_dataset(diagnosis(CURVES, noise=0), tmp_path / "diagnosis.nc")
    rows = losses(tmp_path, noise=0.002)
    rows.write_text(rows.read_text().replace(",0,", ",<ant>,").replace(",1,", ",bee,"))
    status, told = run("calibrate", str(path), str(rows), "--out", str(tmp_path / "out"))
    (line,) = re.findall(r"one unit of tau is (\S+) ± (\S+) steps", told)
    assert status == 0 and abs(float(line[0]) - RHO) < 4 * float(line[1]) < 8 and told.splitlines()[1].startswith("<ant>")


def test_refusals_name_the_file(result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, out = losses(tmp_path), str(tmp_path / "out")
    assert "no.nc: no such file" in refused(capsys, "calibrate", str(tmp_path / "no.nc"), str(good), "--out", out)
    assert "missing: LOSSES.csv" in refused(capsys, "calibrate", str(result))
    bad = tmp_path / "bad.csv"
    bad.write_text(HEAD + "1,0,1,1\n1,2,1,1\n")
    assert "bad.csv: line 3: class is '2'; allowed: 0, 1" in refused(capsys, "calibrate", str(result), str(bad), "--out", out)
    early = tmp_path / "early.csv"
    early.write_text(HEAD + "".join(f"{k},{c},{1 - 1e-4 * k},\n" for k in range(1, 12) for c in (0, 1)))
    assert "early.csv: losses: they do not determine" in refused(capsys, "calibrate", str(result), str(early), "--out", out)
    assert "--q: 2.0; allowed" in refused(capsys, "calibrate", str(result), str(good), "--q", "2", "--out", out)
    empty = result_file.save(result_file.Result(synthetic.problem(), simulation=synthetic.simulation()), tmp_path / "empty.nc")
    assert "empty.nc: holds no theory" in refused(capsys, "calibrate", str(empty), str(good), "--out", out)
    ridge = result_file.Result(synthetic.problem(), synthetic.theory(), metadata={"rule": "ridge"})
    path = result_file.save(ridge, tmp_path / "ridge.nc")
    assert "ridge.nc: is of ridge" in refused(capsys, "calibrate", str(path), str(good), "--out", out)
    assert not (tmp_path / "out").exists()


def test_the_documented_callback_writes_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NumPy in the place of PyTorch, which is not among the test extras."""
    (code,) = re.findall(r"^```python3\n(.*?)^```", (ROOT / "docs" / "calibrate.md").read_text(), re.MULTILINE | re.DOTALL)

    class Generator:
        def manual_seed(self, seed: int) -> np.random.Generator:
            return np.random.default_rng(seed)

    torch: Any = types.ModuleType("torch")
    torch.no_grad = lambda: lambda function: function
    torch.randn, torch.Generator = lambda shape, generator: generator.normal(size=shape), Generator
    torch.full, torch.mean = np.full, np.mean
    monkeypatch.setitem(sys.modules, "torch", torch)
    scope: dict[str, Any] = {}
    exec(code, scope)
    scheduler = types.SimpleNamespace(add_noise=lambda x, noise, t: 0.6 * x + 0.8 * noise)
    sets = {name: (np.zeros((50, 4)), np.zeros((50, 4))) for name in ("ant", "bee")}
    log = scope["ClassLosses"](tmp_path / "losses.csv", sets, 100, scheduler)
    for step in range(8):
        log(step, lambda x, t, gain=step / 8: types.SimpleNamespace(sample=gain * x))
    log.file.close()
    read = read_losses(tmp_path / "losses.csv", ("ant", "bee"))
    assert read.step.size == 16 and read.train[0] == pytest.approx(1, abs=0.3)
    assert np.all(np.diff(read.train[::2]) < 0)
