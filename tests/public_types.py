"""What a type checker knows of public results: arrays, not Any. `make lint` holds this file against the package; nothing runs it."""

from typing import assert_type

import jax
import numpy as np
import xarray as xr

from rfdiff import LearningCurves, MixtureLaw, Problem, compare, theory, times


def public_results(problem: Problem, law: MixtureLaw, curves: LearningCurves, key: jax.Array) -> None:
    """Each line is an error of `mypy` where the type is another one, or Any."""
    assert_type(theory.learning_curves(problem).test_loss, np.ndarray)
    assert_type(theory.learning_curves(problem).total("test_loss"), np.ndarray)
    assert_type(theory.spectrum(problem).density, np.ndarray)
    assert_type(times(curves).tau_mem, np.ndarray)
    assert_type(problem.mixture.weights, np.ndarray)
    assert_type(problem.t, float | jax.Array)
    assert_type(compare(problem, [1.0], d=10, key=key, num_seeds=2).standardised["test_loss"], np.ndarray)
    assert_type(curves.to_xarray(), xr.Dataset)
    assert_type(Problem(law, "tanh", t=0.1, psi_p=4, psi_n=3).equals(problem), bool)


def rejected(problem: Problem) -> None:
    """The check notices a wrong type: an `ignore` without an error is one."""
    assert_type(theory.spectrum(problem).density, int)  # type: ignore[assert-type]
