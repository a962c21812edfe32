"""Networks trained on a data set: splits that never overlap, explicit noising, Gaussian data against the mixture, and every refusal."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import simulation
from rfdiff.gaussian_mixture import GaussianMixture
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.samples import Samples
from rfdiff.simulation import SeedBatch, exact_ensemble, replica, replica_memory
from rfdiff.simulation.data_split import Split, draw_split, held_out_counts
from rfdiff.simulation.features import first_layer, sizes_at
from tests.synthetic import given
from tests.tolerances import assert_within, rejects

D, TAUS = 16, np.array([0.0, 1.0, 30.0, 1000.0])
KEY = jax.random.key(23)
LAW = MixtureLaw([0.6, 0.4], [[1.6, 0.2], [0.4, 1.2]], [0.5, 0.5], [[0.5, 0.2], [0.2, 0.5]])


def problem(**changes: Any) -> Problem:
    return dataclasses.replace(Problem(LAW, "tanh", 0.3, 2.0, 1.5), **changes)


def gaussian_data(law: MixtureLaw = LAW, counts: tuple[int, int] = (10_000, 10_000), held_out: int = 300) -> Samples:
    x, labels = GaussianMixture.from_law(law, D, jax.random.key(1)).sample(jax.random.key(2), counts)
    return Samples(x, labels, held_out)


@pytest.fixture(scope="module")
def uniform_data() -> Samples:
    """Two classes that are nothing like Gaussian: uniform in a cube, and on its corners; few samples, which are told apart by value."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1.5, 1.5, (40, D)), np.sign(rng.standard_normal((30, D))) * rng.uniform(0.9, 1.1, (30, 1))])
    order = rng.permutation(70)
    return Samples(x[order], np.repeat([0, 1], [40, 30])[order], held_out=25)


