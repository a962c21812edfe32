"""Training: a run that was stopped, killed, or found its last checkpoint damaged goes on to the same bits; everything else is refused."""

import contextlib
import dataclasses
import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

from rfdiff.files.dataset_file import load_dataset
from rfdiff.images import checkpoints, training
from rfdiff.images.devices import Devices
from rfdiff.images.settings import Settings
from rfdiff.images.training import as_dataset, initial_state, parameters_at, train
from tests.images.toy import SETTINGS, toy_images
from tests.tolerances import rejects

ROOT = Path(__file__).resolve().parents[2]
LAST = SETTINGS.steps


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xr.Dataset]:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("run") / "whole"
    return folder, train(SETTINGS, toy_images(), folder)


def leaves(folder: Path, step: int = LAST) -> list[np.ndarray]:
    arrays = checkpoints.load(folder, step)
    return [arrays[name] for name in sorted(arrays)]


def assert_same(folder: Path, losses: xr.Dataset, finished: tuple[Path, xr.Dataset]) -> None:
    """To the bit: losses, parameters, optimiser, order of the images, history."""
    xr.testing.assert_identical(losses.drop_attrs(), finished[1].drop_attrs())
    for one, other in zip(leaves(folder), leaves(finished[0]), strict=True):
        np.testing.assert_array_equal(one, other)


@contextlib.contextmanager
def at_chunk(monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], object]) -> Iterator[None]:
    """Something happens when the n-th chunk of steps is asked for."""
    program, calls = training.training_program, [0]

    def wrapped(*arguments: Any) -> Any:
        run = program(*arguments)

        def chunk(*inner: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                action()
            return run(*inner)

        return chunk

    with monkeypatch.context() as patch:
        patch.setattr(training, "training_program", wrapped)
        yield


def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "stopped"
    with at_chunk(monkeypatch, 4, lambda: signal.raise_signal(signal.SIGINT)), pytest.raises(KeyboardInterrupt) as told:
        train(SETTINGS, toy_images(), folder)
    step = checkpoints.kept(folder)[-1]
    assert f"step {step} of {LAST} is kept in" in str(told.value) and 0 < step < LAST
    return folder


@pytest.mark.thorough
def test_losses_start_at_one_and_fall(finished: tuple[Path, xr.Dataset]) -> None:
    folder, losses = finished
    assert losses["step"].values.tolist() == SETTINGS.measured_steps()
    assert losses["loss"].dims == ("step", "set", "log_snr", "class") and losses["loss"].shape == (len(SETTINGS.measured_steps()), 2, 2, 2)
    np.testing.assert_allclose(losses["mean_loss"][0], 1, atol=0.05)  # ε̂ = 0: the mean square of the noise
    np.testing.assert_array_equal(losses["loss"][0, 0], losses["loss"][0, 1])  # every group has the same noise
    assert np.all(losses["mean_loss"][-1] < losses["mean_loss"][0] - 0.02)
    np.testing.assert_allclose(losses["mean_loss"], losses["loss"].mean("log_snr"), rtol=1e-12)
    assert np.all(losses["loss_stderr"] > 0)
    xr.testing.assert_equal(load_dataset(folder / "metrics.nc").drop_attrs(), losses.drop_attrs())
    assert checkpoints.kept(folder) == SETTINGS.kept_steps()


@pytest.mark.thorough
def test_a_run_describes_itself(finished: tuple[Path, xr.Dataset]) -> None:
    content = json.loads((finished[0] / "run.json").read_text())
    assert Settings.of_record(content["settings"]) == SETTINGS
    assert content["jax_version"] == jax.__version__ and {
        "rfdiff_version",
        "system",
        "date",
        "images_sha256",
        "pixel_scale",
        "flax_version",
    } <= set(content)
    np.testing.assert_allclose(np.diagonal(content["law"]["angle"]), 0)


@pytest.mark.thorough
def test_an_interrupted_run_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, xr.Dataset]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    folder = stopped(tmp_path, monkeypatch)
    assert signal.getsignal(signal.SIGINT) is before
    extra = set(checkpoints.kept(folder)) - set(SETTINGS.kept_steps())
    assert_same(folder, train(SETTINGS, toy_images(), folder), finished)
    assert set(checkpoints.kept(folder)) == {*SETTINGS.kept_steps(), *extra}


@pytest.mark.thorough
def test_a_longer_run_goes_on_and_another_seed_does_not_give_the_same(tmp_path: Path, finished: tuple[Path, xr.Dataset]) -> None:
    short, other = dataclasses.replace(SETTINGS, steps=6), dataclasses.replace(SETTINGS, steps=6, seed=1)
    train(short, toy_images(), tmp_path / "a")
    assert_same(tmp_path / "a", train(SETTINGS, toy_images(), tmp_path / "a"), finished)
    assert not np.array_equal(train(other, toy_images(), tmp_path / "b")["loss"], finished[1]["loss"].sel(step=other.measured_steps()))
    with pytest.raises(ValueError, match=r"^steps: 6, but .* is already at step 12; allowed: at least that many"):
        train(short, toy_images(), tmp_path / "a")


