"""What a network generates: the two reference scores, and memorisation of a network with many features and few samples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfdiff import MixtureLaw, Problem, generation
from rfdiff.activation import Activation
from rfdiff.backward import log_snr_grid
from rfdiff.errors import InputError
from rfdiff.generation import runs
from tests.tolerances import assert_within, rejects

LAW = MixtureLaw.isotropic([0.8, 0.2], [0.5, 0.5], [[0.7, -0.7], [-0.7, 0.7]])
SHIFTED = Activation("shifted tanh", lambda x: jnp.tanh(x + 1))
GRID, COUNT = log_snr_grid(4.0, 0.01, 30), 600


@pytest.fixture(scope="module")
def found() -> generation.SampleStatistics:
    problem = Problem(LAW, SHIFTED, t=0.1, psi_p=8.0, psi_n=2.0)
    return generation.generate(
        problem, [1.0, 30.0], d=12, times=GRID, key=jax.random.key(0), num_samples=COUNT, dtype="float32", num_probes=20
    )


@pytest.mark.thorough
def test_the_exact_score_generates_the_classes(found: generation.SampleStatistics) -> None:
    def fractions(source: int) -> None:
        share = found.counts[source] / COUNT
        assert_within(share, np.sqrt(0.8 * 0.2 / COUNT), np.array([0.8, 0.2]), allowance=0.01)

    fractions(-1)
    assert np.all(found.mean_error[-1] < 3 * found.mean_error_floor[-1]) and np.all(np.abs(found.variance_error[-1]) < 0.1)
    assert np.all(found.score_error[-1] < 1e-9)
    assert found.memorised[-1].sum() < 12
    rejects(lambda: assert_moments(found, 0))  # a network hardly trained


def assert_moments(found: generation.SampleStatistics, source: int) -> None:
    assert np.all(np.abs(found.variance_error[source]) < 0.2)


@pytest.mark.thorough
def test_the_empirical_score_memorises(found: generation.SampleStatistics) -> None:
    assert np.all(found.memorised[-2] > 0.75 * found.counts[-2])
    assert found.counts.shape == (4, 2) and found.score_error.shape == (4, 31, 2)
    assert np.all(found.counts.sum(axis=1) == COUNT)
    assert np.all(found.score_error[1, 15:22].mean(axis=0) < found.score_error[0, 15:22].mean(axis=0))


@pytest.mark.slow
def test_many_features_memorise_few_samples_in_the_end() -> None:
    problem = Problem(LAW, SHIFTED, t=0.1, psi_p=64.0, psi_n=2.0)
    taus = [30.0, np.inf]
    late = generation.generate(problem, taus, d=8, times=GRID, key=jax.random.key(0), num_samples=500, dtype="float64", num_probes=20)
    share = late.memorised / np.maximum(late.counts, 1)
    assert share[0].max() < 0.1 and share[1].min() > 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": GRID[::-1]}, "^times: .*strictly decreasing"),
        ({"times": [1.0, 0.0]}, "^times: 0 at 1; allowed: finite times > 0"),
        ({"method": "leapfrog"}, "^method: 'leapfrog'"),
        ({"threshold": 0.0}, "^threshold: 0.0; allowed"),
        ({"num_samples": 0}, "^num_samples: 0; allowed: an integer >= 2"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(runs, "train")
    arguments: dict[str, Any] = {"d": 12, "times": GRID, "key": jax.random.key(0), **change}
    with pytest.raises(InputError, match=message):
        generation.generate(Problem(LAW, SHIFTED, t=0.1, psi_p=8.0, psi_n=2.0), [1.0], **arguments)
