"""Averages over pairs of points from few functions, against those over all neuron types."""

import jax
import jax.numpy as jnp
import numpy as np

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import resolvent
from rfdiff.theory.contour import ellipse
from rfdiff.theory.equivalent import equivalent
from rfdiff.theory.few_entries import SharedAverages, _entries, averages_of_pairs, few_entries
from tests.tolerances import rejects


def test_pairs_of_points_share_few_averages() -> None:
    """Entries of any numbers in place of a solution, at 16 points around a spectrum over three decades."""
    root = np.random.default_rng(0).standard_normal((5, 4)) / 3
    law = MixtureLaw.isotropic(np.full(5, 0.2), np.linspace(0.5, 1.5, 5), root @ root.T)
    with jax.enable_x64(True):
        eq = equivalent(Problem(law, "tanh", t=0.1, psi_p=4.0, psi_n=3.0), 3, 6.0)
        z = np.asarray(ellipse(0.01, 10.0, 32).nodes)
        u = np.asarray(resolvent.free_start(eq, jnp.asarray(z)))
        few = few_entries(eq, z, u)
        assert few is not None and few.shares.shape == (16, 32)
        r = np.asarray(_entries(eq, jnp.asarray(z), jnp.asarray(u)))
        pairs = (r[:4, None] * r[None, 4:8].conj()).reshape(16, -1)
        want = np.asarray(resolvent.feature_averages(eq, jnp.asarray(pairs)))
        got = np.asarray(averages_of_pairs(eq, SharedAverages(few.shares[:4], few.shares[4:8].conj(), few.table)))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-9 * np.max(abs(want)))
        wrong = np.asarray(averages_of_pairs(eq, SharedAverages(few.shares[:4], few.shares[4:8], few.table)))
        rejects(lambda: np.testing.assert_allclose(wrong, want, rtol=0, atol=1e-9 * np.max(abs(want))))
        assert few_entries(equivalent(Problem(law, "tanh", t=0.1, psi_p=4.0, psi_n=3.0), -2, 6.0), z, u) is None
