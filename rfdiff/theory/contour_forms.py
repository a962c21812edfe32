"""Learning curves as quadratic forms of the training rule's filter: everything about a problem but the training time.

On a contour with upper-half nodes z_i and weights w_i, and F_i(τ) = w_i f_τ(z_i), every curve is

    L_c(τ) = 1 + 2 Re Σ_i F_i (2 t1(z_i) + Σ_j A_ij F_j + B_ij F̄_j),     A_ij = t2(z_i, z_j),  B_ij = t2(z_i, z̄_j),

so the expensive part (t1, A, B: `CurveKernel`) is made once and any number of training times costs a few small products. A is symmetric
and B Hermitian, which halves the pairs to solve. All of it is traceable: jit, vmap and derivatives of any order with respect to every
number of the problem, in the memory of one evaluation (`implicit`).

Two numbers say how good a contour is. Half the nodes give another value: the trapezoid error is e^{-cN}, so the difference is about its
square root. With f = 1 the integrals are the known traces of V (`overlaps`), class by class, unless a part of the spectrum lies outside.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Complex, Float, PyTree

from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.rules import GradientFlow, Rule, Taus
from rfdiff.symmetric import multiplicity, upper_indices
from rfdiff.theory import coupled, implicit, pairs_of_few, resolvent
from rfdiff.theory.contour import Contour, integrate
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.responses import Joint, Point
from rfdiff.theory.traces import one_trace, overlaps, two_trace_of_pairs
from rfdiff.theory_results import Losses
from rfdiff.value_types import Scalar, is_concrete, value_type

BLOCK_BYTES = 2**27  # of the largest arrays of the pairs that are worked on at once


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
        missing: largest share of any class's V, train or test, that the contour does not enclose: 0 up to the numerical error.
        residual: largest relative residual of the fixed point.
        averages_error: what the averages over neurons and inputs add to the error of a loss, where it was estimated (`curve_kernel`).
    """

    nodes: Complex[Array, " Z"]
    weights: Complex[Array, " Z"]
    linear: Complex[Array, "2 K Z"]
    same: Complex[Array, "2 K Z Z"]
    conjugate: Complex[Array, "2 K Z Z"]
    optimal_loss: Float[Array, " K"]
    class_weights: Float[Array, " K"]
    kappa: Scalar
    noise_variance: Scalar
    latest: Scalar
    missing: Float[Array, ""]
    residual: Float[Array, ""]
    averages_error: Scalar = 0.0

    def losses(self, taus: Taus, *, rule: Rule = GradientFlow()) -> Losses:
        """Losses `.train` and `.test` (T, K) at training times (T,), in double precision.

        Args:
            taus: training times ≥ 0 in the unit set by κ, inf for convergence; traced ones with gradient flow only.
            rule: training rule.

        Raises:
            InputError: malformed taus; a traced kernel or traced taus in single precision.
        """
        with self.in_double(taus):
            train, test = self.evaluate(self._filter(taus, rule))[0]
        return Losses(train, test)

    def error(self, taus: Taus, *, rule: Rule = GradientFlow()) -> jax.Array:
        """Estimated numerical error of any of those losses: of the contour, and of the averages where it is known."""
        with self.in_double(taus):
            return self.contour_error(taus, rule=rule) + self.averages_error

    def contour_error(self, taus: Taus, *, rule: Rule = GradientFlow()) -> jax.Array:
        """The part of the contour: that of the nodes, and the share of V outside the contour."""
        with self.in_double(taus):
            return trapezoid_error(self.evaluate(self._filter(taus, rule))[1]) + self.missing

    def _filter(self, taus: Taus, rule: Rule) -> jax.Array:
        if is_concrete(taus):
            _, taus = rule.schedule(taus, 1.0)  # of a clock that does not depend on κ
        return rule.filter(self.nodes, taus, self.kappa)

    def in_double(self, taus: Taus = 0.0) -> AbstractContextManager[object]:
        """Double precision: switched on for known numbers, required of traced ones, whose precision is settled where tracing begins.

        Raises:
            InputError: a traced kernel or traced taus in single precision.
        """
        if is_concrete(self, taus):
            return double_on_host()
        if jnp.result_type(float) != jnp.float64:
            raise InputError("curve_kernel: traced in single precision; allowed: inside jax.enable_x64(True)")
        return nullcontext()

    def evaluate(self, f: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Losses (2, T, K) for filter values f (T, Z), and what changes with half the nodes."""
        return evaluate_forms(jnp, self.weights, self.linear, self.same, self.conjugate, f)


def evaluate_forms(xp: Any, weights: Any, linear: Any, same: Any, conjugate: Any, f: Any) -> tuple[Any, Any]:
    """Losses (2, T, K) for filter values f (T, Z), and what changes with half the nodes, from the parts of a `CurveKernel`.

    Args:
        xp: numpy, which compiles nothing, or jax.numpy, which can be traced.
        weights, linear, same, conjugate: as in `CurveKernel`.
        f: (T, Z).
    """
    F, (shape, size) = weights * f, (linear.shape[:2], linear.shape[2])
    x, y, signs = xp.real(F), xp.imag(F), xp.where(xp.arange(size) % 2 == 0, 1.0, -1.0)  # as in `integrate`
    both = xp.concatenate([x, y], 1)
    # real products for all classes at once, A F + B F̄ among them: XLA's CPU backend has a fast routine for these, none for complex ones
    total, difference = same + conjugate, same - conjugate

    def beside(left: Any, right: Any) -> Any:
        return xp.concatenate([left, right], -1)

    forms = xp.stack([beside(xp.real(total), -xp.imag(difference)), beside(xp.imag(total), xp.real(difference))], 2)
    inner = (both @ forms.reshape(-1, 2 * size).T).reshape(-1, *shape, 2, size)
    u, v, X, Y = inner[..., 0, :], inner[..., 1, :], x[:, None, None], y[:, None, None]
    real, imaginary = xp.real(linear), xp.imag(linear)
    lines = xp.stack([beside(real, -imaginary), beside(signs * imaginary, signs * real)])
    first = (4 * both @ lines.reshape(-1, 2 * size).T).reshape(-1, 2, *shape)
    losses = 1 + first[:, 0] + 2 * (X * u - Y * v).sum(-1)
    change = first[:, 1] + 4 * (signs * (X * v + Y * u)).sum(-1)  # both integrals of the second change, by as much
    return xp.moveaxis(losses, 0, 1), xp.moveaxis(change, 0, 1)


def trapezoid_error(half_change: jax.Array) -> jax.Array:
    """Error of the whole rule from what half the nodes change: its square, up to a factor taken as 10."""
    half = jnp.max(abs(half_change))
    return jnp.minimum(half, 10 * half**2)


@jax.jit
def losses_and_error(kernel: CurveKernel, clock: PyTree, rule: Rule) -> tuple[jax.Array, jax.Array]:
    """Train and test losses (2, T, K) by a rule's clock, and the error of the nodes; compiled."""
    losses, change = losses_and_change(kernel, clock, rule)
    return losses, trapezoid_error(change)


@jax.jit
def losses_and_change(kernel: CurveKernel, clock: PyTree, rule: Rule) -> tuple[jax.Array, jax.Array]:
    """Train and test losses (2, T, K) by a rule's clock, and what half the nodes change of them; compiled."""
    return kernel.evaluate(rule.filter(kernel.nodes, clock, kernel.kappa))


def outside(eq: Equivalent, contour: Contour, linear: ArrayLike) -> jax.Array:
    """Share (2, K) of each class's V, train and test, that a contour does not enclose, from t1 (2, K, Z) on its nodes."""
    whole, scale = overlaps(eq)
    return (integrate(-jnp.asarray(contour.weights) * linear)[0] - whole) / jnp.where(scale > 0, scale, 1)


def first_traces(eq: Equivalent, point: Point) -> jax.Array:
    """t1(z_i) for train and test (2, K, Z), from the solution at Z points."""
    return jnp.swapaxes(jnp.stack(one_trace(eq, point)), 1, 2)


def second_traces(eq: Equivalent, point: Point) -> tuple[jax.Array, jax.Array]:
    """t2(z_i, z_j) and t2(z_i, z̄_j) for train and test, each (2, K, Z, Z), from the solution at Z points of the upper half-plane.

    Only pairs i ≤ j are solved, in blocks that keep the products of the neuron types and the response systems below `BLOCK_BYTES`.
    """
    size = point.r.shape[0]
    values = _of_few(eq, point) if pairs_of_few.fits(eq, size) else _by_response(eq, point)
    pairs = values.shape[-1] // 2
    pair_of = np.zeros((size, size), int)
    pair_of[upper_indices(size)] = np.arange(pairs)
    pair_of = np.maximum(pair_of, pair_of.T)
    same, conjugate = values[..., :pairs][..., pair_of], values[..., pairs : 2 * pairs][..., pair_of]
    return same, jnp.where(np.tri(size, k=-1, dtype=bool), conjugate.conj(), conjugate)


def _of_few(eq: Equivalent, point: Point) -> jax.Array:
    """t2 (2, K, 2P) at the P pairs i ≤ j of (z_i, z_j), then at those of (z_i, z̄_j): few classes, no coupled directions."""
    rows, cols = upper_indices(point.r.shape[0])
    conjugated = np.arange(2 * rows.size) >= rows.size
    rows, cols = np.tile(rows, 2), np.tile(cols, 2)
    first = jax.tree.map(lambda leaf: leaf[rows], point)
    second = jax.tree.map(lambda leaf: _conjugate_where(jnp.asarray(conjugated), leaf[cols]), point)
    types = pairs_of_few.averages_of_pairs(eq, point.r, point.r)
    both = jnp.where(conjugated, types[1][:, :, rows, cols], types[0][:, :, rows, cols])
    return pairs_of_few.two_trace_of_pairs(eq, first, second, both)


def _by_response(eq: Equivalent, point: Point) -> jax.Array:
    """`_of_few` for any number of classes and for coupled directions, in blocks of pairs."""
    size, types = point.r.shape
    rows, cols = upper_indices(size)
    pairs = rows.size
    rows, cols, conjugated = np.tile(rows, 2), np.tile(cols, 2), np.arange(2 * pairs) >= pairs
    unknowns, features = point.delta[0].size + multiplicity(eq.linear.shape[1]).size, resolvent.type_features(eq).shape[1]
    block = min(max(16, BLOCK_BYTES // (16 * (types + 10 * max(features, unknowns) ** 2))), 2 * pairs)
    blocks = -(-2 * pairs // block)
    index = (np.resize(array, blocks * block).reshape(blocks, block) for array in (rows, cols, conjugated))

    products = None
    if point.blocks is not None:
        products = coupled.products_of_all(eq, point.blocks, jnp.concatenate([point.blocks, point.blocks.conj()]))

    def traces(chosen: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        row, col, conjugate = chosen
        first = jax.tree.map(lambda leaf: leaf[row], point.single)
        second = jax.tree.map(lambda leaf: _conjugate_where(conjugate, leaf[col]), point.single)
        directions = None if products is None else products[row, col + size * conjugate]
        joint = Joint(resolvent.feature_averages(eq, first.r * second.r), directions)
        return jnp.stack(two_trace_of_pairs(eq, first, second, joint))

    values = jax.lax.map(traces, tuple(jnp.asarray(array) for array in index))
    return jnp.moveaxis(values, 0, 2).reshape(2, eq.linear.shape[1], -1)[..., : 2 * pairs]


def _conjugate_where(which: jax.Array, leaf: jax.Array) -> jax.Array:
    return jnp.where(which.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf.conj(), leaf)


def kernel_from(
    eq: Equivalent,
    contour: Contour,
    linear: jax.Array,
    residual: jax.Array,
    second: tuple[jax.Array, jax.Array],
    optimal: ArrayLike,
    kappa: ArrayLike,
    latest: ArrayLike,
) -> CurveKernel:
    """The kernel of an equivalent on a contour, from t1 (2, K, Z), the residuals of the fixed point (Z,) and the second traces."""
    nodes, weights = jnp.asarray(contour.nodes), jnp.asarray(contour.weights)
    missing = jnp.max(abs(outside(eq, contour, linear)))
    same, conjugate = second
    return CurveKernel(
        nodes=nodes,
        weights=weights,
        linear=linear,
        same=same,
        conjugate=conjugate,
        optimal_loss=jnp.asarray(optimal),
        class_weights=eq.fractions,
        kappa=jnp.asarray(kappa),
        noise_variance=eq.noise_variance,
        latest=jnp.asarray(latest),
        missing=missing,
        residual=jnp.max(residual),
    )


def solve_kernel(
    eq: Equivalent, contour: Contour, start: jax.Array, optimal: ArrayLike, kappa: ArrayLike, latest: ArrayLike
) -> CurveKernel:
    """The kernel of an equivalent on a contour, from a start for the fixed point; traceable and differentiable."""
    u, residual = implicit.unknowns(eq, jnp.asarray(contour.nodes), start)
    return kernel_of(eq, contour, u, residual, optimal, kappa, latest)


def kernel_of(
    eq: Equivalent, contour: Contour, u: jax.Array, residual: jax.Array, optimal: ArrayLike, kappa: ArrayLike, latest: ArrayLike
) -> CurveKernel:
    """The kernel of an equivalent on a contour, from the packed solutions (Z, U) and their residuals (Z,)."""
    point = implicit.expand(eq, jnp.asarray(contour.nodes), u)
    return kernel_from(eq, contour, first_traces(eq, point), residual, second_traces(eq, point), optimal, kappa, latest)
