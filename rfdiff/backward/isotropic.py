"""The numbers that the closed forms of speciation are functions of: a law of isotropic classes, realised in dimension d."""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.host import double_on_host
from rfdiff.mixture import MixtureLaw
from rfdiff.value_types import as_number, is_concrete

DIMENSION = 256  # of a law that has none, where none is given


class IsotropicClasses(NamedTuple):
    """Classes N(μ_c, σ_c² I) in dimension d; all fields of one floating type.

    Args:
        weights: (K,) class fractions π_c.
        gram: (K, K) centroid Gram matrix μ_a·μ_b/d.
        variances: (K,) class variances σ_c².
        d: dimension, a scalar.
    """

    weights: Float[Array, " K"]
    gram: Float[Array, "K K"]
    variances: Float[Array, " K"]
    d: Float[Array, ""]


def evaluated(function: Callable[..., jax.Array], law: MixtureLaw, d: ArrayLike | None, *arguments: ArrayLike) -> Float[np.ndarray, "..."]:
    """Value of a closed form: float64 on the host; inside a JAX transformation a JAX array in the precision of the caller.

    Args:
        function: compiled function of `IsotropicClasses` and the arguments.
        law: isotropic classes.
        d: dimension, or None.
        arguments: further arrays.

    Raises:
        InputError: as `isotropic_classes`.
    """
    if not is_concrete(law, d, *arguments):
        return cast(np.ndarray, function(isotropic_classes(law, d), *arguments))
    with double_on_host():
        return np.asarray(function(isotropic_classes(law, d), *(jnp.asarray(np.asarray(value), jnp.float64) for value in arguments)))


def isotropic_classes(law: MixtureLaw, d: ArrayLike | None) -> IsotropicClasses:
    """The numbers of a law of isotropic classes in dimension d.

    Args:
        law: K ≥ 2 classes, each with covariance σ_c² I.
        d: dimension, or None.

    Raises:
        InputError: classes that are traced and not isotropic; or as `checked_dimension`.
    """
    check_classes(law.weights)
    if not is_isotropic(law):
        raise InputError(
            "law: the classes are not isotropic, and traced by JAX; allowed: covariances σ_c² I (MixtureLaw.isotropic) for derivatives, "
            "any covariances outside of jax.jit, grad and vmap"
        )
    return marginal_classes(law, d)


def marginal_classes(law: MixtureLaw, d: ArrayLike | None) -> IsotropicClasses:
    """The same numbers of any law, whose classes have the variance σ_c² = tr Σ_c/d along a random direction.

    Raises:
        InputError: as `checked_dimension`.
    """
    fields = law.weights, law.centroid_gram, law.variances, checked_dimension(law, d)
    dtype = jnp.result_type(float, *fields)
    return IsotropicClasses(*(jnp.asarray(value, dtype) for value in fields))


def checked_dimension(law: MixtureLaw, d: ArrayLike | None) -> ArrayLike:
    """Dimension in which a law is realised; None stands for that of its matrices, or 256.

    Raises:
        InputError: one class, a dimension out of range, or another than that of the law's covariances.
    """
    check_classes(law.weights)
    if d is None:
        return DIMENSION if law.dimension is None else law.dimension
    if is_concrete(d) and not 1 <= as_number(d) < math.inf:
        raise InputError(f"d: {d!r}; allowed: a finite number >= 1")
    if law.dimension is not None and is_concrete(d) and as_number(d) != law.dimension:
        raise InputError(f"d: {d!r}; allowed: {law.dimension}, the dimension of the covariances that the law was built from")
    return d


def has_closed_form(law: MixtureLaw, *arguments: object) -> bool:
    """Whether speciation follows from Gaussian log-odds: isotropic classes, and whatever JAX traces, which is refused for other classes."""
    return is_isotropic(law) or not is_concrete(law, *arguments)


def is_isotropic(law: MixtureLaw) -> bool:
    """Whether every class covariance is a multiple of the identity; eigenvalues that are traced count only as one group of directions."""
    if np.shape(law.eigenvalues)[0] == 1:
        return True
    if not is_concrete(law.eigenvalues):
        return False
    eigenvalues = np.asarray(law.eigenvalues, np.float64)
    return bool(np.all(np.ptp(eigenvalues, axis=0) <= 1e-12 * eigenvalues.max(axis=0)))


def check_classes(weights: ArrayLike) -> None:
    """Refuse a mixture of one class.

    Raises:
        InputError: fewer than two classes.
    """
    if np.ndim(weights) != 1 or np.shape(weights)[0] < 2:
        raise InputError(f"weights: shape {np.shape(weights)}; allowed: (K,) with K >= 2, since a single class has no speciation")
