"""Real networks at finite size, never their Gaussian equivalent: learning curves over seeds, and spectra (`equations`, section 6)."""

from rfdiff.simulation.ensemble import SeedBatch, learning_curves, run_seeds, summarize

__all__ = ["SeedBatch", "learning_curves", "run_seeds", "summarize"]
