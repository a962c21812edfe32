"""What both sides return: learning curves per class, and spectra."""

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from jaxtyping import Float, Int

from rfdiff.errors import InputError
from rfdiff.labels import Label, Labelled, read_attributes, values_of
from rfdiff.value_types import static, value_type

if TYPE_CHECKING:
    import xarray as xr

CURVE_NAMES = ("train_loss", "test_loss", "score_error")


@value_type
class EmpiricalSpectrum(Labelled):
    """Eigenvalues of the simulated feature second moment U, and the share each class has in each.

    Args:
        eigenvalues: (S, p) eigenvalues of U for each seed, ascending; rounding-level ones are exactly 0.
        class_weights: (S, p, K) weight π_c (oᵀ U_c o)/(p λ) of each eigenvalue in the class-resolved density ρ_c; sums over c to 1/p
            where λ > 0, and is 0 on zero modes.
    """

    eigenvalues: Float[np.ndarray, "S p"]
    class_weights: Float[np.ndarray, "S p K"]

    LABELS: ClassVar = {
        "eigenvalues": Label(("seed", "mode"), "eigenvalues of the simulated feature second moment U, ascending"),
        "class_weights": Label(("seed", "mode", "class"), "share of the class in the spectral weight 1/p of the eigenvalue"),
    }


@value_type
class Spectrum(Labelled):
    """Limiting spectrum of the feature second moment U, from the closed form.

    Args:
        support: (B, 2) intervals [a, b] that hold the continuous spectrum, ascending.
        eigenvalues: (G,) grid λ that resolves every bulk.
        density: (G,) ρ(λ), integrating to 1 together with the atoms.
        class_density: (G, K) class-resolved ρ_c(λ); Σ_c ρ_c = ρ.
        bulk: (G,) index of the support interval of each grid point.
        atom_locations: (A,) places of the atoms.
        atom_weights: (A,) their weights.
        missing_mass: |1 - ∫ρ - Σ atoms|, the numerical error of the whole.
    """

    support: Float[np.ndarray, "B 2"]
    eigenvalues: Float[np.ndarray, " G"]
    density: Float[np.ndarray, " G"]
    class_density: Float[np.ndarray, "G K"]
    bulk: Int[np.ndarray, " G"]
    atom_locations: Float[np.ndarray, " A"]
    atom_weights: Float[np.ndarray, " A"]
    missing_mass: float

    LABELS: ClassVar = {
        "support": Label(("interval", "edge"), "edges of the intervals that hold the continuous spectrum of U"),
        "eigenvalues": Label(("eigenvalue",), "eigenvalue of U", variable="eigenvalue"),
        "density": Label(("eigenvalue",), "spectral density of U", "1/eigenvalue"),
        "class_density": Label(("eigenvalue", "class"), "part of the spectral density that belongs to the class", "1/eigenvalue"),
        "bulk": Label(("eigenvalue",), "index of the support interval of the grid point"),
        "atom_locations": Label(("atom",), "place of the atom", variable="atom"),
        "atom_weights": Label(("atom",), "weight of the atom"),
        "missing_mass": Label((), "numerical error of the total mass of the density and the atoms"),
    }

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return int(np.shape(self.class_density)[-1])


