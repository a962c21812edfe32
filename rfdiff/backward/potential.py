"""When the well of a class appears in the potential of the backward drift (`equations`, section 8).

On the axis through the centroids of classes c and a, with unit vector e along μ_c - μ_a and q = e·x, the drift x + 2 ∇log p_t derives from

    𝒰_t(q) = -q²/2 - 2 log p_t(q),      p_t(q) = Σ_b π_b N(q; e^{-t} e·μ_b, Γ_b²),

the potential of the noised mixture's marginal. Going backward from t = ∞, where it has one well, the well of the class that is rarer or
narrower appears beside it in a saddle-node, 𝒰' = 𝒰'' = 0. The other well is the first one carried on, and was always there. Where classes
are balanced and of one variance the well splits: both appear, at e^{-2t} ‖μ_1 - μ_2‖²/4 = ½ for unit variance, the classical ½ log Λ up to
a constant.

Alone on the axis, class b would have its well at w_b = 2 e^{-t} e·μ_b/(2 - Γ_b²). Every place with 𝒰' = 0 is a convex combination of these,
so that two classes are apart where a barrier lies between their w; a barrier beyond them parts a third class off.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.backward.speciation import as_floats, check_classes

PLACES, TIMES, BISECTIONS, POLISHING = 1024, 256, 45, 40
MARGIN = 3.0
LEAST = 0.1  # of 2 - Γ²: a class as wide as Γ² = 2 has no well of its own, for the drift pushes outward
SPLIT = 0.02  # a new well this near to the old one, in units of its own distance of 1, is half of a split


def well_times(weights: Any, gram: Any, variances: Any, d: Any) -> jax.Array:
    """Times (K, K) at which the well of class c appears beside that of class a on the axis through their centroids.

    inf: it is the well of t = ∞ and was always there, or one in which class c lay before. NaN: no barrier ever stands between the two
    (classes that overlap, share their centroid or lie far on one side of the origin), and for a = c. Derivatives are those of the
    saddle-node.

    Args:
        weights: (K,) class fractions.
        gram: (K, K) centroid Gram matrix μ_a·μ_b/d; data are taken to be centred, for the drift pulls to the origin.
        variances: (K,) class variances.
        d: dimension.

    Raises:
        InputError: fewer than two classes.

    Reference: equations, section 8; tests/backward/test_potential.py.
    """
    check_classes(weights)
    weights, gram, variances = as_floats(weights, gram, variances)
    k = weights.shape[0]
    first, second = np.triu_indices(k, 1)
    right, left = jax.vmap(partial(_pair, weights, gram, variances, d))(jnp.asarray(first), jnp.asarray(second))
    times = jnp.full((k, k), jnp.nan, right.dtype)
    return times.at[first, second].set(right).at[second, first].set(left)


def potential_times(weights: Any, gram: Any, variances: Any, d: Any) -> jax.Array:
    """Time (K,) from which the well of a class stands apart from those of all others: the least of its `well_times`.

    inf for the class whose well is that of t = ∞ on every axis; NaN where it stays together with another.

    Raises:
        InputError: fewer than two classes.
    """
    times = well_times(weights, gram, variances, d)
    others = ~jnp.eye(times.shape[0], dtype=bool)
    return jnp.min(jnp.where(others, times, jnp.inf), axis=1)  # NaN wins


def slope(q: jax.Array, t: jax.Array, weights: jax.Array, places: jax.Array, variances: jax.Array) -> jax.Array:
    """𝒰_t'(q) = -q + 2 Σ_b P(b|q) (q - e^{-t} m_b)/Γ_b² of classes at places m_b (K,) on the axis."""
    decay = jnp.exp(-t)
    gamma = 1 + decay**2 * (variances - 1)
    away = q - decay * places
    posterior = jax.nn.softmax(jnp.log(weights) - away**2 / (2 * gamma) - jnp.log(gamma) / 2)
    return -q + 2 * jnp.sum(posterior * away / gamma)


