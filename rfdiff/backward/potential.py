"""When the well of a class appears in the potential of the backward drift (docs/theory/speciation.md, eq-potential).

On the axis through the centroids of classes c and a, with unit vector e along μ_c - μ_a and q = e·x, the drift x + 2 ∇log p_t derives from

    𝒰_t(q) = -q²/2 - 2 log p_t(q),      p_t(q) = Σ_b π_b N(q; e^{-t} e·μ_b, Γ_b²),

the potential of the noised mixture's marginal. Going backward from t = ∞, where it has one well, the well of the class that is rarer or
narrower appears beside it in a saddle-node, 𝒰' = 𝒰'' = 0. The other well is the first one carried on, and was always there. Where classes
are balanced and of one variance the well splits: both appear, at e^{-2t} ‖μ_1 - μ_2‖²/4 = ½ for unit variance, the classical ½ log Λ up to
a constant.

The drift on an axis, averaged over the directions across it, is that of the marginal for any classes: Γ_b² then is the variance of class
b along the axis. For matrices this is e·(e^{-2t} Σ_b + Δ I) e; axes of random direction, as those of a law of joint eigenvalues, see the
class variance tr Σ_b/d, up to O(1/√d).

Alone on the axis, class b would have its well at w_b = 2 e^{-t} e·μ_b/(2 - Γ_b²). Every place with 𝒰' = 0 is a convex combination of these,
so that two classes are apart where a barrier lies between their w; a barrier beyond them parts a third class off.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from numpy.typing import ArrayLike

from rfdiff.backward.isotropic import IsotropicClasses, marginal_classes
from rfdiff.host import double_on_host
from rfdiff.mixture import MixtureLaw
from rfdiff.symmetric import upper_indices
from rfdiff.value_types import is_concrete

PLACES, TIMES, BISECTIONS, POLISHING = 1024, 256, 45, 40
MARGIN = 3.0
LEAST = 0.1  # of 2 - Γ²: a class as wide as Γ² = 2 has no well of its own, for the drift pushes outward
SPLIT = 0.02  # a new well this near to the old one, in units of its own distance of 1, is half of a split


class Axis(NamedTuple):
    """The classes on the axis through the centroids of two of them.

    Args:
        weights: (K,) class fractions.
        centroids: (K,) coordinates e·μ_b.
        variances: (K,) class variances.
    """

    weights: Float[Array, " K"]
    centroids: Float[Array, " K"]
    variances: Float[Array, " K"]


class FirstWells(NamedTuple):
    """Where a barrier first appears between two classes, going backward.

    Args:
        t: time.
        q: place of the barrier, where the new well appears.
        side: 1 if the new well lies to the right of the barrier, -1 to the left, 0 if the old well splits.
        exists: whether there is one at any t > 0.
    """

    t: Float[Array, ""]
    q: Float[Array, ""]
    side: Float[Array, ""]
    exists: Bool[Array, ""]


def well_times(law: MixtureLaw, *, d: ArrayLike | None = None) -> Float[np.ndarray, "K K"]:
    """Times (K, K) at which the well of class c appears beside that of class a on the axis through their centroids.

    inf: class c lies in the well that exists at t = ∞, or in one that appeared with an earlier class. NaN: no barrier ever separates the
    two (classes that overlap, share their centroid or lie far on one side of the origin), and a = c. Derivatives are those of the
    saddle-node. Data should be centred, since the drift pulls to the origin.

    Args:
        law: K ≥ 2 classes.
        d: dimension; None for 256, or that of the law's matrices.

    Raises:
        InputError: one class, or a dimension out of range.

    Reference: docs/theory/speciation.md, eq-potential; tests/backward/test_potential.py.
    """
    return _evaluated(_well_times, law, d)


def potential_times(law: MixtureLaw, *, d: ArrayLike | None = None) -> Float[np.ndarray, " K"]:
    """Time (K,) from which the well of a class is separate from those of all others: the least of its `well_times`.

    inf for the class whose well is that of t = ∞ on every axis; NaN where it stays together with another.

    Args:
        law: K ≥ 2 classes.
        d: dimension; None for 256, or that of the law's matrices.

    Raises:
        InputError: as `well_times`.

    Reference: docs/theory/speciation.md, eq-potential; tests/backward/test_potential.py.
    """
    return _evaluated(_potential_times, law, d)


def slope(q: Float[Array, ""], t: Float[Array, ""], axis: Axis) -> Float[Array, ""]:
    """𝒰_t'(q) = -q + 2 Σ_b P(b|q) (q - e^{-t} m_b)/Γ_b² of classes at centroids m_b on the axis."""
    decay = jnp.exp(-t)
    gamma = 1 + decay**2 * (axis.variances - 1)
    away = q - decay * axis.centroids
    posterior = jax.nn.softmax(jnp.log(axis.weights) - away**2 / (2 * gamma) - jnp.log(gamma) / 2)
    return -q + 2 * jnp.sum(posterior * away / gamma)


