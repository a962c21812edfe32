"""Closed forms in the proportional limit d → ∞: spectrum, Stieltjes transform, per-class learning curves, times (complex128).

`learning_curves`, `times`, `spectrum`, `stieltjes` answer for one problem, and `gradient` differentiates any functional of its curves.
`plan_curves` and `curve_kernel` (`plan_points` and `transform_at`) are the same theory as pure functions of the problem, to compile, map
and differentiate; `class_times`, `sensitivity` and `phase_map` are made of them. `bulk_times` reads the times from the spectrum instead.
"""

from rfdiff.theory.bulks import bulk_times
from rfdiff.theory.contour_forms import CurveKernel
from rfdiff.theory.curve_gradient import gradient
from rfdiff.theory.density import spectrum
from rfdiff.theory.dynamics import learning_curves
from rfdiff.theory.learning_times import class_times
from rfdiff.theory.maps import phase_map
from rfdiff.theory.minibatch import sgd_stability
from rfdiff.theory.plans import Plan, curve_kernel, plan_curves, plan_points, transform_at
from rfdiff.theory.problem_times import covering_curves, times
from rfdiff.theory.small_steps import homogenised_sgd
from rfdiff.theory.time_sensitivity import sensitivity
from rfdiff.theory.training_times import limit_diverges, time_grid
from rfdiff.theory.transform import stieltjes
from rfdiff.theory_results import BulkTimes, Losses, PhaseMap, SGDStability, Stieltjes, TimeSensitivity

__all__ = [
    "BulkTimes", "CurveKernel", "Losses", "PhaseMap", "Plan", "SGDStability", "Stieltjes", "TimeSensitivity", "bulk_times",
    "class_times", "covering_curves", "curve_kernel", "gradient", "homogenised_sgd", "learning_curves", "limit_diverges", "phase_map",
    "plan_curves", "plan_points", "sensitivity", "sgd_stability", "spectrum", "stieltjes", "time_grid", "times", "transform_at",
]  # fmt: skip
