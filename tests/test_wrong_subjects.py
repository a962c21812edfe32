"""What is no problem, rule, time or class is refused by name, in a library call as on the command line."""

from collections.abc import Callable

import jax
import numpy as np
import pytest

from rfdiff import (
    ClassTimes,
    GradientFlow,
    InputError,
    MixtureLaw,
    Problem,
    backward,
    compare,
    design,
    generation,
    memorised_fraction,
    simulation,
    theory,
)
from rfdiff.theory_results import PhaseMap

PROBLEM = Problem(MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4]), "tanh", t=0.1, psi_p=4, psi_n=3)
TIMES = ClassTimes(*np.ones((4, 2)), q=0.5)
MAP = PhaseMap(np.ones(2), np.ones(2), ClassTimes(*np.ones((4, 2, 2, 2)), q=0.5), np.zeros((2, 2)), np.ones((2, 2), bool), ("t", "psi_n"))
WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: theory.learning_curves(3), "problem: got int; allowed: a Problem"),  # type: ignore[arg-type]
    (lambda: theory.spectrum(PROBLEM.mixture), "problem: got MixtureLaw"),  # type: ignore[arg-type]
    (lambda: theory.stieltjes(None, [1.0]), "problem: got NoneType"),  # type: ignore[arg-type]
    (lambda: theory.stieltjes(PROBLEM, [1.0], tolerance=-1), "tolerance: -1; allowed: 1e-9 <= tolerance"),
    (lambda: theory.times(PROBLEM, rule="ridge"), "rule: got 'ridge'; allowed: a training rule with its numbers"),  # type: ignore[arg-type]
    (
        lambda: simulation.learning_curves(3, [1.0], d=10, key=jax.random.key(0), num_seeds=2),  # type: ignore[arg-type]
        "problem: got int; allowed: a Problem",
    ),
    (
        lambda: compare(PROBLEM, [1.0], d=10, key=jax.random.key(0), num_seeds=2, progress=5),  # type: ignore[arg-type]
        r"progress: 5; allowed: a function of \(done, total\), or None",
    ),
    (lambda: theory.learning_curves(PROBLEM, [1.0], progress="bar"), "progress: 'bar'; allowed: a function"),  # type: ignore[arg-type]
    (lambda: theory.phase_map(PROBLEM, {"t": [0.1, 0.2], "psi_n": [1.0, 2.0]}, progress=5), "progress: 5"),  # type: ignore[arg-type]
    (lambda: design.propose(PROBLEM, progress=5), "progress: 5"),  # type: ignore[arg-type]
    (
        lambda: backward.integrate(lambda x, t: -x, np.ones((2, 3)), [1.0, 0.5], key=jax.random.key(0), progress=5),  # type: ignore[arg-type]
        "progress: 5",
    ),
    (
        lambda: generation.generate(PROBLEM, [1.0], d=10, times=[1.0, 0.5], key=jax.random.key(0), progress=5),  # type: ignore[arg-type]
        "progress: 5",
    ),
    (lambda: theory.limit_diverges(PROBLEM, rule="flow"), "rule: got 'flow'; allowed: a training rule"),  # type: ignore[arg-type]
    (lambda: theory.sgd_stability(PROBLEM, rule=GradientFlow()), "rule: .*; allowed: a MinibatchSGD"),  # type: ignore[arg-type]
    (lambda: TIMES.reason("foo", 0), "quantity: 'foo'; allowed: tau_gen, tau_stop"),
    (lambda: TIMES.text("tau_gen", 2), "class: 2; allowed: 0 to 1"),
    (lambda: MAP.log_ratio("foo"), "quantity: 'foo'; allowed: tau_gen"),
    (lambda: MAP.flips("tau_gen", 2), "axis: 2; allowed: 0 or 1"),
    (lambda: memorised_fraction([3, 4], [4, 0]), "memorised: .*allowed: 0 to the count, for each network"),
    (lambda: memorised_fraction([3, 4], [1]), "memorised: "),
    (lambda: memorised_fraction([3], [1], level=2), "level: 2; allowed: 0 < level < 1"),
    (lambda: memorised_fraction([3], [1], resamples=0), "resamples: 0"),
    (lambda: memorised_fraction([3], [1], seed=-1), "seed: -1"),
]


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_one_clear_error(case: int) -> None:
    call, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        call()
