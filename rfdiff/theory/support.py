"""Support and atoms of the spectrum of U, from the fixed point alone (docs/theory/spectrum.md).

Bulks lie decades apart, so everything is laid out in log λ. A point is inside the support where Im g > 0, or where neurons of different
types lie on both sides of it: the types form a connected continuum, so a gap of the true spectrum leaves all of them on one side, and any
other gap is an artefact of their discretisation. Edges are folds of the fixed point: det(I - J) vanishes there like a square root, so its
square is smooth across the edge and a bracketing secant finds the zero.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.errors import InputError
from rfdiff.theory import solutions
from rfdiff.theory.equivalent import Equivalent
from rfdiff.theory.real_axis import APPROACH, approach, descend, polish
from rfdiff.theory.solutions import PIECE, Solved

INSIDE = 1e-6  # λρ above which a point belongs to the support; the approach leaves 1e-11 in a gap
BESIDE_ATOM = np.exp(np.outer([-1, 1], 10.0 ** np.arange(-4, -0.9, 0.5)).ravel())  # places of scan points, relative to the atom's
POINTS = 96  # of a scan
FEW_CLASSES, FEW_POINTS = 4, 32  # with more classes a point is dear, and the extent is scanned with fewer
ATOM = 1e-9  # weight above which there is an atom
BELOW, NEAR = 8, 0.5  # points below a known support that must be outside the new one, and natural logarithms that its ends may move
FLOOR = 1e-12  # of the largest eigenvalue: below lies what no float64 resolves

Masses = tuple[np.ndarray, np.ndarray]  # places and weights of the atoms
NO_ATOMS: Masses = (np.zeros(0), np.zeros(0))


def bounds(eq: Equivalent) -> tuple[float, float]:
    """Numbers below and above all non-zero eigenvalues, from norms of the parts of U: where a search for the support may start.

    Raises:
        InputError: U vanishes, so there is nothing to learn from (an activation that is constant on the data).
    """
    low, high = (float(x) for x in outer_bounds(eq))
    if not high > 1e-200:
        raise InputError("activation: its features have no linear part and no fluctuation, so U vanishes; allowed: a function that varies")
    return low, high


@jax.jit
def outer_bounds(eq: Equivalent) -> tuple[jax.Array, jax.Array]:
    """`bounds` as a traceable function; a high bound of 0 says that U vanishes."""
    w, gs, gn = eq.kind_weights[:, None], eq.signal_gains[:, None], eq.noise_gains[:, None]
    columns = eq.psi_n * eq.draws
    edge, alpha = (1 + jnp.sqrt(eq.psi_p)) ** 2, jnp.max(eq.linear**2, 0)
    widest = jnp.max(eq.eigenvalues, 0)
    if eq.coupled is not None:
        widest = jnp.maximum(widest, jnp.sqrt(jnp.sum(eq.coupled.core**2, (1, 2))))
    norm = alpha * edge * (gs * widest + gn * eq.noise_variance) + gs * eq.kept.max(0) + gn * eq.carried.max(0)
    fixed = eq.deterministic * eq.loss_weights
    high = jnp.sum(w * eq.loss_weights * norm * (1 + jnp.sqrt(eq.psi_p / (columns * w * eq.fractions))) ** 2)
    high = 1.1 * (high + jnp.sum(fixed * (alpha * edge * eq.noise_variance + eq.carried.max(0))))
    least = jnp.min(gs[:, None] * eq.kept + gn[:, None] * eq.carried, (0, 1))
    floor = _column_floor(eq, least, columns) / 10
    low = jnp.where(eq.deterministic > 0, jnp.min(eq.carried @ fixed), floor)
    return jnp.maximum(low / 1.5, FLOOR * high), high


def _column_floor(eq: Equivalent, least: jax.Array, columns: jax.Array) -> jax.Array:
    """Lower bound on the non-zero eigenvalues that the independent columns alone make, from the least variance (K,) of each class's.

    A class has columns of relative weight ω_c/π_c. All classes of positive weight together bound every non-zero eigenvalue; the heavier
    ones alone do where their columns are more than the features, and then the lighter ones can only add.
    """
    relative = eq.loss_weights / eq.fractions
    heavier = (relative >= relative[:, None]) & (relative > 0)  # row by row, the classes at least as heavy as one
    share = heavier @ eq.fractions
    variance = jnp.min(jnp.where(heavier, least, jnp.inf), 1)
    edge = (1 - jnp.sqrt(eq.psi_p / (columns * jnp.where(share > 0, share, 1)))) ** 2
    everything = share >= (1 - 1e-12) * jnp.sum(jnp.where(relative > 0, eq.fractions, 0))
    bounds_all = (relative > 0) & (everything | (columns * share > eq.psi_p))
    return jnp.max(jnp.where(bounds_all, relative * share * variance * edge, 0))


def _scan(eq: Equivalent, masses: Masses, points: int) -> tuple[np.ndarray, Solved, bool]:
    """Log grid that brackets the support, the solutions on it, and whether the support reaches 0 (to 1e-12 of its upper bound)."""
    low, high = bounds(eq)
    while True:
        lam = np.geomspace(low, high, points)
        axis = approach(eq, lam)
        seen = np.flatnonzero(_inside(axis, lam, masses))
        if not (seen.size and seen[0] == 0 and low > 1.001 * FLOOR * high):
            break
        low = max(low / 100, FLOOR * high)  # the lower bound is a bound of the parts of U, not of their sum
    hard = seen.size > 0 and seen[0] == 0
    if seen.size and seen[-1] - seen[0] < points // 2:
        lam = np.geomspace(lam[max(seen[0] - 1, 0)], lam[min(seen[-1] + 1, points - 1)], points)
        axis = approach(eq, lam)
    return lam, axis, hard


def _with_dips(eq: Equivalent, lam: np.ndarray, axis: Solved, hard: bool) -> tuple[np.ndarray, Solved, bool]:
    """The scan with more points where the density dips: there a gap narrower than the spacing may hide."""
    level = lam * axis.density
    left, here, right = level[:-2], level[1:-1], level[2:]
    dips = 1 + np.flatnonzero((here <= np.minimum(left, right)) & (here < 0.5 * np.maximum(left, right)) & (here > INSIDE))[: POINTS // 8]
    if not dips.size:
        return lam, axis, hard
    return *_insert(eq, lam, axis, np.exp(np.linspace(np.log(lam[dips - 1]), np.log(lam[dips + 1]), 10)[1:-1]).ravel()), hard


def _around(eq: Equivalent, masses: Masses, lam: np.ndarray, axis: Solved, hard: bool) -> tuple[np.ndarray, Solved, bool]:
    """The scan with more points on both sides of an atom: a search for an edge near it must not start from beyond the atom."""
    more = np.outer(masses[0], BESIDE_ATOM).ravel()
    more = more[(more > lam[0]) & (more < lam[-1])]
    return (*_insert(eq, lam, axis, more), hard) if more.size else (lam, axis, hard)


def _insert(eq: Equivalent, lam: np.ndarray, axis: Solved, more: np.ndarray) -> tuple[np.ndarray, Solved]:
    order = np.argsort(np.concatenate([lam, more]))
    axis = jax.tree.map(lambda a, b: np.concatenate([a, b])[order], axis, approach(eq, more))
    return np.concatenate([lam, more])[order], axis


def extent(eq: Equivalent, bands: bool = True) -> tuple[float, float]:
    """Numbers just below and above the whole support, bands of single neuron types included; 0 below for a hard edge.

    Between its ends neuron types lie on both sides of a λ, however narrow the bands are: none of them is overlooked. With many classes,
    where every point is dear, a coarser scan finds numbers that are a little farther out.

    Args:
        eq: the Gaussian equivalent.
        bands: count bands too narrow for the scan; else only where a scan point finds mass.
    """
    return extents(eq)[0 if bands else 1]


def extents(eq: Equivalent) -> tuple[tuple[float, float], tuple[float, float]]:
    """`extent` with bands and without, from one scan."""
    lam, axis, hard = _scan(eq, NO_ATOMS, POINTS if eq.linear.shape[1] <= FEW_CLASSES else FEW_POINTS)

    def ends(inside: np.ndarray) -> tuple[float, float]:
        seen = np.flatnonzero(inside)
        if not seen.size:  # one bulk, narrower than the spacing
            return bounds(eq)
        return 0.0 if hard else float(lam[max(seen[0] - 1, 0)]), float(lam[min(seen[-1] + 1, lam.size - 1)])

    return ends(_inside(axis, lam, NO_ATOMS)), ends(lam * axis.density > INSIDE)


def followed(eq: Equivalent, low: float, high: float) -> tuple[float, float] | None:
    """A number below the support and its upper edge, given those of a near equivalent; None where the ends may have moved far.

    A tenth of the work of `extent` and `support`.
    """
    below, above = low * np.exp(np.linspace(-2 * NEAR, -NEAR, BELOW)), high * np.exp(np.linspace(-NEAR, NEAR, PIECE - BELOW))
    lam = np.concatenate([below, above])
    axis = approach(eq, lam)
    inside = _inside(axis, lam, NO_ATOMS)
    seen = np.flatnonzero(inside[BELOW:])
    if inside[:BELOW].any() or not seen.size or inside[-1]:
        return None
    flips = BELOW + seen[-1:]
    edges = _edges(eq, lam, axis, inside, NO_ATOMS, flips)
    return float(below[-1]), float(edges[0])


def support(eq: Equivalent, masses: Masses, points: int = POINTS) -> tuple[np.ndarray, np.ndarray, Solved]:
    """Support intervals (B, 2) of the continuous spectrum (atoms given) in ascending order, and the scan (λ, solutions) they were found on.

    An interval that reaches down to the smallest resolvable λ (1e-12 of the largest) starts at 0: a hard edge.
    """
    lam, axis, hard = _around(eq, masses, *_with_dips(eq, *_scan(eq, masses, points)))
    inside = _inside(axis, lam, masses)
    edges = _edges(eq, lam, axis, inside, masses, np.flatnonzero(inside[1:] != inside[:-1]))
    if inside[0]:
        edges = np.concatenate([[0.0 if hard else lam[0]], edges])
    if inside[-1]:
        edges = np.concatenate([edges, [lam[-1]]])
    return edges.reshape(-1, 2), lam, axis


def _inside(axis: Solved, lam: np.ndarray, masses: Masses) -> np.ndarray:
    """Where the continuous density is positive: that of the atoms, smeared by the distance from the axis, is taken away."""
    width = APPROACH[-1] * lam
    smeared = sum(weight * width / np.pi / ((lam - place) ** 2 + width**2) for place, weight in zip(*masses, strict=True))
    return (lam * (axis.density - smeared) > INSIDE) | axis.straddles


def _edges(eq: Equivalent, lam: np.ndarray, axis: Solved, inside: np.ndarray, masses: Masses, flips: np.ndarray) -> np.ndarray:
    """Edges between scan points `flips` and `flips + 1`: a secant on the signed squared determinant, kept inside its bracket."""
    if not flips.size:
        return np.zeros(0)
    into, out = np.where(inside[flips], flips, flips + 1), np.where(inside[flips], flips + 1, flips)
    x_in, x_out = np.log(lam[into]), np.log(lam[out])
    u_in, u_out = axis.u[into], axis.u[out]
    last, f_last = x_in, -abs(axis.fold[into])
    newest, f_newest = x_out, abs(axis.fold[out])
    for _ in range(9):
        with np.errstate(divide="ignore", invalid="ignore"):
            x = newest - f_newest * (newest - last) / (f_newest - f_last)
        arrived = abs(newest - last) < 1e-9  # the next secant would divide rounding by rounding
        outside = ~((x - x_in) * (x - x_out) < 0)
        x = np.where(arrived, newest, np.where(outside, (x_in + x_out) / 2, x))
        # the size of the secant's own error; nearer to a fold the solutions are too uncertain to do better
        if np.all(abs(x - newest) * abs(newest - last) < 1e-12):
            return np.exp(x)
        # Newton does not cross a fold: start from both sides and keep the one that arrives
        both = polish(eq, np.exp(np.concatenate([x, x])), np.concatenate([u_in, u_out]), 1e-14, 20)
        pick = np.argmin(both.residual.reshape(2, -1), 0) * x.size + np.arange(x.size)
        new = jax.tree.map(lambda leaf, pick=pick: leaf[pick], both)
        within = _inside(new, np.exp(x), masses)
        u_in, u_out = np.where(within[:, None], new.u, u_in), np.where(within[:, None], u_out, new.u)
        x_in, x_out = np.where(within, x, x_in), np.where(within, x_out, x)
        last, f_last, newest, f_newest = newest, f_newest, x, np.where(within, -1, 1) * abs(new.fold)
    return np.exp(newest)


def atoms(eq: Equivalent) -> Masses:
    """Places and weights of the atoms.

    At 0 for p > n m (no noise average), a residue of g; of centred classes with averaged noise at Σ_c ω_c s_c², from the rank of the rest.
    """
    averaged = float(eq.deterministic)
    weights = np.zeros(0) if averaged and float(np.min(eq.carried)) > 0 else np.zeros(1)
    places = np.zeros(weights.size)
    for nearest in (1e-9, 1e-7) if places.size else ():  # nearer, an edge beside the atom does not show; farther, rounding does not
        found, settled = _residues(eq, places, nearest)
        weights = np.where((weights == 0) & settled, found, weights)
    if len(eq.type_weights) == 1 and averaged:
        fixed = float(np.asarray(eq.carried)[0] @ np.asarray(eq.loss_weights))
        share = 1 - _rank_beside_the_identity(eq)
        if fixed > 0 and share > ATOM:
            places, weights = np.append(places, fixed), np.append(weights, share)
    return places[weights > 0], weights[weights > 0]


def _rank_beside_the_identity(eq: Equivalent) -> float:
    """Rank over p of U - Σ_c ω_c s_c² for centred classes with averaged noise: the n columns of samples, and the d directions of W.

    Columns of a class without a non-linear part that survives the noise average lie in the span of W, and those of weight 0 are none.
    Near the atom the fixed point is close to singular and not always solved; its weight needs no solution.
    """
    trained, linear, kept = np.asarray(eq.loss_weights) > 0, np.asarray(eq.linear)[0], np.asarray(eq.kept)[0]
    columns = float(eq.psi_n) * float(np.sum(np.asarray(eq.fractions)[trained & (kept > 0)]))
    return (columns + float(np.any(trained & (linear != 0)))) / float(eq.psi_p)


def _residues(eq: Equivalent, places: np.ndarray, nearest: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the atom at each place, read at a relative distance from the axis, 0 without one; and whether it was solved there."""
    real = np.repeat(places, 2)
    distance = np.where(real > 0, real, bounds(eq)[1]) * np.tile([nearest, 10 * nearest], len(places))
    direct = solutions.free(eq, real + 1j * distance)
    stepped = descend(eq, real, distance / APPROACH[-1])
    values = np.where(direct.residual < stepped.residual, direct.density, stepped.density)
    weights, residual = (np.pi * distance * values).reshape(-1, 2), np.minimum(direct.residual, stepped.residual).reshape(-1, 2)
    # an integrable singularity also gives a small number here, but one that changes with the distance
    is_atom = (weights[:, 0] > 1e-6) & (abs(weights[:, 1] - weights[:, 0]) < 1e-2 * weights[:, 0])
    return np.where(is_atom, weights[:, 0], 0.0), np.all(residual < 1e-6, 1)
