"""Covariances that do not commute: equal to the joint eigenvalues where these exist, invariances, simulations, memory and refusals."""

import dataclasses
import functools
import math
from typing import Any

import jax
import numpy as np
import pytest

from rfdiff import simulation
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow
from rfdiff.theory import contour_losses, learning_curves, resolvent, stieltjes, time_grid
from rfdiff.theory.contour import Laid, ellipse
from rfdiff.theory.contour_ladder import Question
from rfdiff.theory.equivalent import equivalent
from rfdiff.theory.noncommuting import closed_system, core_ladder, dense, directions
from rfdiff.theory.noncommuting.working_basis import working_basis
from rfdiff.theory.traces import one_trace
from tests.theory.noncommuting import by_blocks
from tests.tolerances import assert_within, rejects

TAUS = np.array([0.3, 1, 3, 10, 30, 100, 1000, 10000])
CONTOUR = ellipse(0.02, 40.0, 16)
WEIGHTS = {1: [1.0], 2: [0.6, 0.4], 3: [0.5, 0.3, 0.2]}


def rotation(d: int, *seed: int) -> np.ndarray:
    return np.asarray(np.linalg.qr(np.random.default_rng([d, *seed]).standard_normal((d, d)))[0])


def matrices(k: int, d: int = 6, bases: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    """Class covariances of different spectra, each in the basis of the given number."""
    values = np.random.default_rng(k).uniform(0.1, 2.0, (k, d))
    return np.stack([rotation(d, bases[c]) * values[c] @ rotation(d, bases[c]).T for c in range(k)])


def centroids(k: int, d: int = 6) -> np.ndarray:
    """On a line, so that the neuron types are few."""
    return np.random.default_rng(k + 10).standard_normal((k, 1)) * rotation(d, 5)[:1] * np.sqrt(d) * 0.5


def forced(k: int, covariances: np.ndarray, means: np.ndarray) -> MixtureLaw:
    """The law with its matrices kept apart even if they commute."""
    law = MixtureLaw.from_covariances(WEIGHTS[k], covariances, means)
    own = np.maximum(np.linalg.eigvalsh(covariances)[:, ::-1].T, 0)
    d = len(own)
    return MixtureLaw(law.weights, own, np.full(d, 1 / d), law.centroid_gram, covariances, law.centroids, commuting=False)


def problem(law: MixtureLaw, draws: float = math.inf) -> Problem:
    return Problem(law, "tanh", t=0.2, psi_p=2.0, psi_n=1.5, noise_draws=draws)


def integrals(question: Problem, tolerance: float = 0.0) -> np.ndarray:
    """Contour integrals (2, T, K) of train and test losses on a fixed contour, which need not go around the support."""
    with jax.enable_x64(True):
        near = equivalent(dense.surrogate(question), 1, 4.0, 64)
        asked = Question(GradientFlow(), 0.3, TAUS, GradientFlow().schedule(TAUS, 0.3)[1], 1e-6)
        laid = Laid(CONTOUR, 0, 0.0)
        if question.mixture.commuting:
            values = contour_losses.evaluate(near, asked, laid)
        else:
            values = core_ladder.evaluate(dense.prepare(question, near, tolerance), dense.Work(None), asked, laid)[0]
    assert values.residual < 1e-10
    return values.losses


def close(one: np.ndarray, other: np.ndarray, tolerance: float = 1e-8) -> None:
    assert np.max(abs(one - other)) < tolerance


slow, thorough = pytest.mark.slow, pytest.mark.thorough
FAST = [(2, True, 3)]
MORE = [(3, False, math.inf)]
ALL = [(k, moved, m) for k in (1, 2, 3) for moved in (False, True) for m in (1, 3, math.inf)]
CASES = [*FAST, *(pytest.param(*case, marks=thorough if case in MORE else slow) for case in ALL if case not in FAST)]


@pytest.mark.thorough
@pytest.mark.parametrize(("k", "moved", "draws"), CASES)
def test_matrices_that_commute_give_the_joint_result(k: int, moved: bool, draws: float) -> None:
    """One basis for all classes, and the same numbers to 1e-8 from matrices as from joint eigenvalues; not so in different bases."""
    means = centroids(k) * moved
    covariances = matrices(k, bases=(3, 3, 3))
    joint = integrals(problem(MixtureLaw.from_covariances(WEIGHTS[k], covariances, means), draws))
    close(integrals(problem(forced(k, covariances, means), draws)), joint)
    if k > 1:
        rejects(lambda: close(integrals(problem(forced(k, matrices(k), means), draws)), joint, 1e-5))


@pytest.mark.thorough
def test_pairs_that_are_mirrored_and_products_taken_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for many classes, whose rows are worked on one by one: the same numbers as from whole blocks of rows and sums of pairs."""
    question = problem(forced(3, matrices(3), centroids(3)), 3)
    plain = integrals(question)
    monkeypatch.setattr(dense, "PAIR_BYTES", 1)
    monkeypatch.setattr(directions, "MANY_PAIRS", 0)
    close(integrals(question), plain, 1e-11)
    monkeypatch.setattr(dense, "_mirrored", lambda traces, block: traces)  # pairs with earlier points left out
    rejects(lambda: close(integrals(question), plain, 1e-5))


@pytest.mark.thorough
def test_identical_classes_are_one_class() -> None:
    one = matrices(1)
    single = integrals(problem(MixtureLaw.from_covariances([1.0], one), 1))
    pair = integrals(problem(forced(2, np.repeat(one, 2, 0), np.zeros((2, 6))), 1))
    close(pair.mean(-1, keepdims=True), single)
    close(pair[..., :1], pair[..., 1:])


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("k", "moved", "draws", "weights"),
    [
        (2, True, 3, (0.3, 0.7)),
        (2, True, 3, (0.0, 1.0)),
        pytest.param(2, True, math.inf, (1.0, 0.0), marks=thorough),
        pytest.param(3, False, 3, (0.0, 0.3, 0.7), marks=thorough),
        pytest.param(3, True, math.inf, (0.7, 0.0, 0.3), marks=slow),
    ],
)
def test_weights_of_the_loss(k: int, moved: bool, draws: float, weights: tuple[float, ...]) -> None:
    """Matrices and joint eigenvalues give the same numbers for any weights of the classes, those of weight 0 included."""
    means, covariances = centroids(k) * moved, matrices(k, bases=(3, 3, 3))

    def weighted(law: MixtureLaw, weights: tuple[float, ...] | None) -> np.ndarray:
        asked = problem(law, draws)
        return integrals(Problem(law, asked.activation, asked.t, asked.psi_p, asked.psi_n, draws, weights))

    joint = weighted(MixtureLaw.from_covariances(WEIGHTS[k], covariances, means), weights)
    close(weighted(forced(k, covariances, means), weights), joint)
    rejects(lambda: close(weighted(forced(k, covariances, means), None), joint, 1e-3))


@pytest.mark.thorough
@pytest.mark.parametrize(("k", "moved", "draws"), [(3, True, 3), pytest.param(3, False, math.inf, marks=slow)])
def test_relabelling_and_rotating(k: int, moved: bool, draws: float) -> None:
    """One class is eliminated first and one basis preferred, and neither may show."""
    order, turn = [2, 0, 1], rotation(6, 9)
    covariances, means = matrices(k), centroids(k) * moved
    straight = integrals(problem(forced(k, covariances, means), draws))
    law = forced(k, covariances, means)
    moved_law = MixtureLaw(
        law.weights[order], law.eigenvalues[:, order], law.eigenvalue_weights, law.centroid_gram[np.ix_(order, order)],
        turn @ covariances[order] @ turn.T, means[order] @ turn.T, commuting=False,
    )  # fmt: skip
    relabelled = integrals(problem(moved_law, draws))
    close(relabelled, straight[..., order], 1e-9)
    rejects(lambda: close(relabelled, straight, 1e-5))


@pytest.mark.thorough
def test_weakly_coupled_directions_may_be_left_to_the_tail() -> None:
    """The error stays below the estimate; a core that is too small is noticed."""
    d = 40
    decay = np.geomspace(4, 1e-5, d)
    covariances = np.stack([rotation(d, 1) * decay @ rotation(d, 1).T, np.diag(0.7 * decay[::-1])])
    law = MixtureLaw.from_covariances(WEIGHTS[2], covariances, centroids(2, d))
    exact = integrals(problem(law))
    delta, sizes = 1 - math.exp(-0.4), []
    for tolerance in (1e-2, 1e-1):
        left = working_basis(covariances, law.weights, 1 - delta, delta, dense.CORE_SHARE * tolerance)
        sizes.append(left.core.shape[1])
        assert 0 < left.neglected < dense.CORE_SHARE * tolerance
        close(integrals(problem(law), tolerance), exact, left.neglected)
    assert d > sizes[0] > sizes[1] > 0
    rejects(lambda: close(integrals(problem(law), 10.0), exact, 1e-3))
    np.testing.assert_array_equal(working_basis(covariances, law.weights, 1 - delta, delta, 0.0).core.shape, (2, d, d))


def subspaces(d: int) -> MixtureLaw:
    """Each class wide in a subspace of its own, at no particular angle to the other's, with a centroid in it."""
    turn = rotation(d, 1)
    widths = np.where(np.arange(d) < d // 4, 4.0, 0.2), np.where(np.arange(d) < d // 2, 1.8, 0.05)
    means = np.zeros((2, d))
    means[0, : d // 4], means[1] = 0.9, turn[:, : d // 2].sum(1)
    return MixtureLaw.from_covariances(WEIGHTS[2], np.stack([np.diag(widths[0]), turn * widths[1] @ turn.T]), means)


def agrees(simulated: Any, predicted: Any, d: int) -> None:
    for name in ("train_loss", "test_loss"):
        value, error = getattr(simulated, name), getattr(simulated, f"{name}_stderr")
        assert_within(value, error, getattr(predicted, name), allowance=1.2 / d, max_stderr=0.004)


@pytest.mark.parametrize(
    ("draws", "d", "seeds"),
    [pytest.param(math.inf, 48, 24, marks=slow), pytest.param(2, 96, 24, marks=slow), pytest.param(2, 48, 60, marks=slow)],
)
def test_networks_on_the_same_classes_agree(draws: float, d: int, seeds: int) -> None:
    """To O(1/d); pairing the sorted eigenvalues as if the covariances commuted does not."""
    law = subspaces(d)
    question = Problem(law, "tanh", t=0.2, psi_p=2.0, psi_n=3.0, noise_draws=draws)
    reports: list[tuple[int, int]] = []
    predicted = learning_curves(question, TAUS, tolerance=1e-3, progress=lambda done, total: reports.append((done, total)))
    assert predicted.error_estimate <= 1e-3
    assert reports[-1] == (1, 1) and len(reports) > 16 and reports[-2][0] == reports[-2][1]
    simulated = simulation.learning_curves(question, TAUS, d=d, key=jax.random.key(0), num_seeds=seeds)
    np.testing.assert_allclose(simulated.optimal_loss, predicted.optimal_loss, rtol=1e-12)
    agrees(simulated, predicted, d)
    rows = law.eigenvalues[:: d // 24]  # of pairs that each stand d/24 times
    paired = MixtureLaw(law.weights, rows, np.full(24, 1 / 24), law.centroid_gram)
    wrong = learning_curves(Problem(paired, "tanh", 0.2, 2.0, 3.0, draws), TAUS, tolerance=1e-2)
    rejects(functools.partial(agrees, simulated, wrong, d))


@pytest.mark.thorough
def test_stieltjes_transform() -> None:
    """The joint result, where there is one, above, below and on the axis; the sum rule."""
    covariances = matrices(2, bases=(3, 3))
    points = np.array([-0.5, 0.4 + 0.3j, 0.4 - 0.3j, 1.0])
    joint = stieltjes(problem(MixtureLaw.from_covariances(WEIGHTS[2], covariances), 1), points)
    found = stieltjes(problem(forced(2, covariances, np.zeros((2, 6))), 1), points)
    assert found.converged.all() and np.all(found.residual < 1e-9) and found.value[3].imag > 0.1
    close(found.value, joint.value)
    close(found.class_resolved, joint.class_resolved)
    np.testing.assert_allclose(found.class_resolved.sum(1), 1 + points * found.value, atol=1e-9)
    other = stieltjes(problem(forced(2, matrices(2), np.zeros((2, 6))), 1), points)
    np.testing.assert_allclose(other.class_resolved.sum(1), 1 + points * other.value, atol=1e-9)
    rejects(lambda: close(other.value, joint.value, 1e-4))


@slow
def test_stieltjes_transform_of_drawn_networks() -> None:
    question = Problem(subspaces(32), "tanh", t=0.2, psi_p=2.0, psi_n=3.0, noise_draws=1)
    points = np.array([-0.5, 0.4 + 0.3j])
    found = stieltjes(question, points, tolerance=1e-4)
    drawn = simulation.learning_curves(question, [1.0], d=32, key=jax.random.key(1), num_seeds=24).spectrum
    assert drawn is not None and np.all(found.error_estimate < 1e-2)
    samples = np.mean(1 / (drawn.eigenvalues[..., None] - points), axis=1)

    def matches(value: np.ndarray) -> None:
        for part in (np.real, np.imag):
            spread = part(samples).std(0, ddof=1) / np.sqrt(len(samples)) + 1e-12
            assert_within(part(samples).mean(0), spread, part(value), allowance=0.6 / 32, max_stderr=0.05)

    matches(found.value)
    rejects(lambda: matches(0.9 * found.value))


@pytest.mark.thorough
def test_classes_of_low_rank_and_without_variance() -> None:
    """The δ of a class that does not vary is 0 up to the sign of rounding; it is also the limit of small variance."""
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((2, 6, 3)) / np.sqrt(3)
    covariances = np.concatenate([roots @ np.swapaxes(roots, 1, 2), np.zeros((1, 6, 6))])
    limit = covariances + np.array([0, 0, 1e-8])[:, None, None] * np.eye(6)
    still, nearly = (integrals(problem(forced(3, each, centroids(3)))) for each in (covariances, limit))
    close(still, nearly, 1e-6)
    rejects(lambda: close(still, integrals(problem(forced(3, covariances + 0.1 * np.eye(6), centroids(3)))), 1e-3))


def test_what_cannot_be_done_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    question = problem(subspaces(16))
    with pytest.raises(ValueError, match=r"^progress: 3; allowed: a function of \(done, total\)"):
        learning_curves(question, TAUS, progress=3)  # type: ignore[arg-type]
    with jax.enable_x64(True):
        ready = dense.prepare(question, equivalent(dense.surrogate(question), 1, 4.0, 64), 0.0)
    dense.check_memory(ready, 64)
    monkeypatch.setattr(dense, "machine_bytes", lambda: 2**20)
    with pytest.raises(
        ValueError, match="^mixture: 2 classes .* with 16 coupled directions, need about .* GiB for 64 contour nodes, of .*"
    ):
        dense.check_memory(ready, 64)


@pytest.mark.thorough
def test_a_node_that_cannot_be_solved_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without iterations the residual says that nothing was found, and no number is passed for one."""
    monkeypatch.setattr(closed_system, "NEWTON_STEPS", 1)
    question = problem(subspaces(16))
    with jax.enable_x64(True):
        ready = dense.prepare(question, equivalent(dense.surrogate(question), 1, 4.0, 64), 0.0)
        solved = dense.solve(ready, np.asarray(CONTOUR.nodes), None, dense.Work(None))
    assert solved.residual.max() > resolvent.RESIDUAL


@slow
@pytest.mark.parametrize("draws", [math.inf, 3])
def test_classes_of_the_size_of_images(draws: float) -> None:
    """d = 784 with centroids: the curves to 1e-4, as the benchmark times them."""
    curves = learning_curves(Problem(subspaces(784), "tanh", 0.1, 4.0, 3.0, draws), TAUS, tolerance=1e-4)
    assert curves.error_estimate <= 1e-4
    assert np.all(np.diff(curves.total("train_loss")) < 0)


@slow
def test_training_times_of_matrices() -> None:
    grid = time_grid(problem(subspaces(24)), num_times=10)
    curves = learning_curves(problem(subspaces(24)), grid, tolerance=1e-3)
    assert curves.test_loss[0].max() > 0.98 and np.isinf(grid[-1]) and curves.error_estimate <= 1e-3


PAIRS = np.array([0.05 + 0.04j, 1 + 2j, 20 + 5j])
BRUTE = [(3, True, math.inf)]
NAIVE = [
    *((*case, None) for case in BRUTE),
    *(pytest.param(*case, None, marks=thorough if case == (2, False, 3) else slow) for case in ALL if case[0] > 1 and case not in BRUTE),
    (2, False, math.inf, (0.3, 0.7)),
    (2, False, 3, (0.0, 1.0)),
    pytest.param(3, True, math.inf, (0.7, 0.0, 0.3), marks=slow),
    pytest.param(3, True, 3, (0.2, 0.3, 0.5), marks=slow),
]


def weighted(k: int, covariances: np.ndarray, means: np.ndarray, draws: float, weights: tuple[float, ...] | None) -> Problem:
    """The problem of matrices, with weights of the classes in the loss."""
    return dataclasses.replace(problem(forced(k, covariances, means), draws), loss_weights=None if weights is None else np.array(weights))


@pytest.mark.thorough
@pytest.mark.parametrize(("k", "moved", "draws", "weights"), NAIVE)
def test_traces_by_brute_force(k: int, moved: bool, draws: float, weights: tuple[float, ...] | None) -> None:
    """t1 and t2 of full Kd×Kd blocks, doubled for two points and iterated plainly by code that shares nothing with the package."""
    covariances, means = matrices(k), centroids(k) * moved

    def brute(weights: tuple[float, ...] | None) -> tuple[np.ndarray, np.ndarray]:
        numbers = None if weights is None else np.array(weights)
        net = by_blocks.network(np.array(WEIGHTS[k]), covariances, means, 0.2, 2.0, 1.5, draws, numbers)
        return by_blocks.one_traces(net, PAIRS), np.stack([by_blocks.two_trace(net, one, two, source) for source in by_blocks.sources(net)])

    one, two = (side.ravel() for side in np.meshgrid(PAIRS, np.concatenate([PAIRS, PAIRS.conj()]), indexing="ij"))
    expected_first, expected = brute(weights)
    question = weighted(k, covariances, means, draws, weights)
    with jax.enable_x64(True):
        ready = dense.prepare(question, equivalent(dense.surrogate(question), 5, 6.5, 64), 0.0)
        solved = dense.solve(ready, PAIRS, None, dense.Work(None))
        first = np.stack(one_trace(ready.system.eq, solved.point))
        second = np.asarray(dense.second_traces(ready, solved, dense.Work(None))).reshape(2 * k, -1)
    np.testing.assert_allclose(np.swapaxes(first, 1, 2), expected_first, rtol=1e-8)
    np.testing.assert_allclose(second, expected, rtol=1e-8)
    rejects(lambda: np.testing.assert_allclose(second[::-1], expected, rtol=1e-3))
    if weights is not None:
        plain_first, plain = brute(None)  # without the weights
        rejects(lambda: np.testing.assert_allclose(np.swapaxes(first, 1, 2), plain_first, rtol=1e-3))
        rejects(lambda: np.testing.assert_allclose(second, plain, rtol=1e-3))


@slow
@pytest.mark.parametrize(("draws", "weights"), [(3, None), (math.inf, None), (math.inf, (0.3, 0.7)), (3, (1.0, 0.0))])
def test_losses_by_brute_force(draws: float, weights: tuple[float, ...] | None) -> None:
    """Both integrals and the training rule, on the same contour."""
    covariances, means = matrices(2), np.zeros((2, 6))
    numbers = None if weights is None else np.array(weights)
    net = by_blocks.network(np.array(WEIGHTS[2]), covariances, means, 0.2, 2.0, 1.5, draws, numbers)
    taus = TAUS * 0.3 / (2 * net.delta / net.psi_p)  # `integrals` sets the rate
    brute = by_blocks.losses(net, taus, np.asarray(CONTOUR.nodes), np.asarray(CONTOUR.weights))
    close(integrals(weighted(2, covariances, means, draws, weights)), brute)
    rejects(lambda: close(integrals(weighted(2, covariances[::-1], means, draws, weights)), brute, 1e-4))