def _evaluated(function: Callable[..., jax.Array], law: MixtureLaw, d: ArrayLike | None) -> Float[np.ndarray, "..."]:
    """Value of a function of classes and of their variances (P, K) along the axes of the P pairs, as `isotropic.evaluated`."""
    first, second = upper_indices(np.shape(law.weights)[-1], diagonal=False)
    if not is_concrete(law, d):
        classes = marginal_classes(law, d)
        return cast(np.ndarray, function(classes, jnp.broadcast_to(classes.variances, (len(first), classes.variances.size))))
    with double_on_host():
        classes = marginal_classes(law, d)
        along = np.broadcast_to(np.asarray(classes.variances), (len(first), classes.variances.size))
        if law.covariances is not None and law.centroids is not None:
            axes = law.centroids[first] - law.centroids[second]
            square = np.maximum(np.sum(axes**2, axis=1), 1e-300)[:, None]
            along = np.einsum("pa,kab,pb->pk", axes, law.covariances, axes, optimize=True) / square
        return np.asarray(function(classes, jnp.asarray(along)))


@jax.jit
def _well_times(classes: IsotropicClasses, along: Float[Array, "P K"]) -> Float[Array, "K K"]:
    k = classes.weights.shape[0]
    first, second = upper_indices(k, diagonal=False)
    right, left = jax.vmap(partial(_pair, classes))(jnp.asarray(first), jnp.asarray(second), along)
    times = jnp.full((k, k), jnp.nan, right.dtype)
    return times.at[first, second].set(right).at[second, first].set(left)


@jax.jit
def _potential_times(classes: IsotropicClasses, along: Float[Array, "P K"]) -> Float[Array, " K"]:
    times = _well_times(classes, along)
    others = ~jnp.eye(times.shape[0], dtype=bool)
    return jnp.min(jnp.where(others, times, jnp.inf), axis=1)  # NaN wins


