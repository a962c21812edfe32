"""The command line of rfdiff images: bad input is one line, and a run on the original files goes through all of it."""

import contextlib
import dataclasses
import gzip
import io
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rfdiff.cli import entry, images_actions
from rfdiff.cli.image_options import OPTION_NAMES, ImageChoice, ImageTrain
from rfdiff.images.architecture import Architecture
from rfdiff.images.protocol import Protocol
from rfdiff.images.settings import ACCELERATOR_FORM, CPU_FORM, Settings, form_of

ROOT = Path(__file__).resolve().parents[2]


def spoken(*arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = entry.main(["images", *arguments])
    return status, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("train", "--data", "nowhere"),
            "--data: nowhere: no such directory; allowed: a directory with the four gz files; --download fetches",
        ),
        (("data",), "--data: not given, and RFDIFF_FASHION_MNIST is not set; allowed: the directory of the four gz files, as --data or in"),
        (("train", "--batch-size", "0"), "--batch-size: 0; allowed: an integer >= 1"),
        (("train", "--classes", "8", "10"), "classes: (8, 10); allowed: distinct integers 0 to 9"),
        (("train", "--counts", "5"), "counts: (5,); allowed: 2 integers >= 2, one for each class"),
        (("train", "--counts", "5", "5", "--total", "10"), "--counts: given beside --total or --imbalance; allowed: one of the two ways"),
        (("train", "--imbalance", "2"), "--imbalance: given without --total; allowed: both"),
        (("train", "--side", "15"), "side: 15; allowed: 28, 14, 7 pixels"),
        (("train", "--width", "6"), "width: 6; allowed: a multiple of 4"),
        (("train", "--devices", "99"), "devices: 99; allowed: 1 to"),
        (("train", "--loss-weights", "0.5", "0.6"), "--loss-weights: [0.5, 0.6] sums to 1.1; allowed: a sum of 1"),
        (("train", "--loss-weights", "1"), "--loss-weights: shape (1,); allowed: (2,), one for each class"),
        (("train", "--learning-rate", "0"), "--learning-rate: 0.0; allowed: a finite number > 0"),
        (("evaluate", "nowhere"), "nowhere/run.json: no such file; allowed: a folder of rfdiff images train"),
        (("evaluate",), "missing: DIR"),
        (("fly",), "fly: no such action"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RFDIFF_FASHION_MNIST", raising=False)
    status, _, err = spoken(*arguments)
    assert status == 2 and message in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_shorthand_gives_counts() -> None:
    def counts(options: ImageChoice) -> tuple[int, ...]:
        return images_actions.protocol_of(options, CPU_FORM).counts

    assert counts(ImageChoice(total=1000, imbalance=4.0)) == (800, 200)
    assert counts(ImageChoice(total=900, classes=(1, 2, 3))) == (300, 300, 300)
    assert counts(ImageChoice(classes=(1, 2, 3))) == (500, 500, 500)
    settings = images_actions.settings_of(ImageTrain(t=0.1, width=16, split_seed=3, seed=4), ACCELERATOR_FORM)
    assert (settings.t, settings.architecture.width, settings.protocol.split_seed, settings.seed) == (0.1, 16, 3, 4)


def test_sizes_that_are_not_given_are_those_of_a_run_of_minutes_on_the_device() -> None:
    assert form_of("cpu") == CPU_FORM and form_of("gpu") == form_of("tpu") == ACCELERATOR_FORM
    full, small = (images_actions.settings_of(ImageTrain(), form) for form in (ACCELERATOR_FORM, CPU_FORM))
    assert full == Settings() and (small.steps, small.batch, small.protocol.side) == (2000, 32, 14)
    assert images_actions.settings_of(ImageTrain(side=28, width=32, depth=3, batch_size=128, steps=20_000), CPU_FORM) == full
    note = images_actions._sizes_note(ImageTrain(), small, "cpu")
    assert "2000 steps of 32 images of 14 x 14 pixels" in note
    assert note.endswith("the sizes for an accelerator are --side 28 --width 32 --depth 3 --batch-size 128 --steps 20000")
    assert "accelerator" not in images_actions._sizes_note(ImageTrain(), full, "gpu")


def test_options_are_the_fields_of_the_library() -> None:
    """Options of a run are its settings, with the same defaults where no device chooses them; counts and paths come on top."""
    fields = {field.name for kind in (Settings, Protocol, Architecture) for field in dataclasses.fields(kind)} - {
        "protocol",
        "architecture",
    }
    names = {option: name for name, option in OPTION_NAMES.items()}
    options = {names.get(field.name, field.name) for field in dataclasses.fields(ImageTrain)}
    assert options - fields == {"data", "download", "total", "imbalance", "out", "devices", "overwrite", "table"} and fields <= options
    given = ImageTrain()
    for name in fields - {"side", "width", "depth", "batch", "steps", "counts"}:
        owner = next(kind for kind in (Settings, Protocol, Architecture) if name in kind.__dataclass_fields__)
        assert getattr(given, name) == getattr(owner(), name), name


@pytest.mark.thorough
def test_without_the_extra_everything_else_works_and_images_says_what_is_missing() -> None:
    code = """
import sys
from importlib.abc import MetaPathFinder
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("flax", "orbax"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import rfdiff
from rfdiff.cli import main
sys.exit(main(["images", "data"]))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "images: the module" in result.stderr and "allowed: an environment with the extra, rfdiff[images]" in result.stderr


def test_data_prints_the_numbers_of_the_theory(fashion_mnist_directory: Path) -> None:
    status, out, _ = spoken("data", "--data", str(fashion_mnist_directory), "--side", "7", "--classes", "8", "7")
    assert status == 0 and "Bag" in out and "centroid norm^2/d" in out and "pixels: 7 x 7" in out
    status, _, err = spoken("data", "--data", str(fashion_mnist_directory), "--counts", "5900", "10")
    assert status == 2 and "5900 images of class 8 and 250 held out; allowed: 6000 in all, so at most 5750 to train on" in err


def test_truncated_data_is_refused(fashion_mnist_directory: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(fashion_mnist_directory, folder, copy_function=shutil.copyfile)
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.unlink()
    labels.write_bytes(gzip.compress(b"nothing"))
    status, _, err = spoken("data", "--data", str(folder))
    assert status == 2 and "t10k-labels-idx1-ubyte.gz" in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_whole_run(fashion_mnist_directory: Path, tmp_path: Path) -> None:
    data, run = ("--data", str(fashion_mnist_directory)), tmp_path / "run"
    small = (
        "--side",
        "7",
        "--counts",
        "40",
        "40",
        "--width",
        "4",
        "--depth",
        "1",
        "--attention",
        "0",
        "--batch-size",
        "16",
        "--levels",
        "2",
    )
    train = ("train", *data, *small, "--measured", "32", "--out", str(run))
    status, out, _ = spoken(*train, "--steps", "40")
    assert status == 0 and "held-out loss" in out and (run / "metrics.nc").exists()
    assert spoken(*train, "--steps", "60")[0] == 0  # goes on
    status, _, err = spoken(*train, "--steps", "60", "--seed", "1")
    assert status == 2 and "holds another run (seed is 0 there, 1 here)" in err
    evaluate = ("evaluate", str(run), *data, "--num-samples", "60", "--num-sampler-steps", "4", "--classifier-epochs", "1")
    status, out, _ = spoken(*evaluate)
    assert status == 0 and "accuracy of the classifier" in out and (run / "samples.png").exists()
    status, _, err = spoken(*evaluate)
    assert status == 2 and "already holds evaluation.nc" in err
    assert entry.main(["plot", str(run / "evaluation.nc"), "--out", str(tmp_path / "again")]) == 0
    assert spoken(*train, "--steps", "3", "--seed", "1", "--overwrite")[0] == 0
    assert not (run / "evaluation.nc").exists()