@pytest.fixture(autouse=True)
def _one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of replicas with one compiled program."""
    monkeypatch.setitem(replica_memory.LOOP_FEATURES, jax.default_backend(), 1)


def rows(x: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in x}


def test_training_and_held_out_samples_never_overlap(uniform_data: Samples) -> None:
    sizes = sizes_at(problem(), D)
    held_out = held_out_counts(uniform_data, problem(), sizes)
    assert sizes.counts == (14, 10) and held_out == (25, 20)  # the cap, and all that is left
    splits = [draw_split(uniform_data, sizes, held_out, jax.random.key(r)) for r in range(30)]
    pools = [rows(uniform_data.samples[uniform_data.labels == c]) for c in range(2)]
    seen: set[bytes] = set()
    for split in splits:
        train = [rows(part) for part in np.split(split.train, [14])]
        test = [rows(part) for part in np.split(split.test, [25])]
        assert [len(part) for part in train] == [14, 10] and [len(part) for part in test] == [25, 20]  # without replacement
        for c in range(2):
            assert train[c] <= pools[c] and test[c] <= pools[c] and not train[c] & test[c]
        seen |= train[0]
    assert seen == pools[0]  # every sample has its turn
    again = draw_split(uniform_data, sizes, held_out, jax.random.key(4))
    np.testing.assert_array_equal(again.train, splits[4].train)
    assert rows(again.train) != rows(splits[5].train)


@pytest.mark.slow
def test_each_replica_depends_on_its_own_key_alone(uniform_data: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = simulation.summarize(
        [simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=seeds, data=uniform_data) for seeds in ([2], [0, 1])]
    )
    monkeypatch.setitem(replica_memory.LOOP_FEATURES, jax.default_backend(), 1000)
    batched = simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=range(3), data=uniform_data)
    np.testing.assert_allclose(given(curves.per_seed)["test_loss"], batched.test_loss, rtol=1e-9)
    np.testing.assert_allclose(given(curves.spectrum).eigenvalues, given(batched.eigenvalues), atol=1e-12)
    assert np.abs(batched.test_loss[0, 2] - batched.test_loss[1, 2]).min() > 1e-4


@pytest.mark.thorough
def test_the_score_error_is_measured_from_the_mixture(uniform_data: Samples) -> None:
    curves = simulation.learning_curves(problem(), TAUS, d=D, key=KEY, num_seeds=1, data=uniform_data)
    signal = math.exp(-0.6) * np.array([[1.6, 0.2], [0.4, 1.2]])
    np.testing.assert_allclose(curves.optimal_loss, (signal / (signal - math.expm1(-0.6))).mean(0), rtol=1e-12)
    np.testing.assert_allclose(curves.score_error, (curves.test_loss - curves.optimal_loss) / -math.expm1(-0.6), rtol=1e-12)


@pytest.mark.slow
def test_single_precision_is_the_same_network_and_split(uniform_data: Samples) -> None:
    double, single = (
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0, 1], dtype=name, data=uniform_data) for name in ("float64", "float32")
    )
    np.testing.assert_allclose(single.test_loss, double.test_loss, rtol=1e-4)


def explicit(case: Problem, data: Samples, batch: SeedBatch, which: str) -> tuple[np.ndarray, np.ndarray]:
    """Loss (T, K) of replica 4 on its training or its held-out samples, noised 4000 times each, and its standard error."""
    sizes = sizes_at(case, D)
    held_out = held_out_counts(data, case, sizes)
    plan = replica_memory.layout_for(case, sizes, "float64", held_out)
    split, keys = replica.draw_replica(case, data, plan, jax.random.fold_in(KEY, 4))
    assert isinstance(split, Split)
    with jax.enable_x64(True):
        W = np.asarray(first_layer(keys[0], sizes, jnp.float64))
        train, _ = jax.tree.map(np.asarray, jax.jit(replica.replica_moments, static_argnums=3)(case, split, keys, plan))
    shares = np.array(sizes.counts) / sizes.n
    U, V = np.einsum("c,cij->ij", shares, np.stack(train.U)), np.einsum("c,cij->ij", shares, np.stack(train.V))
    np.testing.assert_allclose(given(batch.eigenvalues)[0], np.linalg.eigvalsh(U), atol=1e-9)
    values, basis = np.linalg.eigh(U)
    tested, counts = (split.train, sizes.counts) if which == "train" else (split.test, held_out)
    rng, draws = np.random.default_rng(5), 4000
    noise = rng.standard_normal((draws, *tested.shape))
    phi = np.tanh((math.exp(-0.3) * tested + math.sqrt(-math.expm1(-0.6)) * noise) @ W.T / math.sqrt(D))
    losses = np.zeros((draws, len(TAUS), 2))
    for i, tau in enumerate(TAUS):
        f = -np.expm1(-float(case.kappa) * tau * values) / values
        squares = np.mean((noise - phi @ ((basis * f) @ (basis.T @ V))) ** 2, axis=2)
        losses[:, i] = np.stack([part.mean(1) for part in np.split(squares, [counts[0]], axis=1)], axis=1)
    return losses.mean(0), losses.std(0, ddof=1) / math.sqrt(draws)


@pytest.mark.thorough
def test_losses_against_explicit_noise(uniform_data: Samples) -> None:
    batch = simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[4], data=uniform_data)
    measured = {which: explicit(problem(), uniform_data, batch, which) for which in ("train", "test")}
    assert_within(*measured["train"], batch.train_loss[0], max_stderr=0.003)
    assert_within(*measured["test"], batch.test_loss[0], max_stderr=0.003)
    # siblings: a test on the training samples, which has a visibly lower loss; classes exchanged
    rejects(lambda: assert_within(*measured["train"], batch.test_loss[0], max_stderr=0.003))
    assert np.all(measured["train"][0][2:] < batch.test_loss[0, 2:] - 20 * measured["train"][1][2:])
    rejects(lambda: assert_within(*measured["test"], batch.test_loss[0][:, ::-1], max_stderr=0.003))


@pytest.mark.thorough
def test_held_out_samples_that_were_trained_on_give_the_train_loss(uniform_data: Samples) -> None:
    """The test moments of the training samples are the training moments: what the held-out loss is not, and by how much."""
    case, sizes = problem(), sizes_at(problem(), D)
    plan = replica_memory.layout_for(case, sizes, "float64", sizes.counts)
    split, keys = replica.draw_replica(case, uniform_data, plan, jax.random.fold_in(KEY, 4))
    assert isinstance(split, Split)
    moments = jax.jit(replica.replica_moments, static_argnums=3)
    with jax.enable_x64(True):
        train, test = jax.tree.map(np.asarray, moments(case, Split(split.train, split.train), keys, plan))
        _, held = jax.tree.map(np.asarray, moments(case, split, keys, plan))
    for a, b, c in zip(train.U, test.U, held.U, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
        assert np.abs(a - c).max() > 0.01


@pytest.mark.slow
def test_gaussian_data_give_the_curves_of_their_mixture() -> None:
    mixture = simulation.learning_curves(problem(), TAUS, d=D, key=KEY, num_seeds=80)

    def same(law: MixtureLaw, exchanged: int = 1) -> None:
        other = simulation.learning_curves(problem(), TAUS, d=D, key=jax.random.key(3), num_seeds=80, data=gaussian_data(law))
        for name in ("train_loss", "test_loss"):
            estimate, prediction = getattr(other, name)[1:, ::exchanged], getattr(mixture, name)[1:]
            error = np.hypot(getattr(other, f"{name}_stderr")[1:], getattr(mixture, f"{name}_stderr")[1:])
            assert_within(estimate, error, prediction, max_stderr=0.03)

    same(LAW)
    # siblings: the classes exchanged; one of them a quarter wider
    rejects(lambda: same(LAW, -1))
    rejects(lambda: same(MixtureLaw(LAW.weights, LAW.eigenvalues * [1.25, 1.0], LAW.eigenvalue_weights, LAW.centroid_gram)))


@pytest.mark.thorough
def test_stored_noise_draws(uniform_data: Samples) -> None:
    """m = 1 and p > n m: the stored draws are reproduced, the held-out samples are not."""
    batch = simulation.run_seeds(problem(noise_draws=1), [1.0, np.inf], d=D, key=KEY, seeds=range(2), data=uniform_data)
    np.testing.assert_allclose(batch.train_loss[:, 1], 0.0, atol=1e-9)
    assert np.all(batch.test_loss[:, 1] > 0.3)
    exact = simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=range(2), data=uniform_data)
    assert np.all(np.abs(batch.test_loss[:, 0] - exact.test_loss[:, 1]) > 1e-3)  # trained on draws, not on their average


@pytest.mark.parametrize(
    ("data", "changes", "d", "message"),
    [
        ([[1.0]], {}, D, r"data: got list; allowed: Samples, or None"),
        (Samples(np.ones((60, D)), np.zeros(60, int)), {}, D, r"data: 1 classes; allowed: 2, those of the problem's mixture"),
        (Samples(np.ones((60, D)), np.arange(60) % 2), {}, D + 1, r"d: 17; allowed: 16, the dimension of the data"),
        (
            Samples(np.ones((60, D)), np.arange(60) % 2),
            {"mixture": MixtureLaw.from_covariances([0.5, 0.5], np.stack([np.eye(4)] * 2))},
            D,
            r"d: 16; allowed: 4, the dimension of the covariances of the problem's mixture",
        ),
        (
            Samples(np.ones((60, D)), np.array(["bag", "shirt"] * 30)),
            {"mixture": MixtureLaw.from_covariances([0.5, 0.5], np.stack([np.eye(D)] * 2), class_names=("shirt", "bag"))},
            D,
            r"data: classes bag, shirt; allowed: shirt, bag, those of the problem's mixture in this order",
        ),
        (
            Samples(np.ones((28, D)), (np.arange(28) >= 14).astype(int)),
            {},
            D,
            r"data: class 0 has 14 samples, and psi_n = 1.5 asks for 14 to train on; allowed: at least 15",
        ),
        (
            Samples(np.ones((28, D)), (np.arange(28) >= 20).astype(int)),
            {},
            D,
            r"data: class 1 has 8 samples, .* asks for 10 to train on; allowed: at least 11",
        ),
    ],
)
def test_refusals(data: Any, changes: dict[str, Any], d: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_ensemble, "_run_chunk", lambda *_: pytest.fail("started before the arguments were checked"))
    with pytest.raises(ValueError, match=message):
        simulation.learning_curves(problem(**changes), TAUS, d=d, key=KEY, num_seeds=1, data=data)


def test_held_out_samples_count_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = sizes_at(problem(), D)
    without, few, many = (replica_memory.replica_bytes(sizes, "float64", 4, held_out=held) for held in ((), (10, 10), (5000, 5000)))
    assert few - without == 20 * (few - without) // 20 > 0
    assert many - without == 500 * (few - without)  # linear in h
    assert many - without > 8 * 10_000 * (sizes.p * 8 + D)  # at least the coefficients of every held-out sample, and itself
    data = gaussian_data(counts=(6000, 6000), held_out=5000)
    monkeypatch.setattr(replica_memory, "available_bytes", lambda: (without + many) // 2)
    with pytest.raises(ValueError, match=r"p = 32 features, tested on 10000 samples, .*allowed: data of a smaller d or held_out"):
        simulation.run_seeds(problem(), TAUS, d=D, key=KEY, seeds=[0], data=data)
    assert replica_memory.chunk_size(sizes, "float64", 4, 1) == 1