def damage(folder: Path, step: int) -> None:
    """Every data file of a checkpoint overwritten in its middle."""
    for path in (folder / checkpoints.FOLDER / f"step-{step:09d}").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            raw = bytearray(path.read_bytes())
            raw[len(raw) // 2] ^= 0xFF
            path.write_bytes(bytes(raw))


@pytest.mark.thorough
def test_a_damaged_checkpoint_leaves_the_one_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], finished: tuple[Path, xr.Dataset]
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(finished[0], folder)
    damage(folder, LAST)
    with pytest.raises(ValueError, match=r"step-000000012: damaged checkpoint \(its files do not fit their checksum\)"):
        checkpoints.load(folder, LAST)
    with pytest.raises(ValueError, match=r"do not fit their checksum\); the other checkpoints stand: delete this one to go on without it$"):
        parameters_at(folder, LAST, SETTINGS)
    assert_same(folder, train(SETTINGS, toy_images(), folder), finished)
    earlier = SETTINGS.kept_steps()[-2]
    text = capsys.readouterr().err
    assert "step-000000012: damaged checkpoint" in text and f"going on from step {earlier}, the last good one" in text
    for step in checkpoints.kept(folder):
        damage(folder, step)
    with pytest.raises(ValueError, match=r"damaged checkpoint .* and no undamaged checkpoint exists; delete"):
        train(SETTINGS, toy_images(), folder)


def test_what_orbax_cannot_read_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*arguments: Any, **options: Any) -> None:
        raise ValueError("no such format\nand more")

    checkpoints.save(tmp_path, 3, {"leaf_0": np.arange(4.0)})
    np.testing.assert_array_equal(checkpoints.load(tmp_path, 3)["leaf_0"], np.arange(4.0))
    with pytest.raises(ValueError, match=r"step-000000004: no such checkpoint; allowed: steps \[3\]"):
        checkpoints.load(tmp_path, 4)
    monkeypatch.setattr(checkpoints.ocp.PyTreeCheckpointer, "restore", unreadable)
    with pytest.raises(ValueError, match=r"step-000000003: damaged checkpoint \(no such format\)"):
        checkpoints.load(tmp_path, 3)


@pytest.mark.thorough
def test_a_full_disk_leaves_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, xr.Dataset]
) -> None:
    folder, save = tmp_path / "full", checkpoints.ocp.PyTreeCheckpointer.save

    def full(self: Any, path: Path, *arguments: Any, **options: Any) -> None:
        if path.name == "step-000000003":
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.ocp.PyTreeCheckpointer, "save", full)
        with pytest.raises(
            OSError, match=r"cannot be written \(.*No space left.*\); the last one kept is that of step 2, and the same command"
        ):
            train(SETTINGS, toy_images(), folder)
    assert checkpoints.kept(folder) == [1, 2]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "disk_usage", lambda place: SimpleNamespace(free=10))
        with pytest.raises(OSError, match=r"no space left: 10 bytes are free, 80 may be needed\); the last one kept is that of step 2"):
            checkpoints.save(folder, 3, {"a": np.zeros(5)})
    assert_same(folder, train(SETTINGS, toy_images(), folder), finished)


@pytest.mark.thorough
def test_a_half_written_checkpoint_is_none(tmp_path: Path, finished: tuple[Path, xr.Dataset]) -> None:
    """What a process killed while writing leaves: a folder of another name."""
    folder = tmp_path / "killed"
    shutil.copytree(finished[0], folder)
    whole = folder / checkpoints.FOLDER / f"step-{LAST:09d}"
    whole.rename(whole.with_name(f"{whole.name}.orbax-checkpoint-tmp"))
    (folder / checkpoints.FOLDER / f"step-{SETTINGS.kept_steps()[-2]:09d}.sha256").unlink()  # written last of all
    assert LAST not in checkpoints.kept(folder)
    assert_same(folder, train(SETTINGS, toy_images(), folder), finished)
    assert not list((folder / checkpoints.FOLDER).glob("*tmp*"))


@pytest.mark.thorough
def test_another_run_is_refused(tmp_path: Path, finished: tuple[Path, xr.Dataset]) -> None:
    folder = finished[0]
    wider = dataclasses.replace(SETTINGS, architecture=dataclasses.replace(SETTINGS.architecture, width=8), learning_rate=0.1)
    with pytest.raises(ValueError, match=r"another run \(architecture.width is 4 there, 8 here; learning_rate is 0.001 there, 0.1 here\)"):
        train(wider, toy_images(), folder)
    others = dataclasses.replace(toy_images(), train=toy_images().train + 1)
    with pytest.raises(ValueError, match=r"another run \(its images are others\); allowed: another folder, or --overwrite"):
        train(SETTINGS, others, folder)
    with pytest.raises(ValueError, match=r"step 12: checkpoint of another architecture or optimiser"):
        parameters_at(folder, LAST, wider)
    sgd = dataclasses.replace(SETTINGS, optimizer="sgd")
    with pytest.raises(ValueError, match=r"another architecture or optimiser"):
        parameters_at(folder, LAST, sgd)
    assert checkpoints.kept(folder) == SETTINGS.kept_steps()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run.json: cannot be read as a run"):
        checkpoints.described(tmp_path)
    with pytest.raises(ValueError, match=r"run.json: no such file; allowed: a folder of rfdiff images train"):
        checkpoints.described(tmp_path / "nowhere")


