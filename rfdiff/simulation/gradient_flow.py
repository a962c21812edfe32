"""Per-class losses at every training time from one eigendecomposition (`equations`, section 6).

With U = O Λ Oᵀ, Ṽ = OᵀV and the filter f of the rule, for each class c and each of train and test

    L_c(τ) = leading_c - (2/d) Σ_i f_i (Ṽ_c Ṽᵀ)_ii + (1/d) Σ_ij f_i f_j (Ṽ Ṽᵀ)_ij (Oᵀ U_c O)_ij,

a matrix product (T, p) × (p, p) per curve once U_c is rotated. The rotated matrix is symmetric and enters only here, so its lower
half is formed in panels that are used and dropped. The class averages of the training U_c add up to U, so one class needs no
rotation: its share of every form is what the others leave of Λ.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.rules import Rule
from rfdiff.simulation.features import Sizes
from rfdiff.simulation.mehler import product
from rfdiff.simulation.moments import Moments
from rfdiff.value_types import value_type

PANELS = 8
MIN_PANELLED = 512


@value_type
class FlowResult:
    """Learning curves of one network (T times, K classes, p features).

    Args:
        train_loss, test_loss: (T, K) losses L_c(τ) per coordinate.
        eigenvalues: (p,) eigenvalues of U, ascending; rounding-level ones exactly 0.
        class_weights: (p, K) weights π_c (oᵀU_c o)/(p λ) in the class-resolved density, 0 on zero modes.
    """

    train_loss: Any
    test_loss: Any
    eigenvalues: Any
    class_weights: Any


def flow_losses(train: Moments, test: Moments, sizes: Sizes, rule: Rule, clock: Any, kappa: Any) -> FlowResult:
    """Losses of every class along training from A = 0, all times at once.

    Args:
        train: moments of the training set.
        test: moments of the population.
        sizes: counts of each class, which weigh the classes in U and V; and the rank that U can have.
        rule: training rule; its `filter` is evaluated at the eigenvalues of U.
        clock: of the T training times, from `rule.schedule`.
        kappa: κ = 2Δ/ψ_p, the unit of training time.
    """
    dtype, d = train.U[0].dtype, sizes.d
    shares = [np.asarray(count / sizes.n, dtype) for count in sizes.counts]
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
    forms: list[Any] = [None if c == largest else _rotated_forms(u, rows, gram, f) for c, u in enumerate(train.U)]
    forms[largest] = _remaining_form(forms, shares, raw, gram, f)

    def loss(leading: jax.Array, own_V: jax.Array, quadratic: jax.Array) -> jax.Array:
        overlap = jnp.sum(product(rows, own_V) * V, axis=1)
        return leading - (2 * product(f, overlap) - quadratic) / d

    train_loss = [loss(lead, v, form[0]) for lead, v, form in zip(train.leading, train.V, forms, strict=True)]
    test_forms = [_rotated_forms(u, rows, gram, f) for u in test.U]
    test_loss = [loss(lead, v, form[0]) for lead, v, form in zip(test.leading, test.V, test_forms, strict=True)]
    content = jnp.stack([share * form[1] for share, form in zip(shares, forms, strict=True)], axis=1)
    class_weights = jnp.where(alive[:, None], content / (sizes.p * jnp.where(alive, eigenvalues, 1))[:, None], 0)
    return FlowResult(jnp.stack(train_loss, axis=1), jnp.stack(test_loss, axis=1), eigenvalues, class_weights)


def zero_rounding(eigenvalues: jax.Array, rank: int) -> jax.Array:
    """Ascending eigenvalues (p,) with those at rounding level set to 0: all but the last `rank`, and any below √p ε λ_max."""
    p = len(eigenvalues)
    floor = np.sqrt(p).astype(eigenvalues.dtype) * jnp.finfo(eigenvalues.dtype).eps * eigenvalues[-1]
    return jnp.where((jnp.arange(p) < p - rank) | (eigenvalues <= floor), 0, eigenvalues)


def mixed(shares: list[Any], parts: tuple[jax.Array, ...]) -> jax.Array:
    """Σ_c π_c of the class averages."""
    return functools.reduce(jnp.add, [share * part for share, part in zip(shares, parts, strict=True)])


def _rotated_forms(U: jax.Array, rows: jax.Array, gram: jax.Array, f: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Quadratic forms Σ_ij f_i f_j gram_ij S_ij (T,) and diagonal (p,) of S = Oᵀ U O (rows = Oᵀ), from its lower half in panels."""
    p = len(rows)
    half = product(rows, U)
    edges = np.linspace(0, p, PANELS + 1).astype(int) if p >= MIN_PANELLED else np.array([0, p])
    form, diagonal = jnp.zeros(len(f), f.dtype), []
    for start, stop in itertools.pairwise(edges):
        rotated = product(half[start:stop], rows[:stop].T)
        diagonal.append(jnp.diagonal(rotated, start))
        left = product(f[:, start:stop], gram[start:stop, :stop] * rotated)
        # entries left of the diagonal block stand for their mirror images too
        form = form + 2 * jnp.sum(left * f[:, :stop], axis=1) - jnp.sum(left[:, start:] * f[:, start:stop], axis=1)
    return form, jnp.concatenate(diagonal)


def _remaining_form(forms: list[Any], shares: list[Any], eigenvalues: jax.Array, gram: jax.Array, f: jax.Array) -> Any:
    """Forms of the one class left out (None), from Σ_c π_c Oᵀ U_c O = Λ; the largest, where rounding is amplified least."""
    form, diagonal = product(f * f, jnp.diagonal(gram) * eigenvalues), eigenvalues
    for share, other in zip(shares, forms, strict=True):
        if other is not None:
            form, diagonal = form - share * other[0], diagonal - share * other[1]
    share = shares[forms.index(None)]
    return form / share, diagonal / share
