"""Coupled directions in the compiled closed forms: equal to joint eigenvalues and to the dense route, sums, networks, differences."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import design, simulation, theory
from rfdiff.class_times import TIME_NAMES
from rfdiff.curves import Spectrum
from rfdiff.mixture import MixtureLaw
from rfdiff.parameters import get_parameter, set_parameter
from rfdiff.problem import Problem
from rfdiff.theory import contour_forms, implicit, pair_traces, plans, solutions
from rfdiff.theory.density import grid_weights
from rfdiff.theory.equivalent import equivalent
from rfdiff.theory.noncommuting import dense
from rfdiff.theory.noncommuting.coupled_law import MOST_EQUATIONS, apart, coupled_law
from rfdiff.theory.traces import one_trace
from tests.synthetic import given
from tests.theory.noncommuting.test_dense import PAIRS, WEIGHTS, centroids, close, forced, matrices, problem, subspaces
from tests.tolerances import assert_within, rejects

slow, thorough = pytest.mark.slow, pytest.mark.thorough


def separated(law: MixtureLaw, draws: float = math.inf) -> Problem:
    """A problem whose two bulks are apart, with a limit τ → ∞."""
    return Problem(law, "tanh", t=0.2, psi_p=4.0, psi_n=8.0, noise_draws=draws)


def decaying(d: int) -> np.ndarray:
    """Covariances of two classes whose coupling falls with their variances."""
    values, turn = np.geomspace(4, 1e-4, d), np.linalg.qr(np.eye(d) + 0.1 * np.random.default_rng(0).standard_normal((d, d)))[0]
    return np.stack([np.diag(values), turn * (0.7 * values) @ turn.T])


@pytest.mark.thorough
def test_a_coupled_law_keeps_what_it_can_afford() -> None:
    covariances = decaying(300)
    question = problem(MixtureLaw.from_covariances(WEIGHTS[2], covariances))
    loose, tight = coupled_law(question, 1.0), coupled_law(question, 1e-9)
    assert loose is not None and tight is not None
    assert loose.core.shape[1] == 8 and tight.core.shape[1] == MOST_EQUATIONS and loose.neglected > tight.neglected > 1e-9
    for law in (loose, tight):
        r = law.core.shape[1]
        assert np.count_nonzero(law.core[0] - np.diag(np.diagonal(law.core[0]))) == 0
        assert law.shares.sum() == pytest.approx(1 - r / 300)
        trace = np.einsum("kaa->k", law.core) / 300 + law.shares @ law.eigenvalues
        np.testing.assert_allclose(trace, question.mixture.variances, rtol=1e-12)
    assert coupled_law(question, 1e-9) is tight  # near problems share it
    other = coupled_law(dataclasses.replace(question, t=1.0), 1e-9)
    assert other is not None and other.neglected < tight.neglected  # more noise hides the coupling
    assert coupled_law(problem(MixtureLaw.isotropic([0.5, 0.5], [1.0, 2.0])), 1e-9) is None
    small = coupled_law(problem(subspaces(16)), 1e-9)
    assert small is not None and small.core.shape == (2, 16, 16) and small.neglected == 0 and small.shares.sum() == 0


@pytest.mark.parametrize(
    ("k", "moved", "draws"),
    [pytest.param(2, True, 3, marks=thorough), pytest.param(3, True, math.inf, marks=thorough), pytest.param(3, False, 1, marks=slow)],
)
def test_traces_of_the_dense_route(k: int, moved: bool, draws: float) -> None:
    """Two implementations, one of blocks with Newton's method in numpy and one compiled, agree in t1 and t2; sum rule."""
    question = problem(forced(k, matrices(k), centroids(k) * moved), draws)
    with jax.enable_x64(True):
        ready = dense.prepare(question, equivalent(dense.surrogate(question), 5, 6.5, 64), 0.0)
        solved = dense.solve(ready, PAIRS, None, dense.Work(None))
        first = np.swapaxes(np.stack(one_trace(ready.system.eq, solved.point)), 1, 2)
        second = np.asarray(dense.second_traces(ready, solved, dense.Work(None)))
        eq = equivalent(apart(question), 5, 6.5, 64, coupled=coupled_law(question, 1e-9))
        found = solutions.anywhere(eq, PAIRS)
        traces = pair_traces.traces(eq, PAIRS, found.u)
        whole = contour_forms.second_traces(eq, implicit.expand(eq, jnp.asarray(PAIRS), jnp.asarray(found.u)))
    close(traces.linear, first, 1e-10)
    close(np.concatenate([traces.same, traces.conjugate], -1), second, 1e-10)
    close(np.concatenate(whole, -1), second, 1e-10)
    close(found.kappa.sum(1), 1 + PAIRS * found.g, 1e-9)
    rejects(lambda: close(traces.linear[:, ::-1], first, 1e-4))


