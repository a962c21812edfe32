"""Training by real steps against the exact filters and the exact flow, early stops, and every refusal."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
import pytest

from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, HeavyBall
from rfdiff.samples import Samples
from rfdiff.simulation import SeedBatch, StopWhen, pool, run_seeds
from rfdiff.simulation import replica as replica_module
from rfdiff.simulation.descent import loop, setup
from rfdiff.simulation.descent.gradient import losses
from rfdiff.simulation.descent.loop import advance, start
from rfdiff.simulation.descent.setup import recipe_for
from rfdiff.simulation.features import sizes_at
from rfdiff.value_types import is_concrete
from tests.simulation.descent.descent_cases import ADAM, AVERAGED, DRAWN, KEY, SEED, SGD, SMALL, STEPS, D, replica, run, stochastic
from tests.synthetic import given
from tests.tolerances import loglog_slope, rejects

MOMENTUM = optax.sgd(0.5, momentum=0.8)
HORIZON = 16.0


@pytest.mark.thorough
@pytest.mark.parametrize("problem", [AVERAGED, pytest.param(DRAWN, marks=pytest.mark.slow)], ids=["averaged", "drawn"])
@pytest.mark.parametrize(
    ("optimizer", "rule"),
    [pytest.param(SGD, GradientDescent(0.5), marks=pytest.mark.slow), (MOMENTUM, HeavyBall(0.5, 0.8))],
    ids=["plain", "momentum"],
)
def test_steps_are_the_filters_of_the_rules(problem: Problem, optimizer: Any, rule: HeavyBall) -> None:
    trained = run(problem, optimizer)
    exact = run_seeds(problem, trained.batch.taus, d=D, key=KEY, seeds=[SEED], rule=rule)
    np.testing.assert_allclose(trained.batch.taus, exact.taus, rtol=1e-14)
    for name in ("train_loss", "test_loss", "score_error"):
        np.testing.assert_allclose(getattr(trained.batch, name), getattr(exact, name), rtol=1e-11, atol=1e-12)
    other = run_seeds(problem, trained.batch.taus, d=D, key=KEY, seeds=[SEED], rule=HeavyBall(0.5, float(rule.momentum) + 0.01))
    rejects(lambda: np.testing.assert_allclose(trained.batch.test_loss, other.test_loss, rtol=1e-5))


class Rated:
    """Gradient descent whose rate is part of the state: one compiled program for every rate, where chunks are of one length."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
        monkeypatch.setattr(setup, "LONGEST_CHUNK", chunk)
        self.rate = math.nan
        self.optimizer = optax.GradientTransformation(lambda A: jnp.asarray(self.rate, A.dtype), lambda g, rate, _=None: (-rate * g, rate))

    def train(self, rate: float, step_size: float, problem: Problem = AVERAGED, **options: Any) -> SeedBatch:
        self.rate = rate
        return run(problem, self.optimizer, step_size=step_size, **options).batch


