"""Backward diffusion: samplers for any score, speciation in closed form and measured (`equations`, section 8)."""

from rfdiff.backward.cloning import clones
from rfdiff.backward.decisions import Denoiser
from rfdiff.backward.potential import potential_times, well_times
from rfdiff.backward.reduction import ReducedMixture, reduced
from rfdiff.backward.samplers import METHODS, backward
from rfdiff.backward.speciation import classical_time, clone_agreement, return_probability, speciation_times
from rfdiff.backward.time_grids import log_snr_grid
from rfdiff.backward.uturns import ReturnFractions, committor, uturn

__all__ = [
    "METHODS", "Denoiser", "ReducedMixture", "ReturnFractions", "backward", "classical_time", "clone_agreement", "clones", "committor",
    "log_snr_grid", "potential_times", "reduced", "return_probability", "speciation_times", "uturn", "well_times",
]  # fmt: skip
