"""What both sides return: learning curves per class, and spectra."""

from typing import Any

import numpy as np

from rfdiff.errors import InputError
from rfdiff.value_types import static, value_type

CURVE_NAMES = ("train_loss", "test_loss", "score_error")


@value_type
class EmpiricalSpectrum:
    """Eigenvalues of the simulated feature second moment U, and the share each class has in each.

    Args:
        eigenvalues: (S, p) eigenvalues of U for each seed, ascending; rounding-level ones are exactly 0.
        class_weights: (S, p, K) weight π_c (oᵀ U_c o)/(p λ) of each eigenvalue in the class-resolved density ρ_c; sums over c to 1/p
            where λ > 0, and is 0 on zero modes.
    """

    eigenvalues: Any
    class_weights: Any


@value_type
class Spectrum:
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

    support: Any
    eigenvalues: Any
    density: Any
    class_density: Any
    bulk: Any
    atom_locations: Any
    atom_weights: Any
    missing_mass: Any


@value_type
class LearningCurves:
    """Per-class curves along training, from theory or simulation (T times, K classes, S seeds).

    Losses are per coordinate: `L_c = (1/d) E‖√Δ s_A(x_t) + ξ‖²`. Score error is `E_c‖s_A - s*‖²/d = (L_c^test - L_c^*)/Δ`.

    Args:
        taus: (T,) training times, unit fixed by κ = 2Δ/ψ_p; the last may be inf (convergence).
        train_loss, test_loss, score_error: (T, K) curves; the mean over seeds for a simulation.
        optimal_loss: (K,) loss L_c^* of the exact score of the mixture.
        weights: (K,) class fractions π_c.
        kappa: rate κ of the flow, so that a mode λ relaxes in time 1/(κλ).
        error_estimate: largest numerical error of any theory entry; NaN for a simulation.
        train_loss_stderr, test_loss_stderr, score_error_stderr: (T, K) standard errors over seeds; zeros for theory.
        per_seed: {"train_loss": (S, T, K), "test_loss": ..., "score_error": ...} of a simulation, else None.
        spectrum: `EmpiricalSpectrum` of a simulation, else None.
        source: "theory" or "simulation".
        dimension: d of a simulation, None for theory (d → ∞).
        dtype: floating type it was computed in.
    """

    taus: Any
    train_loss: Any
    test_loss: Any
    score_error: Any
    optimal_loss: Any
    weights: Any
    kappa: Any
    error_estimate: Any
    train_loss_stderr: Any
    test_loss_stderr: Any
    score_error_stderr: Any
    per_seed: Any = None
    spectrum: Any = None
    source: str = static(default="theory")
    dimension: int | None = static(default=None)
    dtype: str = static(default="float64")

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return int(np.shape(self.weights)[-1])

    def total(self, name: str) -> np.ndarray:
        """(T,) average Σ_c π_c of one of the curves over the classes.

        Args:
            name: "train_loss", "test_loss" or "score_error".

        Raises:
            InputError: another name.
        """
        if name not in CURVE_NAMES:
            raise InputError(f"name: {name!r}; allowed: {', '.join(CURVE_NAMES)}")
        return getattr(self, name) @ self.weights  # traced ones too: theory.gradient differentiates it
