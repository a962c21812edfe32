"""One network from training to generated samples: at every training time, and with the two scores that bound what training can do."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from rfdiff.backward import backward
from rfdiff.backward.decisions import check_count
from rfdiff.backward.samplers import check_method
from rfdiff.backward.time_grids import check_grid
from rfdiff.generation.measures import THRESHOLD, check_nearest, draw_classes, generated_moments, near_training, score_errors
from rfdiff.generation.trained_scores import EmpiricalScore, TrainedNetwork, train
from rfdiff.problem import Problem
from rfdiff.progress import SILENT, progress
from rfdiff.simulation.features import sizes_at

REFERENCES = ("empirical", "exact")


@dataclass(frozen=True)
class GeneratedNetwork:
    """Samples of one network, class by class: the T training times, then the empirical and the exact score (T + 2 sources, K classes).

    Args:
        counts: (T + 2, K) generated samples of each class.
        memorised: (T + 2, K) those of them that are memorised.
        mean_error: (T + 2, K) ‖mean - exact‖²/d, as `generated_moments`.
        variance_error: (T + 2, K) relative error of the variance.
        score_error: (T + 2, G, K) E_c‖s - s*‖²/d at each diffusion time of the grid.
    """

    counts: np.ndarray
    memorised: np.ndarray
    mean_error: np.ndarray
    variance_error: np.ndarray
    score_error: np.ndarray


def generate(
    problem: Problem,
    d: int,
    taus: Any,
    times: Any,
    key: jax.Array,
    num: int = 1000,
    threshold: float = THRESHOLD,
    method: str = "heun-sde",
    dtype: Any = None,
    probes: int = 200,
    label: str | None = None,
) -> GeneratedNetwork:
    """Train a network at each diffusion time, run the backward process from noise with it at each training time, and read the samples.

    Every source starts from the same noise and meets the same noise on its way.

    Args:
        problem: mixture and network; its own t is not used.
        d: dimension.
        taus: (T,) increasing training times.
        times: (G,) decreasing diffusion times, from noise to almost data (`backward.log_snr_grid`).
        key: JAX random key of the network, its data and the samples.
        num: generated samples of each source.
        threshold: of the distance ratio below which a sample is memorised.
        method: scheme of `backward.backward`.
        dtype: float64 or float32; None for the default of the device.
        probes: samples of each class and time for the score error.
        label: name of the work for a progress report, or None.

    Raises:
        InputError: as `train`, `backward.backward` and `near_training`, before anything is trained.

    Reference: equations, sections 1 and 8; tests/generation/test_runs.py.
    """
    times = check_grid(times)
    check_method(method)
    check_nearest(threshold, sizes_at(problem, d).n)
    check_count("num", num)
    network = train(problem, d, taus, times, key, dtype, label and f"{label}, training")
    law, t_end = network.mixture.noised, float(network.times[-1])
    start, path, ends, points = (jax.random.fold_in(key, part) for part in range(10, 14))  # beyond the streams of the network
    found = []
    total = len(network.taus) + len(REFERENCES)
    told = progress(f"{label}, samples" if label else "", total, unit="score", stream=None if label else SILENT)
    with jax.enable_x64(network.dtype == "float64"), told as advance:
        x = np.asarray(jax.random.normal(start, (num, d), network.dtype))
        for index in range(total):
            score = _source(network, index)
            last, _ = backward(score, x, network.times, path, method)
            classes = draw_classes(law, last, t_end, ends)
            near = near_training(last, network.samples, t_end, threshold)
            counts, memorised = (np.bincount(own, minlength=law.num_classes) for own in (classes, classes[near]))
            errors = score_errors(law, score, network.times, points, probes, network.dtype)
            found.append((counts, memorised, *generated_moments(law, last, classes, t_end), errors))
            advance(1)
    return GeneratedNetwork(*(np.stack(values) for values in zip(*found, strict=True)))


def _source(network: TrainedNetwork, index: int) -> Any:
    """Score of a source."""
    if index < len(network.taus):
        return network.score(index)
    law = network.mixture.noised
    name = REFERENCES[index - len(network.taus)]
    return EmpiricalScore(network.samples) if name == "empirical" else jax.tree_util.Partial(type(law).score, law)
