"""The question put to both sides: which mixture, which network, how much data (no dimension in it)."""

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from rfdiff.activation import ACTIVATIONS, as_activation
from rfdiff.diffusion import noise_variance
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.value_types import as_number, as_real_array, is_concrete, set_field, static, value_type

LARGEST_NUMBER = 1e10  # of t, psi_p and psi_n: beyond it nothing of the limit is left to learn
MOST_DRAWS = 10**9


@value_type
class Problem:
    """A random-features denoiser trained on a Gaussian mixture at one diffusion time, in the proportional limit.

    Args:
        mixture: law of the data, K classes.
        activation: name (tanh, erf, relu, softplus, gelu, sin), `Activation`, or a smooth function.
        t: diffusion time > 0 of the forward process.
        psi_p: features per dimension ψ_p = p/d > 0.
        psi_n: samples per dimension ψ_n = n/d > 0. These three are at most 10^6.
        noise_draws: noise draws m per training sample, an integer from 1 to 10^9, or `math.inf` for the exact noise average.

    Raises:
        InputError: naming the field, its value and the allowed range.
    """

    mixture: MixtureLaw
    activation: Any = static()  # an Activation once built
    t: Any
    psi_p: Any
    psi_n: Any
    noise_draws: float = static(default=math.inf)

    def __post_init__(self) -> None:
        if not isinstance(self.mixture, MixtureLaw):
            raise InputError(f"mixture: got {type(self.mixture).__name__}; allowed: a MixtureLaw")
        set_field(self, "activation", as_activation(self.activation))
        for name in ("t", "psi_p", "psi_n"):
            set_field(self, name, _positive(name, getattr(self, name)))
        set_field(self, "noise_draws", _draws(self.noise_draws))

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return self.mixture.num_classes

    @property
    def kappa(self) -> Any:
        """Rate κ = 2Δ/ψ_p: an eigenvalue λ of U relaxes as e^{-κτλ} in units of training time τ."""
        return 2 * noise_variance_of(self.t) / self.psi_p

    @classmethod
    def from_toml(cls, path: str | Path) -> "Problem":
        """Read a problem from a TOML file (the commented example is experiments/problem.toml).

        Raises:
            InputError: not TOML; unknown, missing or malformed keys.
            OSError: the file cannot be read.
        """
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as err:  # the last: nested too deeply
            raise InputError(f"{path}: not a TOML file: {err}") from err
        try:
            return problem_from_dict(document)
        except ValueError as err:
            raise InputError(f"{path}: {err}") from err

    def to_toml(self) -> str:
        """The problem as TOML text that `from_toml` reads back to the same numbers.

        Raises:
            InputError: the activation is a user's own function, or the law was built from covariances: neither fits into a text file.
        """
        return tomli_w.dumps(problem_to_dict(self))


def noise_variance_of(t: Any) -> Any:
    """Δ = 1 - e^{-2t} in the number type of t: float64 for plain numbers whatever JAX's precision, traced for tracers."""
    return -np.expm1(-2.0 * np.asarray(t, np.float64)) if is_concrete(t) else noise_variance(t)


PROBLEM_KEYS = ("activation", "t", "psi_p", "psi_n", "noise_draws", "mixture")
MOST_LEVELS = 8
MIXTURE_KEYS = ("weights", "variances", "eigenvalues", "eigenvalue_weights", "centroid_gram")


