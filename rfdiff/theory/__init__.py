"""Closed forms in the proportional limit d → ∞: spectrum, Stieltjes transform, per-class learning curves (complex128)."""

from rfdiff.theory.density import spectrum
from rfdiff.theory.dynamics import learning_curves, time_grid
from rfdiff.theory.transform import Stieltjes, stieltjes

__all__ = ["Stieltjes", "learning_curves", "spectrum", "stieltjes", "time_grid"]
