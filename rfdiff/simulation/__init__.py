"""Real networks at finite size, never their Gaussian equivalent: learning curves over seeds, and spectra (`equations`, section 6)."""

from rfdiff.simulation.descent.checkpoint import Checkpoint
from rfdiff.simulation.descent.loop import StopWhen
from rfdiff.simulation.descent.run import Descent, descend, pool
from rfdiff.simulation.distributed import initialize, is_writer
from rfdiff.simulation.mesh import device_mesh
from rfdiff.simulation.networks import fitting_solver, learning_curves, run_seeds
from rfdiff.simulation.seed_batches import SeedBatch, summarize
from rfdiff.simulation.solver_costs import SOLVERS, SolverPlan, plan

__all__ = [
    "SOLVERS", "Checkpoint", "Descent", "SeedBatch", "SolverPlan", "StopWhen", "descend", "device_mesh", "fitting_solver", "initialize",
    "is_writer", "learning_curves", "plan", "pool", "run_seeds", "summarize",
]  # fmt: skip
