"""Does the exact flow cost no more than its eigendecomposition and matrix products? (target: at most 1.3 times)

The yardstick is numpy: `numpy.linalg.eigh` of a (p, p) matrix, and every matrix product of the same computation done once with
`matmul`: the Gram matrices of each class and Mehler order, W Wᵀ, the rotations of U_c and V_c, and the products with the (T, p)
filter. Everything elementwise (activation averages, Mehler sums, filters) is ours and has no counterpart in the yardstick.
Run: python benchmarks/exact_flow.py [--smoke]. With --smoke the sizes are tiny and nothing is written.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow
from rfdiff.simulation import exact_ensemble, replica
from rfdiff.simulation.features import clean_samples, first_layer, sizes_at
from rfdiff.simulation.gradient_flow import flow_losses
from rfdiff.simulation.moments import noise_averaged_moments, population_moments
from rfdiff.simulation.quadrature import hermite_moments
from rfdiff.simulation.replica_memory import layout_for

TARGET = 1.3


def numpy_products(sizes: Any, order: int, num_times: int) -> Callable[[], Any]:
    """The products of one replica in numpy, in their textbook form: full (p, p) results, both products of each rotation."""
    rng, p, d, k = np.random.default_rng(0), sizes.p, sizes.d, len(sizes.counts)
    W, x, f = rng.standard_normal((p, d)), rng.standard_normal((sizes.n, d)), rng.standard_normal((num_times, p))
    N = [[rng.standard_normal((p, count)) for _ in range(order + 1)] for count in sizes.counts]
    U, V = rng.standard_normal((p, p)), rng.standard_normal((p, d))
    O = np.linalg.qr(U)[0]  # noqa: E741
    scales = rng.uniform(size=(k, d))

    def run() -> None:
        np.matmul(W, W.T)
        np.matmul(W, x.T)
        for c in range(k):
            for a in N[c]:
                np.matmul(a, a.T)
            np.matmul(W * scales[c], W.T)
        rotated = O.T @ V
        np.matmul(rotated, rotated.T)
        for _ in range(2 * k):
            np.matmul(O.T, V)
            np.matmul(f, U)
        for _ in range(2 * k - 1):  # the K train matrices add up to U, so one needs no rotation
            np.matmul(O.T, np.matmul(U, O))

    return run


def run(p: int, n: int, d: int, num_times: int, repeats: int) -> dict[str, Any]:
    """Times of the exact flow, its parts and the yardstick, in turns."""
    law = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]])
    problem = Problem(law, "tanh", t=0.1, psi_p=p / d, psi_n=n / d)  # type: ignore[arg-type]
    sizes, rule = sizes_at(problem, d), GradientFlow()
    layout = layout_for(problem, sizes, "float64")
    mixture, keys = replica.replica_mixture(problem, d, jax.random.key(0))
    _, clock = rule.schedule(np.geomspace(0.1, 1e5, num_times), problem.kappa)
    with jax.enable_x64(True):
        W = first_layer(keys[0], sizes, jnp.float64)
        x = clean_samples(keys[1], mixture, sizes, jnp.float64)
        activation, t = problem.activation, problem.t
        mean, std = 0.3 * jax.random.normal(keys[2], (p, n), jnp.float64), jnp.full(p, 0.4)
        averages = jax.jit(lambda mean, std: hermite_moments(activation, layout.train_rule, mean, std, layout.train_order))
        train = jax.jit(lambda W, x: noise_averaged_moments(W, x, t, sizes, activation, layout.train_rule, layout.train_order))
        test = jax.jit(lambda W: population_moments(W, mixture, t, activation, layout.test_rule, layout.test_order))
        flow = jax.jit(lambda a, b: flow_losses(a, b, sizes, rule, clock, problem.kappa))
        moments = train(W, x), test(W)
        symmetric = np.asarray(moments[0].U[0])
        times = harness.measure_together(
            {
                "exact_flow": lambda: exact_ensemble._compiled_one(problem, mixture, keys, rule, clock, layout=layout),
                "numpy_eigh": lambda: np.linalg.eigh(symmetric),
                "numpy_products": numpy_products(sizes, layout.train_order, num_times),
                "part_activation_averages": lambda: averages(mean, std),
                "part_train_moments": lambda: train(W, x),
                "part_population_moments": lambda: test(W),
                "part_flow": lambda: flow(*moments),
            },
            repeats,
        )
    yardstick = {name: times["numpy_eigh"][name] + times["numpy_products"][name] for name in ("best_s", "median_s")}
    ratios = {f"ratio_{name[:-2]}": times["exact_flow"][name] / yardstick[name] for name in yardstick}
    shape = {"p": p, "n": n, "d": d, "times": num_times, "classes": 2, "dtype": "float64", "noise_draws": "inf"}
    orders = {"train_order": layout.train_order, "nodes": len(layout.train_rule.nodes), "population_order": layout.test_order}
    return {"shape": shape, **orders, "seconds": times, **ratios, "target_ratio": TARGET}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, nothing written")
    if parser.parse_args().smoke:
        print(json.dumps(run(p=64, n=32, d=16, num_times=10, repeats=1), indent=2))
    else:
        harness.write("exact_flow", run(p=2048, n=1024, d=256, num_times=200, repeats=5))
