"""Krylov spaces against the exact flow of the same networks, and on matrices of a prescribed spectrum."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import MixtureLaw, Problem, Samples, simulation
from rfdiff.errors import InputError
from rfdiff.rules import GradientDescent, GradientFlow, Ridge, Rule
from rfdiff.simulation import SeedBatch, krylov, krylov_ensemble, moment_assembly, moment_operators, quadrature, solver_costs
from rfdiff.simulation.features import first_layer, sizes_at
from rfdiff.simulation.krylov import KrylovCurves, krylov_losses
from rfdiff.simulation.krylov_curves import Averages, RitzCurves
from rfdiff.simulation.moment_operators import Formed
from rfdiff.simulation.replica_memory import layout_for
from tests.synthetic import given
from tests.tolerances import rejects

D, KEY = 16, jax.random.key(3)
TAUS = np.array([0.0, 0.1, 1.0, 10.0, 1e2, 1e3, 1e4, np.inf])
LAW = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]])


def problem(draws: float = math.inf, psi_p: float = 16.0, psi_n: float = 2.0) -> Problem:
    return Problem(LAW, "tanh", t=0.1, psi_p=psi_p, psi_n=psi_n, noise_draws=draws)


@functools.cache
def batch(solver: str, draws: float = math.inf, psi_p: float = 16.0, tolerance: float | None = None) -> SeedBatch:
    return simulation.run_seeds(problem(draws, psi_p), TAUS, d=D, key=KEY, seeds=[0], solver=solver, krylov_tolerance=tolerance)


def worst(one: SeedBatch, other: SeedBatch) -> float:
    return max(float(np.max(abs(getattr(one, name) - getattr(other, name)))) for name in ("train_loss", "test_loss"))


@pytest.mark.parametrize(
    ("solver", "draws"),
    [
        pytest.param("krylov", math.inf, marks=pytest.mark.thorough),
        pytest.param("krylov-matrix-free", 3, marks=pytest.mark.thorough),
        pytest.param("krylov", 3, marks=pytest.mark.slow),
        pytest.param("krylov-matrix-free", math.inf, marks=pytest.mark.slow),
    ],
)
def test_the_exact_flow_of_the_same_network(solver: str, draws: float) -> None:
    """p = 256 features, n m = 32 and 96 columns: more features than samples, a degenerate eigenvalue 0 for stored draws."""
    exact, found = batch("exact", draws), batch(solver, draws)
    assert worst(found, exact) < 1e-9
    assert found.eigenvalues is None and simulation.summarize([found]).spectrum is None
    np.testing.assert_allclose(found.truncation, exact.truncation, rtol=1e-6)
    other = simulation.run_seeds(problem(draws), TAUS, d=D, key=KEY, seeds=[1], solver="exact") if draws == 3 else batch("exact", 3)
    rejects(lambda: _close(found, other))


def _close(one: SeedBatch, other: SeedBatch) -> None:
    assert worst(one, other) < 1e-6


@pytest.mark.slow
def test_fewer_features_than_samples() -> None:
    assert worst(batch("krylov", math.inf, 1.5), batch("exact", math.inf, 1.5)) < 1e-9


@pytest.mark.thorough
def test_a_space_that_is_not_the_whole_states_its_error() -> None:
    """The tolerance ends it early; the estimate then bounds what is missing, and is not far above it."""
    exact, found = batch("exact"), batch("krylov", tolerance=1e-4)
    error = worst(found, exact)
    estimate = given(found.error_estimate)[0]
    assert 1e-13 < error <= estimate <= 1e-4
    assert simulation.summarize([found]).error_estimate == estimate + found.truncation[0]


@pytest.mark.slow
@pytest.mark.parametrize("rule", [GradientDescent(0.05), Ridge([1.0, 0.1, 1e-3])])
def test_other_rules(rule: Rule) -> None:
    taus = None if isinstance(rule, Ridge) else TAUS[1:]
    exact, found = (
        simulation.run_seeds(problem(3, 4.0), taus, d=D, key=KEY, seeds=[0], rule=rule, solver=solver) for solver in ("exact", "krylov")
    )
    assert worst(found, exact) < 1e-9


@pytest.mark.slow
def test_a_data_set_in_place_of_the_mixture() -> None:
    rng = np.random.default_rng(0)
    data = Samples(rng.standard_normal((160, D)) * np.repeat([1.2, 0.6], 80)[:, None], np.repeat([0, 1], 80))
    case = problem(psi_p=4.0)
    exact, found = (simulation.run_seeds(case, TAUS, d=D, key=KEY, seeds=[2], data=data, solver=solver) for solver in ("exact", "krylov"))
    assert worst(found, exact) < 1e-9


@pytest.mark.slow
def test_random_columns_estimate_without_bias() -> None:
    """Standard errors over 16 signs a network; their mean over 12 networks within four of its own, and a false mean is not."""
    seeds = range(12)
    exact, found = (
        simulation.run_seeds(problem(3, 4.0), TAUS, d=D, key=KEY, seeds=seeds, solver=name) for name in ("exact", "krylov-probes")
    )
    error = given(found.probe_stderr)[1][:, 1:]
    assert np.all(error > 0)
    deviation = (found.test_loss - exact.test_loss)[:, 1:]
    together = abs(deviation.mean(0)) / np.sqrt((error**2).sum(0)) * len(seeds)
    assert np.max(together) < 4
    spread = np.sqrt(np.mean((deviation / error) ** 2))
    assert 0.6 < spread < 1.6  # the errors are of the size of the deviations
    one = simulation.summarize([simulation.run_seeds(problem(3, 4.0), TAUS, d=D, key=KEY, seeds=[0], solver="krylov-probes")])
    np.testing.assert_allclose(one.test_loss_stderr[1:], error[0])


def prescribed(values: np.ndarray, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U with given eigenvalues, a V without components on its null space, and a class average unlike U."""
    rng, p = np.random.default_rng(seed), len(values)
    O = np.linalg.qr(rng.standard_normal((p, p)))[0]  # noqa: E741
    V = O @ (np.sqrt(values)[:, None] * rng.standard_normal((p, width)))
    other = rng.standard_normal((p, p))
    return O * values @ O.T, V, other @ other.T / p


