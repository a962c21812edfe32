"""Backward diffusion: integration under any score, speciation in closed form and measured (docs/theory/speciation.md)."""

from rfdiff.backward.cloning import CloneFractions, clones
from rfdiff.backward.estimates import Estimate, return_estimate, speciation_estimate
from rfdiff.backward.potential import potential_times, well_times
from rfdiff.backward.process import BackwardProcess
from rfdiff.backward.reduction import ReducedMixture, reduced
from rfdiff.backward.samplers import METHODS, integrate
from rfdiff.backward.speciation import classical_time, clone_agreement, return_probability, speciation_times
from rfdiff.backward.speciation_agreement import SpeciationVerdict, speciation_verdict
from rfdiff.backward.speciation_study import (
    BackwardPaths,
    Speciation,
    SpeciationTable,
    measure_speciation,
    speciation_table,
)
from rfdiff.backward.time_grids import log_snr_grid
from rfdiff.backward.uturns import ReturnFractions, committor, crossing, uturn

__all__ = [
    "METHODS", "BackwardPaths", "BackwardProcess", "CloneFractions", "Estimate", "ReducedMixture", "ReturnFractions", "Speciation",
    "SpeciationTable", "SpeciationVerdict", "classical_time", "clone_agreement", "clones", "committor", "crossing", "integrate",
    "log_snr_grid", "measure_speciation", "potential_times", "reduced", "return_estimate", "return_probability", "speciation_estimate",
    "speciation_table", "speciation_times", "speciation_verdict", "uturn", "well_times",
]  # fmt: skip
