"""Steps of somebody's own training in units of the theory's training time: a record of losses, and the one factor that fits it."""

from rfdiff.calibration.loss_record import LossRecord, read_losses
from rfdiff.calibration.steps_per_tau import Calibration, fit_steps

__all__ = ["Calibration", "LossRecord", "fit_steps", "read_losses"]
