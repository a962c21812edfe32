"""Minibatch SGD: what the theory covers, what the noise of the batches adds to the losses, and when it diverges (`equations`, 9.3)."""

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.rules import MinibatchSGD
from rfdiff.theory import solutions
from rfdiff.theory.contour import Contour, Span, lay
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.input_checks import require_concrete
from rfdiff.theory.minibatch_noise import Volterra
from rfdiff.theory.minibatch_traces import NoiseTraces, noise_traces
from rfdiff.theory.neuron_types import is_odd
from rfdiff.theory.training_times import LEAST, limit_diverges, spectrum_span
from rfdiff.theory_results import SGDStability

ALL_TIMES = np.array([1e30, np.inf])
SQUARED = 200.0  # times the square of what half the nodes change: the error of all of them, of a product of three sums over nodes
NEAR_EDGE = (0.9, 0.99, 0.999)  # of the largest step of the whole gradient, at which the noise is looked at


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
    MinibatchSGD.check_loss_weights(problem.training_weights, law.weights)
    if np.any(np.asarray(law.centroid_gram) != 0):
        raise InputError("centroid_gram: not 0 with rule sgd: class means of the features make eigenvalues of U of order p; allowed: 0")
    if not is_odd(problem.activation):
        raise InputError(
            f"activation: {problem.activation.name} is not odd, and with rule sgd its mean makes eigenvalues of U of order p; "
            "allowed: an odd one, such as tanh or erf"
        )
    if law.covariances is not None:
        raise InputError("covariances: matrices that do not commute, with rule sgd; allowed: classes given by their eigenvalues")
    if limit_diverges(problem, rule):
        raise InputError(
            f"psi_p: {float(problem.psi_p):g} = psi_n m with rule sgd, where modes are arbitrarily slow; allowed: another, or with "
            "weight_decay > 0"
        )


def draw_weights(problem: Problem) -> Float[np.ndarray, " K"]:
    """ν_a (K,): how often a pair of class a is drawn, times the square of its weight."""
    return np.asarray(problem.mixture.weights)


def excess(
    problem: Problem,
    eq: Equivalent,
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
    radius = equation.limit().radius
    if not radius < 1:
        batch, step = float(rule.batch_per_dimension), float(rule.step_size)
        raise InputError(
            f"step_size: {step:.6g} diverges by the noise of batches of {batch:.6g} d, whose spectral radius is {radius:.6g}; allowed: "
            f"below {_largest_step(problem, rule, traces, step):.6g}, or batch_per_dimension above {batch * radius:.6g}"
        )
    whole, half = equation.excess(steps), dataclasses.replace(equation, traces=traces.halved()).excess(steps)
    change = float(np.max(abs(whole - half), initial=0))
    error = min(change, SQUARED * change**2) + float(np.max(abs(whole.imag), initial=0)) + equation.remainder
    return Excess(np.real(whole), error)


def sgd_stability(problem: Problem, rule: MinibatchSGD) -> SGDStability:
    """Whether minibatch SGD converges, up to which step and down to which batch, and what its noise leaves of the losses.

    SGD converges where the steps along the whole gradient do and the spectral radius of `(ηκ)² (ψ_p/β) ν_a Σ_j G_ca(j)`, c over the train
    losses, is below 1. The radius is proportional to 1/β.

    Args:
        problem: the problem, K classes without centroids, with an odd activation.
        rule: SGD; its averaging changes the excess, not the stability.

    Returns:
        `SGDStability`; the excess is NaN where SGD diverges.

    Raises:
        InputError: a problem that the theory does not cover; a step at which the whole gradient diverges.

    Reference: `equations`, section 9.3; tests/theory/test_minibatch.py, tests/agreement/test_minibatch_agreement.py.
    """
    require_concrete(problem, "theory.sgd_stability")
    check_covered(problem, rule)
    kappa = float(problem.kappa)
    with jax.enable_x64(True):
        eq = equivalent(problem, 1, 0.0, LEAST)
        support = spectrum_span(problem, rule, kappa, 0.0)
        traces, step = _traces(eq, problem, rule, support), float(rule.step_size)
        limit = _equation(problem, rule, traces).limit()
        if limit.radius >= 1:
            largest = _largest_step(problem, rule, traces, step)
        else:
            largest = _largest_step_beyond(eq, problem, rule, support)
    return SGDStability(limit.radius, largest, float(rule.batch_per_dimension) * limit.radius, limit.excess[0], limit.excess[1])


def _traces(eq: Equivalent, problem: Problem, rule: MinibatchSGD, support: Span) -> NoiseTraces:
    """Traces on a contour on which the rule's steps do not grow, fine enough for six digits."""
    laid = lay(support, rule.descent, float(problem.kappa), ALL_TIMES, 1e-8)
    return noise_traces(eq, laid.contour, solutions.anywhere(eq, np.asarray(laid.contour.nodes)).u)


def _largest_step_beyond(eq: Equivalent, problem: Problem, rule: MinibatchSGD, support: Span) -> float:
    """The largest step of a rule whose own is stable: where the noise diverges, or else the whole gradient."""
    edge = float(rule.step_size) * (rule.largest_stable_eigenvalue(float(problem.kappa)) + rule.decay) / (support.high + rule.decay)
    for share in NEAR_EDGE:
        trial = dataclasses.replace(rule, step_size=share * edge)
        traces = _traces(eq, problem, trial, support)
        if _equation(problem, trial, traces).limit().radius >= 1:
            return _largest_step(problem, rule, traces, share * edge)
    return edge


def _equation(problem: Problem, rule: MinibatchSGD, traces: NoiseTraces) -> Volterra:
    return Volterra(traces, rule, float(problem.kappa), float(problem.psi_p), draw_weights(problem))


def _largest_step(problem: Problem, rule: MinibatchSGD, traces: NoiseTraces, high: float) -> float:
    """The step below which the spectral radius is below 1, given one where it is not; a contour that is good for that is for all below."""
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        stable = _equation(problem, dataclasses.replace(rule, step_size=middle), traces).limit().radius < 1
        low, high = (middle, high) if stable else (low, middle)
        if math.isclose(low, high, rel_tol=1e-10):
            break
    return low
