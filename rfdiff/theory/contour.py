"""Contours around a support on the positive axis, for integrals of f(z) times a resolvent trace (docs/theory/curves.md, eq-contour).

`z = e^w - shift` with w on an ellipse around [log a, log b]: bulks that lie decades apart cost only the logarithm of their distance.
The trapezoid rule in the angle converges geometrically, e^{-N η}: inwards the integrand is analytic until the ellipse shrinks to the
segment between its foci, outwards until it leaves the strip |Im w| < π/2 where Re z > 0 and e^{-κτz} decays. A half-height of π/4
balances the two.

Nodes come in conjugate pairs off the axis, θ_j = 2π (j + ½)/N, so only the upper half is solved. Every second node is a rule too; the
two rules differ by the first neglected Fourier coefficient, which is the imaginary part and costs nothing to read.
"""

import math
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float

from rfdiff.rules import HeavyBall, Ridge, Rule
from rfdiff.value_types import is_concrete

HALF_HEIGHT = np.pi / 4
HALF_HEIGHTS = (HALF_HEIGHT, 0.5, 0.3, 0.15)  # tried in this order, until the rule's filter does not grow on the contour
SIZES = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536)  # numbers of nodes: a ladder, so that problems share compiled programs
PROBES = 10  # penalties at which the losses of ridge regression by contour are compared with those that need none
LOG_GROWTH = 4.0  # by e^4 a filter may grow on a contour: integrals over two then keep 12 of 16 digits


class Contour(NamedTuple):
    """Upper half (N/2) of a counter-clockwise contour: nodes z, and weights dz/(2πi)."""

    nodes: Complex[Array, " Z"]
    weights: Complex[Array, " Z"]


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
    xp: ModuleType = np if is_concrete(low, high) else jnp
    left, right = xp.log(low + shift), xp.log(high + shift)
    w, slope = _around((left + right) / 2, (right - left) / 2, half_height, size, xp)
    return Contour(xp.exp(w) - shift, xp.exp(w) * slope)


def thin_ellipse(span: Span, size: int, half_height: float, shift: float = 0.0) -> Contour:
    """Contour in x = √(z + shift) with foci at the ends of the span: modes of heavy ball oscillate with a phase ∝ √λ, all damped alike."""
    left, right = math.sqrt(span.low), math.sqrt(span.high)
    x, slope = _around((left + right) / 2, math.hypot((right - left) / 2, half_height), half_height, size, np)
    return Contour(x**2 - shift, 2 * x * slope)


def _around(
    centre: ArrayLike, half_length: ArrayLike, half_height: float, size: int, xp: ModuleType
) -> tuple[Complex[Array, " Z"], Complex[Array, " Z"]]:
    """Upper half of an ellipse with a horizontal axis, and its weights dw/(2πi)."""
    theta = 2 * np.pi * (np.arange(size // 2) + 0.5) / size
    cosine, sine = xp.cos(theta), xp.sin(theta)
    return centre + half_length * cosine + 1j * half_height * sine, (1j * half_height * cosine - half_length * sine) / (1j * size)


class Laid(NamedTuple):
    """A contour laid around a support: the index of its size in `SIZES`, and how far left of 0 it passes (0 if it does not)."""

    contour: Contour
    size: int
    shift: float


def lay(
    span: Span,
    rule: Rule,
    kappa: float,
    taus: Float[np.ndarray, " T"],
    tolerance: float,
    size: int | None = None,
    thinner: float = 1.0,
) -> Laid:
    """A contour around a span on which the rule's filter does not grow, or so little that its integrals lose no digit that counts.

    A support that starts far below 1/(κ τ), τ the latest time, or below ρ, the weight decay or the smallest penalty, need not be resolved:
    there the filter is smooth, and the contour may pass left of 0, between 0 and the pole at -ρ (not at τ = ∞ without decay).

    Args:
        span: what it goes around.
        rule: training rule, with rate κ.
        kappa: κ.
        taus: (T,) training times.
        tolerance: error wanted of a loss, from which the number of nodes is estimated.
        size: index in `SIZES` instead.
        thinner: factor of the half-height where modes oscillate: below 1 they die out on the contour too, at the price of nodes.
    """
    low, high = span
    latest = float(np.max(taus))
    smooth = rule.decay if isinstance(rule, Ridge) else rule.decay + 1 / (kappa * latest) if latest > 0 else 2 * high
    shift = smooth / 2 if smooth / 2 > low else 0.0
    left = -shift / 2 if shift else low / 2
    margin = min(1.5, math.sqrt(max(rule.largest_stable_eigenvalue(kappa) / high, 1.0001)))
    right = margin * (high + shift) - shift
    allowed = _allowed_growth(rule, taus)
    moved = 0 if isinstance(rule, Ridge) else shift
    for half_height in HALF_HEIGHTS:
        trial = ellipse(left, right, SIZES[-1], half_height, shift)
        if np.all(rule.growth(trial.nodes + moved, kappa) <= allowed):
            axis = math.log((right + shift) / (left + shift)) / 2
            size = _fitting(axis / min(half_height, 4 * math.log(margin)), tolerance) if size is None else size
            return Laid(ellipse(left, right, SIZES[size], half_height, shift), size, shift)
    half_height = thinner * _thin_half_height(Span(low + shift, high + shift), rule, kappa, allowed)
    half_length = (math.sqrt(high + shift) - math.sqrt(low + shift)) / 2
    size = _fitting(1 / math.asinh(half_height / half_length), tolerance) if size is None else size
    return Laid(thin_ellipse(Span(low + shift, high + shift), SIZES[size], half_height, shift), size, shift)


def _allowed_growth(rule: Rule, taus: np.ndarray) -> float:
    """Largest growth per step on a contour: by `LOG_GROWTH` over all steps of a discrete rule, none for others."""
    finite = taus[np.isfinite(taus)]
    steps = np.max(finite, initial=0) / rule.step_size if isinstance(rule, HeavyBall) else np.inf
    return 1 + 1e-12 if not np.isfinite(steps) else math.exp(LOG_GROWTH / max(steps, 1.0))


def _fitting(aspect: float, tolerance: float) -> int:
    """Index of the size that a contour needs whose trapezoid error falls as e^{-N/aspect}."""
    return next((i for i, n in enumerate(SIZES) if n >= aspect * math.log(10 / tolerance)), len(SIZES) - 1)


def _thin_half_height(span: Span, rule: Rule, kappa: float, allowed: float) -> float:
    """The largest half-height, to 5 %, at which the filter grows no more than allowed and the contour stays right of x = 0."""
    left, right = math.sqrt(span.low), math.sqrt(span.high)
    highest = math.sqrt(left * (right - left)) / 2 if left > 0 else (right - left) / 2
    for half_height in np.geomspace(highest, 1e-4 * (right - left), 200):
        if np.all(rule.growth(thin_ellipse(span, 256, half_height).nodes, kappa) <= allowed):
            break
    return float(half_height)


def integrate(weighted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Real contour integral and its error with half the nodes, from w_j F(z_j) on the upper half along the last axis.

    Both are linear up to signs: over an even number of consecutive nodes they are parts that add up, `abs` of the total being the error.
    """
    signs = jnp.where(jnp.arange(weighted.shape[-1]) % 2 == 0, 1.0, -1.0)
    return 2 * jnp.real(weighted.sum(-1)), 2 * jnp.imag((weighted * signs).sum(-1))
