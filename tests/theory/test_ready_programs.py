"""Programs on disk: read back instead of compiled, never for another source or setting, and never believed when damaged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff.activation import ACTIVATIONS, Activation
from rfdiff.host import double_on_host
from rfdiff.problem import Problem
from rfdiff.theory import ready_programs
from rfdiff.theory.equivalent import equivalent
from rfdiff.theory.preparation import widened
from rfdiff.theory.ready_programs import READ, ReadyProgram

X = np.array([0.3, -1.2])


def function(activation: Activation, x: np.ndarray, scale: float, *, twice: bool = False) -> dict[str, jax.Array]:
    """Something with an activation, a number, a pytree for its result, and a solve by LAPACK."""
    solved = jnp.linalg.solve(jnp.diag(x), activation(x))
    return {"value": scale * solved * (2 if twice else 1), "nothing": jnp.array(jnp.nan)}


JITTED: Any = jax.jit(function, static_argnames=("activation", "twice"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs are kept in these tests."""
    monkeypatch.setattr(ready_programs, "_folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def read() -> Iterator[list[float]]:
    """Seconds for which programs were read."""
    seconds: list[float] = []

    def heard(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == READ:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(heard)


def value(program: Any, *, scale: float = 2.0, activation: Activation = ACTIVATIONS["tanh"], **static: bool) -> np.ndarray:
    with double_on_host():
        return np.asarray(program(activation, X, scale, **static)["value"])


def test_a_program_is_read_where_it_was_kept(folder: Path, read: list[float]) -> None:
    expected = 2 * np.tanh(X) / X
    np.testing.assert_allclose(value(ReadyProgram(JITTED)), expected, rtol=1e-14)
    assert len(list(folder.iterdir())) == 1
    before = len(read)
    program = ReadyProgram(JITTED)
    np.testing.assert_allclose(value(program), expected, rtol=1e-14)
    np.testing.assert_allclose(value(program, scale=-3.0), -1.5 * expected, rtol=1e-14)  # another number, the same program
    assert len(read) == before + 1 and program._cache_size() == 1
    np.testing.assert_allclose(value(program, twice=True), 2 * expected, rtol=1e-14)
    np.testing.assert_allclose(value(program, activation=ACTIVATIONS["sin"]), 2 * np.sin(X) / X, rtol=1e-14)
    assert len(list(folder.iterdir())) == 3 and program._cache_size() == 3


def test_another_source_or_setting_is_another_program(folder: Path, read: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    value(ReadyProgram(JITTED))
    monkeypatch.setattr(ready_programs, "_origin", lambda: ("another source",))
    value(ReadyProgram(JITTED))
    with jax.default_matmul_precision("highest"):
        value(ReadyProgram(JITTED))
    assert read == [] and len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: content[:40] + b"?" + content[41:]])
def test_a_damaged_file_is_compiled_again(folder: Path, read: list[float], damage: Any) -> None:
    value(ReadyProgram(JITTED))
    path = next(folder.iterdir())
    path.write_bytes(damage(path.read_bytes()))
    np.testing.assert_allclose(value(ReadyProgram(JITTED)), 2 * np.tanh(X) / X, rtol=1e-14)
    assert read == []
    value(ReadyProgram(JITTED))
    assert len(read) == 1


def test_what_reads_back_as_something_else_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_programs, "_read", lambda content: lambda *values: {"value": 0 * X, "nothing": np.nan})
    np.testing.assert_allclose(value(ReadyProgram(JITTED)), 2 * np.tanh(X) / X, rtol=1e-14)
    assert list(folder.iterdir()) == []


def test_an_activation_of_the_user_is_not_kept(folder: Path) -> None:
    own = Activation("tanh", lambda x: x**2)
    np.testing.assert_allclose(value(ReadyProgram(JITTED), activation=own), 2 * X, rtol=1e-14)
    assert list(folder.iterdir()) == []


def test_a_rule_of_the_user_is_not_kept(folder: Path) -> None:
    """Two of one name, the second with another filter: neither is taken for the other."""

    def made(power: int) -> Any:
        class Own:
            def __call__(self, x: jax.Array) -> jax.Array:
                return x**power

        jax.tree_util.register_pytree_node(Own, lambda one: ((), None), lambda *_: Own())
        return Own()

    applied: Any = jax.jit(lambda rule, x: rule(x))
    with double_on_host():
        for power in (2, 3):
            np.testing.assert_allclose(ReadyProgram(applied)(made(power), X), X**power, rtol=1e-14)
    assert list(folder.iterdir()) == []


def test_a_source_newer_than_the_process_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready_programs, "LOADED", 0.0)
    monkeypatch.setattr(ready_programs, "_origin", ready_programs._origin.__wrapped__)
    value(ReadyProgram(JITTED))
    assert list(folder.iterdir()) == []


def test_nothing_is_kept_without_a_folder_or_when_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFDIFF_CACHE", "off")
    assert ready_programs._folder() is None
    monkeypatch.delenv("RFDIFF_CACHE")
    folder = jax.config.values["jax_compilation_cache_dir"]
    assert ready_programs._folder() == (Path(folder) if folder else None)


def test_programs_are_forgotten() -> None:
    program = ReadyProgram(JITTED)
    value(program)
    ready_programs.forget()
    assert program._cache_size() == 0


def test_types_without_weight_change_nothing(case_a: Problem) -> None:
    """What `preparations` adds to reach a rung."""
    with double_on_host():
        eq = equivalent(case_a, 1, 4.0, 64)
        more = widened(eq, eq.type_weights.size + 24)
        for name in ("linear", "kept", "carried"):
            one, other = (np.asarray(e.type_weights) @ np.asarray(getattr(e, name)) for e in (eq, more))
            np.testing.assert_allclose(other, one, rtol=1e-14)
    assert more.type_weights.size == eq.type_weights.size + 24
