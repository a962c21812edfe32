"""What an optimiser does, found by trying it: whether it is plain gradient descent, and a fingerprint of its first updates."""

import hashlib
import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
from jax.typing import DTypeLike

from rfdiff.errors import InputError

SCALES = (1e-3, 1.0, 1e6)  # of the gradients tried: a clipping or normalising optimiser answers them differently


@dataclass(frozen=True)
class Probed:
    """Answers of an optimiser to gradients that are the same for all.

    Args:
        plain_step: η where every update was -η times its gradient and nothing is remembered, else None.
        fingerprint: hash of its state's structure and of these updates; a schedule shows in it only as far as its first steps.
    """

    plain_step: float | None
    fingerprint: str


def probe(optimizer: optax.GradientTransformation, shape: tuple[int, int], dtype: DTypeLike) -> Probed:
    """Try an optimiser on three gradients in a row.

    Args:
        optimizer: an `optax.GradientTransformation`.
        shape: of the readout.
        dtype: floating type of the training.

    Raises:
        InputError: not such an optimiser, or one whose update wants more than gradients and parameters.
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise InputError(f"optimizer: {optimizer!r}; allowed: an optax.GradientTransformation, such as optax.sgd(0.5)")
    grid = jnp.arange(shape[0] * shape[1], dtype=dtype).reshape(shape)
    params = jnp.sin(grid + 1)
    state = optimizer.init(params)
    remembers = bool(jax.tree.leaves(state))
    # addresses, which differ from process to process, may stand in the text of a structure
    digest, ratios = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "0x", str(jax.tree.structure(state))).encode()), []
    for k, scale in enumerate(SCALES):
        gradient = scale * (2 + jnp.cos(grid + k))
        try:
            update, state = optimizer.update(gradient, state, params)
        except TypeError as err:
            raise InputError(
                f"optimizer: its update fails on a gradient and the parameters alone ({err}); allowed: an optimiser that needs no others, "
                "such as loss values"
            ) from err
        digest.update(np.asarray(update).tobytes())
        ratios.append(-np.asarray(update, np.float64) / np.asarray(gradient, np.float64))
    step, tolerance = float(np.median(ratios)), 100 * float(jnp.finfo(dtype).eps)
    plain = not remembers and step > 0 and bool(np.all(np.abs(np.array(ratios) - step) <= tolerance * step))
    return Probed(step if plain else None, digest.hexdigest())
