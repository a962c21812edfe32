"""Learning curves of gradient flow as real quadratic forms, for the many evaluations that a search for times takes.

With F = w f_τ(z) on the upper-half nodes and x = (Re F, Im F), the double sum of `contour_forms` is

    L_c(τ) = 1 + l_cᵀ x + xᵀ Q_c x,    Q_c = 2 [[Re (A + B), Im (B - A)], [-Im (A + B), Re (B - A)]],

products of real matrices, which a processor does several times as fast as the complex sums.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from rfdiff.rules import GradientFlow
from rfdiff.theory.contour_forms import CurveKernel
from rfdiff.value_types import Scalar


class RealForms(NamedTuple):
    """Train and test curves of K classes: nodes and weights (Z,), l (2,K,2Z), Q (2,K,2Z,2Z), and the numbers of the kernel."""

    nodes: Complex[Array, " Z"]
    weights: Complex[Array, " Z"]
    linear: Float[Array, "2 K 2Z"]
    quadratic: Float[Array, "2 K 2Z 2Z"]
    optimal_loss: Float[Array, " K"]
    kappa: Scalar
    latest: Scalar

    @classmethod
    def of(cls, kernel: CurveKernel) -> "RealForms":
        """Of a kernel."""
        A, B = jnp.asarray(kernel.same), jnp.asarray(kernel.conjugate)
        upper = jnp.concatenate([jnp.real(A + B), jnp.imag(B - A)], -1)
        lower = jnp.concatenate([-jnp.imag(A + B), jnp.real(B - A)], -1)
        t1 = jnp.asarray(kernel.linear)
        linear = 4 * jnp.concatenate([jnp.real(t1), -jnp.imag(t1)], -1)
        return cls(
            jnp.asarray(kernel.nodes), jnp.asarray(kernel.weights), linear, 2 * jnp.concatenate([upper, lower], -2),
            jnp.asarray(kernel.optimal_loss), kernel.kappa, kernel.latest,
        )  # fmt: skip

    def losses(self, taus: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Train and test losses (T, K) at training times (T,)."""
        x = self._filter(taus)
        curves, size = self.linear.shape[:2], x.shape[1]
        inner = (x @ jnp.moveaxis(self.quadratic, 2, 0).reshape(size, -1)).reshape(len(x), *curves, size)
        train, test = jnp.moveaxis(1 + ((self.linear + inner) * x[:, None, None]).sum(-1), 1, 0)
        return train, test

    def own_train(self, log_tau: jax.Array) -> jax.Array:
        """Train loss (K,) of class c at its own log τ_c (K,)."""
        return self._own(0, log_tau)

    def own_test(self, log_tau: jax.Array) -> jax.Array:
        """Test loss (K,) of class c at its own log τ_c (K,)."""
        return self._own(1, log_tau)

    def _own(self, part: int, log_tau: jax.Array) -> jax.Array:
        x = self._filter(jnp.exp(log_tau))
        inner = jnp.einsum("kij,kj->ki", self.quadratic[part], x)
        return 1 + ((self.linear[part] + inner) * x).sum(-1)

    def _filter(self, taus: jax.Array) -> jax.Array:
        F = self.weights * GradientFlow().filter(self.nodes, taus, self.kappa)
        return jnp.concatenate([jnp.real(F), jnp.imag(F)], -1)