def _pair(weights: Any, gram: Any, variances: Any, d: Any, c: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Times at which the wells of class c and of class a appear on their axis."""
    square = d * (gram[c, c] + gram[a, a] - 2 * gram[c, a])
    apart = square > 1e-12
    distance = jnp.sqrt(jnp.where(apart, square, 1.0))
    places = d * (gram[c] - gram[a]) / distance
    numbers = weights, places, variances
    fixed = jax.lax.stop_gradient((*numbers, distance, (places[c], variances[c]), (places[a], variances[a])))
    t, q, new, exists = jax.lax.stop_gradient(_first_wells(*fixed))
    t, q, inverse = jax.lax.stop_gradient(_polish(t, q, fixed[:3]))
    residual = _node(jnp.stack([q, t]), numbers)
    time = t - (inverse @ (residual - jax.lax.stop_gradient(residual)))[1]
    found = exists & apart & (t > 0)
    return (
        jnp.where(found, jnp.where(new >= 0, time, jnp.inf), jnp.nan),
        jnp.where(found, jnp.where(new <= 0, time, jnp.inf), jnp.nan),
    )


def _first_wells(weights: Any, places: Any, variances: Any, distance: Any, right: Any, left: Any) -> tuple[Any, ...]:
    """Largest t with a barrier between two classes, from a scan and bisection on a grid of q.

    Returns:
        t, place of the new well, its side, and whether there is one.
    """

    def slopes(t: jax.Array) -> tuple[jax.Array, ...]:
        low, high = (
            2 * jnp.exp(-t) * place / jnp.maximum(1 - jnp.exp(-2 * t) * (variance - 1), LEAST) for place, variance in (left, right)
        )
        outer = jnp.minimum(low, 0) - MARGIN, jnp.maximum(high, 0) + MARGIN
        q = outer[0] + jnp.linspace(0, 1, PLACES, dtype=t.dtype) * (outer[1] - outer[0])
        force = jax.vmap(lambda q: slope(q, t, weights, places, variances))(q)
        return q, force, (q[:-1] > low) & (q[1:] < high)

    def barriers(t: jax.Array) -> tuple[jax.Array, jax.Array]:
        q, force, between = slopes(t)
        return q, between & (force[:-1] > 0) & (force[1:] <= 0)

    latest = jnp.log1p(distance) + 2
    grid = latest * jnp.linspace(1, 0, TIMES, dtype=distance.dtype)
    bistable = jax.lax.map(lambda t: jnp.any(barriers(t)[1]), grid)
    index = jnp.argmax(bistable)
    exists = jnp.any(bistable) & (index > 0)

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = (low + high) / 2
        two = jnp.any(barriers(middle)[1])
        return jnp.where(two, middle, low), jnp.where(two, high, middle)

    low, _ = jax.lax.fori_loop(0, BISECTIONS, halve, (grid[index], grid[jnp.maximum(index - 1, 0)]))
    later = low - jnp.minimum(1e-3, low / 2)  # where barrier and new well have come apart by some cells
    q, barrier = barriers(later)
    force = slopes(later)[1]
    place = jnp.argmax(barrier)
    wells = (force[:-1] <= 0) & (force[1:] > 0)
    cells = jnp.arange(PLACES - 1)
    above = jnp.min(jnp.where(wells & (cells > place), cells, PLACES))
    below = jnp.max(jnp.where(wells & (cells < place), cells, -PLACES))
    width = q[1] - q[0]
    up, down = (above - place) * width, (place - below) * width
    side = jnp.where(jnp.abs(up - down) < jnp.maximum(SPLIT, 3 * width), 0, jnp.where(up < down, 1, -1))
    return low, q[place] + width / 2, side, exists


def _node(place: jax.Array, numbers: tuple) -> jax.Array:
    """(𝒰', 𝒰'') at (q, t)."""
    weights, places, variances = numbers
    return jnp.stack(jax.jvp(lambda q: slope(q, place[1], weights, places, variances), (place[0],), (jnp.ones_like(place[0]),)))


def _polish(t: jax.Array, q: jax.Array, numbers: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Newton steps to 𝒰' = 𝒰'' = 0, and the damped inverse of the Jacobian there, which serves where a well splits and it is singular."""

    def inverse_at(place: jax.Array) -> jax.Array:
        jacobian = jax.jacfwd(lambda place: _node(place, numbers))(place)
        normal = jacobian.T @ jacobian
        normal = normal + jnp.eye(2, dtype=normal.dtype) * 1e-9 * jnp.trace(normal)
        determinant = normal[0, 0] * normal[1, 1] - normal[0, 1] * normal[1, 0]
        adjugate = jnp.stack([jnp.stack([normal[1, 1], -normal[0, 1]]), jnp.stack([-normal[1, 0], normal[0, 0]])])
        return adjugate / determinant @ jacobian.T

    def newton(_: int, place: jax.Array) -> jax.Array:
        move = inverse_at(place) @ _node(place, numbers)
        return place - move * jnp.minimum(1.0, 0.1 / jnp.maximum(jnp.max(jnp.abs(move)), 1e-30))

    start = jnp.stack([q, t])
    end = jax.lax.fori_loop(0, POLISHING, newton, start)
    good = jnp.all(jnp.isfinite(end)) & (jnp.max(jnp.abs(end - start)) < 0.5)
    end = jnp.where(good, end, start)
    return end[1], end[0], inverse_at(end)
