"""Closed forms in the proportional limit d → ∞: spectrum, Stieltjes transform, per-class learning curves, times (complex128).

`learning_curves`, `spectrum`, `stieltjes` answer for one problem. `plan_curves` and `curve_kernel` (`plan_points` and `transform_at`)
are the same theory as pure functions of the problem, to compile, map and differentiate; `class_times`, `sensitivity` and `phase_map`
are made of them. `bulk_times` reads the times from the spectrum instead.
"""

from rfdiff.theory.bulks import bulk_times
from rfdiff.theory.contour_forms import CurveKernel
from rfdiff.theory.density import spectrum
from rfdiff.theory.differentiable import curve_kernel, plan_curves, plan_points, transform_at
from rfdiff.theory.dynamics import learning_curves, time_grid
from rfdiff.theory.learning_times import class_times
from rfdiff.theory.maps import phase_map
from rfdiff.theory.plans import Plan
from rfdiff.theory.time_sensitivity import sensitivity
from rfdiff.theory.transform import stieltjes
from rfdiff.theory_results import BulkTimes, Losses, PhaseMap, Stieltjes, TimeSensitivity

__all__ = [
    "BulkTimes", "CurveKernel", "Losses", "PhaseMap", "Plan", "Stieltjes", "TimeSensitivity", "bulk_times", "class_times", "curve_kernel",
    "learning_curves", "phase_map", "plan_curves", "plan_points", "sensitivity", "spectrum", "stieltjes", "time_grid", "transform_at",
]  # fmt: skip
