"""The verdict on a measurement of speciation: what counts as an error, what is rejected, and what says nothing."""

import numpy as np
import pytest
import xarray as xr

from rfdiff.backward.speciation_agreement import speciation_verdict

TIMES = np.array([0.5, 1.0, 2.0])
EXPECTED = np.array([[1.0, 0.99], [0.8, 0.7], [0.6, 0.4]])
NUM = 2000


def measured(off: float = 0.0, systematic: float = 0.0, at_this_d: float = 0.0, clone_off: float = 0.0) -> xr.Dataset:
    """Fractions with every deviation and error set, at the middle time of class 1."""
    middle = np.zeros_like(EXPECTED)
    middle[1, 1] = 1
    turn, clone = ("turn_time", "class"), ("clone_time", "class")
    stderr = np.sqrt(EXPECTED * (1 - EXPECTED) / NUM) + 1e-3
    return xr.Dataset(
        {
            "uturn": (turn, EXPECTED + off * middle), "uturn_theory": (turn, EXPECTED), "uturn_stderr": (turn, stderr),
            "uturn_systematic": (turn, systematic * middle), "posterior": (turn, EXPECTED + at_this_d * middle),
            "clone": (clone, EXPECTED[::-1] + clone_off * middle), "clone_theory": (clone, EXPECTED[::-1]),
            "clone_stderr": (clone, stderr[::-1]), "clone_systematic": (clone, 0 * EXPECTED),
        },
        {"turn_time": TIMES, "clone_time": TIMES[::-1]},
        {"trajectories": NUM},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("dataset", "text", "reason"),
    [
        (measured(), "agree", ""),
        (measured(off=0.03), "agree", ""),
        (measured(off=0.1), "disagree", "U-turns of class 1 at t = 1 are 9.8 errors from the closed form"),
        (measured(off=0.1, at_this_d=0.1), "agree", ""),
        (measured(off=0.1, systematic=0.05), "agree", ""),
        (measured(off=0.3, systematic=0.3), "inconclusive", "the steps move U-turns of class 1 at t = 1 by 0.3"),
        (measured(off=0.3, systematic=0.05), "disagree", "more --num-steps"),
        (measured(clone_off=-0.1), "disagree", "clones of class 1 at t = 1"),
    ],
)
def test_verdict(dataset: xr.Dataset, text: str, reason: str) -> None:
    verdict = speciation_verdict(dataset)
    assert verdict.text == text and reason in verdict.reason and bool(verdict.reason) == (text != "agree")
    assert verdict.agrees == (text == "agree") and 3 < verdict.threshold < 4


@pytest.mark.parametrize(("num", "text"), [(10, "inconclusive"), (40, "inconclusive"), (2000, "agree")])
def test_too_few_trajectories_confirm_nothing(num: int, text: str) -> None:
    """Exactly the closed form, but with errors that any theory near it would pass; a deviation beyond them is still one."""
    few = measured().assign_attrs(trajectories=num)
    few = few.assign(clone_stderr=np.sqrt(2000 / num) * few.clone_stderr)
    verdict = speciation_verdict(few)
    assert verdict.text == text and ("too few trajectories: an error of" in verdict.reason) == (text != "agree")
    band = verdict.threshold * np.sqrt(0.7 * 0.3 / num)
    assert verdict.unnoticed == pytest.approx(band, rel=0.2) and verdict.agrees == (text == "agree")
    assert speciation_verdict(few.assign(uturn=few.uturn - 0.7)).text == "disagree"


def test_the_sharper_kind_of_fraction_decides_what_is_noticed() -> None:
    """No clone falls into class 1, or clones scatter widely: U-turns still tell. Few U-turns beside many clones tell, too."""
    whole = measured()
    assert speciation_verdict(whole.assign(clone=whole.clone * np.array([1.0, np.nan]))).text == "agree"
    assert speciation_verdict(whole.assign(clone_stderr=30 * whole.clone_stderr)).text == "agree"
    assert speciation_verdict(whole.assign_attrs(trajectories=10)).text == "agree"


def test_an_error_of_the_closed_form_at_the_dimension_widens_clones_too() -> None:
    plain, wide = (speciation_verdict(measured(at_this_d=size)).compared["clone"].error for size in (0.0, 0.05))
    assert wide[1, 1] > 0.05 > plain[1, 1] and wide[0, 0] == plain[0, 0]


def test_a_file_of_an_earlier_version_has_the_statistical_error_alone() -> None:
    old = measured(off=0.3, systematic=0.3).drop_vars(["uturn_systematic", "clone_systematic", "posterior"])
    assert speciation_verdict(old).text == "disagree"
