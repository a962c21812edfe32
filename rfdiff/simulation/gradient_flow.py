"""Per-class losses at every training time from one eigendecomposition (docs/theory/simulation.md, eq-exact-flow).

With U = O Λ Oᵀ, Ṽ = OᵀV and the filter f of the rule, for each class c and each of train and test

    L_c(τ) = (1/d) E_c‖ξ‖² - (2/d) Σ_i f_i (Ṽ_c Ṽᵀ)_ii + (1/d) Σ_ij f_i f_j (Ṽ Ṽᵀ)_ij (Oᵀ U_c O)_ij,

a matrix product (T, p) × (p, p) per curve once U_c is rotated. U and V are averages Σ_c ω_c over the classes, ω_c their weights in the
training loss (the class fractions, unless the problem says otherwise). The rotated matrix is symmetric and enters only here, so its lower
half is formed in panels that are used and dropped. The training U_c add up to U, so one class needs no rotation: its share of every form
is what the others leave of Λ.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfdiff.rules import Clock, Rule
from rfdiff.simulation.features import Sizes
from rfdiff.simulation.mehler import product
from rfdiff.simulation.moments import Moments
from rfdiff.value_types import Scalar, value_type

PANELS = 8
MIN_PANELLED = 512


@value_type
class FlowResult:
    """Learning curves of one network (T times, K classes, p features).

    Args:
        train_loss, test_loss: (T, K) losses L_c(τ) per coordinate.
        eigenvalues: (p,) eigenvalues of U, ascending; rounding-level ones exactly 0.
        class_weights: (p, K) weights ω_c (oᵀU_c o)/(p λ) in the class-resolved density, 0 on zero modes.
        untrained_loss: (K,) train losses at A = 0.
    """

    train_loss: Float[Array, "T K"]
    test_loss: Float[Array, "T K"]
    eigenvalues: Float[Array, " p"]
    class_weights: Float[Array, "p K"]
    untrained_loss: Float[Array, " K"]


@value_type
class QuadraticForm:
    """A moment S = Oᵀ U_c O in the eigenbasis of U, as far as the curves need it.

    Args:
        values: (T,) Σ_ij f_i f_j (Ṽ Ṽᵀ)_ij S_ij at each training time.
        diagonal: (p,) S_ii.
    """

    values: Float[Array, " T"]
    diagonal: Float[Array, " p"]


def flow_losses(train: Moments, test: Moments, sizes: Sizes, rule: Rule, clock: Clock, kappa: Scalar) -> FlowResult:
    """Losses of every class along training from A = 0, all times at once.

    Args:
        train: moments of the training set.
        test: moments of the population.
        sizes: shares of the classes in U and V, and the rank that U can have.
        rule: training rule; its `filter` is evaluated at the eigenvalues of U.
        clock: of the T training times, from `rule.schedule`.
        kappa: κ = 2Δ/ψ_p, the unit of training time.
    """
    dtype, d = train.U[0].dtype, sizes.d
    shares = [np.asarray(share, dtype) for share in sizes.shares]
    U, V = mixed(shares, train.U), mixed(shares, train.V)
    raw, basis = jnp.linalg.eigh(U, symmetrize_input=False)
    # Eigenvectors as rows, held in memory: XLA would fold the transposition into products that then run at half speed on a CPU.
    rows = jax.lax.optimization_barrier(basis.T)
    eigenvalues = zero_rounding(raw, sizes.rank)
    # V has no component on the null space of U; rounding would leave one there, multiplied by the largest filter value.
    alive = eigenvalues > 0
    V = jnp.where(alive[:, None], product(rows, V), 0)
    gram = product(V, V.T)
    f = rule.filter(eigenvalues, clock, kappa)
    largest = int(np.argmax(shares))
    others = {c: _rotated_form(U_c, rows, gram, f) for c, U_c in enumerate(train.U) if c != largest}
    remaining = _remaining_form(others, shares, largest, raw, gram, f)
    train_forms = [others.get(c, remaining) for c in range(len(shares))]
    test_forms = [_rotated_form(U_c, rows, gram, f) for U_c in test.U]

    def class_losses(moments: Moments, forms: Sequence[QuadraticForm]) -> list[jax.Array]:
        overlaps = [jnp.sum(product(rows, V_c) * V, axis=1) for V_c in moments.V]
        terms = zip(moments.untrained_loss, overlaps, forms, strict=True)
        return [untrained - (2 * product(f, overlap) - form.values) / d for untrained, overlap, form in terms]

    train_loss, test_loss = class_losses(train, train_forms), class_losses(test, test_forms)
    content = jnp.stack([share * form.diagonal for share, form in zip(shares, train_forms, strict=True)], axis=1)
    class_weights = jnp.where(alive[:, None], content / (sizes.p * jnp.where(alive, eigenvalues, 1))[:, None], 0)
    curves = jnp.stack(train_loss, axis=1), jnp.stack(test_loss, axis=1)
    return FlowResult(*curves, eigenvalues, class_weights, train.untrained_loss)


def zero_rounding(eigenvalues: Float[Array, " p"], rank: int) -> Float[Array, " p"]:
    """Ascending eigenvalues (p,) with those at rounding level set to 0: all but the last `rank`, and any below √p ε λ_max."""
    p = len(eigenvalues)
    floor = np.sqrt(p).astype(eigenvalues.dtype) * jnp.finfo(eigenvalues.dtype).eps * eigenvalues[-1]
    return jnp.where((jnp.arange(p) < p - rank) | (eigenvalues <= floor), 0, eigenvalues)


def mixed(shares: Sequence[np.ndarray], moments: tuple[jax.Array, ...]) -> jax.Array:
    """Average Σ_c ω_c over the classes of one of their moments."""
    return functools.reduce(jnp.add, [moment * share for share, moment in zip(shares, moments, strict=True)])


def _rotated_form(U: Float[Array, "p p"], rows: Float[Array, "p p"], gram: Float[Array, "p p"], f: Float[Array, "T p"]) -> QuadraticForm:
    """The form of S = Oᵀ U O (rows = Oᵀ, gram = Ṽ Ṽᵀ), from its lower half in panels."""
    p = len(rows)
    half = product(rows, U)
    edges = np.linspace(0, p, PANELS + 1).astype(int) if p >= MIN_PANELLED else np.array([0, p])
    values, diagonal = jnp.zeros(len(f), f.dtype), []
    for start, stop in itertools.pairwise(edges):
        rotated = product(half[start:stop], rows[:stop].T)
        diagonal.append(jnp.diagonal(rotated, start))
        left = product(f[:, start:stop], gram[start:stop, :stop] * rotated)
        # entries left of the diagonal block stand for their mirror images too
        values = values + 2 * jnp.sum(left * f[:, :stop], axis=1) - jnp.sum(left[:, start:] * f[:, start:stop], axis=1)
    return QuadraticForm(values, jnp.concatenate(diagonal))


def _remaining_form(
    others: dict[int, QuadraticForm],
    shares: Sequence[np.ndarray],
    remaining: int,
    eigenvalues: Float[Array, " p"],
    gram: Float[Array, "p p"],
    f: Float[Array, "T p"],
) -> QuadraticForm:
    """Form of the remaining class, from Σ_c ω_c Oᵀ U_c O = Λ; it is that of the largest weight, where rounding is amplified least."""
    values, diagonal = product(f * f, jnp.diagonal(gram) * eigenvalues), eigenvalues
    for c, form in others.items():
        values, diagonal = values - shares[c] * form.values, diagonal - shares[c] * form.diagonal
    return QuadraticForm(values / shares[remaining], diagonal / shares[remaining])
