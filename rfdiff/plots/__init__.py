"""Every figure of the package. Each function takes results and returns a matplotlib figure that a notebook displays by itself.

Nothing here uses pyplot, a display or global state. `save_figure` writes PNG, PDF or SVG.
"""

from rfdiff.labels import OKABE_ITO, class_colors
from rfdiff.plots.calibration_figures import calibration
from rfdiff.plots.curve_figures import agreement, curves
from rfdiff.plots.design_figures import trade_off
from rfdiff.plots.diagnosis_figures import diagnosis_losses, diagnosis_times
from rfdiff.plots.generation_figures import generation
from rfdiff.plots.image_figures import image_run, image_samples
from rfdiff.plots.map_figures import phase_map
from rfdiff.plots.speciation_figures import return_probability, trajectories
from rfdiff.plots.spectrum_figures import spectrum
from rfdiff.plots.style import MARKERS, new_figure, save_figure, svg_of
from rfdiff.plots.sweep_figures import sweep_curves, sweep_times
from rfdiff.plots.time_figures import times

__all__ = [
    "MARKERS", "OKABE_ITO", "agreement", "calibration", "class_colors", "curves", "diagnosis_losses", "diagnosis_times", "generation",
    "image_run", "image_samples", "new_figure", "phase_map", "return_probability", "save_figure", "spectrum", "svg_of", "sweep_curves",
    "sweep_times", "times", "trade_off", "trajectories",
]  # fmt: skip