@value_type
class LearningCurves(Labelled):
    """Per-class curves along training, from theory or simulation (T times, K classes, S seeds).

    Losses are per coordinate: `L_c = (1/d) E‖√Δ s_A(x_t) + ξ‖²`. Score error is `E_c‖s_A - s*‖²/d = (L_c^test - L_c^*)/Δ`.

    Args:
        taus: (T,) training times, unit fixed by κ = 2Δ/ψ_p; the last may be inf (convergence).
        train_loss, test_loss, score_error: (T, K) curves; the mean over seeds for a simulation.
        optimal_loss: (K,) loss L_c^* of the exact score of the mixture.
        weights: (K,) class fractions π_c.
        kappa: rate κ of the flow, so that a mode λ relaxes in time 1/(κλ).
        error_estimate: largest numerical error of any entry; NaN where it is not known.
        train_loss_stderr, test_loss_stderr, score_error_stderr: (T, K) standard errors over seeds; zeros for theory.
        per_seed: {"train_loss": (S, T, K), "test_loss": ..., "score_error": ...} of a simulation, else None.
        spectrum: `EmpiricalSpectrum` of a simulation, else None.
        untrained_loss: (S, K) train loss of each seed before training, the mean of ‖ξ‖²/d over the noise draws of the class: 1 where the
            noise is averaged exactly; None for theory, and where it was not recorded.
        source: "theory" or "simulation".
        dimension: d of a simulation, None for theory (d → ∞).
        dtype: floating type it was computed in.
    """

    taus: Float[np.ndarray, " T"]
    train_loss: Float[np.ndarray, "T K"]
    test_loss: Float[np.ndarray, "T K"]
    score_error: Float[np.ndarray, "T K"]
    optimal_loss: Float[np.ndarray, " K"]
    weights: Float[np.ndarray, " K"]
    kappa: float
    error_estimate: float
    train_loss_stderr: Float[np.ndarray, "T K"]
    test_loss_stderr: Float[np.ndarray, "T K"]
    score_error_stderr: Float[np.ndarray, "T K"]
    per_seed: dict[str, Float[np.ndarray, "S T K"]] | None = None
    spectrum: EmpiricalSpectrum | None = None
    untrained_loss: Float[np.ndarray, "S K"] | None = None
    source: str = static(default="theory")
    dimension: int | None = static(default=None)
    dtype: str = static(default="float64")

    LABELS: ClassVar = {
        "taus": Label(("tau",), "training time, in the unit fixed by kappa (inf: convergence)", variable="tau"),
        "train_loss": Label(("tau", "class"), "train loss of the class, per coordinate"),
        "test_loss": Label(("tau", "class"), "test loss of the class, per coordinate"),
        "score_error": Label(("tau", "class"), "squared distance to the exact score on the class, per coordinate"),
        "optimal_loss": Label(("class",), "test loss of the exact score of the mixture on the class, per coordinate"),
        "weights": Label(("class",), "class fraction"),
        "kappa": Label((), "relaxation rate of a unit eigenvalue of U, 2 Delta / psi_p", "1/tau"),
        "error_estimate": Label((), "largest numerical error of any entry"),
        "train_loss_stderr": Label(("tau", "class"), "standard error of train_loss over seeds"),
        "test_loss_stderr": Label(("tau", "class"), "standard error of test_loss over seeds"),
        "score_error_stderr": Label(("tau", "class"), "standard error of score_error over seeds"),
        "untrained_loss": Label(("seed", "class"), "train loss of the class before training: its mean of |noise|^2/d over the noise draws"),
    }
    PER_SEED: ClassVar = {
        name: Label(("seed", "tau", "class"), f"{name} of each seed", variable=f"{name}_per_seed") for name in CURVE_NAMES
    }

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return int(np.shape(self.weights)[-1])

    def total(self, name: str) -> Float[np.ndarray, " T"]:
        """(T,) average Σ_c π_c of one of the curves over the classes.

        Args:
            name: "train_loss", "test_loss" or "score_error".

        Raises:
            InputError: another name.
        """
        if name not in CURVE_NAMES:
            raise InputError(f"name: {name!r}; allowed: {', '.join(CURVE_NAMES)}")
        return getattr(self, name) @ self.weights  # traced ones too: theory.gradient differentiates it

    def to_xarray(self) -> "xr.Dataset":
        """Curves on the axes tau and class, with those of each seed and the spectra of a simulation on the axis seed."""
        data = super().to_xarray()
        for name, values in (self.per_seed or {}).items():
            label = self.PER_SEED[name]
            data[label.variable] = (label.dims, np.asarray(values), {"long_name": label.long_name, "units": label.units})
        if self.spectrum is not None:
            data = data.merge(self.spectrum.to_xarray())
        if "seed" in data.dims:
            data = data.assign_coords(seed=("seed", np.arange(data.sizes["seed"]), {"long_name": "index of the seed", "units": "1"}))
        return data

    @classmethod
    def from_xarray(cls, data: "xr.Dataset", where: str = "") -> Self:
        """The curves in a dataset that `to_xarray` made.

        Raises:
            InputError: a variable or attribute is missing, is not of numbers, or has other axes; the message names it.
        """
        per_seed = values_of(data, cls.PER_SEED, where, optional=CURVE_NAMES)
        spectrum = EmpiricalSpectrum.from_xarray(data, where) if "eigenvalues" in data else None
        attributes = read_attributes(cls, data.attrs, where)
        fields = values_of(data, cls.LABELS, where, optional=("untrained_loss",))
        return cls(**fields, per_seed=per_seed or None, spectrum=spectrum, **attributes)

    def __repr__(self) -> str:
        """One line: where the curves come from, their size and their numerical error."""
        taus, seeds = np.asarray(self.taus), "" if self.per_seed is None else f", {len(self.per_seed['test_loss'])} seeds"
        times = f"{taus.size} times from {taus[0]:.4g} to {taus[-1]:.4g}" if taus.size else "no times"
        size = "" if self.dimension is None else f" at d = {self.dimension} in {self.dtype}"
        return f"<LearningCurves: {self.source}{size}{seeds}, {times}, {self.num_classes} classes, error {float(self.error_estimate):.2g}>"
