"""What the closed forms return beside curves and spectra: transforms, times read from bulks, maps of times, sensitivities of times.

They stand here and not in `rfdiff.theory` so that files and figures read them without the theory.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

import jax
import numpy as np
from jaxtyping import Bool, Complex, Float

from rfdiff.class_times import TIME_NAMES, ClassTimes, require_time_name, stacked
from rfdiff.errors import InputError
from rfdiff.labels import Label, Labelled, attribute_of, fields_of, labelled_dataset, values_of
from rfdiff.value_types import static, value_type

if TYPE_CHECKING:
    import xarray as xr

TIE = 1e-6  # of log10 of the ratio of two times, far below the error with which any time is known


class Losses(NamedTuple):
    """Train and test loss per coordinate of each class, `L_c = (1/d) E‖√Δ s_A(x_t) + ξ‖²`, at T training times.

    Args:
        train: (T, K) loss on the training samples.
        test: (T, K) loss on new samples.
    """

    train: Float[jax.Array, "T K"]
    test: Float[jax.Array, "T K"]

    def to_xarray(self) -> "xr.Dataset":
        """Both losses on the axes time and class."""
        labels = {name: Label(("time", "class"), f"{name} loss of the class, per coordinate") for name in self._fields}
        return labelled_dataset(fields_of(self, labels), labels)


@value_type
class Stieltjes(Labelled):
    """Stieltjes transform of the spectrum of the feature second moment U at Z points.

    Args:
        value: (Z,) g(z) = (1/p) tr (U - z)^{-1}.
        class_resolved: (Z, K) κ_c(z) = (π_c/p) tr[U_c (U - z)^{-1}], with Σ_c κ_c = 1 + z g.
        residual: (Z,) relative residual of the fixed point.
        converged: (Z,) True where the fixed point converged and the error is below 1 % of 1 + |g|; the values are NaN elsewhere.
        error_estimate: (Z,) error of g from the discretised neuron types; NaN where only one level could be computed.
    """

    value: Complex[np.ndarray, " Z"]
    class_resolved: Complex[np.ndarray, "Z K"]
    residual: Float[np.ndarray, " Z"]
    converged: Bool[np.ndarray, " Z"]
    error_estimate: Float[np.ndarray, " Z"]

    LABELS: ClassVar = {
        "value": Label(("point",), "Stieltjes transform g(z) of the spectrum of U", "1/eigenvalue"),
        "class_resolved": Label(("point", "class"), "part of 1 + z g that belongs to the class"),
        "residual": Label(("point",), "relative residual of the fixed point"),
        "converged": Label(("point",), "whether the fixed point converged"),
        "error_estimate": Label(("point",), "error of the transform from the discretised neuron types"),
    }


@value_type
class SGDStability(Labelled):
    """Whether minibatch SGD converges, and how far from the whole gradient its noise keeps it.

    Args:
        radius: spectral radius of what the noise of one step returns as noise later; SGD converges below 1.
        largest_step: step size η below which it converges, at its batch.
        smallest_batch: batch size over d above which it converges, at its step.
        train_excess, test_excess: (K,) how much higher its losses are than those of the whole gradient as τ → ∞; NaN where it diverges.
        reason: why they are NaN, None where it converges.
    """

    radius: float
    largest_step: float
    smallest_batch: float
    train_excess: Float[np.ndarray, " K"]
    test_excess: Float[np.ndarray, " K"]
    reason: str | None = static(default=None, kw_only=True)

    LABELS: ClassVar = {
        "radius": Label((), "spectral radius of what the noise of one step returns as noise later"),
        "largest_step": Label((), "step size below which SGD converges at its batch", "tau"),
        "smallest_batch": Label((), "batch size over d above which SGD converges at its step"),
        "train_excess": Label(("class",), "train loss above that of the whole gradient at late times"),
        "test_excess": Label(("class",), "test loss above that of the whole gradient at late times"),
    }

    @property
    def converges(self) -> bool:
        """Whether the radius is below 1."""
        return self.radius < 1


@value_type
class BulkTimes(Labelled):
    """Times read from the bulks of the spectrum (K classes), in units of τ; NaN where the support does not separate the bulks.

    Args:
        tau_gen: (K,) typical time of class c in the generalisation bulk, exp of the ρ_c-average of log 1/(κλ).
        tau_mem: (K,) the same in the memorisation bulk.
        fastest, slowest: (2,) times at the upper and lower edge of the generalisation and of the memorisation bulk.
        shares: (2, K) part of each bulk's modes that belongs to each class, ∫ρ_c over the bulk divided by its mass.
        edges: (2, 2) eigenvalues between which the generalisation and the memorisation bulk lie.
        gap: (2,) eigenvalues just below and above the gap between them.
        separated: whether there is such a gap.
    """

    tau_gen: Float[np.ndarray, " K"]
    tau_mem: Float[np.ndarray, " K"]
    fastest: Float[np.ndarray, " 2"]
    slowest: Float[np.ndarray, " 2"]
    shares: Float[np.ndarray, "2 K"]
    edges: Float[np.ndarray, "2 2"]
    gap: Float[np.ndarray, " 2"]
    separated: bool

    LABELS: ClassVar = {
        "tau_gen": Label(("class",), "typical relaxation time of the class in the generalisation bulk", "tau"),
        "tau_mem": Label(("class",), "typical relaxation time of the class in the memorisation bulk", "tau"),
        "fastest": Label(("bulk",), "relaxation time at the upper edge of the bulk", "tau"),
        "slowest": Label(("bulk",), "relaxation time at the lower edge of the bulk", "tau"),
        "shares": Label(("bulk", "class"), "part of the modes of the bulk that belongs to the class"),
        "edges": Label(("bulk", "edge"), "eigenvalues between which the bulk lies"),
        "gap": Label(("edge",), "eigenvalues below and above the gap between the bulks"),
        "separated": Label((), "whether a gap of the spectrum separates the bulks"),
    }


@value_type
class TimeSensitivity(Labelled):
    """Class-wise times and their logarithmic derivatives (K classes).

    Args:
        times: `ClassTimes` of arrays (K,).
        elasticities: {parameter: `ClassTimes` of d log τ_c / d log parameter (K,)}, by the names of `rfdiff.parameters`; NaN where the
            time is 0, infinite or does not exist.
        gram_derivatives: `ClassTimes` of d log τ_c / d Q_ab (K, K, K), symmetric in a, b: the response to a change of both entries is the
            sum of both. It exists for centred classes too, where only positive semi-definite changes are possible.
        error_estimate: numerical error of the losses behind them.
    """

    times: ClassTimes
    elasticities: Mapping[str, ClassTimes]
    gram_derivatives: ClassTimes
    error_estimate: float

    def __repr__(self) -> str:
        """One line: of which times, in which parameters, and how good."""
        return f"<TimeSensitivity: {self.times!r}, in {', '.join(self.elasticities)}, error {float(self.error_estimate):.2g}>"

    def to_xarray(self) -> "xr.Dataset":
        """Times and elasticities on the axes quantity, parameter and class, d log τ/d Q_ab on the axes gram_row and gram_column too."""
        arrays = {
            "time": stacked(self.times),
            "elasticity": np.stack([stacked(slope) for slope in self.elasticities.values()]),
            "gram_derivative": stacked(self.gram_derivatives),
            "error_estimate": self.error_estimate,
        }
        data = labelled_dataset(arrays, _SENSITIVITY, {"q": self.times.q})
        return data.assign_coords(quantity=list(TIME_NAMES), parameter=list(self.elasticities))

    @classmethod
    def from_xarray(cls, data: "xr.Dataset", where: str = "") -> Self:
        """The sensitivities in a dataset that `to_xarray` made.

        Raises:
            InputError: a variable or attribute is missing, is not of numbers, or has other axes; the message names it.
        """
        values, q = values_of(data, _SENSITIVITY, where), attribute_of(data.attrs, "q", float, where)
        slopes = dict(zip(data["parameter"].values.tolist(), values["elasticity"], strict=True))
        elasticities = {name: ClassTimes(*slope, q=q) for name, slope in slopes.items()}
        return cls(ClassTimes(*values["time"], q=q), elasticities, ClassTimes(*values["gram_derivative"], q=q), values["error_estimate"])


@value_type
class PhaseMap(Labelled):
    """Class-wise times over two numbers of a problem (A × B cells, K classes).

    Args:
        first, second: (A,) and (B,) values of the two axes.
        times: `ClassTimes` of arrays (A, B, K); NaN in cells that did not converge (and where a time does not exist: see `ClassTimes`).
        error_estimate: (A, B) numerical error of the losses the times are read from: that of the contour. All cells share one set of
            neuron types; with a Gram matrix of rank above 3 it adds a few 1e-4, which are not in the estimate.
        converged: (A, B) True where the error came below the tolerance; False where the fixed point or the contour failed.
        names: the names of the two axes.
    """

    first: Float[np.ndarray, " A"]
    second: Float[np.ndarray, " B"]
    times: ClassTimes
    error_estimate: Float[np.ndarray, "A B"]
    converged: Bool[np.ndarray, "A B"]
    names: tuple[str, str] = static()

    def to_xarray(self) -> "xr.Dataset":
        """Times on the axes quantity, the two numbers of the problem (by their names) and class; names and q as attributes."""
        arrays = {
            "first": self.first,
            "second": self.second,
            "time": stacked(self.times),
            "error_estimate": self.error_estimate,
            "converged": self.converged,
        }
        data = labelled_dataset(arrays, _map_labels(self.names), {"x": self.names[0], "y": self.names[1], "q": self.times.q})
        return data.assign_coords(quantity=list(TIME_NAMES))

    @classmethod
    def from_xarray(cls, data: "xr.Dataset", where: str = "") -> Self:
        """The map in a dataset that `to_xarray` made.

        Raises:
            InputError: a variable or attribute is missing, is not of numbers, or has other axes; the message names it.
        """
        names = (attribute_of(data.attrs, "x", str, where), attribute_of(data.attrs, "y", str, where))
        values = values_of(data, _map_labels(names), where)
        times = ClassTimes(*values["time"], q=attribute_of(data.attrs, "q", float, where))
        return cls(values["first"], values["second"], times, values["error_estimate"], values["converged"].astype(bool), names)

    @property
    def spacings(self) -> tuple[str, str]:
        """The spacing of each axis: "log" where its logarithms are more even than its values (of two values: unless it is a fraction)."""
        first, second = (_spacing(np.asarray(values), name) for values, name in zip((self.first, self.second), self.names, strict=True))
        return first, second

    def log_ratio(self, quantity: str, pair: tuple[int, int] = (0, 1)) -> Float[np.ndarray, "A B"]:
        """log10 τ_a/τ_b of two classes: negative where class a is first; NaN where neither gets there or a time does not exist.

        Args:
            quantity: "tau_gen", "tau_stop", "tau_mem" or "tau_opt".
            pair: the classes (a, b).

        Raises:
            InputError: a name that is no time's; a class that is not there, or one class twice.
        """
        require_time_name(quantity)
        times = np.asarray(getattr(self.times, quantity), np.float64)
        if pair[0] == pair[1] or not all(0 <= c < times.shape[-1] for c in pair):
            raise InputError(f"pair: {pair}; allowed: two different classes of 0 to {times.shape[-1] - 1}")
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log10(times[..., pair[0]]) - np.log10(times[..., pair[1]])

    def flips(self, quantity: str, axis: int, pair: tuple[int, int] = (0, 1)) -> Float[np.ndarray, " N"]:
        """Values of one axis at which the order of two classes flips along it, interpolated in its spacing; (N,), one for each flip.

        Args:
            quantity: as in `log_ratio`.
            axis: 0 for the first, 1 for the second number.
            pair: the two classes.

        Raises:
            InputError: as `log_ratio`; another axis.
        """
        if axis not in (0, 1):
            raise InputError(f"axis: {axis!r}; allowed: 0 or 1")
        order = np.moveaxis(self.log_ratio(quantity, pair), axis, 0)
        finite = np.isfinite(order)
        signed = np.where(finite & (abs(order) > TIE), order, 0.0)
        left, right = signed[:-1], signed[1:]
        i, j = np.nonzero(finite[:-1] & finite[1:] & (left * right <= 0) & (left != right))
        values = np.asarray((self.first, self.second)[axis], np.float64)
        logarithmic = self.spacings[axis] == "log"
        scale = np.log(values) if logarithmic else values
        crossing = scale[i] + left[i, j] / (left[i, j] - right[i, j]) * (scale[i + 1] - scale[i])
        return np.exp(crossing) if logarithmic else crossing


def _spacing(values: np.ndarray, name: str) -> str:
    if values.size < 3:
        return "linear" if name.startswith("weight_") else "log"
    steps, ratios = np.diff(values), np.diff(np.log(values))
    return "log" if np.ptp(ratios) / np.mean(ratios) < np.ptp(steps) / np.mean(steps) else "linear"


_SENSITIVITY = {
    "time": Label(("quantity", "class"), "class-wise training time", "tau"),
    "elasticity": Label(("parameter", "quantity", "class"), "d log time / d log parameter"),
    "gram_derivative": Label(("quantity", "class", "gram_row", "gram_column"), "d log time / d entry of the centroids' Gram matrix"),
    "error_estimate": Label((), "numerical error of the losses behind the times"),
}


def _map_labels(names: tuple[str, str]) -> dict[str, Label]:
    x, y = names
    return {
        "first": Label((x,), "first number that varies", variable=x),
        "second": Label((y,), "second number that varies", variable=y),
        "time": Label(("quantity", x, y, "class"), "class-wise training time", "tau"),
        "error_estimate": Label((x, y), "numerical error of the losses"),
        "converged": Label((x, y), "whether the error came below the tolerance; elsewhere the times are NaN"),
    }