def _pair(
    classes: IsotropicClasses, c: jax.Array, a: jax.Array, variances: Float[Array, " K"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Times at which the wells of class c and of class a appear on their axis, along which classes have the given variances."""
    gram = classes.gram
    square = classes.d * (gram[c, c] + gram[a, a] - 2 * gram[c, a])
    apart = square > 1e-12
    distance = jnp.sqrt(jnp.where(apart, square, 1.0))
    axis = Axis(classes.weights, classes.d * (gram[c] - gram[a]) / distance, variances)
    fixed = jax.lax.stop_gradient(axis)
    wells = _first_wells(fixed, jax.lax.stop_gradient(distance), c, a)
    t, q, inverse = jax.lax.stop_gradient(_polish(wells.t, wells.q, fixed))
    residual = _node(jnp.stack([q, t]), axis)
    time = t - (inverse @ (residual - jax.lax.stop_gradient(residual)))[1]
    exists = wells.exists & apart & (t > 0)
    return (
        jnp.where(exists, jnp.where(wells.side >= 0, time, jnp.inf), jnp.nan),
        jnp.where(exists, jnp.where(wells.side <= 0, time, jnp.inf), jnp.nan),
    )


def _first_wells(axis: Axis, distance: Float[Array, ""], right: jax.Array, left: jax.Array) -> FirstWells:
    """Largest t with a barrier between the classes `right` and `left`, from a scan and bisection on a grid of q."""

    def single_well(t: jax.Array, b: jax.Array) -> jax.Array:
        """w_b, where the well of class b would lie if it were alone."""
        return 2 * jnp.exp(-t) * axis.centroids[b] / jnp.maximum(1 - jnp.exp(-2 * t) * (axis.variances[b] - 1), LEAST)

    def barriers(t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Grid of q, 𝒰' on it, and the cells between the two single wells where 𝒰' falls through 0."""
        low, high = single_well(t, left), single_well(t, right)
        outer = jnp.minimum(low, 0) - MARGIN, jnp.maximum(high, 0) + MARGIN
        q = outer[0] + jnp.linspace(0, 1, PLACES, dtype=t.dtype) * (outer[1] - outer[0])
        force = jax.vmap(lambda q: slope(q, t, axis))(q)
        return q, force, (q[:-1] > low) & (q[1:] < high) & (force[:-1] > 0) & (force[1:] <= 0)

    latest = jnp.log1p(distance) + 2
    grid = latest * jnp.linspace(1, 0, TIMES, dtype=distance.dtype)
    bistable = jax.lax.map(lambda t: jnp.any(barriers(t)[2]), grid)
    index = jnp.argmax(bistable)
    exists = jnp.any(bistable) & (index > 0)

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = (low + high) / 2
        two = jnp.any(barriers(middle)[2])
        return jnp.where(two, middle, low), jnp.where(two, high, middle)

    low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, (grid[index], grid[jnp.maximum(index - 1, 0)]))
    later = low - jnp.minimum(1e-3, low / 2)  # where barrier and new well have come apart by some cells
    q, force, barrier = barriers(later)
    cell = jnp.argmax(barrier)
    width = q[1] - q[0]
    return FirstWells(low, q[cell] + width / 2, _side_of_new_well(force, cell, width), exists)


def _side_of_new_well(force: Float[Array, " Q"], barrier: jax.Array, width: jax.Array) -> Float[Array, ""]:
    """On which side of a barrier the nearer well lies: 1 right, -1 left, 0 if both are as near (a split)."""
    wells, cells = (force[:-1] <= 0) & (force[1:] > 0), jnp.arange(PLACES - 1)
    above = jnp.min(jnp.where(wells & (cells > barrier), cells, PLACES))
    below = jnp.max(jnp.where(wells & (cells < barrier), cells, -PLACES))
    up, down = (above - barrier) * width, (barrier - below) * width
    return jnp.where(jnp.abs(up - down) < jnp.maximum(SPLIT, 3 * width), 0, jnp.where(up < down, 1, -1))


def _node(place: Float[Array, "2"], axis: Axis) -> Float[Array, "2"]:
    """(𝒰', 𝒰'') at (q, t)."""
    return jnp.stack(jax.jvp(lambda q: slope(q, place[1], axis), (place[0],), (jnp.ones_like(place[0]),)))


def _polish(t: jax.Array, q: jax.Array, axis: Axis) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, "2 2"]]:
    """Newton steps to 𝒰' = 𝒰'' = 0, and the damped inverse of the Jacobian there, which serves where a well splits and it is singular."""

    def inverse_at(place: jax.Array) -> jax.Array:
        jacobian = jax.jacfwd(lambda place: _node(place, axis))(place)
        normal = jacobian.T @ jacobian
        normal = normal + jnp.eye(2, dtype=normal.dtype) * 1e-9 * jnp.trace(normal)
        determinant = normal[0, 0] * normal[1, 1] - normal[0, 1] * normal[1, 0]
        adjugate = jnp.stack([jnp.stack([normal[1, 1], -normal[0, 1]]), jnp.stack([-normal[1, 0], normal[0, 0]])])
        return adjugate / determinant @ jacobian.T

    def newton(_: int, place: jax.Array) -> jax.Array:
        move = inverse_at(place) @ _node(place, axis)
        return place - move * jnp.minimum(1.0, 0.1 / jnp.maximum(jnp.max(jnp.abs(move)), 1e-30))

    start = jnp.stack([q, t])
    end = jax.lax.fori_loop(0, POLISHING, newton, start)
    good = jnp.all(jnp.isfinite(end)) & (jnp.max(jnp.abs(end - start)) < 0.5)
    end = jnp.where(good, end, start)
    return end[1], end[0], inverse_at(end)
