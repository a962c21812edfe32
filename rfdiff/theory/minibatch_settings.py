"""One problem under minibatch SGD of any step, batch and average: traces made once, the Volterra equation solved for each setting.

The traces of `minibatch_traces` depend on the problem alone, and a contour on which steps of one size do not grow serves all shorter ones.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float

from rfdiff.host import double_on_host
from rfdiff.mixture import optimal_loss
from rfdiff.problem import Problem, noise_variance_of
from rfdiff.rules import HeavyBall, MinibatchSGD, check_stability
from rfdiff.theory import minibatch, solutions
from rfdiff.theory.contour import SIZES, Span, lay
from rfdiff.theory.equivalent import equivalent
from rfdiff.theory.input_checks import require_concrete
from rfdiff.theory.minibatch_modes import quadratic_forms
from rfdiff.theory.minibatch_noise import Volterra
from rfdiff.theory.minibatch_traces import NoiseTraces, noise_traces
from rfdiff.theory.support import followed
from rfdiff.theory.training_times import LEAST, spectrum_span

PART = 0.5  # of the step at which the whole gradient diverges, and of a spectral radius of 1: what a setting may reach
PROBED = np.array([1.0, 3.0, 10.0, 100.0, 1e4])  # steps at which a contour is judged, and 10^6 of them


class SGDSettings:
    """Losses of a problem, K classes, under SGD of any step up to a largest one, any batch, with any average or none.

    Args:
        problem: the problem, which the theory of SGD covers.
        rule: SGD, of which momentum, decay and sampling count; the contour holds its step in any case.
        tolerance: numerical error wanted of a loss at the setting of the rule.
        near: settings of a problem nearby, whose spectrum and number of contour nodes serve as a start: faster, but the error is whatever
            that number of nodes leaves (`judged` tells).

    Raises:
        InputError: a problem that the theory does not cover; a step at which the whole gradient diverges.

    Reference: docs/theory/practice.md, eq-stability; tests/theory/test_minibatch_settings.py.
    """

    def __init__(self, problem: Problem, rule: MinibatchSGD, tolerance: float = 1e-4, near: "SGDSettings | None" = None) -> None:
        require_concrete(problem, "theory.SGDSettings")
        minibatch.check_covered(problem, rule)
        self.problem, self.kappa = problem, float(problem.kappa)
        self.span: Span
        self.size: int
        law, step = problem.mixture, float(rule.step_size)
        self.optimal_loss = np.asarray(optimal_loss(law.eigenvalue_weights, law.eigenvalues, problem.t))
        with double_on_host():
            eq = equivalent(problem, 1, 0.0, LEAST)
            ends = None if near is None else followed(eq, *near.span)
            if ends is None:
                near, self.span = None, spectrum_span(eq, rule, self.kappa)
            else:
                self.span = Span(*ends)
                check_stability(rule, self.kappa, self.span.high)
            self.edge = step * (rule.largest_stable_eigenvalue(self.kappa) + rule.decay) / (self.span.high + rule.decay)
            self.largest_step = max(step, PART * self.edge)
            widest, size = dataclasses.replace(rule, step_size=self.largest_step), None if near is None else near.size
            while True:
                laid = lay(self.span, widest.descent, self.kappa, minibatch.ALL_TIMES, tolerance, size, minibatch.THINNER)
                self.traces: NoiseTraces = noise_traces(eq, laid.contour, solutions.anywhere(eq, np.asarray(laid.contour.nodes)).u)
                size, self.size = laid.size + 1, laid.size
                if near is not None or size == len(SIZES) or self._error(rule) <= tolerance:
                    break

    def _equation(self, rule: MinibatchSGD) -> Volterra:
        return Volterra(self.traces, rule, self.kappa, float(self.problem.psi_p), minibatch.draw_weights(self.problem, rule))

    def _error(self, rule: MinibatchSGD) -> float:
        if not self.radius(rule) < 1:
            return self._still(rule, np.append(PROBED, np.inf))[1]
        return self.judged(rule, np.append(PROBED, np.inf))[1]

    def radius(self, rule: MinibatchSGD) -> float:
        """Spectral radius of what the noise of one step returns as noise later; SGD converges below 1. It is proportional to 1/batch."""
        return self._equation(rule).radius

    def losses(self, rule: MinibatchSGD, steps: Float[np.ndarray, " T"]) -> Float[np.ndarray, "2 T K"]:
        """Train and test losses after increasing numbers of steps; inf for the limit. The radius must be below 1."""
        return self._still(rule, steps)[0] + np.real(self._equation(rule).excess(steps))

    def judged(self, rule: MinibatchSGD, steps: Float[np.ndarray, " T"]) -> tuple[Float[np.ndarray, "2 T K"], float]:
        """The same with their numerical error."""
        still, error = self._still(rule, steps)
        noise = minibatch.judged(self._equation(rule), steps)
        return still + noise.losses, error + noise.error

    def score_errors(self, losses: Float[np.ndarray, "*T K"]) -> Float[np.ndarray, "*T K"]:
        """Score errors of test losses."""
        return (losses - self.optimal_loss) / float(noise_variance_of(self.problem.t))

    def _still(self, rule: MinibatchSGD, steps: Float[np.ndarray, " T"]) -> tuple[Float[np.ndarray, "2 T K"], float]:
        """Losses of steps along the whole gradient, 1 + 2 Σ f t1 + Σ f t2 f, and their error from every second node."""
        taus = np.asarray(steps) * float(rule.step_size)
        clock = rule.descent.schedule(taus, self.kappa)[1]
        with double_on_host():
            f = np.asarray(_filter(rule.descent, self.traces.nodes, clock, self.kappa))
        whole = _quadratic(self.traces, f)
        coarse = self.traces.halved()
        half = _quadratic(coarse, f[:, self.traces.every_second])
        change = float(np.max(abs(whole - half), initial=0))
        return np.real(whole), min(change, 10 * change**2) + float(np.max(abs(np.imag(whole)), initial=0))


def _quadratic(traces: NoiseTraces, f: np.ndarray) -> np.ndarray:
    """1 + 2 Σ f t1 + Σ f t2 f (2, T, K) for filter values f (T, N)."""
    linear = np.einsum("tn,scn->stc", f, traces.linear)
    return 1 + 2 * linear + np.swapaxes(quadratic_forms(traces.second, f), 1, 2)


@jax.jit
def _filter(rule: HeavyBall, nodes: Array, clock: object, kappa: float) -> Array:
    return rule.filter(nodes, clock, kappa)
