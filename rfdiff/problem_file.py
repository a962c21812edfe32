"""The text form of a problem: TOML of plain numbers and lists (the commented example is experiments/problem.toml).

`Problem.from_toml`, `from_dict`, `to_toml` and `to_dict` are this module seen from the other side: here stand the keys of the file and
what each may hold, and a problem is only a table of fields. A law that was built from class covariances has too many numbers for a text:
they lie in an .npz file beside it, which the text names together with a checksum of what it holds.
"""

import hashlib
import math
import tomllib
import zipfile
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
MIXTURE_KEYS = ("weights", "variances", "eigenvalues", "eigenvalue_weights", "centroid_gram", "matrices", "sha256")
MATRICES = ("covariances", "centroids", "class_names")  # what the file of a law's matrices holds
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


def fields_from_dict(document: dict[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Arguments of `Problem` from plain numbers and lists (the content of the TOML file).

    Args:
        document: the tables.
        folder: where the file of a law's matrices is looked for; None where there is no folder.

    Raises:
        InputError: unknown, missing or malformed keys; matrices that cannot be read, or are not those that the text was written for.
    """
    _check_depth(document)
    check_keys("problem", document, PROBLEM_KEYS, ("activation", "t", "psi_p", "psi_n", "mixture"))
    if not isinstance(document["activation"], str):
        raise InputError(f"activation: got {document['activation']!r}; allowed: one of {', '.join(ACTIVATIONS)}")
    draws = document.get("noise_draws", math.inf)
    numbers = {name: document[name] for name in ("t", "psi_p", "psi_n")}
    fields = {"mixture": _mixture(document["mixture"], folder), "activation": document["activation"], **numbers, "noise_draws": draws}
    return {**fields, "loss_weights": document["loss_weights"]} if "loss_weights" in document else fields


def _mixture(table: object, folder: Path | None) -> MixtureLaw:
    if not isinstance(table, dict):
        raise InputError(f"mixture: got {table!r}; allowed: a table [mixture]")
    check_keys("mixture", table, MIXTURE_KEYS, ("weights",))
    if "matrices" in table or "sha256" in table:
        return _law_of_matrices(table, folder)
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


def _law_of_matrices(table: dict[str, Any], folder: Path | None) -> MixtureLaw:
    """The law whose matrices lie in a file of their own, which must be the one that the text was written for."""
    check_keys("mixture, with matrices in a file", table, ("weights", "matrices", "sha256"), ("weights", "matrices", "sha256"))
    name, expected = table["matrices"], table["sha256"]
    if not isinstance(name, str) or not name or "\0" in name or not isinstance(expected, str):
        raise InputError(f"matrices: {name!r}, sha256: {expected!r}; allowed: the name of an .npz file, and its checksum as text")
    if folder is None:
        raise InputError(f"matrices: {name!r}, without a folder in which to look for it; allowed: a problem that is read from a file")
    path = folder / name
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as stored:
            found = {key: stored[key] for key in MATRICES}
    except OSError as err:
        raise InputError(f"matrices: {path}: cannot be read ({err.strerror or err})") from err
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, NotImplementedError) as err:
        raise InputError(f"matrices: {path}: not a file of a law's matrices ({err})") from err
    names = tuple(map(str, found["class_names"].tolist())) if found["class_names"].ndim == 1 else ()
    law = MixtureLaw.from_covariances(table["weights"], found["covariances"], found["centroids"], class_names=names)
    if checksum(law) != expected:
        raise InputError(
            f"matrices: {path}: has the checksum {checksum(law)}; allowed: {expected}, that of the matrices it was written with"
        )
    return law


def matrices_of(law: MixtureLaw) -> dict[str, np.ndarray]:
    """What the file of a law's matrices holds: covariances (K, d, d), centroids (K, d), class names (K,) or none."""
    return {
        "covariances": np.asarray(law.covariances, np.float64),
        "centroids": np.asarray(law.centroids, np.float64),
        "class_names": np.array(law.class_names, dtype=np.str_),
    }


def checksum(law: MixtureLaw) -> str:
    """SHA-256 of the shapes and numbers of a law's matrices, and of the names of its classes."""
    digest = hashlib.sha256("\0".join(law.class_names).encode())
    for name in MATRICES[:2]:
        values = matrices_of(law)[name]
        digest.update(repr(values.shape).encode() + np.ascontiguousarray(values, "<f8").tobytes())
    return digest.hexdigest()


def fields_to_dict(
    mixture: MixtureLaw,
    activation: Activation,
    t: Scalar,
    psi_p: Scalar,
    psi_n: Scalar,
    noise_draws: float,
    loss_weights: ArrayLike | None,
    matrices: str | None = None,
) -> dict[str, Any]:
    """The fields of a `Problem` as plain numbers and lists, the inverse of `fields_from_dict`.

    Args:
        mixture, activation, t, psi_p, psi_n, noise_draws, loss_weights: the fields.
        matrices: of a law built from covariances, the name of the file that holds them; "" for the checksum alone.

    Raises:
        InputError: the activation is a user's own function; the law was built from covariances, and no file is named.
    """
    name = activation.name
    if ACTIVATIONS.get(name) != activation:
        raise InputError(f"activation: {name!r} is a user's own function and cannot be written; allowed: {', '.join(ACTIVATIONS)}")
    return {
        "activation": name,
        "t": float(t),
        "psi_p": float(psi_p),
        "psi_n": float(psi_n),
        "noise_draws": noise_draws if math.isinf(noise_draws) else int(noise_draws),
        **({} if loss_weights is None else {"loss_weights": np.asarray(loss_weights).tolist()}),
        "mixture": _law_table(mixture, matrices),
    }


def _law_table(law: MixtureLaw, matrices: str | None) -> dict[str, Any]:
    if law.covariances is None:
        spectrum: dict[str, Any] = {"eigenvalues": law.eigenvalues.tolist(), "eigenvalue_weights": law.eigenvalue_weights.tolist()}
        if law.eigenvalues.shape[0] == 1:
            spectrum = {"variances": law.eigenvalues[0].tolist()}
        return {"weights": law.weights.tolist(), **spectrum, "centroid_gram": law.centroid_gram.tolist()}
    if matrices is None:
        d = law.dimension
        raise InputError(
            f"mixture: has covariances of {d} x {d} numbers, which a text does not hold; allowed: rfdiff.save(problem, 'NAME.toml'), which "
            "writes them to NAME.npz beside it, or a result file"
        )
    return {"weights": law.weights.tolist(), **({"matrices": matrices} if matrices else {}), "sha256": checksum(law)}


def weights_of_record(text: str) -> tuple[list[float] | None, list[float]]:
    """Loss weights, None for the class fractions, and class fractions of what `Problem.record` wrote, matrices or none.

    Raises:
        InputError: no such record.
    """
    try:
        document = tomllib.loads(text)
        weights = document.get("loss_weights")
        return None if weights is None else [float(w) for w in weights], [float(w) for w in document["mixture"]["weights"]]
    except (ValueError, TypeError, KeyError, RecursionError) as err:
        raise InputError(f"problem: no record of a problem ({err})") from err


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
