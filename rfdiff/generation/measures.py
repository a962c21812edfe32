"""What generated samples say, class by class: how often, how well placed, how near to the training set; and how far a score is off."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from rfdiff.backward.decisions import drawn_classes
from rfdiff.errors import InputError
from rfdiff.noised_mixture import NoisedMixture

THRESHOLD = 1 / 3
CHUNK = 10_000  # samples whose posterior is taken at once


def draw_classes(law: NoisedMixture, x: np.ndarray, t: float, key: jax.Array) -> np.ndarray:
    """Class (N,) of each generated sample, drawn from the exact posterior P(c | x) at t: unbiased where classes overlap.

    Args:
        law: the exact mixture.
        x: (N, d) samples at t.
        t: their diffusion time.
        key: JAX random key.
    """
    posterior = np.concatenate([np.asarray(law.posterior(x[i : i + CHUNK], t), np.float64) for i in range(0, len(x), CHUNK)])
    return drawn_classes(posterior, key)


def generated_moments(law: NoisedMixture, x: np.ndarray, classes: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors of mean and variance of the samples of each class, against the exact law at t.

    Args:
        law: the exact mixture.
        x: (N, d) samples at t.
        classes: (N,) their classes.
        t: their diffusion time.

    Returns:
        (K,) ‖mean - e^{-t} μ_c‖²/d without the part that is noise of the sample (so that it may fall below 0), and (K,) the relative
        error of the variance per coordinate, tr S_c/tr(e^{-2t} Σ_c + Δ I) - 1. NaN for a class with fewer than two samples.
    """
    means, variances = np.exp(-t) * np.asarray(law.means), np.exp(-2 * t) * np.asarray(law.eigenvalues) - np.expm1(-2 * t)
    found = np.full((2, law.num_classes), np.nan)
    for c in range(law.num_classes):
        own = np.asarray(x[classes == c], np.float64)
        if len(own) > 1:
            spread = own.var(axis=0, ddof=1).mean()
            found[:, c] = np.mean((own.mean(axis=0) - means[c]) ** 2) - spread / len(own), spread / variances[c].mean() - 1
    return found[0], found[1]


def near_training(x: np.ndarray, training: np.ndarray, t: float, threshold: float = THRESHOLD) -> np.ndarray:
    """Whether each sample (N,) is memorised: its nearest training point is nearer than `threshold` times its second nearest.

    Args:
        x: (N, d) generated samples at t.
        training: (n, d) training samples; those at t are e^{-t} times them.
        t: diffusion time of the samples.
        threshold: ratio of the distances below which a sample counts as memorised, in (0, 1].

    Raises:
        InputError: a threshold out of range, or fewer than two training samples.

    Reference: the criterion of Yoon et al. 2023 and Bonnaire et al. 2025 (arXiv:2505.17638); tests/generation/test_measures.py.
    """
    check_nearest(threshold, len(training))
    distances = cKDTree(np.exp(-t) * np.asarray(training, np.float64)).query(np.asarray(x, np.float64), k=2)[0]
    return distances[:, 0] < threshold * distances[:, 1]


def check_nearest(threshold: float, num_training: int) -> None:
    """Refuse what memorised samples cannot be counted with.

    Raises:
        InputError: a threshold out of range, or fewer than two training samples.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold: {threshold!r}; allowed: 0 < threshold <= 1")
    if num_training < 2:
        raise InputError(f"training: {num_training} samples; allowed: at least 2, for a second nearest")


def memorised_interval(
    counts: ArrayLike, memorised: ArrayLike, seed: int = 0, level: float = 0.95, resamples: int = 2000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Memorised fraction of a class and its percentile bootstrap interval: networks are drawn again, then their samples.

    Args:
        counts: (S,) samples in the class, of each of S networks.
        memorised: (S,) those of them that are memorised.
        seed: of the bootstrap.
        level: coverage of the interval.
        resamples: number of bootstrap samples.

    Returns:
        fraction, lower end, upper end; NaN for a class without samples. Where none or all are memorised, the interval reaches to the
        exact binomial bound, since such a sample does not vary under the bootstrap.
    """
    counts, memorised = np.atleast_1d(np.asarray(counts, int)), np.atleast_1d(np.asarray(memorised, int))
    total, hits = counts.sum(), memorised.sum()
    if total == 0:
        return (np.asarray(np.nan),) * 3
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(counts), size=(resamples, len(counts)))
    share = np.divide(memorised, counts, where=counts > 0, out=np.zeros(len(counts)))
    again, whole = rng.binomial(counts[drawn], share[drawn]).sum(axis=1), counts[drawn].sum(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(again[whole > 0] / whole[whole > 0], [tail, 1 - tail])
    if hits == 0:
        high = 1 - tail ** (1 / total)
    if hits == total:
        low = tail ** (1 / total)
    return np.asarray(hits / total), np.asarray(low), np.asarray(high)


def score_errors(law: NoisedMixture, score: Callable, times: np.ndarray, key: jax.Array, num: int, dtype: Any) -> np.ndarray:
    """Score error E_c‖s - s*‖²/d (G, K) of a score at each time, from samples x_t of each class.

    Args:
        law: the exact mixture, with score s*.
        score: s(x, t), a callable pytree.
        times: (G,) diffusion times.
        key: JAX random key; one key makes the same points for every score.
        num: samples of each class and time.
        dtype: floating type; set the precision of JAX accordingly around the call.
    """
    return np.asarray(_score_errors(law, score, jnp.asarray(times, dtype), key, num), np.float64)


@functools.partial(jax.jit, static_argnames="num")
def _score_errors(law: NoisedMixture, score: Any, times: jax.Array, key: jax.Array, num: int) -> jax.Array:
    labels = jnp.repeat(jnp.arange(law.num_classes), num)

    def at(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        t, index = inputs
        keys = jax.random.split(jax.random.fold_in(key, index), labels.size)
        x = jax.vmap(lambda key, label: law.draw(key, label, t, times.dtype))(keys, labels)
        off = jax.vmap(lambda x: score(x, t) - law.score(x, t))(x)
        return jnp.mean(off**2, axis=1).reshape(law.num_classes, num).mean(axis=1)

    return jax.lax.map(at, (times, jnp.arange(times.size)))
