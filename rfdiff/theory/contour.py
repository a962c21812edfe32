"""Contours around a support on the positive axis, for integrals of f(z) times a resolvent trace (`equations`, section 5).

`z = e^w - shift` with w on an ellipse around [log a, log b]: bulks that lie decades apart cost only the logarithm of their distance.
The trapezoid rule in the angle converges geometrically, e^{-N η}: inwards the integrand is analytic until the ellipse shrinks to the
segment between its foci, outwards until it leaves the strip |Im w| < π/2 where Re z > 0 and e^{-κτz} decays. A half-height of π/4
balances the two.

Nodes come in conjugate pairs off the axis, θ_j = 2π (j + ½)/N, so only the upper half is solved. Every second node is a rule too; the
two rules differ by the first neglected Fourier coefficient, which stands in the imaginary part and costs nothing to read.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.value_types import is_concrete

HALF_HEIGHT = np.pi / 4


class Contour(NamedTuple):
    """Upper half (N/2) of a counter-clockwise contour: nodes z, and weights dz/(2πi)."""

    nodes: Any
    weights: Any


def ellipse(low: Any, high: Any, size: int, half_height: float = HALF_HEIGHT, shift: Any = 0.0) -> Contour:
    """Contour of `size` nodes that crosses the real axis at `low` and `high`.

    Args:
        low, high: crossings, -shift < low < high; they may be traced.
        size: number N of nodes on the whole contour, even.
        half_height: of the ellipse in w, below π/2.
        shift: z = e^w - shift; positive to let the contour pass left of 0.
    """
    xp: Any = np if is_concrete(low, high) else jnp
    left, right = xp.log(low + shift), xp.log(high + shift)
    theta = 2 * np.pi * (np.arange(size // 2) + 0.5) / size
    w = (left + right) / 2 + (right - left) / 2 * np.cos(theta) + 1j * half_height * np.sin(theta)
    slope = -(right - left) / 2 * np.sin(theta) + 1j * half_height * np.cos(theta)
    return Contour(xp.exp(w) - shift, xp.exp(w) * slope / (1j * size))


def integrate(weighted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Real contour integral and its error with half the nodes, from w_j F(z_j) on the upper half along the last axis.

    Both are linear up to signs: over an even number of consecutive nodes they are parts that add up, `abs` of the total being the error.
    """
    signs = jnp.where(jnp.arange(weighted.shape[-1]) % 2 == 0, 1.0, -1.0)
    return 2 * jnp.real(weighted.sum(-1)), 2 * jnp.imag((weighted * signs).sum(-1))
