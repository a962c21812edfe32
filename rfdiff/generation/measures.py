"""What generated samples say, class by class: how often, how well placed; and how far a score is off."""

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from rfdiff.backward.process import drawn_classes
from rfdiff.backward.samplers import Score
from rfdiff.labels import Label, fields_of, labelled_dataset
from rfdiff.noised_mixture import NoisedMixture

if TYPE_CHECKING:
    import xarray as xr

CHUNK = 10_000  # samples whose posterior is taken at once

MOMENT_LABELS = {
    "mean_error": Label(("class",), "squared error of the class mean per coordinate"),
    "mean_error_floor": Label(("class",), "the same of as many samples of the right mean, on average"),
    "variance_error": Label(("class",), "relative error of the class variance"),
}


class ClassMoments(NamedTuple):
    """Errors of mean and variance of generated samples, class by class; NaN for a class with fewer than two samples.

    Args:
        mean_error: (K,) ‖mean of the samples - e^{-t} μ_c‖²/d, ≥ 0.
        mean_error_floor: (K,) tr S_c/(d N_c): what N_c samples of the right mean would show on average.
        variance_error: (K,) relative error of the variance per coordinate, tr S_c/tr(e^{-2t} Σ_c + Δ I) - 1.
    """

    mean_error: Float[np.ndarray, " K"]
    mean_error_floor: Float[np.ndarray, " K"]
    variance_error: Float[np.ndarray, " K"]

    def to_xarray(self) -> "xr.Dataset":
        """The three errors on the axis class."""
        return labelled_dataset(fields_of(self, MOMENT_LABELS), MOMENT_LABELS)


def draw_classes(law: NoisedMixture, x: Float[np.ndarray, "N d"], t: float, *, key: jax.Array) -> Int[np.ndarray, " N"]:
    """Class (N,) of each generated sample, drawn from the exact posterior P(c | x) at t: unbiased where classes overlap.

    Args:
        law: the exact mixture.
        x: (N, d) samples at t.
        t: their diffusion time.
        key: JAX random key.
    """
    posterior = np.concatenate([np.asarray(law.posterior(x[i : i + CHUNK], t), np.float64) for i in range(0, len(x), CHUNK)])
    return drawn_classes(posterior, key)


def generated_moments(law: NoisedMixture, x: Float[np.ndarray, "N d"], classes: Int[np.ndarray, " N"], t: float) -> ClassMoments:
    """Errors of mean and variance of the samples of each class, against the exact law at t.

    Args:
        law: the exact mixture.
        x: (N, d) samples at t.
        classes: (N,) their classes.
        t: their diffusion time.
    """
    means, variances = np.exp(-t) * np.asarray(law.means), np.exp(-2 * t) * np.asarray(law.eigenvalues) - np.expm1(-2 * t)
    moments = np.full((3, law.num_classes), np.nan)
    for c in range(law.num_classes):
        of_class = np.asarray(x[classes == c], np.float64)
        if len(of_class) > 1:
            spread = of_class.var(axis=0, ddof=1).mean()
            moments[:, c] = np.mean((of_class.mean(axis=0) - means[c]) ** 2), spread / len(of_class), spread / variances[c].mean() - 1
    return ClassMoments(*moments)


def score_errors(
    law: NoisedMixture, score: Score, times: Float[np.ndarray, " G"], *, key: jax.Array, num_samples: int, dtype: DTypeLike
) -> Float[np.ndarray, "G K"]:
    """Score error E_c‖s - s*‖²/d (G, K) of a score at each time, from samples x_t of each class.

    Args:
        law: the exact mixture, with score s*.
        score: s(x, t), a callable pytree.
        times: (G,) diffusion times.
        key: JAX random key; one key makes the same points for every score.
        num_samples: samples of each class and time.
        dtype: floating type; set the precision of JAX accordingly around the call.
    """
    return np.asarray(_score_errors(law, score, jnp.asarray(times, dtype), key, num_samples), np.float64)


@functools.partial(jax.jit, static_argnames="num_samples")
def _score_errors(law: NoisedMixture, score: Score, times: Float[Array, " G"], key: jax.Array, num_samples: int) -> Float[Array, "G K"]:
    labels = jnp.repeat(jnp.arange(law.num_classes), num_samples)

    def at(inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
        t, index = inputs
        keys = jax.random.split(jax.random.fold_in(key, index), labels.size)
        x = jax.vmap(lambda key, label: law.draw(key, label, t, times.dtype))(keys, labels)
        off = jax.vmap(lambda x: score(x, t) - law.score(x, t))(x)
        return jnp.mean(off**2, axis=1).reshape(law.num_classes, num_samples).mean(axis=1)

    return jax.lax.map(at, (times, jnp.arange(times.size)))
