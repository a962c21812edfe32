"""Homogenised SGD: minibatch SGD in the limit of small steps at a fixed ratio of step to batch (docs/theory/practice.md, eq-homogenised).

    L_c(τ) = L_c^flow(τ) + (η/β) κ² ψ_p Σ_a ν_a ∫_0^τ (1/p) tr[U_c e^{-κ(τ-s)(U+ρ)} U_a e^{-κ(τ-s)(U+ρ)}] ℓ_a(s) ds,

the equation of SGD with integrals for sums and Laplace transforms for generating functions, solved the same way.
"""

import dataclasses
from functools import cached_property, partial

import numpy as np
from jaxtyping import Complex, Float
from numpy.typing import ArrayLike

from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, MinibatchSGD
from rfdiff.theory import dynamics, minibatch
from rfdiff.theory.contour import Contour
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.input_checks import checked_tolerance, require_concrete
from rfdiff.theory.minibatch_modes import Modes, inverted
from rfdiff.theory.minibatch_noise import Volterra
from rfdiff.theory.minibatch_traces import noise_traces
from rfdiff.theory.training_times import time_grid

Array = np.ndarray


def homogenised_sgd(problem: Problem, taus: ArrayLike | None = None, *, rule: MinibatchSGD, tolerance: float = 1e-6) -> LearningCurves:
    """Learning curves of minibatch SGD as its step goes to 0 at a fixed ratio η/β of step to batch: a flow with noise.

    What a rule and this limit of it differ by is proportional to the step. Fixed beside η/β are the momentum, the decay and, in units of τ,
    the memory η/(1 - γ) of the average. Momentum μ then only stands for a step 1/(1 - μ) as long.

    Args:
        problem: the problem, K classes without centroids, with an odd activation.
        taus: (T,) increasing training times ≥ 0, which are not moved to whole steps; None for `time_grid(problem)`.
        rule: SGD, of which only η/β, μ, ρ, η/(1 - γ) and the sampling matter.
        tolerance: largest absolute error wanted in any loss.

    Returns:
        `LearningCurves`, as `learning_curves`.

    Raises:
        InputError: malformed taus or tolerance; a problem that the theory of SGD does not cover; a ratio η/β at which the noise diverges.

    Reference: docs/theory/practice.md, eq-homogenised; Paquette et al. 2022 (2205.07069) for one class; tests/theory/test_small_steps.py.
    """
    require_concrete(problem, "theory.homogenised_sgd")
    tolerance = checked_tolerance(tolerance)
    if not isinstance(rule, MinibatchSGD):
        raise InputError(f"rule: {rule!r}; allowed: a MinibatchSGD")
    minibatch.check_covered(problem, rule)
    faster = 1 / (1 - float(rule.momentum))
    flow = GradientFlow(rule.weight_decay, rule.memory * faster if rule.averaging else None)
    asked = flow.schedule(time_grid(problem) if taus is None else taus, problem.kappa)[0]
    with double_on_host():
        noise = partial(_excess, problem, rule=rule, flow=flow, taus=asked * faster)
        curves = dynamics.with_noise(problem, asked * faster, flow, noise, tolerance)
    return dataclasses.replace(curves, taus=asked)


def _excess(
    problem: Problem, eq: Equivalent, *, rule: MinibatchSGD, flow: GradientFlow, taus: Float[Array, " T"], contour: Contour, u: Array
) -> minibatch.Excess:
    """L_c - L_c^flow at T training times, from the solutions u on the upper half of a contour.

    Raises:
        InputError: the noise diverges.
    """
    traces, weights = noise_traces(eq, contour, u), minibatch.draw_weights(problem, rule)
    equation = SmallSteps(traces, rule, float(problem.kappa), float(problem.psi_p), weights, flow)
    radius, ratio = equation.radius, float(rule.step_size) / float(rule.batch_per_dimension)
    if not radius < 1:
        raise InputError(
            f"step_size / batch_per_dimension: {ratio:.6g} diverges in the limit of small steps, with a spectral radius of "
            f"{radius:.6g}; allowed: below {ratio / radius:.6g}"
        )
    return minibatch.judged(equation, taus)


@dataclasses.dataclass(frozen=True)
class SmallSteps(Volterra):
    """The equation in time: the "roots" of its modes are rates, a mode being e^{rate τ}.

    Args:
        flow: what the whole gradient does.
    """

    flow: GradientFlow

    @cached_property
    def modes(self) -> Modes:
        """Of the contour's nodes: h = e^{-xτ}, e = 1 - (λ+ρ) f = h, h̄ = (e^{-xτ} - e^{-τ/T})/(1 - xT), with x = κ(λ + ρ)."""
        x = self.kappa * (self.traces.nodes + self.flow.decay)
        one = np.ones((1, x.size), complex)
        if self.flow.averaging is None:
            return Modes(-x[None], one, one, -x[None], one)
        memory = self.flow.memory
        share = one / (1 - x * memory)
        return Modes(-x[None], one, one, np.stack([-x, np.full(x.size, -1 / memory, complex)]), np.concatenate([share, -share]))

    @property
    def strength(self) -> float:
        """(η/β) κ² ψ_p, of a step 1/(1 - μ) as long."""
        ratio = float(self.rule.step_size) / float(self.rule.batch_per_dimension)
        return ratio / (1 - float(self.rule.momentum)) * self.kappa**2 * self.psi_p

    def excess(self, steps: Float[Array, " T"]) -> Complex[Array, "2 T K"]:
        """L_c(τ) - L_c^flow(τ) at T training times: no mode oscillates, and all times are far from the start."""
        result = np.zeros((2, len(steps), len(self.draw_weights)), complex)
        result[:, np.isinf(steps)] = self.limit().excess[:, None]
        return self._far(result, steps, (steps > 0) & np.isfinite(steps))

    @property
    def remainder(self) -> float:
        """0: there is nothing that oscillates."""
        return 0.0

    def _constant(self, s: Array) -> Array:
        return 1 / s

    def _single(self, s: Array, root: Array) -> Array:
        return inverted(np.asarray(s - root, complex))

    def _product(self, one: Array, other: Array) -> Array:
        return one + other

    def _exponents(self, roots: Array) -> Array:
        return roots

    def _delay(self, s: Array) -> Array:
        return np.ones_like(s)