@thorough
def test_spectrum_of_matrices_that_commute_is_the_joint_one() -> None:
    """To 1e-8, also where they are diagonal in no basis at hand; and the sum rule where they do not commute."""
    covariances = matrices(2, bases=(3, 3))
    joint, found, other = (
        theory.spectrum(separated(law), num_points=64)
        for law in (
            MixtureLaw.from_covariances(WEIGHTS[2], covariances),
            forced(2, covariances, np.zeros((2, 6))),
            forced(2, matrices(2), np.zeros((2, 6))),
        )
    )
    np.testing.assert_allclose(found.support, joint.support, rtol=1e-8)
    close(found.density, joint.density, 1e-8 * joint.density.max())
    close(found.class_density, joint.class_density, 1e-8 * joint.density.max())
    for each in (found, other):
        assert each.missing_mass < 1e-5
        np.testing.assert_allclose(each.class_density.sum(1), each.density, atol=1e-9 * each.density.max())
    rejects(lambda: np.testing.assert_allclose(other.support[-1], joint.support[-1], rtol=1e-4))
    bulks = [theory.bulk_times(separated(MixtureLaw.isotropic(WEIGHTS[2], [1.0, 1.0])), spectrum=each) for each in (found, joint)]
    np.testing.assert_allclose(bulks[0].tau_mem, bulks[1].tau_mem, rtol=1e-8)


@slow
def test_spectrum_of_drawn_networks() -> None:
    """The distribution function of eigenvalues of networks; those of laws with the same variances in common directions are others.

    Classes are centred: the eigenvalue that class means make lies beyond the bulk, moves others by up to a place, and is in no theory.
    """
    law = subspaces(48)
    law = MixtureLaw.from_covariances(law.weights, given(law.covariances))
    question = Problem(law, "tanh", t=0.2, psi_p=2.0, psi_n=3.0, noise_draws=1)
    drawn = simulation.learning_curves(question, [1.0], d=48, key=jax.random.key(1), num_seeds=48).spectrum
    assert drawn is not None
    levels = np.geomspace(0.05, 3.0, 12)
    below = np.mean(drawn.eigenvalues[..., None] < levels, axis=1)

    def agrees(spectrum: Spectrum) -> None:
        shares = _distribution(spectrum, levels)
        assert_within(below.mean(0), below.std(0, ddof=1) / np.sqrt(len(below)), shares, allowance=0.1 / 48, max_stderr=0.002)

    agrees(theory.spectrum(question))
    values = law.eigenvalues[::2]
    for other in (values, np.stack([values[:, 0], values[::-1, 1]], 1)):  # wide where the other class is wide, or where it is not
        common = MixtureLaw(law.weights, other, np.full(24, 1 / 24), law.centroid_gram)
        rejects(functools.partial(agrees, theory.spectrum(question.with_mixture(common))))


def _distribution(spectrum: Spectrum, levels: np.ndarray) -> np.ndarray:
    """Share of the eigenvalues below levels."""
    modes = grid_weights(spectrum.support, spectrum.eigenvalues) * spectrum.density
    order = np.argsort(spectrum.eigenvalues)
    cumulated = np.cumsum(modes[order]) - modes[order] / 2
    return np.asarray(np.interp(levels, spectrum.eigenvalues[order], cumulated) + spectrum.atom_weights.sum())


@thorough
def test_sensitivity_of_matrices_that_commute_is_the_joint_one() -> None:
    covariances = matrices(2, bases=(3, 3))
    joint = theory.sensitivity(separated(MixtureLaw.from_covariances(WEIGHTS[2], covariances)))
    found = theory.sensitivity(separated(forced(2, covariances, np.zeros((2, 6)))))
    for name, slopes in joint.elasticities.items():
        for time in TIME_NAMES:
            np.testing.assert_allclose(getattr(found.elasticities[name], time), getattr(slopes, time), atol=1e-7)


