"""Every figure, and the only import of matplotlib: free-standing figures, no global state, drawn without a display."""

from rfdiff.plots.curve_figures import MARKERS, OKABE_ITO, class_colors, plot_agreement, plot_curves, plot_spectrum, save_figure
from rfdiff.plots.generation_figures import plot_generation
from rfdiff.plots.image_figures import plot_image_run, plot_image_samples
from rfdiff.plots.speciation_figures import plot_backward_paths, plot_return_probability
from rfdiff.plots.sweep_figures import plot_sweep_curves, plot_sweep_times
from rfdiff.plots.time_figures import plot_phase_map, plot_times

__all__ = [
    "MARKERS", "OKABE_ITO", "class_colors", "plot_agreement", "plot_backward_paths", "plot_curves", "plot_generation",
    "plot_image_run", "plot_image_samples", "plot_phase_map", "plot_return_probability", "plot_spectrum", "plot_sweep_curves",
    "plot_sweep_times", "plot_times", "save_figure",
]  # fmt: skip
