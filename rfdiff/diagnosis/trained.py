"""What is true on the data themselves: small random-features networks trained on them, tested on samples that were held out."""

import jax
import numpy as np

from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.samples import Samples
from rfdiff.simulation.data_split import held_out_counts
from rfdiff.simulation.features import sizes_at
from rfdiff.simulation.networks import run_seeds

NETWORK_CURVES = ("train_loss", "test_loss", "score_error")


def check_networks(problem: Problem, samples: Samples) -> None:
    """Refuse what cannot be trained before anything is computed.

    Raises:
        InputError: a class with too few samples to train on and to hold out.
    """
    try:
        held_out_counts(samples, problem, sizes_at(problem, samples.dimension))
    except InputError as err:
        raise InputError(f"{err}; or no networks (--networks 0)") from err


def trained(problem: Problem, samples: Samples, taus: np.ndarray, seed: int, replica: int) -> dict[str, np.ndarray]:
    """Curves (T, K) of one network trained on samples of the data and tested on others.

    Raises:
        InputError: a network that does not fit in memory.
    """
    batch = run_seeds(problem, taus, d=samples.dimension, key=jax.random.key(seed), seeds=[replica], data=samples)
    return {name: np.asarray(getattr(batch, name))[0] for name in NETWORK_CURVES}
