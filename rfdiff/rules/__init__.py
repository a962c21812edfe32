"""Training rules as spectral filters: A(τ)/√p = -(1/√Δ) Vᵀ f(U) for every rule that is linear in A (docs/theory/practice.md).

Gradient flow `dA/dτ = -d² ∇L` started from A = 0 gives f_τ(λ) = (1 - e^{-κτλ})/λ with κ = 2Δ/ψ_p, which fixes the unit of
training time. Discrete rules with step η advance τ by η a step, so their filters tend to the flow's as η → 0. Both sides of the
package read the filter from here: theory at complex λ on a contour, simulation at the eigenvalues of U.

A rule turns the user's grid into a `clock` on the host (`schedule`), then evaluates its filter inside jit (`filter`).
"""

from rfdiff.rules.descent import STEP_BITS, GradientDescent, HeavyBall, Nesterov
from rfdiff.rules.flow import GradientFlow
from rfdiff.rules.interface import Clock, Rule, RuleName, Taus, check_stability, check_taus, log_spaced, require_rule
from rfdiff.rules.minibatch import SAMPLINGS, MinibatchSGD, require_filter
from rfdiff.rules.registry import RULES, rule_numbers, rule_of
from rfdiff.rules.ridge import Ridge

__all__ = [
    "RULES", "SAMPLINGS", "STEP_BITS", "Clock", "GradientDescent", "GradientFlow", "HeavyBall", "MinibatchSGD", "Nesterov", "Ridge", "Rule",
    "RuleName", "Taus", "check_stability", "check_taus", "log_spaced", "require_filter", "require_rule", "rule_numbers", "rule_of",
]  # fmt: skip
