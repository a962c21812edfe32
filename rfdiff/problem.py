"""The question put to both sides: which mixture, which network, how much data (no dimension in it)."""

import dataclasses
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from rfdiff.activation import Activation, as_activation
from rfdiff.diffusion import noise_variance
from rfdiff.errors import InputError
from rfdiff.mixture import WEIGHT_TOLERANCE, MixtureLaw
from rfdiff.problem_file import fields_from_dict, fields_to_dict, read_toml, toml_text, weights_of_record
from rfdiff.value_types import (
    Scalar,
    Value,
    as_number,
    as_real_array,
    describe,
    is_concrete,
    set_field,
    static,
    value_type,
    vectorize_text,
)

LARGEST_NUMBER = 1e10  # of t, psi_p and psi_n: beyond it nothing of the limit is left to learn
MOST_DRAWS = 10**9
LARGEST_SCALE = 1e3  # of the mean square of a coordinate: data of pixels 0 … 255 have 1e4, whose quadratures do not fit into any memory


@value_type
class Problem(Value):
    """A random-features denoiser trained on a Gaussian mixture at one diffusion time, in the proportional limit.

    Args:
        mixture: law of the data, K classes, of variance of order 1: at most 1000 for σ_c² + ‖μ_c‖²/d.
        activation: name (tanh, erf, relu, softplus, gelu, sin), `Activation`, or a smooth function.
        t: diffusion time > 0 of the forward process.
        psi_p: features per dimension ψ_p = p/d > 0.
        psi_n: samples per dimension ψ_n = n/d > 0. These three are at most 10^10.
        noise_draws: noise draws m per training sample, an integer from 1 to 10^9, or `math.inf` for the exact noise average.
        loss_weights: (K,) weights ω_c ≥ 0 of the classes in the training loss Σ_c ω_c L_c, summing to 1; None for the class fractions.
            A class of weight 0 is not trained on; its losses are measured all the same.

    Raises:
        InputError: naming the field, its value and the allowed range.
    """

    mixture: MixtureLaw
    activation: Activation = static()
    t: Scalar
    psi_p: Scalar
    psi_n: Scalar
    noise_draws: float = static(default=math.inf)
    loss_weights: Float[np.ndarray, " K"] | Float[jax.Array, " K"] | None = None

    if TYPE_CHECKING:  # what the constructor accepts is wider than what the fields hold

        def __init__(
            self,
            mixture: MixtureLaw,
            activation: str | Activation | Callable[[jax.Array], jax.Array],
            t: Scalar | np.number[Any],
            psi_p: Scalar | np.number[Any],
            psi_n: Scalar | np.number[Any],
            noise_draws: float | np.number[Any] = math.inf,
            loss_weights: ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        if not isinstance(self.mixture, MixtureLaw):
            raise InputError(f"mixture: got {type(self.mixture).__name__}; allowed: a MixtureLaw")
        _check_scale(self.mixture)
        set_field(self, "activation", as_activation(self.activation))
        for name in ("t", "psi_p", "psi_n"):
            set_field(self, name, _positive(name, getattr(self, name)))
        set_field(self, "noise_draws", _draws(self.noise_draws))
        if self.loss_weights is not None:
            set_field(self, "loss_weights", checked_loss_weights(self.loss_weights, self.num_classes))

    def __repr__(self) -> str:
        """One line: the network, the ratios and the classes."""
        fields = (
            [f"t={self.t:.6g}", f"psi_p={self.psi_p:.6g}", f"psi_n={self.psi_n:.6g}"] if is_concrete(self.t, self.psi_p, self.psi_n) else []
        )
        fields.append(f"noise_draws={self.noise_draws}")
        if self.loss_weights is not None:
            fields.append(f"loss_weights={describe(self.loss_weights)}")
        return f"Problem({self.mixture!r}, {self.activation.name!r}, {', '.join(fields)})"

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return self.mixture.num_classes

    @property
    def kappa(self) -> Scalar:
        """Rate κ = 2Δ/ψ_p: an eigenvalue λ of U relaxes as e^{-κτλ} in units of training time τ."""
        return 2 * noise_variance_of(self.t) / self.psi_p

    @property
    def training_weights(self) -> Float[np.ndarray, " K"] | Float[jax.Array, " K"]:
        """(K,) weights ω_c of the classes in the training loss: `loss_weights`, or the class fractions π_c."""
        return self.mixture.weights if self.loss_weights is None else self.loss_weights

    @property
    def columns_per_dimension(self) -> float:
        """Noisy samples that the training loss counts, over d: ψ_n m, without those of classes of weight 0; concrete problems only."""
        columns = float(self.psi_n) * float(self.noise_draws)
        if self.loss_weights is None or np.all(np.asarray(self.loss_weights) > 0):
            return columns
        return columns * float(np.sum(np.asarray(self.mixture.weights)[np.asarray(self.loss_weights) > 0]))

    def with_mixture(self, mixture: MixtureLaw) -> "Problem":
        """The same network, ratios and loss weights with another mixture law.

        Raises:
            InputError: not a `MixtureLaw`.
        """
        return dataclasses.replace(self, mixture=mixture)

    @classmethod
    def from_dict(cls, document: dict[str, Any], folder: Path | None = None) -> "Problem":
        """A problem from plain numbers and lists, the content of its TOML file.

        Args:
            document: the tables.
            folder: where a file of matrices that the tables name is looked for; None where there is no folder.

        Raises:
            InputError: unknown, missing or malformed keys; matrices that cannot be read, or are others than the tables were written for.
        """
        return cls(**fields_from_dict(document, folder))

    @classmethod
    def from_toml(cls, path: str | Path) -> "Problem":
        """Read a problem from a TOML file (the commented example is experiments/problem.toml).

        A law of given covariances lies in an .npz file that the TOML file names, from its own folder on; `rfdiff.save` writes both.

        Raises:
            InputError: not TOML; unknown, missing or malformed keys; matrices that cannot be read, or have another checksum.
            OSError: the file cannot be read.
        """
        document = read_toml(path)
        try:
            return cls.from_dict(document, Path(path).expanduser().parent)
        except InputError as err:
            raise InputError(f"{path}: {err}") from err

    @classmethod
    def from_text(cls, text: str) -> "Problem":
        """A problem from TOML text, as `to_toml` writes it.

        Raises:
            InputError: not TOML; unknown, missing or malformed keys.
        """
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as err:  # the last: nested too deeply
            raise InputError(f"problem: not TOML: {'nested too deeply' if isinstance(err, RecursionError) else err}") from err
        return cls.from_dict(document)

    def to_dict(self) -> dict[str, Any]:
        """The problem as plain numbers and lists, the inverse of `from_dict`.

        Raises:
            InputError: the activation is a user's own function, or the law was built from covariances: neither fits into a text file.
        """
        return fields_to_dict(**self._fields())

    def to_toml(self, matrices: str | None = None) -> str:
        """The problem as TOML text that `from_toml` reads back to the same numbers.

        Args:
            matrices: of a law built from covariances, the name of the .npz file that holds them; `rfdiff.save` writes both.

        Raises:
            InputError: the activation is a user's own function; the law was built from covariances, and no file is named.
        """
        return toml_text(fields_to_dict(**self._fields(), matrices=matrices))

    def record(self) -> str:
        """TOML text that tells this problem from every other: `to_toml`, with a checksum in the place of matrices.

        Raises:
            InputError: the activation is a user's own function.
        """
        return self.to_toml(matrices="")

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def classes_of_record(text: str) -> int:
    """Number of classes of what `Problem.record` wrote.

    Raises:
        InputError: no such record.
    """
    _, fractions = weights_of_record(text)
    if "\nsha256 = " not in text:  # without matrices a record is the problem itself, all of which is checked
        return Problem.from_text(text).num_classes
    return len(fractions)


def noise_variance_of(t: Scalar) -> Scalar:
    """Δ = 1 - e^{-2t} in the number type of t: float64 for plain numbers whatever JAX's precision, traced for tracers."""
    return cast(float, -np.expm1(-2.0 * np.asarray(t, np.float64))) if is_concrete(t) else noise_variance(t)


def _check_scale(law: MixtureLaw) -> None:
    """Refuse data that were not scaled: noise of variance Δ < 1 is nothing beside them, and averages over them need ever finer rules."""
    if not is_concrete(law.weights, law.eigenvalues, law.eigenvalue_weights, law.centroid_gram):
        return
    squares = law.variances + np.diagonal(law.centroid_gram)
    c = int(np.argmax(squares))
    if squares[c] > LARGEST_SCALE:
        raise InputError(
            f"mixture: class {c} has a mean square of {squares[c]:.6g} per coordinate (variance {law.variances[c]:.6g}, squared centroid "
            f"norm over d {law.centroid_gram[c, c]:.6g}); allowed: at most {LARGEST_SCALE:g}; scale the data to variance of order 1"
        )


def _positive(name: str, value: Scalar) -> Scalar:
    if not is_concrete(value):
        return value
    number = as_number(value)
    if not 0 < number <= LARGEST_NUMBER:
        raise InputError(f"{name}: {value!r}; allowed: a finite number > 0, at most {LARGEST_NUMBER:g}")
    return number


def require_problem(value: object) -> None:
    """Refuse what is no problem.

    Raises:
        InputError: naming its type.
    """
    if not isinstance(value, Problem):
        raise InputError(f"problem: got {type(value).__name__}; allowed: a Problem")


def checked_loss_weights(value: Any, num_classes: int) -> Any:
    """Weights of the classes in the training loss as a float64 array (K,) of sum 1; as they are where they are traced.

    Raises:
        InputError: not K finite numbers >= 0 that sum to 1.
    """
    weights = as_real_array("loss_weights", value) if is_concrete(value) else jnp.asarray(value)
    if np.shape(weights) != (num_classes,):
        raise InputError(f"loss_weights: shape {np.shape(weights)}; allowed: ({num_classes},), one for each class, or None")
    if not is_concrete(weights):
        return weights
    if not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise InputError(f"loss_weights: {vectorize_text(weights)}; allowed: finite numbers >= 0 that sum to 1, or None")
    if abs(weights.sum() - 1) > WEIGHT_TOLERANCE:
        raise InputError(f"loss_weights: {vectorize_text(weights)} sums to {weights.sum():.8g}; allowed: a sum of 1, or None")
    # a normalised list is left alone, so that a file reads back to the same numbers
    return weights / weights.sum() if abs(weights.sum() - 1) > 1e-15 * weights.size else weights


def _draws(value: object) -> float:
    number = as_number(value)
    if not (math.isinf(number) and number > 0) and not (1 <= number <= MOST_DRAWS and number == int(number)):
        raise InputError(
            f"noise_draws: {value!r}; allowed: an integer >= 1, or inf for the exact noise average; at most {MOST_DRAWS:g} draws"
        )
    return math.inf if math.isinf(number) else int(number)
