"""What is compiled in and what fits in memory: orders and quadrature rules of the exact averages, bytes of a replica, chunks of seeds."""

import math
from dataclasses import dataclass

import jax
import numpy as np

from rfdiff.errors import InputError
from rfdiff.machine_memory import available_bytes
from rfdiff.problem import Problem
from rfdiff.simulation.features import Sizes
from rfdiff.simulation.quadrature import Quadrature, mehler_order, quadrature_for

# From here on one seed at a time: a batch costs memory and saves nothing. On a CPU LAPACK solves a batch one by one anyway, and
# batched products are slower than single ones.
LOOP_FEATURES = {"cpu": 128}
LOOP_FEATURES_ACCELERATOR = 1024
GPUS = ("gpu", "cuda", "rocm")
CHUNK_BYTES = 2**29
ORDER_TOLERANCE = 1e-6
DECOMPOSED_BYTES = 2**31  # of a matrix, above which cuSOLVER's eigendecomposition fails or asks for more memory than there is


@dataclass(frozen=True)
class Layout:
    """Everything that is compiled in: sizes, precision, orders and rules of the averages. No number of the problem is in it, except
    that its orders and rules step up when the data are much wider or more anisotropic than usual.
    """

    sizes: Sizes
    dtype: str
    train_order: int
    test_order: int
    train_rule: Quadrature
    test_rule: Quadrature
    held_out: tuple[int, ...] = ()


def layout_for(problem: Problem, sizes: Sizes, dtype: str, held_out: tuple[int, ...] = ()) -> Layout:
    """Orders and quadrature rules, good for every t: Δ < 1, and e^{-2t} λ + Δ lies between λ and 1.

    Args:
        problem: the problem, K classes.
        sizes: integers of the network.
        dtype: floating type.
        held_out: K held-out samples of each class, over whose noise alone the test moments average then, as the training moments do; ()
            for moments of the whole population.
    """
    law, activation, p, d = problem.mixture, problem.activation, sizes.p, sizes.d
    widest_row = 1 + 4 / math.sqrt(2 * d)
    train_order = mehler_order(activation, 1.0, p, d, ORDER_TOLERANCE)
    train_rule = quadrature_for(activation, widest_row, train_order, dtype)
    if held_out:
        return Layout(sizes, dtype, train_order, train_order, train_rule, train_rule, held_out)
    largest = math.sqrt(max(float(np.max(law.eigenvalues)), 1.0)) * widest_row
    test_std = 2.0 ** max(3, math.ceil(math.log2(largest)))
    squares = np.asarray(law.eigenvalue_weights) @ np.asarray(law.eigenvalues) ** 2
    share = np.min(np.where(squares > 0, np.asarray(law.variances) ** 2 / np.where(squares > 0, squares, 1), 1))
    test_order = 16 if share > 0.25 and d >= 32 else 32
    return Layout(sizes, dtype, train_order, test_order, train_rule, quadrature_for(activation, test_std, test_order, dtype))


def replica_bytes(sizes: Sizes, dtype: str, num_times: int, train_order: int = 8, held_out: tuple[int, ...] = ()) -> int:
    """Estimated peak memory of one replica, in bytes: its (p, p), (p, n), (p, h) and (p, d) arrays, h held-out samples in all.

    The number of (p, p) arrays is from XLA's own plan: K train and K test moments, U, its basis, LAPACK's workspace, temporaries.
    """
    k, p, n, d = len(sizes.counts), sizes.p, sizes.n, sizes.d
    matrices = 4 * k + 10
    h = sum(held_out)
    samples = (train_order + 6 if sizes.draws is None else 3) * n + (train_order + 6) * h
    return np.dtype(dtype).itemsize * (matrices * p * p + p * samples + (2 * k + 3) * p * d + (num_times + 3) * p + 3 * (n + h) * d)


def decomposes(p: int, dtype: str) -> bool:
    """Whether the library of this device decomposes a (p, p) matrix: on a GPU up to p = 23,170 in float32 and 16,384 in float64."""
    return jax.default_backend() not in GPUS or np.dtype(dtype).itemsize * p * p <= DECOMPOSED_BYTES


def require_decomposition(sizes: Sizes, dtype: str) -> None:
    """Refuse a matrix that the library of this device does not decompose.

    Raises:
        InputError: naming p, and what to use.
    """
    if not decomposes(sizes.p, dtype):
        most = math.isqrt(DECOMPOSED_BYTES // np.dtype(dtype).itemsize)
        raise InputError(
            f"d: {sizes.d} makes p = {sizes.p} features, more than a GPU decomposes in {dtype}; allowed: p up to {most}, or a Krylov solver"
        )


def chunk_size(sizes: Sizes, dtype: str, num_times: int, num_seeds: int, held_out: tuple[int, ...] = ()) -> int:
    """Seeds run at once: equal chunks of bounded memory for small networks, one by one for large ones.

    Raises:
        InputError: one replica does not fit in memory.
    """
    need, available = replica_bytes(sizes, dtype, num_times, held_out=held_out), available_bytes()
    if available is not None and need > available:
        tested = f", tested on {sum(held_out)} samples," if held_out else ""
        fits = "data of a smaller d or held_out" if held_out else f"d up to about {int(sizes.d * math.sqrt(available / need))}"
        raise InputError(
            f"d: {sizes.d} makes p = {sizes.p} features{tested} and needs about {need / 2**30:.3g} GiB in {dtype}, "
            f"of {available / 2**30:.3g} GiB of memory; allowed: {fits}, or float32, or smaller psi_p and psi_n"
        )
    if sizes.p >= LOOP_FEATURES.get(jax.default_backend(), LOOP_FEATURES_ACCELERATOR):
        return 1
    most = max(1, min(num_seeds, CHUNK_BYTES // need))
    return math.ceil(num_seeds / math.ceil(num_seeds / most))
