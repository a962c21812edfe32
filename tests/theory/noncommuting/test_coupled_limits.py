"""What a spectrum of covariances that do not commute refuses, before anything is computed."""

import numpy as np
import pytest

from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory.density import coupled_directions


def turned(d: int) -> Problem:
    """Two classes that vary much in half of d directions, in bases that have nothing to do with each other."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))
    spectrum = np.where(np.arange(d) % 2, 3.0, 0.05)
    law = MixtureLaw.from_covariances([0.5, 0.5], [np.diag(spectrum), (basis * spectrum) @ basis.T])
    return Problem(law, "tanh", t=0.1, psi_p=4, psi_n=3)


def test_couplings_that_count_and_are_left_out_are_refused() -> None:
    said = r"^mixture: covariances that do not commute in 96 directions, of which a spectrum couples 64; .*; allowed: at most 0.01"
    with pytest.raises(InputError, match=said):
        coupled_directions(turned(96))


def test_few_directions_are_all_coupled() -> None:
    coupled = coupled_directions(turned(32))
    assert coupled is not None and coupled.core.shape[-1] == 32 and coupled.neglected == 0
