"""Real networks at finite size, never their Gaussian equivalent: learning curves over seeds, and spectra (`equations`, section 6)."""

from rfdiff.simulation.ensemble import SeedBatch, summarize
from rfdiff.simulation.solvers import SOLVERS, SolverPlan, learning_curves, plan, run_seeds

__all__ = ["SOLVERS", "SeedBatch", "SolverPlan", "learning_curves", "plan", "run_seeds", "summarize"]