@slow
def test_sensitivity_by_differences_of_the_dense_route() -> None:
    """Derivatives through the compiled route against central differences of times from the other one."""
    question = separated(forced(2, matrices(2), np.zeros((2, 6))))
    found = theory.sensitivity(question)
    step = 0.02
    for name in ("t", "psi_p", "psi_n", "weight_0", "samples_1", "loss_weight_0", "variance_1"):
        value = float(get_parameter(question, name))
        moved = [theory.times(set_parameter(question, name, value * math.exp(sign * step)), tolerance=1e-8) for sign in (1, -1)]
        for time in ("tau_gen", "tau_mem", "tau_opt"):
            difference = (np.log(getattr(moved[0], time)) - np.log(getattr(moved[1], time))) / (2 * step)
            np.testing.assert_allclose(getattr(found.elasticities[name], time), difference, atol=2e-3)
    rejects(lambda: np.testing.assert_allclose(found.elasticities["t"].tau_mem, found.elasticities["psi_n"].tau_mem, atol=0.1))


@thorough
def test_the_error_of_a_plan_covers_what_its_directions_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the dense route, with 16 of 48 directions coupled; the classes exchanged are farther off than that."""
    monkeypatch.setattr(plans, "coupled_law", functools.partial(coupled_law, most=16))
    taus = np.geomspace(0.3, 1e3, 8)
    question = Problem(MixtureLaw.from_covariances([0.1, 0.9], decaying(48)), "tanh", t=0.1, psi_p=4.0, psi_n=4.0)
    exact = theory.learning_curves(question, taus, tolerance=1e-4)

    def deviation(asked: Problem) -> tuple[float, float]:
        plan = theory.plan_curves(asked, taus, tolerance=1e-4, gram_derivatives=False)
        with jax.enable_x64(True):
            losses = theory.curve_kernel(asked, plan).losses(taus)
        return float(np.max(abs(np.asarray(losses.test) - exact.test_loss))), float(plan.error_estimate)

    off, estimate = deviation(question)
    assert 1e-6 < off < estimate < 0.1
    other = question.with_mixture(MixtureLaw.from_covariances([0.1, 0.9], decaying(48)[::-1]))
    rejects(lambda: np.testing.assert_array_less(deviation(other)[0], estimate))


@slow
def test_a_map_is_of_the_times_of_its_cells() -> None:
    question = separated(forced(2, matrices(2), np.zeros((2, 6))))
    found = theory.phase_map(question, {"psi_n": [6.0, 9.0], "weight_0": [0.3, 0.5]})
    cell = theory.times(set_parameter(set_parameter(question, "psi_n", 9.0), "weight_0", 0.3))
    assert found.converged.all()
    np.testing.assert_allclose(found.times.tau_mem[1, 0], cell.tau_mem, rtol=1e-4)
    rejects(lambda: np.testing.assert_allclose(found.times.tau_mem[0, 0], cell.tau_mem, rtol=1e-2))


@slow
def test_a_design_finds_the_weight_that_a_search_of_the_dense_route_finds() -> None:
    """Largest score error over weights and stop times; the proposal on the nearest commuting law is another."""
    law = dataclasses.replace(subspaces(24), weights=np.array([0.9, 0.1]))
    question = Problem(law, "tanh", t=0.1, psi_p=4.0, psi_n=4.0)
    found = design.propose(question, levers=design.Levers(loss_weights=True, stop_time=True), tolerance=1e-3)
    taus = np.geomspace(1, 1e4, 160)

    def worst(share: float) -> float:
        curves = theory.learning_curves(dataclasses.replace(question, loss_weights=np.array([share, 1 - share])), taus, tolerance=1e-3)
        return float(np.asarray(curves.score_error).max(1).min())

    scanned = np.array([worst(share) for share in (found.loss_weights[-1][0], 0.9, 0.7, 0.5, 0.3)])
    assert scanned[0] == pytest.approx(found.goal[-1], rel=5e-3)
    assert scanned[0] <= scanned.min() + 1e-3
    assert scanned[0] < 0.99 * scanned[1]
