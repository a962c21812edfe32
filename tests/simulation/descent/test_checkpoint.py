"""Kept states: runs that were interrupted or killed go on to the same bits; damaged and foreign files are refused by name."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
import pytest

from rfdiff.activation import Activation
from rfdiff.simulation import Checkpoint, StopWhen
from rfdiff.simulation.descent import setup
from rfdiff.simulation.descent.checkpoint import identity, load_state, save_state
from rfdiff.simulation.descent.loop import State
from tests.simulation.descent.descent_cases import AVERAGED, DRAWN, run, same_bits, stochastic

CHUNK = 50  # six chunks


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "LONGEST_CHUNK", CHUNK)


def interrupt_at(step: int) -> Any:
    def progress(done: int, _: int) -> None:
        if done >= step:
            raise KeyboardInterrupt

    return progress


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_interrupted_training_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, kept = stochastic(), Checkpoint(tmp_path)  # a minute between states: only the interrupt keeps one
    with pytest.raises(KeyboardInterrupt):
        stochastic(checkpoint=kept, progress=interrupt_at(150))
    assert names(tmp_path / "seed-3") == ["step-000000000150.npz"]
    calls: list[int] = []
    resumed = stochastic(checkpoint=kept, progress=lambda done, _: calls.append(done))
    assert calls == [200, 250, 300]
    assert same_bits(resumed, whole)
    assert names(tmp_path / "seed-3") == ["step-000000000150.npz", "step-000000000300.npz"]
    assert same_bits(stochastic(checkpoint=kept), whole)  # done: nothing is left to train
    assert not same_bits(stochastic(seed=4), whole)


def test_two_states_are_kept_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    whole, kept, folder = stochastic(), Checkpoint(tmp_path, seconds=0), tmp_path / "seed-3"
    with pytest.raises(KeyboardInterrupt):
        stochastic(checkpoint=kept, progress=interrupt_at(200))
    assert names(folder) == ["step-000000000150.npz", "step-000000000200.npz"]
    newest = folder / "step-000000000200.npz"
    content = newest.read_bytes()
    for damaged in (content[: len(content) // 2], content[:900] + bytes([content[900] ^ 255]) + content[901:], b""):
        newest.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"step-000000000200\.npz: damaged checkpoint .*delete it to go on from step-000000000150\.npz"
        ):
            stochastic(checkpoint=kept)
    newest.unlink()
    (folder / "step-000000000100.npz").unlink(missing_ok=True)
    assert same_bits(stochastic(checkpoint=kept), whole)
    for path in folder.iterdir():
        path.unlink()
    np.savez(newest, other=1)
    with pytest.raises(ValueError, match=r"step-000000000200\.npz: damaged checkpoint .*delete it to start again"):
        stochastic(checkpoint=kept)


def test_an_early_stop_is_kept_too(tmp_path: Path) -> None:
    stop = StopWhen(class_index=0, patience=3)
    first = run(stop=stop, checkpoint=Checkpoint(tmp_path))
    again = run(stop=stop, checkpoint=Checkpoint(tmp_path), progress=interrupt_at(0))
    assert first.stopped.startswith("early stop") and same_bits(first, again)


FOREIGN: list[tuple[dict[str, Any], str]] = [
    ({"problem": dataclasses.replace(AVERAGED, t=0.31)}, "problem"),
    ({"key": jax.random.key(7)}, "key"),
    ({"num_steps": 301}, "log_steps"),
    ({"step_size": 0.4, "optimizer": optax.sgd(0.4)}, "optimizer, step_size"),
    ({"optimizer": optax.sgd(0.5, momentum=0.5)}, "optimizer"),
    ({"stop": StopWhen()}, "stop"),
    ({"noise": "fresh", "batch_size": 6}, "batch_size, noise"),
    ({"label": "decaying"}, "optimizer"),
]
FOREIGN_PROGRAMS: list[tuple[dict[str, Any], str]] = [  # each takes programs of its own
    ({"problem": dataclasses.replace(AVERAGED, activation=Activation("tanh", lambda x: jnp.tanh(1.1 * x)))}, "activation"),
    ({"problem": DRAWN}, "noise, problem"),
    ({"dtype": "float32"}, "dtype, optimizer"),
]


@pytest.mark.parametrize("foreign", [FOREIGN, pytest.param(FOREIGN_PROGRAMS, marks=pytest.mark.slow)], ids=["numbers", "programs"])
def test_a_state_of_another_run_is_refused(foreign: list[tuple[dict[str, Any], str]], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=Checkpoint(tmp_path), progress=interrupt_at(50))
    for given_options, differing in foreign:
        options = dict(given_options)
        checkpoint = Checkpoint(tmp_path, label=options.pop("label", ""))
        with pytest.raises(
            ValueError, match=rf"step-000000000050\.npz: checkpoint of another run \(other {differing}\); allowed: another folder"
        ):
            run(checkpoint=checkpoint, **options)
    run(checkpoint=Checkpoint(tmp_path), seed=5)  # another replica has a folder of its own
    assert names(tmp_path) == ["seed-3", "seed-5"]


def test_versions_and_device_are_part_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity({"x": np.arange(3)})
    assert identity({"x": np.arange(3)}) == before and set(before) == {"x", "versions", "device"}
    assert identity({"x": np.arange(3.0)})["x"] != before["x"]
    monkeypatch.setattr("rfdiff.simulation.descent.checkpoint.packages.version", lambda name: "0")
    after = identity({"x": np.arange(3)})
    assert after["versions"] != before["versions"] and after["x"] == before["x"]


@pytest.mark.thorough
def test_states_of_unusual_optimisers_come_back(tmp_path: Path) -> None:
    """Random keys, half precision, counters: leaves that NumPy's files do not know by themselves."""
    inner = {"key": jax.random.key(3), "half": jnp.arange(3, dtype=jnp.bfloat16), "count": jnp.int32(7), "none": None}
    flags = (jnp.int32(5), jnp.zeros(0, jnp.int32), jnp.int32(1), jnp.ones((2, 2)), jnp.ones((2, 2)), jnp.float32(0.5))
    state = State(jnp.ones((2, 3)), inner, *flags, jnp.int32(0), jnp.zeros((), bool), jnp.ones((), bool))
    save_state(tmp_path, state, {"a": "1"})
    again = load_state(tmp_path, state, {"a": "1"})
    assert again is not None
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        same = a == b if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else jax.random.key_data(a) == jax.random.key_data(b)
        assert bool(jnp.all(same))
    with pytest.raises(ValueError, match=r"damaged checkpoint \(an array of shape \(2, 3\)"):
        load_state(tmp_path, dataclasses.replace(state, A=jnp.ones((3, 2))), {"a": "1"})
    assert load_state(tmp_path / "nothing", state, {}) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": 3}, r"folder: 3; allowed: a path"),
        ({"folder": "x", "seconds": -1}, r"seconds: -1; allowed: a finite number >= 0"),
        ({"folder": "x", "label": 3}, r"label: 3; allowed: text"),
    ],
)
def test_refused_checkpoints(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Checkpoint(**options)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        run(checkpoint=Checkpoint(tmp_path / "file"))


CHILD = """
import pathlib, sys, time
import tests.conftest
from rfdiff.simulation import Checkpoint
from rfdiff.simulation.descent import setup
from tests.simulation.descent.descent_cases import stochastic
setup.LONGEST_CHUNK = 50
def slowly(done, total):
    print(done, flush=True)
    time.sleep(0.2)
stochastic(checkpoint=Checkpoint(pathlib.Path(sys.argv[1]), seconds=float(sys.argv[2])), progress=slowly)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "seconds", "code"), [(signal.SIGKILL, 0, -signal.SIGKILL), (signal.SIGINT, 1000, -signal.SIGINT)])
def test_a_killed_process_loses_at_most_the_chunk_in_flight(tmp_path: Path, number: int, seconds: int, code: int) -> None:
    root = Path(__file__).resolve().parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", CHILD, str(tmp_path), str(seconds)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while int(child.stdout.readline()) < 100:
            pass
        time.sleep(0.05)
        child.send_signal(number)
        child.communicate()
        assert child.returncode == code
    stored = names(tmp_path / "seed-3")
    assert [name for name in stored if name >= "step-000000000100.npz"] and "step-000000000300.npz" not in stored
    calls: list[int] = []
    resumed = stochastic(checkpoint=Checkpoint(tmp_path), progress=lambda done, _: calls.append(done))
    assert calls and calls[0] > 100 and calls[-1] == 300
    assert same_bits(resumed, stochastic())
