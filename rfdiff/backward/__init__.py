"""Backward diffusion: samplers for any score, speciation in closed form and measured (`equations`, section 8)."""

from rfdiff.backward.reduction import ReducedMixture, reduced
from rfdiff.backward.samplers import METHODS, backward
from rfdiff.backward.time_grids import log_snr_grid

__all__ = ["METHODS", "ReducedMixture", "backward", "log_snr_grid", "reduced"]
