"""Real networks at finite size, never their Gaussian equivalent: learning curves over seeds, and spectra (`equations`, section 6)."""

from rfdiff.simulation.descent import Descent, descend, pool
from rfdiff.simulation.descent_checkpoint import Checkpoint
from rfdiff.simulation.descent_loop import StopWhen
from rfdiff.simulation.ensemble import SeedBatch, learning_curves, run_seeds, summarize

__all__ = ["Checkpoint", "Descent", "SeedBatch", "StopWhen", "descend", "learning_curves", "pool", "run_seeds", "summarize"]
