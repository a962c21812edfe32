"""The text form of a problem: TOML of plain numbers and lists (the commented example is experiments/problem.toml).

`Problem.from_toml`, `from_dict`, `to_toml` and `to_dict` are this module seen from the other side: here stand the keys of the file and
what each may hold, and a problem is only a table of fields.
"""

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import ArrayLike

from rfdiff.activation import ACTIVATIONS, Activation
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.value_types import Scalar, as_real_array

PROBLEM_KEYS = ("activation", "t", "psi_p", "psi_n", "noise_draws", "loss_weights", "mixture")
MIXTURE_KEYS = ("weights", "variances", "eigenvalues", "eigenvalue_weights", "centroid_gram")
MOST_LEVELS = 8
BYTE_ORDER_MARK = "\ufeff"


def read_toml(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Args:
        path: the file; ~ stands for the home folder, and a byte order mark at its beginning means nothing.

    Raises:
        InputError: not TOML; the message names the file.
        OSError: the file cannot be read.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
        return tomllib.loads(text.removeprefix(BYTE_ORDER_MARK))
    except UnicodeDecodeError as err:
        raise InputError(f"{path}: not a TOML file: not UTF-8 text (byte {err.start})") from err
    except (ValueError, RecursionError) as err:  # tomllib's own errors, a number of more digits than Python converts, an endless nesting
        raise InputError(f"{path}: not a TOML file: {err}") from err


def fields_from_dict(document: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `Problem` from plain numbers and lists (the content of the TOML file).

    Raises:
        InputError: unknown, missing or malformed keys.
    """
    _check_depth(document)
    check_keys("problem", document, PROBLEM_KEYS, ("activation", "t", "psi_p", "psi_n", "mixture"))
    if not isinstance(document["activation"], str):
        raise InputError(f"activation: got {document['activation']!r}; allowed: one of {', '.join(ACTIVATIONS)}")
    draws = document.get("noise_draws", math.inf)
    numbers = {name: document[name] for name in ("t", "psi_p", "psi_n")}
    fields = {"mixture": _mixture(document["mixture"]), "activation": document["activation"], **numbers, "noise_draws": draws}
    return {**fields, "loss_weights": document["loss_weights"]} if "loss_weights" in document else fields


def _mixture(table: object) -> MixtureLaw:
    if not isinstance(table, dict):
        raise InputError(f"mixture: got {table!r}; allowed: a table [mixture]")
    check_keys("mixture", table, MIXTURE_KEYS, ("weights",))
    gram = table.get("centroid_gram")
    if ("variances" in table) == ("eigenvalues" in table):
        raise InputError("mixture: give either variances (isotropic classes) or eigenvalues with eigenvalue_weights, not both or neither")
    if "variances" in table:
        if "eigenvalue_weights" in table:
            raise InputError("mixture: eigenvalue_weights goes with eigenvalues, not with variances")
        return MixtureLaw.isotropic(table["weights"], table["variances"], gram)
    if "eigenvalue_weights" not in table:
        raise InputError("mixture: eigenvalue_weights is missing; allowed: one weight for each row of eigenvalues")
    weights = as_real_array("weights", table["weights"])
    return MixtureLaw(
        weights, table["eigenvalues"], table["eigenvalue_weights"], np.zeros((weights.size, weights.size)) if gram is None else gram
    )


def fields_to_dict(
    mixture: MixtureLaw,
    activation: Activation,
    t: Scalar,
    psi_p: Scalar,
    psi_n: Scalar,
    noise_draws: float,
    loss_weights: ArrayLike | None,
) -> dict[str, Any]:
    """The fields of a `Problem` as plain numbers and lists, the inverse of `fields_from_dict`.

    Raises:
        InputError: the activation is a user's own function, or the law was built from covariances: neither fits into a text file.
    """
    name = activation.name
    if ACTIVATIONS.get(name) != activation:
        raise InputError(f"activation: {name!r} is a user's own function and cannot be written; allowed: {', '.join(ACTIVATIONS)}")
    if mixture.covariances is not None:
        d = mixture.dimension
        raise InputError(
            f"mixture: has covariances of {d} x {d} numbers, which a TOML file does not hold; allowed: a result file (rfdiff.save)"
        )
    spectrum: dict[str, Any] = {"eigenvalues": mixture.eigenvalues.tolist(), "eigenvalue_weights": mixture.eigenvalue_weights.tolist()}
    if mixture.eigenvalues.shape[0] == 1:
        spectrum = {"variances": mixture.eigenvalues[0].tolist()}
    return {
        "activation": name,
        "t": float(t),
        "psi_p": float(psi_p),
        "psi_n": float(psi_n),
        "noise_draws": noise_draws if math.isinf(noise_draws) else int(noise_draws),
        **({} if loss_weights is None else {"loss_weights": np.asarray(loss_weights).tolist()}),
        "mixture": {"weights": mixture.weights.tolist(), **spectrum, "centroid_gram": mixture.centroid_gram.tolist()},
    }


def toml_text(document: dict[str, Any]) -> str:
    """Tables as TOML text that reads back to the same numbers."""
    return tomli_w.dumps(document)


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


def _check_depth(document: dict[str, Any]) -> None:
    """Refuse what is nested so deeply that converting or printing it could exhaust the stack."""
    level: list[Any] = [document]
    for _ in range(MOST_LEVELS):
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item) if isinstance(child, dict | list)]
    if level:
        raise InputError(f"problem: nested more than {MOST_LEVELS} levels deep; allowed: tables of numbers and lists")