def problem_from_dict(document: dict[str, Any]) -> Problem:
    """A problem from plain numbers and lists (the content of the TOML file).

    Raises:
        InputError: unknown, missing or malformed keys.
    """
    _check_depth(document)
    check_keys("problem", document, PROBLEM_KEYS, ("activation", "t", "psi_p", "psi_n", "mixture"))
    table = document["mixture"]
    if not isinstance(table, dict):
        raise InputError(f"mixture: got {table!r}; allowed: a table [mixture]")
    check_keys("mixture", table, MIXTURE_KEYS, ("weights",))
    gram = table.get("centroid_gram")
    if ("variances" in table) == ("eigenvalues" in table):
        raise InputError("mixture: give either variances (isotropic classes) or eigenvalues with eigenvalue_weights, not both or neither")
    if "variances" in table:
        if "eigenvalue_weights" in table:
            raise InputError("mixture: eigenvalue_weights goes with eigenvalues, not with variances")
        mixture = MixtureLaw.isotropic(table["weights"], table["variances"], gram)
    else:
        if "eigenvalue_weights" not in table:
            raise InputError("mixture: eigenvalue_weights is missing; allowed: one weight for each row of eigenvalues")
        weights = as_real_array("weights", table["weights"])
        if gram is None:
            gram = np.zeros((weights.size, weights.size))
        mixture = MixtureLaw(weights, table["eigenvalues"], table["eigenvalue_weights"], gram)
    if not isinstance(document["activation"], str):
        raise InputError(f"activation: got {document['activation']!r}; allowed: one of {', '.join(ACTIVATIONS)}")
    draws = document.get("noise_draws", math.inf)
    return Problem(mixture, document["activation"], document["t"], document["psi_p"], document["psi_n"], draws)  # type: ignore[arg-type]


def problem_to_dict(problem: Problem) -> dict[str, Any]:
    """The problem as plain numbers and lists, the inverse of `problem_from_dict`.

    Raises:
        InputError: the activation is a user's own function, or the law was built from covariances: neither fits into a text file.
    """
    name = problem.activation.name
    if ACTIVATIONS.get(name) != problem.activation:
        raise InputError(f"activation: {name!r} is a user's own function and cannot be written; allowed: {', '.join(ACTIVATIONS)}")
    law = problem.mixture
    if law.covariances is not None:
        d = law.dimension
        raise InputError(
            f"mixture: has covariances of {d} x {d} numbers, which a TOML file does not hold; allowed: a result file (rfdiff.save)"
        )
    spectrum: dict[str, Any] = {"eigenvalues": law.eigenvalues.tolist(), "eigenvalue_weights": law.eigenvalue_weights.tolist()}
    if law.eigenvalues.shape[0] == 1:
        spectrum = {"variances": law.eigenvalues[0].tolist()}
    return {
        "activation": name,
        "t": float(problem.t),
        "psi_p": float(problem.psi_p),
        "psi_n": float(problem.psi_n),
        "noise_draws": problem.noise_draws if math.isinf(problem.noise_draws) else int(problem.noise_draws),
        "mixture": {"weights": law.weights.tolist(), **spectrum, "centroid_gram": law.centroid_gram.tolist()},
    }


def _check_depth(document: dict[str, Any]) -> None:
    """Refuse what is nested so deeply that converting or printing it could exhaust the stack."""
    level: list[Any] = [document]
    for _ in range(MOST_LEVELS):
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item) if isinstance(child, dict | list)]
    if level:
        raise InputError(f"problem: nested more than {MOST_LEVELS} levels deep; allowed: tables of numbers and lists")


def check_keys(where: str, table: dict[str, Any], allowed: Sequence[str], required: Sequence[str] = ()) -> None:
    """Refuse keys of a table that mean nothing, and a table without those it needs.

    Raises:
        InputError: naming the key.
    """
    unknown = sorted(set(table) - set(allowed))
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(allowed)}")
    missing = [name for name in required if name not in table]
    if missing:
        raise InputError(f"{where}: key {missing[0]!r} is missing; required: {', '.join(required)}")


def _positive(name: str, value: Any) -> Any:
    if not is_concrete(value):
        return value
    number = as_number(value)
    if not 0 < number <= LARGEST_NUMBER:
        raise InputError(f"{name}: {value!r}; allowed: a finite number > 0, at most {LARGEST_NUMBER:g}")
    return number


def _draws(value: Any) -> float:
    number = as_number(value)
    if not (math.isinf(number) and number > 0) and not (1 <= number <= MOST_DRAWS and number == int(number)):
        raise InputError(
            f"noise_draws: {value!r}; allowed: an integer >= 1, or inf for the exact noise average; at most {MOST_DRAWS:g} draws"
        )
    return math.inf if math.isinf(number) else int(number)
