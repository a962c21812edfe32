"""One network from training to generated samples: at every training time, and the same with the exact and the empirical score."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from rfdiff.backward.process import check_count
from rfdiff.backward.samplers import Score, check_method, integrate
from rfdiff.backward.time_grids import check_grid
from rfdiff.generation.measures import MOMENT_LABELS, draw_classes, generated_moments, score_errors
from rfdiff.generation.trained_scores import EmpiricalScore, TrainedNetwork, train
from rfdiff.labels import Label, fields_of, labelled_dataset
from rfdiff.memorisation import THRESHOLD, check_nearest, near_training
from rfdiff.problem import Problem
from rfdiff.progress import Progress, require_progress, within
from rfdiff.simulation.features import sizes_at

if TYPE_CHECKING:
    import xarray as xr

REFERENCES = ("empirical score", "exact score")
STATISTICS = {
    "counts": Label(("source", "class"), "generated samples of the class"),
    "memorised": Label(("source", "class"), "those of them that are memorised"),
    **{name: dataclasses.replace(label, dims=("source", "class")) for name, label in MOMENT_LABELS.items()},
    "score_error": Label(("source", "time", "class"), "score error per coordinate"),
}


@dataclass(frozen=True)
class SampleStatistics:
    """What the samples of one network show, class by class, for T + 2 sources: its T training times, the empirical and the exact score.

    Args:
        counts: (T + 2, K) generated samples of each class.
        memorised: (T + 2, K) those of them that are memorised.
        mean_error: (T + 2, K) ‖mean - exact‖²/d.
        mean_error_floor: (T + 2, K) what as many samples of the right mean would show, as `ClassMoments`.
        variance_error: (T + 2, K) relative error of the variance.
        score_error: (T + 2, G, K) E_c‖s - s*‖²/d at each diffusion time of the grid.
    """

    counts: Int[np.ndarray, "T+2 K"]
    memorised: Int[np.ndarray, "T+2 K"]
    mean_error: Float[np.ndarray, "T+2 K"]
    mean_error_floor: Float[np.ndarray, "T+2 K"]
    variance_error: Float[np.ndarray, "T+2 K"]
    score_error: Float[np.ndarray, "T+2 G K"]

    def to_xarray(self) -> "xr.Dataset":
        """Everything on the axes source, time and class."""
        return labelled_dataset(fields_of(self, STATISTICS), STATISTICS)


def generate(
    problem: Problem,
    taus: ArrayLike,
    *,
    d: int,
    times: ArrayLike,
    key: jax.Array,
    num_samples: int = 1000,
    threshold: float = THRESHOLD,
    method: str = "heun-sde",
    dtype: DTypeLike | None = None,
    num_probes: int = 200,
    progress: Progress | None = None,
) -> SampleStatistics:
    """Train a network at each diffusion time, run the backward process from noise with it at each training time, and read the samples.

    Every source uses the same initial noise and the same noise along the way.

    Args:
        problem: mixture and network; its own t is not used.
        taus: (T,) increasing training times.
        d: dimension.
        times: (G,) decreasing diffusion times, from noise to almost data (`backward.log_snr_grid`).
        key: JAX random key of the network, its data and the samples.
        num_samples: generated samples of each source.
        threshold: of the distance ratio below which a sample is memorised.
        method: scheme of `backward.integrate`.
        dtype: float64 or float32; None for the default of the device.
        num_probes: samples of each class and time for the score error.
        progress: called with (done, total), one unit for each diffusion time trained at and for each source sampled; or None.

    Raises:
        InputError: as `train`, `backward.integrate` and `near_training`, before anything is trained.

    Reference: docs/theory/model.md and docs/theory/speciation.md; tests/generation/test_runs.py.
    """
    require_progress(progress)
    times = check_grid(times)
    check_method(method)
    check_nearest(threshold, sizes_at(problem, d).n)
    check_count("num_samples", num_samples)
    sources = np.size(taus) + len(REFERENCES)
    total = len(times) + sources
    network = train(problem, taus, d=d, times=times, key=key, dtype=dtype, progress=within(progress, 0, total))
    law, t_end = network.mixture.noised, float(network.times[-1])
    training = np.exp(-t_end) * network.samples.astype(np.float64)  # as they stand at the last time
    start, path, ends, points = (jax.random.fold_in(key, part) for part in range(10, 14))  # beyond the streams of the network
    rows = []
    with jax.enable_x64(network.dtype == "float64"):
        x = np.asarray(jax.random.normal(start, (num_samples, d), network.dtype))
        for index in range(sources):
            score = _source(network, index)
            last, _ = integrate(score, x, network.times, key=path, method=method)
            classes = draw_classes(law, last, t_end, key=ends)
            near = near_training(last, training, threshold=threshold).memorised
            counts, memorised = (np.bincount(labels, minlength=law.num_classes) for labels in (classes, classes[near]))
            errors = score_errors(law, score, network.times, key=points, num_samples=num_probes, dtype=network.dtype)
            rows.append((counts, memorised, *generated_moments(law, last, classes, t_end), errors))
            if progress is not None:
                progress(len(times) + index + 1, total)
    return SampleStatistics(*(np.stack(values) for values in zip(*rows, strict=True)))


def _source(network: TrainedNetwork, index: int) -> Score:
    """Score of a source."""
    if index < len(network.taus):
        return network.score(index)
    law = network.mixture.noised
    name = REFERENCES[index - len(network.taus)]
    return (
        EmpiricalScore(network.samples, network.sample_weights)
        if name == "empirical score"
        else jax.tree_util.Partial(type(law).score, law)
    )
