"""Sweeps: grids or lists of problems × dimensions × seeds × solvers, one file per cell, resumable, in one process or on a Dask cluster."""

from rfdiff.sweep.cells import Cell, Task, compute
from rfdiff.sweep.cluster import on_dask
from rfdiff.sweep.collection import CONTENT, collect
from rfdiff.sweep.folder import DONE, FAILED, MISSING, Folder
from rfdiff.sweep.running import run_sweep, serially
from rfdiff.sweep.specification import SOLVERS, Sweep, read_spec, sweep_from_dict

__all__ = [
    "CONTENT", "DONE", "FAILED", "MISSING", "SOLVERS", "Cell", "Folder", "Sweep", "Task", "collect", "compute", "on_dask", "read_spec",
    "run_sweep", "serially", "sweep_from_dict",
]  # fmt: skip
