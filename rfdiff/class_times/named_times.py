"""The class-wise training times by name, with their bounds and reasons, as one result (docs/theory/times.md)."""

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from jaxtyping import Float

from rfdiff.errors import InputError
from rfdiff.labels import Label, Labelled, attribute_of, values_of
from rfdiff.value_types import SHOWN, describe, html_table, static, value_type

if TYPE_CHECKING:
    import xarray as xr

TIME_NAMES = ("tau_gen", "tau_stop", "tau_mem", "tau_opt")
NEVER = "never"


@value_type
class ClassTimes(Labelled):
    """Class-wise training times (docs/theory/times.md), each (K,), in units of τ.

    Args:
        tau_gen: generalisation: first τ at which L_c has made 1 - 1/e of its descent L_c(0) - min L_c; NaN without a descent.
        tau_stop: early stopping: arg min of L_c; inf if L_c falls up to τ = ∞; 0 if it only rises.
        tau_mem: memorisation: first τ at which the gap L_c - ℓ_c is half of its final value; NaN if the gap does not open.
        tau_opt: first τ at which L_c has gone the fraction q from L_c(0) to L_c^*; inf if it never does, with the reason.
        q: that fraction.
        bounds: {name of a time: (K, 2) lower and upper bound} of what the samples do not resolve: the time itself is NaN then; NaN where
            there is no bound. None for times that were not read from samples.
        reasons: for each of `TIME_NAMES` K sentences, why a time is NaN or why τ_opt is never reached, else ""; () for times not read
            from samples.
    """

    tau_gen: Float[np.ndarray, " K"]
    tau_stop: Float[np.ndarray, " K"]
    tau_mem: Float[np.ndarray, " K"]
    tau_opt: Float[np.ndarray, " K"]
    q: float = static(default=0.5, kw_only=True)
    bounds: dict[str, Float[np.ndarray, "K 2"]] | None = dataclasses.field(default=None, kw_only=True)
    reasons: tuple[tuple[str, ...], ...] = static(default=(), kw_only=True)

    LABELS: ClassVar = {
        "tau_gen": Label(("class",), "generalisation: the test loss has made 1 - 1/e of its whole descent", "tau"),
        "tau_stop": Label(("class",), "early stopping: the test loss is lowest", "tau"),
        "tau_mem": Label(("class",), "memorisation: the gap between test and train loss has half its final value", "tau"),
        "tau_opt": Label(("class",), "the test loss has gone the fraction q of the way to that of the exact score", "tau"),
    }

    def reason(self, name: str, c: int) -> str:
        """Why a time of a class is NaN, or why τ_opt is never reached, in one sentence; "" where it exists or where nothing is known.

        Raises:
            InputError: a name that is no time's, or a class that is not there.
        """
        self._require(name, c)
        return self.reasons[TIME_NAMES.index(name)][c] if self.reasons else ""

    def text(self, name: str, c: int, digits: int = 4) -> str:
        """A time of a class for a table: its value ("never" for τ_opt = inf), else "> 28.5", "< 0.1" or "1 … 10", its bounds, else "-".

        Raises:
            InputError: a name that is no time's, or a class that is not there.
        """
        self._require(name, c)
        value = float(np.asarray(getattr(self, name))[c])
        if not np.isnan(value):
            return NEVER if name == "tau_opt" and np.isinf(value) else f"{value:.{digits}g}"
        lower, upper = (np.nan, np.nan) if self.bounds is None else (float(bound) for bound in np.asarray(self.bounds[name])[c])
        if np.isnan(lower) and np.isnan(upper):
            return "-"
        if np.isnan(upper):
            return f"> {lower:.{digits}g}"
        return f"< {upper:.{digits}g}" if np.isnan(lower) else f"{lower:.{digits}g} … {upper:.{digits}g}"

    def _require(self, name: str, c: int) -> None:
        require_time_name(name)
        if not 0 <= c < np.shape(self.tau_gen)[-1]:
            raise InputError(f"class: {c}; allowed: 0 to {np.shape(self.tau_gen)[-1] - 1}")

    def to_xarray(self) -> "xr.Dataset":
        """Times on the axis class, bounds as `tau_gen_bounds`, … on the axes class and bound where any are known; reasons as JSON."""
        data = super().to_xarray()
        if data.attrs.pop("reasons", ()):
            data.attrs["reasons"] = json.dumps(self.reasons, ensure_ascii=False)
        for name, bounds in (self.bounds or {}).items():
            data[f"{name}_bounds"] = (("class", "bound"), bounds, {"long_name": f"lower and upper bound of {name}", "units": "tau"})
        return data

    @classmethod
    def from_xarray(cls, data: "xr.Dataset", where: str = "") -> Self:
        """The times in a dataset that `to_xarray` made.

        Raises:
            InputError: a variable or attribute is missing, is not of numbers, or has other axes; the message names it.
        """
        bounds = values_of(
            data,
            {f"{name}_bounds": Label(("class", "bound"), "") for name in TIME_NAMES},
            where,
            optional=(*(f"{name}_bounds" for name in TIME_NAMES),),
        )
        given = {name.removesuffix("_bounds"): value for name, value in bounds.items()} or None
        q = attribute_of(data.attrs, "q", float, where)
        return cls(**values_of(data, cls.LABELS, where), q=q, bounds=given, reasons=_reasons(data.attrs, where))

    def __repr__(self) -> str:
        """One line: the times of every class; of many, their shape and range."""
        listed = np.ndim(self.tau_gen) == 1 and np.size(self.tau_gen) <= SHOWN
        shown = {
            name: " ".join(self.text(name, c) for c in range(np.size(self.tau_gen))) if listed else describe(getattr(self, name))
            for name in TIME_NAMES
        }
        return f"<ClassTimes: {', '.join(f'{name} {text}' for name, text in shown.items())}, q = {self.q:g}>"

    def _repr_html_(self) -> str:
        """A table, one row per class."""
        rows = [[c, *(self.text(name, c) for name in TIME_NAMES)] for c in range(np.size(self.tau_gen))]
        return html_table(f"Training times of each class (q = {self.q:g})", ["class", *TIME_NAMES], rows)


def require_time_name(name: str) -> None:
    """Refuse a name that is no time's.

    Raises:
        InputError: naming it and the times there are.
    """
    if name not in TIME_NAMES:
        raise InputError(f"quantity: {name!r}; allowed: {', '.join(TIME_NAMES)}")


def _reasons(attributes: Mapping[str, object], where: str) -> tuple[tuple[str, ...], ...]:
    if "reasons" not in attributes:
        return ()
    try:
        return tuple(
            tuple(str(reason) for reason in of_classes) for of_classes in json.loads(attribute_of(attributes, "reasons", str, where))
        )
    except (json.JSONDecodeError, TypeError) as err:
        raise InputError(f"{where or 'the file'}: attribute 'reasons' is not a list of lists of sentences") from err


def stacked(read: ClassTimes) -> np.ndarray:
    """The four times as one array, first axis in the order of `TIME_NAMES`."""
    return np.stack([np.asarray(getattr(read, name)) for name in TIME_NAMES])