@pytest.mark.thorough
def test_small_steps_land_on_the_flow_at_first_order(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, descent = np.array([0.4, 0.2, 0.1, 0.05]), Rated(monkeypatch, 40)
    flow = run_seeds(AVERAGED, [HORIZON], d=D, key=KEY, seeds=[SEED])

    def errors(factor: float, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(η, class) deviations of train and test loss from the flow, with a gradient multiplied by the factor."""
        runs = [descent.train(factor * s, float(s), num_steps=round(HORIZON / s), log_steps=[0]) for s in sizes]
        return tuple(  # type: ignore[return-value]
            np.array([getattr(r, name)[0, -1] - getattr(flow, name)[0, 0] for r in runs]) for name in ("train_loss", "test_loss")
        )

    def first_order(sizes: np.ndarray, values: np.ndarray) -> None:
        for error in values.T:
            assert 0.95 < loglog_slope(sizes, error) < 1.05 and abs(error[-1]) < 2e-3

    train, test = errors(1.0, sizes)
    first_order(sizes, train)
    first_order(sizes, test)
    doubled = errors(2.0, sizes[2:])
    rejects(lambda: first_order(sizes[2:], doubled[0]))
    rejects(lambda: first_order(sizes[2:], doubled[1]))


@pytest.mark.parametrize(
    ("problem", "options"),
    [
        pytest.param(DRAWN, {"batch_size": 6}, marks=pytest.mark.thorough),
        pytest.param(AVERAGED, {"noise": "fresh"}, marks=pytest.mark.slow),
    ],
    ids=["batches", "fresh"],
)
def test_noisy_training_stays_near_the_flow_for_small_steps(
    problem: Problem, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    taus, descent = HORIZON * np.array([0.25, 1.0]), Rated(monkeypatch, 32)
    flow = run_seeds(problem, taus, d=D, key=KEY, seeds=[SEED])

    def near(eta: float) -> None:
        steps = np.rint(taus / eta).astype(int).tolist()
        batch = descent.train(eta, eta, problem, num_steps=steps[-1], log_steps=steps, **options)
        np.testing.assert_allclose(batch.train_loss, flow.train_loss, atol=0.02)
        np.testing.assert_allclose(batch.test_loss, flow.test_loss, atol=0.02)

    near(0.02)
    rejects(lambda: near(0.5))  # noise of the gradients at larger steps
    assert np.all(flow.train_loss[0, 1] < 0.9 * flow.train_loss[0, 0])  # it is still on its way


@pytest.mark.thorough
def test_adam_learns_every_class_without_another_compilation() -> None:
    traces: list[int] = []

    def counted(gradient: Any, state: Any, params: Any = None) -> Any:
        if not is_concrete(gradient):  # the probe of an optimiser calls it with numbers
            traces.append(1)
        return ADAM.update(gradient, state, params)

    optimizer = optax.GradientTransformation(ADAM.init, counted)
    options: dict[str, Any] = {"optimizer": optimizer, "step_size": 0.02, "num_steps": 1500, "noise": "fresh", "batch_size": 5}
    calls: list[tuple[int, int]] = []
    first = run(progress=lambda done, total: calls.append((done, total)), **options)
    assert calls == [(1024, 1500), (1500, 1500)]  # two chunks, the second cut short
    compiled = len(traces)
    second = run(seed=4, key=jax.random.key(9), **options)
    assert len(traces) == compiled > 0
    for result in (first, second):
        assert result.stopped == "all 1500 steps done" and result.steps[-1] == 1500 and result.steps[0] == 1
        assert np.all(result.batch.train_loss[0, -1] < 0.95) and np.all(np.isfinite(result.batch.test_loss))
        np.testing.assert_allclose(result.batch.taus, 0.02 * result.steps)
    assert np.abs(first.readout - second.readout).max() > 1e-3
    run(**{**options, "batch_size": 4})  # the counter does count
    assert len(traces) > compiled


@pytest.mark.thorough
def test_logged_steps_and_readout() -> None:
    result = run(log_steps=[0, 3, 40])
    assert result.steps.tolist() == [0, 3, 40, STEPS]
    np.testing.assert_array_equal(result.batch.test_loss[0, 0], 1.0)  # A = 0
    every = run()
    assert every.steps[0] == 1 and 45 <= len(every.steps) <= 60 and every.steps[-1] == STEPS
    assert np.array_equal(every.readout, result.readout)
    with jax.enable_x64(True):
        train, test = losses(jnp.asarray(result.readout), replica(AVERAGED))
    np.testing.assert_allclose(result.batch.train_loss[0, -1], train, rtol=1e-12)
    np.testing.assert_allclose(result.batch.test_loss[0, -1], test, rtol=1e-12)
    curves = result.curves
    assert (curves.source, curves.dimension, curves.dtype, curves.spectrum) == ("simulation", D, "float64", None)
    data = result.to_xarray()
    assert data.step.values.tolist() == [0, 3, 40, STEPS] and data.attrs["stopped"] == result.stopped
    np.testing.assert_array_equal(data.readout.values, result.readout)
    np.testing.assert_array_equal(data.test_loss.values, curves.test_loss)


@pytest.mark.thorough
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run()
    monkeypatch.setattr(setup, "LONGEST_CHUNK", 7)
    calls: list[int] = []
    chunked = run(progress=lambda done, _: calls.append(done))
    assert calls == [*range(7, STEPS, 7), STEPS]
    np.testing.assert_allclose(chunked.batch.test_loss, whole.batch.test_loss, rtol=1e-12)


@pytest.mark.slow
def test_single_precision() -> None:
    double, single = run(), run(dtype="float32")
    assert single.batch.dtype == "float32" and single.readout.dtype == np.float32
    np.testing.assert_allclose(single.batch.test_loss, double.batch.test_loss, rtol=1e-4)


@pytest.mark.slow
def test_runs_are_pooled_over_what_they_share() -> None:
    runs = [run(seed=r) for r in (1, 0)]
    curves = pool(runs)
    exact = run_seeds(AVERAGED, curves.taus, d=D, key=KEY, seeds=[0, 1], rule=GradientDescent(0.5))
    np.testing.assert_allclose(given(curves.per_seed)["test_loss"], exact.test_loss, rtol=1e-11)
    spread = exact.test_loss.std(axis=0, ddof=1) / math.sqrt(2)
    np.testing.assert_allclose(curves.test_loss_stderr, spread, rtol=1e-7, atol=1e-12)
    assert curves.spectrum is None
    short = run(seed=2, stop=StopWhen(class_index=0, patience=2))
    shared = len(short.steps)
    assert shared < len(runs[0].steps)
    assert given(pool([*runs, short]).per_seed)["train_loss"].shape == (3, shared, 2)


@pytest.mark.slow
def test_training_on_a_data_set() -> None:
    rng = np.random.default_rng(0)
    data = Samples(rng.standard_normal((80, D)), np.arange(80) % 2, held_out=20)
    taus = 0.5 * np.array([10, 100])
    trained = run(data=data, log_steps=[10], num_steps=100)
    exact = run_seeds(AVERAGED, taus, d=D, key=KEY, seeds=[SEED], rule=GradientDescent(0.5), data=data)
    np.testing.assert_allclose(trained.batch.test_loss, exact.test_loss, rtol=1e-11)
    np.testing.assert_allclose(trained.batch.train_loss, exact.train_loss, rtol=1e-11)
    batches = run(data=data, optimizer=SMALL, step_size=0.02, num_steps=2500, log_steps=[250], noise="fresh", batch_size=9)
    np.testing.assert_allclose(batches.batch.train_loss, exact.train_loss, atol=0.04)


@pytest.mark.thorough
@pytest.mark.parametrize("class_index", [0, None])
def test_early_stop(class_index: int | None) -> None:
    whole = run(num_steps=3000)
    test = whole.batch.test_loss[0] @ np.array([0.7, 0.3]) if class_index is None else whole.batch.test_loss[0, :, class_index]
    best = int(np.argmin(test))
    assert best + 4 < len(test)
    stopped = run(num_steps=3000, stop=StopWhen(class_index, patience=4))
    assert stopped.steps.tolist() == whole.steps[: best + 5].tolist()
    np.testing.assert_allclose(stopped.batch.test_loss[0], whole.batch.test_loss[0, : best + 5], rtol=1e-12)
    name = "total test loss" if class_index is None else "test loss of class 0"
    assert stopped.stopped.startswith(f"early stop at step {whole.steps[best + 4]} of 3000: the {name} has not fallen below its best, ")
    assert f"{test[best]:.6g}" in stopped.stopped
    with jax.enable_x64(True):
        _, at_stop = losses(jnp.asarray(stopped.readout), replica(AVERAGED))
    np.testing.assert_allclose(
        stopped.batch.test_loss[0, -1], at_stop, rtol=1e-5
    )  # the readout is that of the stop, not of the chunk's end


def test_early_stop_on_slow_progress() -> None:
    eager = run(stop=StopWhen(patience=1, improvement=0.5))
    assert eager.steps.tolist() == [1]  # one step does not halve the loss of A = 0


@pytest.mark.thorough
def test_a_step_that_diverges_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match=r"step_size: 50 diverges, because the largest eigenvalue of U is .*; allowed: below") as refused:
        run(optimizer=optax.sgd(50.0), step_size=50.0)
    limit = float(str(refused.value).split("below ")[1])
    largest = run_seeds(AVERAGED, [1.0], d=D, key=KEY, seeds=[SEED]).eigenvalues
    assert limit == pytest.approx(2 / (float(AVERAGED.kappa) * given(largest).max()), rel=1e-5)


def test_a_training_that_diverges_is_stopped() -> None:
    with pytest.raises(ValueError, match=r"step_size: 50 diverges: the training is not finite from step \d+ on .*is stable below"):
        run(optimizer=optax.sgd(50.0, momentum=0.9), step_size=50.0)
    overflow = optax.GradientTransformation(lambda A: jnp.zeros(()), lambda g, s, _=None: (jnp.full_like(g, 1e160), s))
    with pytest.raises(ValueError, match=r"not finite from step 1 on"):  # the readout is finite, its loss is not
        run(optimizer=overflow)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"num_steps": 0}, r"num_steps: 0; allowed: an integer >= 1"),
    ({"num_steps": 2**31}, r"num_steps: 2147483648; allowed: an integer >= 1 and <= 2147483647"),
    ({"num_steps": 2.0}, r"num_steps: 2\.0; allowed"),
    ({"num_steps": True}, r"num_steps: True; allowed"),
    ({"step_size": 0.0}, r"step_size: 0\.0; allowed: a finite number > 0"),
    ({"step_size": math.inf}, r"step_size: inf; allowed"),
    ({"step_size": 0.25}, r"step_size: 0\.25 beside gradient descent of step 0\.5; allowed: the optimizer's own"),
    ({"seed": -1}, r"seeds: \[-1\]; allowed"),
    ({"d": 0}, r"d: 0; allowed"),
    ({"dtype": "float16"}, r"dtype: float16; allowed"),
    ({"optimizer": "adam"}, r"optimizer: 'adam'; allowed: an optax.GradientTransformation"),
    (
        {"optimizer": optax.polyak_sgd()},
        r"optimizer: its update fails when given only a gradient .*allowed: an optimiser that",
    ),
    ({"noise": "white"}, r"noise: 'white'; allowed: average, fixed, fresh, or None"),
    ({"noise": "fixed"}, r"noise: 'fixed' with noise_draws = inf; allowed: with a whole number of noise_draws"),
    ({"problem": DRAWN, "noise": "fresh"}, r"noise: 'fresh' with noise_draws = 2; allowed: with noise_draws = inf"),
    ({"problem": DRAWN, "noise": "average"}, r"noise: 'average' with noise_draws = 2; allowed"),
    ({"batch_size": 5}, r"batch_size: 5 with noise averaged exactly; allowed: None, or noise='fresh' or 'fixed'"),
    ({"batch_size": 0, "noise": "fresh"}, r"batch_size: 0; allowed: an integer >= 1 and <= 18, samples times draws; or None for all"),
    ({"batch_size": 37, "problem": DRAWN}, r"batch_size: 37; allowed: an integer >= 1 and <= 36, samples times draws"),
    ({"batch_size": 1.5, "problem": DRAWN}, r"batch_size: 1\.5; allowed"),
    ({"log_steps": []}, r"log_steps: \[\]; allowed: increasing integers in \[0, 300\]"),
    ({"log_steps": [3, 3]}, r"log_steps: \[3, 3\]; allowed"),
    ({"log_steps": [1, 301]}, r"log_steps: \[1, 301\]; allowed"),
    ({"log_steps": 2.5}, r"log_steps: 2\.5; allowed"),
    ({"stop": 3}, r"stop: 3; allowed: a StopWhen, or None"),
    ({"stop": StopWhen(class_index=2)}, r"class_index: 2; allowed: below 2, the number of classes"),
    ({"checkpoint": "here"}, r"checkpoint: 'here'; allowed: a Checkpoint, or None"),
    ({"progress": 3}, r"progress: 3; allowed: a function"),
    ({"data": np.zeros((3, D))}, r"data: got ndarray; allowed: Samples"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_refused_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_index": -1}, r"class_index: -1; allowed: an integer >= 0"),
        ({"class_index": 0.5}, r"class_index: 0\.5; allowed"),
        ({"patience": 0}, r"patience: 0; allowed: an integer >= 1"),
        ({"patience": True}, r"patience: True; allowed"),
        ({"improvement": 1.0}, r"improvement: 1\.0; allowed: 0 <= improvement < 1"),
        ({"improvement": "1"}, r"improvement: '1'; allowed"),
    ],
)
def test_refused_early_stops(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StopWhen(**options)


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"d: 1000000 makes p = 2000000 features and needs about"):
        run(d=10**6)
    with monkeypatch.context() as patched, pytest.raises(ValueError, match=r"d: 12 leaves the exact averages uncertain by"):
        patched.setattr(replica_module, "TRUNCATION_LIMIT", 0.0)
        run()
    many = dataclasses.replace(DRAWN, noise_draws=10**7)
    monkeypatch.setattr(setup, "available_bytes", lambda: 2**30)
    with pytest.raises(
        ValueError, match=r"batch_size: batches of stored draws need 16\.1 GiB of noise, .* of 1 GiB of memory; allowed: None"
    ):
        run(many, batch_size=10)


def test_pooling_nothing_or_the_same() -> None:
    with pytest.raises(ValueError, match=r"runs: none given"):
        pool([])
    with pytest.raises(ValueError, match=r"occurs more than once"):
        pool([run(), run()])


def test_steps_are_log_spaced_where_none_are_named() -> None:
    assert setup.schedule(1, None).tolist() == [1]
    assert setup.schedule(5, None).tolist() == [1, 2, 3, 4, 5]
    long = setup.schedule(5 * 10**6, None)
    assert long[0] == 1 and long[-1] == 5 * 10**6 and 50 <= len(long) <= 60
    np.testing.assert_array_equal(long, np.unique(np.rint(np.geomspace(1, 5 * 10**6, 60)).astype(int)))


def test_the_stochastic_case_uses_everything() -> None:
    """Its readout is that of Adam on permuted batches with fresh noise: another noise key, batch key or optimiser state gives another."""
    training = replica(AVERAGED, tuple(setup.schedule(STEPS, None).tolist()))
    recipe = recipe_for(AVERAGED, sizes_at(AVERAGED, D), noise="fresh", batch_size=5, stop=None, num_steps=STEPS)
    other_noise, other_batches = jax.random.split(jax.random.key(23))
    with jax.enable_x64(True):

        def final(**changes: Any) -> loop.State:
            changed = dataclasses.replace(training, **changes)
            return advance(start(changed, recipe, ADAM), changed, recipe, ADAM)

        state = final()
        noise_key, batch_key = training.keys
        others = [final(keys=(other_noise, batch_key)), final(keys=(noise_key, other_batches))]
        remembered = jax.tree.leaves(state.optimizer)
    result = stochastic()
    np.testing.assert_array_equal(result.readout, state.A)
    assert result.steps[-1] == int(state.step) == STEPS
    np.testing.assert_array_equal(np.sort(np.asarray(state.order)), np.arange(18))
    assert len(remembered) == 3 and all(np.any(np.asarray(leaf) != 0) for leaf in remembered)  # count, first and second moments
    for other in others:
        assert np.abs(np.asarray(other.A) - result.readout).max() > 1e-3
    assert np.all(result.batch.train_loss[0, -1] < 0.9 * result.batch.train_loss[0, 0])
