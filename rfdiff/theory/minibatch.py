"""Minibatch SGD: what the theory covers, what the noise of the batches adds to the losses, and when it diverges (theory/practice.md)."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.polynomial import Chebyshev

from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.problem import Problem
from rfdiff.rules import MinibatchSGD
from rfdiff.theory import solutions
from rfdiff.theory.contour import Contour, lay
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.input_checks import require_concrete
from rfdiff.theory.minibatch_noise import Volterra
from rfdiff.theory.minibatch_traces import NoiseTraces, noise_traces
from rfdiff.theory.neuron_types import is_odd
from rfdiff.theory.training_times import LEAST, limit_diverges, spectrum_span
from rfdiff.theory_results import SGDStability

ALL_TIMES = np.array([1e30, np.inf])
THINNER = 0.5  # of a contour on which modes oscillate: the noise is known once these have died out on its nodes too
SQUARED = 200.0  # times the square of what half the nodes change: the error of all of them, of a product of three sums over nodes
NEAR_EDGE, FAR_FROM_EDGE = 0.9, 0.4  # of the largest step of the whole gradient, between which the noise is looked at
SAMPLES = 9  # steps between them


class Excess(NamedTuple):
    """What the noise adds to the losses (2, T, K), train and test, and its error."""

    losses: Float[np.ndarray, "2 T K"]
    error: float


def check_covered(problem: Problem, rule: MinibatchSGD) -> None:
    """Refuse problems outside the theory of SGD.

    Raises:
        InputError: with the reason.
    """
    law = problem.mixture
    rule.check_loss_weights(problem.loss_weights, law.weights)
    if np.any(np.asarray(law.centroid_gram) != 0):
        raise InputError("centroid_gram: not 0 with rule sgd: class means of the features make eigenvalues of U of order p; allowed: 0")
    if not is_odd(problem.activation):
        raise InputError(
            f"activation: {problem.activation.name} is not odd, and with rule sgd its mean makes eigenvalues of U of order p; "
            "allowed: an odd one, such as tanh or erf"
        )
    if law.covariances is not None:
        raise InputError("covariances: matrices that do not commute, with rule sgd; allowed: classes given by their eigenvalues")
    if limit_diverges(problem, rule=rule):
        raise InputError(
            f"psi_p: {float(problem.psi_p):g} = psi_n m with rule sgd, where modes are arbitrarily slow; allowed: another, or with "
            "weight_decay > 0"
        )


def draw_weights(problem: Problem, rule: MinibatchSGD) -> Float[np.ndarray, " K"]:
    """ν_a (K,): how often a pair of class a is drawn, times the square of its weight in the batch.

    ω_a · 1² where the class is drawn with its weight in the loss, π_a (ω_a/π_a)² where pairs come as they are, with weighted losses.
    """
    weights = np.asarray(problem.training_weights)
    return weights**2 / np.asarray(problem.mixture.weights) if rule.sampling == "weighted" else weights


def excess(
    problem: Problem,
    eq: Equivalent,
    *,
    rule: MinibatchSGD,
    contour: Contour,
    u: np.ndarray,
    steps: Float[np.ndarray, " T"],
) -> Excess:
    """L_c - L_c^det at T numbers of steps, from the solutions u on the upper half of a contour.

    Raises:
        InputError: the noise diverges.
    """
    traces = noise_traces(eq, contour, u)
    equation = _equation(problem, rule, traces)
    radius = equation.radius
    if not radius < 1:
        batch, step = float(rule.batch_per_dimension), float(rule.step_size)
        raise InputError(
            f"step_size: {step:.6g} diverges by the noise of batches of {batch:.6g} d, whose spectral radius is {radius:.6g}; allowed: "
            f"below {_largest_step(problem, rule, traces, step):.6g}, or batch_per_dimension above {batch * radius:.6g}"
        )
    return judged(equation, steps)


def judged(equation: Volterra, steps: Float[np.ndarray, " T"]) -> Excess:
    """What the noise adds at T numbers of steps, with the error that every second node of the contour tells."""
    whole, half = equation.excess(steps), dataclasses.replace(equation, traces=equation.traces.halved()).excess(steps)
    change = float(np.max(abs(whole - half), initial=0))
    error = min(change, SQUARED * change**2) + float(np.max(abs(whole.imag), initial=0)) + equation.remainder
    return Excess(np.real(whole), error)


def sgd_stability(problem: Problem, *, rule: MinibatchSGD) -> SGDStability:
    """Whether minibatch SGD converges, up to which step and down to which batch, and what its noise leaves of the losses.

    SGD converges where the steps along the whole gradient do and the spectral radius of `(ηκ)² (ψ_p/β) ν_a Σ_j G_ca(j)`, c over the train
    losses, is below 1. The radius is proportional to 1/β.

    Args:
        problem: the problem, K classes without centroids, with an odd activation.
        rule: SGD; its averaging changes the excess, not the stability.

    Returns:
        `SGDStability`; the excess is NaN where SGD diverges, with the reason.

    Raises:
        InputError: another rule; a problem that the theory does not cover; a step at which the whole gradient diverges.

    Reference: docs/theory/practice.md, eq-stability; tests/theory/test_minibatch.py, tests/agreement/test_minibatch_agreement.py.
    """
    require_concrete(problem, "theory.sgd_stability")
    if not isinstance(rule, MinibatchSGD):
        raise InputError(f"rule: {rule!r}; allowed: a MinibatchSGD")
    check_covered(problem, rule)
    kappa, step = float(problem.kappa), float(rule.step_size)
    with double_on_host():
        eq = equivalent(problem, 1, 0.0, LEAST)
        support = spectrum_span(eq, rule, kappa)
        edge = step * (rule.largest_stable_eigenvalue(kappa) + rule.decay) / (support.high + rule.decay)
        reach = max(step, NEAR_EDGE * edge)
        laid = lay(support, dataclasses.replace(rule, step_size=reach).descent, kappa, ALL_TIMES, 1e-8)
        traces = noise_traces(eq, laid.contour, solutions.anywhere(eq, np.asarray(laid.contour.nodes)).u)
    limit = _equation(problem, rule, traces).limit()
    if _radius(problem, rule, traces, reach) >= 1:
        largest = _largest_step(problem, rule, traces, step if limit.radius >= 1 else reach)
    else:
        largest = _beyond(problem, rule, traces, edge)
    smallest = float(rule.batch_per_dimension) * limit.radius
    reason = None
    if not limit.radius < 1:
        reason = (
            f"diverges by the noise of its batches, whose spectral radius is {limit.radius:.6g}: its losses have no limit; "
            f"it converges at a step size below {largest:.6g} or a batch above {smallest:.6g} d"
        )
    return SGDStability(limit.radius, largest, smallest, limit.excess[0], limit.excess[1], reason=reason)


def _radius(problem: Problem, rule: MinibatchSGD, traces: NoiseTraces, step: float) -> float:
    """Spectral radius at another step, on a contour laid for it or for a larger one."""
    return _equation(problem, dataclasses.replace(rule, step_size=step), traces).radius


def _largest_step(problem: Problem, rule: MinibatchSGD, traces: NoiseTraces, high: float) -> float:
    """The step below which the spectral radius is below 1, given one where it is not; the radius is 0 at step 0."""
    from scipy.optimize import brentq  # a quarter of a second to import, for this alone

    def above(step: float) -> float:
        return _radius(problem, rule, traces, step) - 1 if step > 0 else -1.0

    return float(brentq(above, 0.0, high, xtol=1e-12 * high, rtol=1e-11))


def _beyond(problem: Problem, rule: MinibatchSGD, traces: NoiseTraces, edge: float) -> float:
    """The largest step where the noise is stable up to `NEAR_EDGE` of the edge, from which on the whole gradient diverges.

    A contour between the spectrum and the edge would need ever more nodes. As the density of modes vanishes like a root at its end, the
    radius is analytic in √(1 - η/edge), and its values at smaller steps say how it goes on, to about 1e-6.
    """
    from scipy.optimize import brentq

    low, high = math.sqrt(1 - NEAR_EDGE), math.sqrt(1 - FAR_FROM_EDGE)
    roots = low + (high - low) * (1 - np.cos(np.pi * (np.arange(SAMPLES) + 0.5) / SAMPLES)) / 2
    series = Chebyshev.fit(roots, [_radius(problem, rule, traces, edge * (1 - x**2)) - 1 for x in roots], SAMPLES - 1)
    if series(0.0) <= 0 or series(low) >= 0:
        return edge
    return edge * (1 - float(brentq(series, 0.0, low)) ** 2)


def _equation(problem: Problem, rule: MinibatchSGD, traces: NoiseTraces) -> Volterra:
    return Volterra(traces, rule, float(problem.kappa), float(problem.psi_p), draw_weights(problem, rule))