def krylov_of(values: np.ndarray, width: int, dtype: str = "float64", **changes: Any) -> tuple[KrylovCurves, np.ndarray]:
    """Curves of a prescribed spectrum by a Krylov space, and the test losses by numpy's eigendecomposition."""
    U, V, other = prescribed(values, width)
    rule = GradientFlow()
    _, clock = rule.schedule(TAUS, 1.0)
    settings = {"tolerance": 1e-10, "max_steps": 200, **changes}
    with jax.enable_x64(True):
        whole, tested = (Formed(jnp.asarray(a, dtype), jnp.asarray(b, dtype)) for a, b in ((U, V), (other, 0.3 * V)))
        averages = Averages(whole, (whole,), (tested,), np.ones(1))
        found = krylov_losses(averages, np.ones(1), rule=rule, clock=clock, kappa=1.0, d=width, rank=int(np.sum(values > 0)), **settings)
        f = np.asarray(rule.filter(jnp.asarray(np.linalg.eigvalsh(U)), clock, 1.0))
    O = np.linalg.eigh(U)[1]  # noqa: E741
    solved = [O @ (row[:, None] * (O.T @ V)) for row in f]
    losses = np.array([1 - 2 / width * 0.3 * np.sum(V * x) + np.sum(x * (other @ x)) / width for x in solved])
    return found, losses


@pytest.mark.thorough
def test_a_huge_degenerate_eigenvalue_gives_no_ghosts() -> None:
    """300 of 340 eigenvalues are the same number; a space well below the whole holds each of the others exactly once."""
    values = np.concatenate([np.full(300, 0.01), np.geomspace(0.02, 8.0, 40)])
    found, losses = krylov_of(values, 5)
    np.testing.assert_allclose(found.test_loss[:, 0], losses, atol=1e-9)
    assert found.converged and found.steps * 5 < len(values) / 2
    upper = found.ritz_values[found.ritz_values > 1.0]
    assert len(upper) == np.sum(values > 1.0)
    np.testing.assert_allclose(upper, values[values > 1.0], rtol=1e-9)


def test_columns_that_depend_on_each_other_do_no_harm() -> None:
    """V of rank 3 with 6 columns, and a space that is exhausted."""
    values = np.geomspace(0.1, 2.0, 24)
    U, V, _ = prescribed(values, 3)
    V = V @ np.random.default_rng(1).standard_normal((3, 6))
    with jax.enable_x64(True):
        space = krylov.KrylovSpace(Formed(jnp.asarray(U), jnp.asarray(V)), jnp.asarray(V))
        while space.grow():
            pass
        basis = np.concatenate([np.asarray(part) for part in space.blocks], 1)
    lengths = np.linalg.norm(basis, axis=0)
    assert np.all((abs(lengths - 1) < 1e-10) | (lengths == 0)) and np.sum(lengths > 0.5) == 24
    np.testing.assert_allclose(basis.T @ basis, np.diag(lengths > 0.5), atol=1e-12)
    np.testing.assert_allclose(np.sort(np.linalg.eigvalsh(space.T))[-24:], values, rtol=1e-9)


