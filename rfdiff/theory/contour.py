"""Contours around a support on the positive axis, for integrals of f(z) times a resolvent trace (`equations`, section 5).

`z = e^w - shift` with w on an ellipse around [log a, log b]: bulks that lie decades apart cost only the logarithm of their distance.
The trapezoid rule in the angle converges geometrically, e^{-N η}: inwards the integrand is analytic until the ellipse shrinks to the
segment between its foci, outwards until it leaves the strip |Im w| < π/2 where Re z > 0 and e^{-κτz} decays. A half-height of π/4
balances the two.

Nodes come in conjugate pairs off the axis, θ_j = 2π (j + ½)/N, so only the upper half is solved. Every second node is a rule too; the
two rules differ by the first neglected Fourier coefficient, which stands in the imaginary part and costs nothing to read.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex

from rfdiff.rules import Ridge, Rule
from rfdiff.value_types import is_concrete

HALF_HEIGHT = np.pi / 4
HALF_HEIGHTS = (HALF_HEIGHT, 0.5, 0.3, 0.15)  # tried in this order, until the rule's filter does not grow on the contour
SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)  # numbers of nodes: a ladder, so that problems share compiled programs


class Contour(NamedTuple):
    """Upper half (N/2) of a counter-clockwise contour: nodes z, and weights dz/(2πi)."""

    nodes: Complex[np.ndarray, " Z"] | Complex[Array, " Z"]
    weights: Complex[np.ndarray, " Z"] | Complex[Array, " Z"]


class Span(NamedTuple):
    """Interval of the real axis that a contour goes around; low = 0 for a support that reaches 0."""

    low: float
    high: float


def ellipse(low: ArrayLike, high: ArrayLike, size: int, half_height: float = HALF_HEIGHT, shift: ArrayLike = 0.0) -> Contour:
    """Contour of `size` nodes that crosses the real axis at `low` and `high`.

    Args:
        low, high: crossings, -shift < low < high; they may be traced.
        size: number N of nodes on the whole contour, even.
        half_height: of the ellipse in w, below π/2.
        shift: z = e^w - shift; positive to let the contour pass left of 0.
    """
    xp = np if is_concrete(low, high) else jnp
    left, right = xp.log(low + shift), xp.log(high + shift)
    theta = 2 * np.pi * (np.arange(size // 2) + 0.5) / size
    w = (left + right) / 2 + (right - left) / 2 * np.cos(theta) + 1j * half_height * np.sin(theta)
    slope = -(right - left) / 2 * np.sin(theta) + 1j * half_height * np.cos(theta)
    return Contour(xp.exp(w) - shift, xp.exp(w) * slope / (1j * size))


class Laid(NamedTuple):
    """A contour laid around a support: the index of its size in `SIZES`, and how far left of 0 it passes (0 if it does not)."""

    contour: Contour
    size: int
    shift: float


def lay(span: Span, rule: Rule, kappa: float, latest: float, tolerance: float, size: int | None = None) -> Laid:
    """A contour around a span on which the rule's filter does not grow.

    A support that starts far below 1/(κ τ), τ the latest time, or below the smallest penalty, need not be resolved: there the filter is
    smooth, and the contour may pass left of 0, between 0 and the pole at -ρ (not at τ = ∞).

    Args:
        span: what it goes around.
        rule: training rule, with rate κ.
        kappa: κ.
        latest: last training time asked for.
        tolerance: error wanted of a loss, from which the number of nodes is estimated.
        size: index in `SIZES` instead.
    """
    low, high = span
    smooth = float(np.min(rule.penalties)) if isinstance(rule, Ridge) else 1 / (kappa * latest) if latest > 0 else 2 * high
    shift = smooth / 2 if smooth / 2 > low else 0.0
    left = -shift / 2 if shift else low / 2
    margin = min(1.5, math.sqrt(max(rule.largest_stable_eigenvalue(kappa) / high, 1.0001)))
    right = margin * (high + shift) - shift
    for half_height in HALF_HEIGHTS:
        trial = ellipse(left, right, SIZES[-1], half_height, shift)
        if np.all(rule.growth(trial.nodes + (0 if isinstance(rule, Ridge) else shift), kappa) <= 1 + 1e-12):
            break
    axis = math.log((right + shift) / (left + shift)) / 2
    if size is None:
        wanted = axis / min(half_height, 4 * math.log(margin)) * math.log(10 / tolerance)
        size = next((i for i, n in enumerate(SIZES) if n >= wanted), len(SIZES) - 1)
    return Laid(ellipse(left, right, SIZES[size], half_height, shift), size, shift)


def integrate(weighted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Real contour integral and its error with half the nodes, from w_j F(z_j) on the upper half along the last axis.

    Both are linear up to signs: over an even number of consecutive nodes they are parts that add up, `abs` of the total being the error.
    """
    signs = jnp.where(jnp.arange(weighted.shape[-1]) % 2 == 0, 1.0, -1.0)
    return 2 * jnp.real(weighted.sum(-1)), 2 * jnp.imag((weighted * signs).sum(-1))
