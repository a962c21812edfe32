"""Ensembles: real test sets, reproducible seeds, precision, compilation, and every refusal."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import simulation
from rfdiff.activation import Activation, as_activation
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, Ridge
from rfdiff.simulation import replica, replica_memory
from rfdiff.simulation.features import Sizes, first_layer, sizes_at
from rfdiff.value_types import is_concrete
from tests.synthetic import given
from tests.tolerances import assert_within, rejects

D, TAUS = 32, np.array([0.0, 1.0, 30.0, np.inf])
KEY = jax.random.key(17)


def problem(**changes: Any) -> Problem:
    law = MixtureLaw([0.6, 0.4], [[1.6, 0.2], [0.4, 1.2]], [0.5, 0.5], [[0.5, 0.2], [0.2, 0.5]])
    return dataclasses.replace(Problem(law, "tanh", 0.3, 2.0, 1.5), **changes)


@pytest.fixture(scope="module")
def curves() -> LearningCurves:
    return simulation.learning_curves(problem(), TAUS, d=D, key=KEY, num_seeds=3)


@pytest.mark.thorough
def test_shapes_labels_and_errors(curves: LearningCurves) -> None:
    assert (curves.source, curves.dimension, curves.dtype) == ("simulation", D, "float64")
    assert 0 < curves.error_estimate < 1e-5  # the truncation of the exact averages
    np.testing.assert_array_equal(curves.taus, TAUS)
    assert curves.kappa == pytest.approx(2 * -math.expm1(-0.6) / 2.0)
    for name in ("train_loss", "test_loss", "score_error"):
        per_seed = given(curves.per_seed)[name]
        assert per_seed.shape == (3, 4, 2) and per_seed.dtype == np.float64
        np.testing.assert_allclose(getattr(curves, name), per_seed.mean(0), rtol=1e-15)
        np.testing.assert_allclose(getattr(curves, f"{name}_stderr"), per_seed.std(0, ddof=1) / math.sqrt(3), rtol=1e-12)
    assert given(curves.spectrum).eigenvalues.shape == (3, 64)
    np.testing.assert_allclose(given(curves.spectrum).class_weights.sum(-1), 1 / 64, rtol=1e-10)
    signal = math.exp(-0.6) * np.array([[1.6, 0.2], [0.4, 1.2]])
    np.testing.assert_allclose(curves.optimal_loss, (signal / (signal - math.expm1(-0.6))).mean(0), rtol=1e-12)
    np.testing.assert_allclose(curves.score_error, (curves.test_loss - curves.optimal_loss) / -math.expm1(-0.6), rtol=1e-12)


@pytest.mark.thorough
def test_the_total_train_loss_falls(curves: LearningCurves) -> None:
    shares = np.array(sizes_at(problem(), D).counts) / 48
    assert np.all(np.diff(given(curves.per_seed)["train_loss"] @ shares, axis=1) < 0)
    np.testing.assert_array_equal(curves.test_loss[0], 1.0)


@pytest.mark.thorough
def test_one_seed_has_no_standard_error() -> None:
    single = simulation.learning_curves(problem(), TAUS, d=D, key=KEY, num_seeds=1)
    assert np.all(np.isnan(single.test_loss_stderr)) and np.all(np.isfinite(single.test_loss))


@pytest.mark.thorough
def test_seeds_are_reproducible_and_extend(curves: LearningCurves) -> None:
    calls: list[tuple[int, int]] = []
    parts = [
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[2], progress=lambda done, total: calls.append((done, total))),
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0, 1]),
    ]
    assert calls == [(1, 1)]
    again = simulation.summarize(parts)  # another order, other chunks: the same replicas
    for a, b in zip(jax.tree.leaves(curves), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert np.abs(given(curves.per_seed)["test_loss"][0, 2] - given(curves.per_seed)["test_loss"][1, 2]).min() > 1e-3  # and different ones
    other = simulation.run_seeds(problem(), TAUS, d=D, key=jax.random.key(18), seeds=[2])
    assert np.abs(other.test_loss - parts[0].test_loss)[:, 2].min() > 1e-4


@pytest.mark.thorough
def test_chunks_of_a_long_run(monkeypatch: pytest.MonkeyPatch, curves: LearningCurves) -> None:
    need = replica_memory.replica_bytes(sizes_at(problem(), D), "float64", len(TAUS))
    monkeypatch.setattr(replica_memory, "CHUNK_BYTES", 2 * need)
    calls: list[tuple[int, int]] = []
    chunked = simulation.learning_curves(
        problem(), TAUS, d=D, key=KEY, num_seeds=3, progress=lambda done, total: calls.append((done, total))
    )
    assert calls == [(2, 3), (3, 3)]  # the second chunk is padded to the first one's size, and the padding dropped
    np.testing.assert_allclose(given(chunked.per_seed)["test_loss"], given(curves.per_seed)["test_loss"], rtol=1e-9)


@pytest.mark.thorough
def test_large_networks_run_one_by_one(monkeypatch: pytest.MonkeyPatch, curves: LearningCurves) -> None:
    monkeypatch.setitem(replica_memory.LOOP_FEATURES, jax.default_backend(), 1)
    calls: list[int] = []
    looped = simulation.learning_curves(problem(), TAUS, d=D, key=KEY, num_seeds=3, progress=lambda done, _: calls.append(done))
    assert calls == [1, 2, 3]
    np.testing.assert_allclose(given(looped.per_seed)["train_loss"], given(curves.per_seed)["train_loss"], rtol=1e-9)


@pytest.mark.thorough
def test_single_precision_is_the_same_ensemble(curves: LearningCurves) -> None:
    single = simulation.learning_curves(problem(), TAUS, d=D, key=KEY, num_seeds=3, dtype=jnp.float32)
    assert single.dtype == "float32"
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(given(single.per_seed)[name][:, :3], given(curves.per_seed)[name][:, :3], rtol=2e-5)
        np.testing.assert_allclose(
            given(single.per_seed)[name][:, 3], given(curves.per_seed)[name][:, 3], rtol=5e-3
        )  # 1/λ of the smallest modes
    np.testing.assert_allclose(given(single.spectrum).eigenvalues, given(curves.spectrum).eigenvalues, atol=2e-5)


@pytest.mark.thorough
def test_loss_on_a_real_test_set() -> None:
    """Fresh samples, noised once each, against the population average that the package computes without any."""
    case, taus = problem(noise_draws=2), np.array([2.0, 100.0])
    result = simulation.run_seeds(case, taus, d=D, key=KEY, seeds=[4])
    mixture, keys = replica.replica_mixture(case, D, jax.random.fold_in(KEY, 4))
    sizes = sizes_at(case, D)
    with jax.enable_x64(True):
        W = np.asarray(first_layer(keys[0], sizes, jnp.float64))
        moments = jax.jit(replica.replica_moments, static_argnums=3)
        train, _ = jax.tree.map(np.asarray, moments(case, mixture, keys, replica_memory.layout_for(case, sizes, "float64")))
    shares = np.array(sizes.counts) / sizes.n
    U, V = np.einsum("c,cij->ij", shares, np.stack(train.U)), np.einsum("c,cij->ij", shares, np.stack(train.V))
    values, basis = np.linalg.eigh(U)
    delta, rng = -math.expm1(-0.6), np.random.default_rng(5)
    measured, errors = np.zeros((2, 2)), np.zeros((2, 2))
    for c in range(2):
        clean = mixture.means[c] + np.sqrt(mixture.variances[c]) * rng.standard_normal((60_000, D))
        noise = rng.standard_normal(clean.shape)
        phi = np.tanh((math.exp(-0.3) * clean + math.sqrt(delta) * noise) @ W.T / math.sqrt(D))
        for i, tau in enumerate(taus):
            f = -np.expm1(-float(case.kappa) * tau * values) / values
            squares = np.mean((noise - phi @ (basis * f) @ (basis.T @ V)) ** 2, axis=1)
            measured[i, c], errors[i, c] = squares.mean(), squares.std() / math.sqrt(len(squares))
    assert_within(measured, errors, result.test_loss[0], max_stderr=0.006)
    rejects(lambda: assert_within(measured, errors, result.train_loss[0], max_stderr=0.006))
    rejects(lambda: assert_within(measured, errors, result.test_loss[0][:, ::-1], max_stderr=0.006))


@pytest.mark.thorough
def test_other_numbers_do_not_recompile() -> None:
    traces: list[tuple[int, ...]] = []

    def counted(x: jax.Array) -> jax.Array:
        if not is_concrete(x):  # called eagerly too, by the checks of an activation
            traces.append(x.shape)
        return jnp.tanh(x)

    activation = Activation("counted", counted)
    first = simulation.learning_curves(problem(activation=activation), TAUS, d=D, key=KEY, num_seeds=2)
    compiled = len(traces)
    assert compiled > 0
    law = MixtureLaw([0.605, 0.395], [[0.3, 2.0], [0.7, 0.1]], [0.5, 0.5], [[1.0, 0.0], [0.0, 0.3]])
    other = dataclasses.replace(problem(activation=activation), mixture=law, t=1.1, psi_p=2.01, psi_n=1.505)
    assert sizes_at(other, D) == sizes_at(problem(), D)
    second = simulation.learning_curves(other, 2 * TAUS, d=D, key=jax.random.key(3), num_seeds=2)
    assert len(traces) == compiled
    assert np.abs(first.test_loss - second.test_loss)[1:].min() > 1e-3
    simulation.learning_curves(other, TAUS, d=D + 4, key=KEY, num_seeds=2)  # the counter does count: another shape is traced
    assert len(traces) > compiled


@pytest.mark.thorough
def test_ridge_has_its_own_axis() -> None:
    result = simulation.learning_curves(problem(), d=D, key=KEY, num_seeds=1, rule=Ridge([1e-2, 1.0]))
    assert result.test_loss.shape == (2, 2)
    np.testing.assert_allclose(result.taus, 1 / (result.kappa * np.array([1e-2, 1.0])))


@pytest.mark.parametrize("num_seeds", [0, -1, 2.5, True, "3", None])
def test_refused_num_seeds(num_seeds: Any) -> None:
    with pytest.raises(ValueError, match=r"num_seeds: .*allowed: an integer >= 1"):
        simulation.learning_curves(problem(), TAUS, d=D, key=KEY, num_seeds=num_seeds)


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [0.5], [2**32], [True]])
def test_refused_seeds(seeds: Any) -> None:
    with pytest.raises(ValueError, match=r"seeds: .*distinct integers in \[0, 2\^32\)"):
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=seeds)


def test_refused_arguments() -> None:
    with pytest.raises(ValueError, match=r"progress: 3; allowed: a function"):
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0], progress=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"dtype: float16"):
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0], dtype="float16")
    with pytest.raises(ValueError, match=r"taus: .*does not increase"):
        simulation.run_seeds(problem(), [2.0, 1.0], d=D, key=KEY, seeds=[0])
    with pytest.raises(ValueError, match=r"d: 0; allowed"):
        simulation.run_seeds(problem(), TAUS, d=0, key=KEY, seeds=[0])


@pytest.mark.thorough
def test_a_step_that_diverges_is_refused() -> None:
    with pytest.raises(ValueError, match=r"step_size: 50 diverges, because the largest eigenvalue of U is .*allowed: below"):
        simulation.run_seeds(problem(), [100.0], d=D, key=KEY, seeds=[0], rule=GradientDescent(50.0))


def test_a_network_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"d: 1000000 makes p = 2000000 features and needs about .* GiB in float64, of .* GiB"):
        simulation.run_seeds(problem(), TAUS, d=10**6, key=KEY, seeds=[0])
    sizes = Sizes(100, 200, (90, 60), None)
    monkeypatch.setattr(replica_memory, "available_bytes", lambda: replica_memory.replica_bytes(sizes, "float64", len(TAUS)) // 4)
    with pytest.raises(ValueError, match=r"allowed: d up to about (49|50),"):
        simulation.run_seeds(problem(), TAUS, d=100, key=KEY, seeds=[0])
    monkeypatch.setattr(replica_memory, "available_bytes", lambda: None)  # a machine that does not say is trusted
    assert replica_memory.chunk_size(sizes, "float64", len(TAUS), 1) == 1


@pytest.mark.thorough
def test_truncated_averages_state_their_error(monkeypatch: pytest.MonkeyPatch, curves: LearningCurves) -> None:
    """Series cut too early move the losses, by less than the estimate and more than a thousandth of it; beyond a limit it is refused."""
    monkeypatch.setattr(replica_memory, "ORDER_TOLERANCE", 1e-2)
    rough = simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0])
    error = np.abs(rough.test_loss[0] - given(curves.per_seed)["test_loss"][0]).max()
    estimate = simulation.summarize([rough]).error_estimate
    assert estimate == rough.truncation[0] > 2 * curves.error_estimate
    assert 1e-3 * estimate < error <= estimate
    rejects(lambda: np.testing.assert_array_less(error, curves.error_estimate))
    monkeypatch.setattr(replica, "TRUNCATION_LIMIT", 0.9 * estimate)
    with pytest.raises(InputError, match=r"d: 32 leaves the exact averages uncertain by .*allowed: .* a larger d"):
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0])


@pytest.mark.slow
def test_features_of_one_dimension_have_no_convergent_average() -> None:
    relu = dataclasses.replace(problem(), activation=as_activation("relu"), mixture=MixtureLaw.isotropic([1.0], [1.0]), psi_p=20.0)
    with pytest.raises(ValueError, match=r"d: 1 leaves the exact averages uncertain by .*allowed: .* a larger d"):
        simulation.run_seeds(relu, TAUS, d=1, key=KEY, seeds=[0])


def test_every_replica_draws_its_own_mixture() -> None:
    mixtures = [replica.replica_mixture(problem(), D, jax.random.fold_in(KEY, r))[0] for r in (0, 0, 1)]
    assert all(isinstance(mixture, GaussianMixture) for mixture in mixtures)
    np.testing.assert_array_equal(mixtures[0].means, mixtures[1].means)
    assert np.abs(mixtures[0].means - mixtures[2].means).max() > 0.1
    np.testing.assert_allclose(mixtures[2].means @ mixtures[2].means.T / D, [[0.5, 0.2], [0.2, 0.5]], atol=1e-6)