@pytest.mark.thorough
def test_the_estimate_holds_what_rounding_does_to_small_eigenvalues() -> None:
    """A space that is the whole in float32: late times see eigenvalues near rounding; larger ones are the sibling."""
    found, losses = krylov_of(np.geomspace(1e-5, 8.0, 40), 5, "float32", tolerance=1e-4)
    error = np.max(abs(found.test_loss[:, 0] - losses))
    assert found.converged and 1e-2 < error <= 4 * found.error_estimate
    assert krylov_of(np.geomspace(0.1, 8.0, 40), 5, "float32", tolerance=1e-4)[0].error_estimate < 1e-2 * found.error_estimate


@pytest.mark.thorough
def test_float32_tells_small_eigenvalues_beside_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """480 eigenvalues below √p ε of the largest, or little above, are kept; dropped below it, as once, they spoil the losses."""
    values = np.concatenate([np.geomspace(2e-3, 5e-2, 480), np.geomspace(500, 2000, 32)])
    found, losses = krylov_of(values, 32, "float32", max_steps=14)
    error = np.max(abs(found.test_loss[:, 0] - losses))
    assert np.all(found.ritz_values > 0) and error <= found.error_estimate and error < 1e-2 * np.max(abs(losses))
    monkeypatch.setattr(RitzCurves, "_norm_of_rounding", lambda self, values: math.sqrt(512) * self._eps * values[-1])
    found, losses = krylov_of(values, 32, "float32", max_steps=14)
    assert np.any(found.ritz_values <= 0) and np.max(abs(found.test_loss[:, 0] - losses)) > 100 * error


def test_blocks_are_orthonormal_in_float32() -> None:
    """To a few ε, where whitening alone leaves hundreds."""
    U, V, _ = prescribed(np.concatenate([np.geomspace(4e-3, 5e-2, 112), np.geomspace(20, 180, 16)]), 16)
    space = krylov.KrylovSpace(Formed(jnp.asarray(U, jnp.float32), jnp.asarray(V, jnp.float32)), jnp.asarray(V, jnp.float32))
    for _ in range(4):
        space.grow()
    basis = np.asarray(space.basis(), np.float64)
    assert np.max(abs(basis.T @ basis - np.eye(basis.shape[1]))) < 20 * np.finfo(np.float32).eps


@pytest.mark.thorough
def test_too_few_steps_are_refused() -> None:
    found, losses = krylov_of(np.geomspace(1e-3, 8.0, 120), 3, max_steps=4)
    assert not found.converged and found.error_estimate > 1e-10
    assert np.max(abs(found.test_loss[:, 0] - losses)) > 1e-8


def shapes(jaxpr: Any) -> set[tuple[int, ...]]:
    """Shapes of every array that a program makes, inner programs included."""
    found = {tuple(v.aval.shape) for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "shape")}
    for eqn in jaxpr.eqns:
        for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= shapes(inner)
    return found


@pytest.mark.parametrize("draws", [math.inf, 5])
def test_without_the_matrix_nothing_is_as_large_as_it(draws: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """No array of p² or of p n m entries in the program; forming U, which has one, is the sibling."""
    monkeypatch.setattr(moment_assembly, "TILE", 32)
    monkeypatch.setattr(moment_operators, "BLOCK_VALUES", 2**12)
    monkeypatch.setattr(quadrature, "BLOCK_VALUES", 2**13)
    case = problem(draws, psi_n=8.0)
    sizes = sizes_at(case, D)
    layout = layout_for(case, sizes, "float32")
    W = first_layer(KEY, sizes, jnp.float32)
    x, X = jnp.ones((sizes.n, D)), jnp.ones((sizes.p, 4))
    moment: Any
    if draws == math.inf:
        moment = moment_operators.NoiseAverage(
            W, x, np.full(sizes.n, 1 / sizes.n), jnp.float32(0.1), case.activation, layout.train_rule, layout.train_order
        )
    else:
        moment = moment_operators.Draws(W, x, jnp.float32(0.1), KEY, case.activation, 5, 0, sizes.n)
    small = shapes(jax.make_jaxpr(lambda m, X: m.times(X))(moment, X).jaxpr)
    largest = max(math.prod(shape) for shape in small)
    assert largest < sizes.p**2 / 2 and largest < sizes.p * sizes.n * (5 if draws == 5 else layout.train_order + 1)
    assert (sizes.p, sizes.p) in shapes(jax.make_jaxpr(lambda m: m.matrix())(moment).jaxpr)


@pytest.mark.parametrize("tolerance", [0.0, -1e-6, 1.0, math.nan, "small", True])
def test_a_tolerance_out_of_range(tolerance: Any) -> None:
    with pytest.raises(ValueError, match=rf"krylov_tolerance: {tolerance!r}; allowed: 0 < krylov_tolerance < 1, or None"):
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0], solver="krylov", krylov_tolerance=tolerance)


