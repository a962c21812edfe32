"""Learning curves as quadratic forms of the training rule's filter: everything about a problem but the training time.

On a contour with upper-half nodes z_i and weights w_i, and F_i(τ) = w_i f_τ(z_i), every curve is

    L_c(τ) = 1 + 2 Re Σ_i F_i (2 t1(z_i) + Σ_j A_ij F_j + B_ij F̄_j),     A_ij = t2(z_i, z_j),  B_ij = t2(z_i, z̄_j),

so the expensive part (t1, A, B: `CurveKernel`) is made once and any number of training times costs a few small products. A is symmetric
and B Hermitian, which halves the pairs to solve. All of it is traceable: jit, vmap and derivatives of any order with respect to every
number of the problem, in the memory of one evaluation (`implicit`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.rules import GradientFlow, Rule
from rfdiff.theory import implicit, resolvent
from rfdiff.theory.contour import Contour
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.resolvent import Point
from rfdiff.theory.traces import one_trace, two_trace_of_pairs
from rfdiff.value_types import is_concrete, value_type


@value_type
class CurveKernel:
    """Train and test curves of K classes as quadratic forms on Z upper-half contour nodes.

    Args:
        nodes, weights: (Z,) contour, weights dz/(2πi).
        linear: (2, K, Z) t1 for train and test.
        same, conjugate: (2, K, Z, Z) t2(z_i, z_j) and t2(z_i, z̄_j) for train and test.
        optimal_loss: (K,) loss L_c^* of the exact score.
        class_weights: (K,) fractions π_c.
        kappa: rate κ = 2Δ/ψ_p of the flow.
        noise_variance: Δ.
        latest: largest finite τ for which the contour is laid; inf where it does not pass left of 0.
        missing: share of V that the contour does not enclose: 0 up to the numerical error.
        residual: largest relative residual of the fixed point.
    """

    nodes: Any
    weights: Any
    linear: Any
    same: Any
    conjugate: Any
    optimal_loss: Any
    class_weights: Any
    kappa: Any
    noise_variance: Any
    latest: Any
    missing: Any
    residual: Any

    def losses(self, taus: Any, rule: Rule = GradientFlow()) -> tuple[jax.Array, jax.Array]:
        """Train and test losses (T, K) at training times (T,); float64, so inside `jax.enable_x64`.

        Args:
            taus: training times ≥ 0 in the unit set by κ, inf for convergence; traced ones with gradient flow only.
            rule: training rule.

        Raises:
            InputError: malformed taus.
        """
        train, test = self.evaluate(self._filter(taus, rule))[0]
        return train, test

    def error(self, taus: Any, rule: Rule = GradientFlow()) -> jax.Array:
        """Estimated numerical error of any of those losses: the difference to half the nodes, squared, and the missing share."""
        half = jnp.max(abs(self.evaluate(self._filter(taus, rule))[1]))
        return jnp.minimum(half, 10 * half**2) + self.missing

    def _filter(self, taus: Any, rule: Rule) -> jax.Array:
        if is_concrete(taus):
            _, taus = rule.schedule(taus, 1.0)  # of a clock that does not depend on κ
        return rule.filter(self.nodes, taus, self.kappa)

    def evaluate(self, f: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Losses (2, T, K) for filter values f (T, Z), and what changes with half the nodes."""
        F = self.weights * f
        signs = jnp.where(jnp.arange(F.shape[-1]) % 2 == 0, 1.0, -1.0)
        inner = jnp.einsum("skij,tj->skti", self.same, F)
        inner = inner + jnp.einsum("skij,tj->skti", self.conjugate, F.conj())
        terms = jnp.swapaxes(F * (2 * self.linear[:, :, None] + inner), 1, 2)
        return 1 + 2 * jnp.real(terms.sum(-1)), 2 * jnp.imag((signs * terms).sum(-1))


def kernel_on(eq: Equivalent, point: Point, nodes: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """t1 (2, K, Z), t2(z_i, z_j) and t2(z_i, z̄_j) (2, K, Z, Z), and the share of V outside, from the solution on a contour."""
    linear = jnp.swapaxes(jnp.stack(one_trace(eq, point)), 1, 2)
    size = nodes.shape[0]
    rows, cols = np.triu_indices(size)
    whole = jax.tree.map(lambda leaf: jnp.concatenate([leaf[cols], leaf[cols].conj()]), point)
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf[rows], leaf[rows]]), point)
    C = resolvent.feature_averages(eq, twice.r * whole.r)
    pairs = jnp.stack(two_trace_of_pairs(eq, twice, whole, C))
    index = np.zeros((size, size), int)
    index[rows, cols] = np.arange(rows.size)
    index = np.maximum(index, index.T)
    same, conjugate = pairs[..., : rows.size][..., index], pairs[..., rows.size :][..., index]
    lower = np.tril(np.ones((size, size), bool), -1)
    conjugate = jnp.where(lower, conjugate.conj(), conjugate)
    # f = 1 gives (1/d) tr[Vᵀ V_c], which is known: what the contour leaves out shows here
    overlap = eq.noise_variance * eq.psi_p * jnp.einsum("j,ja,a,jc->c", eq.type_weights, eq.linear, eq.class_weights, eq.linear)
    missing = jnp.max(abs(-2 * jnp.real((weights * linear[1]).sum(-1)) / overlap - 1))
    return linear, same, conjugate, missing


def solve_kernel(eq: Equivalent, contour: Contour, start: jax.Array, optimal: Any, kappa: Any, latest: Any) -> CurveKernel:
    """The kernel of an equivalent on a contour, from a start for the fixed point."""
    nodes, weights = jnp.asarray(contour.nodes), jnp.asarray(contour.weights)
    u, residual = implicit.unknowns(eq, nodes, start)
    linear, same, conjugate, missing = kernel_on(eq, implicit.expand(eq, nodes, u), nodes, weights)
    return CurveKernel(
        nodes, weights, linear, same, conjugate, optimal, eq.class_weights, kappa, eq.noise_variance, latest, missing, jnp.max(residual)
    )  # fmt: skip