@pytest.mark.thorough
def test_divergence_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = initial_state(SETTINGS)
    broken = state._replace(parameters=jax.tree.map(lambda leaf: leaf * np.nan, state.parameters))
    monkeypatch.setattr(training, "initial_state", lambda settings: broken)
    with pytest.raises(ValueError, match=r"^learning_rate: training diverged, a loss is not finite; allowed: a smaller one"):
        train(SETTINGS, toy_images(), tmp_path / "run")


@pytest.mark.thorough
def test_no_number_of_steps_and_no_second_run_compiles_anew(tmp_path: Path, finished: tuple[Path, xr.Dataset]) -> None:
    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    train(dataclasses.replace(SETTINGS, steps=5, seed=3), toy_images(), tmp_path / "again")
    assert compiled == []
    jax.jit(lambda x: x * 2.5 + 1)(np.float32(1.0))
    assert compiled, "the listener hears nothing"


def test_a_batch_is_shared_by_all_devices() -> None:
    with pytest.raises(ValueError, match=r"^devices: 99; allowed: 1 to \d+"):
        Devices(99)
    Devices().check_batch("batch", Devices().count)


def test_one_time_has_one_level() -> None:
    fixed = dataclasses.replace(SETTINGS, t=0.5)
    row = {"step": np.asarray(0), "loss": np.ones((2, 1, 2)), "loss_stderr": np.ones((2, 1, 2))}
    row |= {"mean_loss": np.ones((2, 2)), "mean_loss_stderr": np.ones((2, 2))}
    np.testing.assert_allclose(as_dataset([row], fixed)["t"].values, [0.5], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"t": 0.3}, {"optimizer": "sgd", "learning_rate": 0.05}, {"dtype": "bfloat16"}])
def test_other_trainings_learn(change: dict[str, Any], tmp_path: Path) -> None:
    losses = train(dataclasses.replace(SETTINGS, steps=60, **change), toy_images(), tmp_path / "run")
    assert_learned(losses)
    rejects(lambda: assert_learned(losses.sel(step=slice(0, 2))))  # two steps are not enough
    swapped = losses.assign_coords(step=losses["step"].values[::-1]).sortby("step")
    rejects(lambda: assert_learned(swapped))  # nor is a loss that rises


def assert_learned(losses: xr.Dataset) -> None:
    """In every class, trained on or held out, a fifth of the loss of ε̂ = 0 and more is gone at the end, and it falls from 6 steps on."""
    late = losses["mean_loss"].sel(step=losses["step"] >= 6).values
    assert np.all(losses["mean_loss"].isel(step=-1).values < 0.8)
    assert np.all(np.diff(late[::2], axis=0) < 0.005)  # small steps back are noise of the batches
    assert np.all(losses["loss"].isel(step=-1).values < 0.99)  # at every log-SNR


TWO = """
import sys
from pathlib import Path
from types import SimpleNamespace
import jax
from rfdiff.images.training import train
from tests.images.toy import SETTINGS, toy_images
from tests.tolerances import rejects
assert len(jax.devices()) == int(sys.argv[2])
train(SETTINGS, toy_images(), Path(sys.argv[1]))
"""

DEATH = """
import os
from rfdiff.images import checkpoints
save = checkpoints.ocp.PyTreeCheckpointer.save
def die(self, path, *arguments, **options):
    os._exit(9) if path.name.endswith("6") else save(self, path, *arguments, **options)
checkpoints.ocp.PyTreeCheckpointer.save = die
"""


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path: Path, finished: tuple[Path, xr.Dataset]) -> None:
    environment = {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", TWO, str(tmp_path / "two"), "2"]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(load_dataset(tmp_path / "two" / "metrics.nc")["loss"], finished[1]["loss"], rtol=1e-3)


@pytest.mark.slow
def test_a_killed_process_leaves_a_run_that_goes_on(tmp_path: Path, finished: tuple[Path, xr.Dataset]) -> None:
    folder = tmp_path / "killed"
    code = TWO.replace("train(SETTINGS", f"{DEATH}train(SETTINGS")
    command = [sys.executable, "-c", code, str(folder), "1"]
    result = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, cwd=ROOT, timeout=600, check=False)
    assert result.returncode == 9 and checkpoints.kept(folder) == [1, 2, 3]
    losses = train(SETTINGS, toy_images(), folder)
    np.testing.assert_allclose(losses["loss"], finished[1]["loss"], rtol=1e-4)  # that process compiled with other flags