@pytest.mark.thorough
def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"solver: 'magic'; allowed: exact, krylov, krylov-matrix-free, krylov-probes"):
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0], solver="magic")
    with pytest.raises(ValueError, match=r"probes: 99; allowed: 2 to 16"):
        krylov_ensemble.krylov_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0], rule=GradientFlow(), probes=99)
    monkeypatch.setattr(krylov_ensemble, "MOST_STEPS", 3)
    with pytest.raises(ValueError, match=r"krylov_tolerance: 1.0e-08 is not reached by 3 steps, .* solver='exact'"):
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0], solver="krylov")
    monkeypatch.setattr(solver_costs, "available_bytes", lambda: 2**20)
    with pytest.raises(ValueError, match=r"d: 16 makes p = 256 features and needs about .* GiB .* by solver krylov; allowed:"):
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0], solver="krylov")


def test_the_plan_prefers_what_gives_most_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver_costs, "product_rate", lambda dtype: 5e10)
    monkeypatch.setattr(solver_costs, "available_bytes", lambda: 24 * 2**30)
    wide = problem(psi_p=64.0, psi_n=4.0)
    small = simulation.plan(wide, d=100)
    assert small.solver == "exact" and small.estimates[1].seconds < 0.5 * small.estimates[0].seconds
    assert simulation.plan(wide, d=250).solver == "krylov"
    assert simulation.plan(wide, d=1000).solver not in ("exact", "krylov", None)
    found = simulation.plan(wide, d=100, num_seeds=3)
    text = str(found)
    assert "p = 6400, n = 400, d = 100, float64, 3 networks; memory 24 GiB" in text and text.count("<- taken") == 1
    data = found.to_xarray()
    assert data.solver.values.tolist() == list(simulation.SOLVERS) and (data.attrs["taken"], data.attrs["p"]) == (found.solver, 6400)
    np.testing.assert_array_equal(data.seconds.values, [estimate.seconds for estimate in found.estimates])
    seconds = [[e.seconds for e in simulation.plan(wide, d=d).estimates] for d in (50, 100, 200)]
    assert np.all(np.diff(seconds, axis=0) > 0)
    monkeypatch.setattr(solver_costs, "available_bytes", lambda: 2**20)
    assert simulation.plan(wide, d=100).solver is None
    with pytest.raises(ValueError, match=r"d: 100 makes p = 6400 features and needs about"):
        monkeypatch.setattr("rfdiff.simulation.replica_memory.available_bytes", lambda: 2**20)
        simulation.run_seeds(wide, TAUS, d=100, key=KEY, seeds=[0])


def test_a_gpu_decomposes_no_matrix_above_two_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuSOLVER fails there: the plan goes on by a Krylov space, and the exact flow asked for by name is refused with the largest p."""
    monkeypatch.setattr(solver_costs, "product_rate", lambda dtype: 5e13)
    monkeypatch.setattr(solver_costs, "available_bytes", lambda: 2**40)
    wide, d = problem(psi_p=64.0, psi_n=4.0), 400  # p = 25,600
    assert simulation.plan(wide, d=d, dtype="float32").solver == "exact"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert simulation.plan(wide, d=d, dtype="float32").solver == "krylov"
    assert simulation.plan(wide, d=360, dtype="float32").solver == "exact"  # p = 23,040
    assert simulation.plan(wide, d=360, dtype="float64").solver == "krylov"
    assert simulation.plan(wide, d=256, dtype="float64").solver == "exact"  # p = 16,384
    with pytest.raises(InputError, match=r"p = 25600 features, more than a GPU decomposes in float32; allowed: p up to 23170, or a Krylov"):
        simulation.fitting_solver(wide, d=d, dtype="float32", solver="exact")
