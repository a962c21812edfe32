"""Records of losses: what is read, and what is refused in one line that names the file and the line."""

from pathlib import Path

import numpy as np
import pytest

from rfdiff.calibration import read_losses
from rfdiff.errors import InputError

HEAD = "step,class,train,held_out\n"
NAMES = ("ant", "bee")


def rows(steps: int = 8, classes: tuple[str, ...] = NAMES) -> str:
    return HEAD + "".join(f"{k},{name},{1 - 0.01 * k},{1 - 0.005 * k}\n" for k in range(steps) for name in classes)


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "losses.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_rows_of_any_order_with_gaps_and_further_columns(tmp_path: Path) -> None:
    lines = rows().splitlines()
    shuffled = [lines[0] + ",epoch", *(line + ",1" for line in reversed(lines[1:]))]
    shuffled[3] = "6,bee,,0.97,0"
    record = read_losses(written(tmp_path, "\ufeff" + "\n".join(shuffled) + "\n\n"), NAMES)
    np.testing.assert_array_equal(record.step, np.repeat(np.arange(8.0), 2))
    np.testing.assert_array_equal(record.member, np.tile([0, 1], 8))
    assert np.flatnonzero(np.isnan(record.train)).tolist() == [13] and not np.isnan(record.held_out).any()
    assert record.train[2] == 0.99 and record.held_out[2] == 0.995 and record.last_step == 7


def test_one_kind_of_loss_is_enough(tmp_path: Path) -> None:
    record = read_losses(written(tmp_path, rows().replace("train", "other")), NAMES)
    assert np.isnan(record.train).all() and np.isfinite(record.held_out).all()


CASES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "losses.csv: line 1 holds nothing, without step and class; allowed: a CSV with the columns step, class, train, held_out"),
    "a header alone": (HEAD, "losses.csv: no rows below the first line"),
    "no step": (rows().replace("step", "epoch"), r"line 1 holds \[epoch, class, train, held_out\], without step; allowed"),
    "no losses": (rows().replace("train", "a").replace("held_out", "b"), "without train and held_out"),
    "a column twice": (rows().replace("held_out", "train"), "losses.csv: column train stands twice"),
    "a short line": (rows() + "9,ant,0.5\n", "losses.csv: line 18: 3 cells; allowed: 4"),
    "an unknown class": (rows() + "9,wasp,1,1\n", "line 18: class is 'wasp'; allowed: ant, bee"),
    "a word for a loss": (rows() + "9,ant,x,1\n", "line 18: train is 'x'; allowed: a number, or an empty cell"),
    "a loss that is not finite": (rows() + "9,ant,1,nan\n", "line 18: held_out is nan; allowed: a finite number"),
    "a word for a step": (rows() + "last,ant,1,1\n", "line 18: step is 'last'; allowed: a number"),
    "an empty step": (rows() + ",ant,1,1\n", "line 18: step is ''; allowed: a number"),
    "a step before the first": (rows() + "-1,ant,1,1\n", "line 18: step is -1; allowed: a finite number >= 0"),
    "an endless step": (rows() + "inf,ant,1,1\n", "line 18: step is inf"),
    "a row twice": (rows() + "3,bee,1,1\n", "line 18: step 3 of class bee stands twice"),
    "few steps": (rows(7), "losses.csv: 7 different steps; allowed: at least 8"),
    "few losses": (rows(8, ("ant",)) + "1,bee,1,1\n", "losses.csv: 2 losses of class bee; allowed: 6 or more, or no row of the class"),
    "bytes": (rows().encode() + b"\xff,ant,1,1\n", "losses.csv: is not text in UTF-8"),
    "an open quote": (rows() + '9,"ant,1,1\n', "losses.csv: cannot be read as CSV"),
}


@pytest.mark.parametrize("case", CASES)
def test_malformed_records_are_one_line(case: str, tmp_path: Path) -> None:
    content, message = CASES[case]
    with pytest.raises(InputError, match=message) as caught:
        read_losses(written(tmp_path, content), NAMES)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no.csv: cannot be read \(No such file"):
        read_losses(tmp_path / "no.csv", NAMES)
