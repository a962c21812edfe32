"""Solutions for many neuron types from those for few: the same as from the free resolvent, or found anew."""

import numpy as np
import pytest

from rfdiff.host import double_on_host
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import pair_traces, solutions
from rfdiff.theory.contour import ellipse
from rfdiff.theory.equivalent import Equivalent, equivalent
from rfdiff.theory.refined_solutions import ENOUGH, from_few


def types(level: int, factor: float = 1.0) -> Equivalent:
    root = factor * np.random.default_rng(0).standard_normal((5, 4)) / 3
    law = MixtureLaw.isotropic(np.full(5, 0.2), np.linspace(0.5, 1.5, 5), root @ root.T)
    return equivalent(Problem(law, "tanh", t=0.1, psi_p=4.0, psi_n=3.0), level, 6.0)


@pytest.mark.thorough
def test_many_types_from_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from types of other classes, whose solutions are far; and traces from few entries are those of all types."""
    z = np.asarray(ellipse(0.01, 10.0, 32).nodes)
    with double_on_host():
        many = types(3)
        want = solutions.anywhere(many, z)
        for few in (types(0), types(0, 3.0)):
            found = from_few(many, few, z)
            assert np.max(found.residual) <= ENOUGH
            np.testing.assert_allclose(found.u, want.u, rtol=0, atol=1e-9 * np.max(abs(want.u)))
        short = pair_traces.traces(many, z, want.u)
        monkeypatch.setattr(pair_traces, "FEW_CLASSES", 5)
        for one, other in zip(short, pair_traces.traces(many, z, want.u), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-8 * np.max(abs(other)))
