"""The tables that commands print."""

import dataclasses
import json

import numpy as np
import pytest

from rfdiff.agreement import Agreement
from rfdiff.class_times import readings, times
from rfdiff.cli import curve_results, tables
from tests import synthetic


def test_table_reads_theory_beside_simulation_with_errors_over_seeds() -> None:
    predicted, simulated = synthetic.theory(), synthetic.simulation()
    table = curve_results.times_table(predicted, simulated, 0.4)[0].lines()
    assert table[0].split() == ["class", "weight", "source", "tau_gen", "tau_stop", "tau_mem", "tau_opt(0.4)", "best", "test", "loss"]
    assert [line.split()[0:3] for line in table[1::2]] == [["0", "0.667", "theory"], ["1", "0.333", "theory"]]
    found = times(predicted, q=0.4)
    assert table[1].split()[3:6] == [f"{x[0]:.4g}" for x in (found.tau_gen, found.tau_stop, found.tau_mem)]
    assert simulated.per_seed is not None
    runs = [times(dataclasses.replace(simulated, **{n: simulated.per_seed[n][s] for n in simulated.per_seed}), q=0.4) for s in range(3)]
    values, errors = readings(simulated, 0.4)
    np.testing.assert_array_equal(values[2], times(simulated, q=0.4).tau_mem)
    np.testing.assert_allclose(errors[2], np.std([run.tau_mem for run in runs], axis=0, ddof=1) / np.sqrt(3))
    lowest = np.asarray(simulated.per_seed["test_loss"]).min(axis=1)
    np.testing.assert_allclose(errors[4], np.std(lowest, axis=0, ddof=1) / np.sqrt(3))
    assert tables.number(values[2, 0], errors[2, 0]) in table[2]
    assert len(curve_results.times_table(None, simulated, 0.4)[0].lines()) == 3


def test_times_that_a_seed_lacks_have_no_error_bar() -> None:
    simulated = synthetic.simulation()
    assert simulated.per_seed is not None
    never = np.array(simulated.per_seed["test_loss"])
    never[0, :, 1] = 1.5
    _, errors = readings(dataclasses.replace(simulated, per_seed={**simulated.per_seed, "test_loss": never}), 0.4)
    assert np.isnan(errors[0, 1])
    assert np.isfinite(errors[0, 0])
    single = dataclasses.replace(simulated, per_seed={name: runs[:1] for name, runs in simulated.per_seed.items()})
    assert np.isnan(readings(single, 0.4)[1]).all()
    assert np.isnan(readings(synthetic.theory(), 0.4)[1]).all()


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (12.3456, np.nan, "12.35"),
        (np.inf, np.nan, "inf"),
        (np.nan, 0.1, "-"),
        (12.3456, 0.0123, "12.346 ± 0.012"),
        (1234.5, 56.7, "1234 ± 57"),
        (1234.5, 567.8, "1234 ± 568"),
        (23.5, 1e-15, "23.5"),
        (2.0, 0.0, "2"),
        (0.0, 0.0, "0"),
    ],
)
def test_numbers_show_the_digits_their_error_leaves(value: float, error: float, expected: str) -> None:
    assert tables.number(value, error) == expected


def test_verdict_names_the_worst_place() -> None:
    def per_curve(value: float) -> dict[str, np.ndarray]:
        return {name: np.full((24, 2), value) for name in ("train_loss", "test_loss")}

    standardised = per_curve(0.0)
    standardised["test_loss"][5, 1] = -7.5
    standardised["test_loss"][0] = np.nan
    wrong = Agreement(
        synthetic.theory(),
        synthetic.simulation(),
        synthetic.simulation(d=10),
        deviation=per_curve(-0.25),
        allowance=per_curve(0.125),
        remainder=per_curve(0.03),
        stderr=per_curve(0.01),
        standardised=standardised,
        threshold=4.0,
        conclusive=True,
        agrees=False,
    )
    train, test, verdict = curve_results.verdict_lines(wrong)
    assert train.startswith("train loss: ")
    assert f"for class 1 at tau = {synthetic.taus()[5]:.4g}: -2.50e-01, of which finite size +1.2e-01 within 3.0e-02" in test
    assert test.endswith("standard error 1.0e-02: 7.50 standard errors out")
    assert verdict.startswith("verdict: simulation at d = 20 and theory DISAGREE (allowed: 4 standard errors; an error of 7.0e-02 ")
    vague = curve_results.verdict_lines(dataclasses.replace(wrong, conclusive=False))[-1]
    assert vague.startswith("verdict: INCONCLUSIVE, simulation at d = 20 ")
    assert "more seeds or a larger d (allowed: 4 standard errors; " in vague
    assert "DISAGREE" not in vague
    assert " agree (" in curve_results.verdict_lines(dataclasses.replace(wrong, agrees=True))[-1]


def test_rows_for_programs_hold_values_and_errors() -> None:
    table = tables.Table(
        "times",
        ["class", "tau", "share"],
        [
            [tables.words("a"), tables.measured(2.5, 0.25), tables.shown(50.0, ".1f", " %")],
            [tables.words("a"), tables.measured(np.nan, text="> 3"), tables.shown(np.inf, ".1f")],
        ],
        grouped=1,
    )
    lines = [line.split() for line in table.lines()]
    assert lines == [["class", "tau", "share"], ["a", "2.50", "±", "0.25", "50.0", "%"], [">", "3", "inf"]]
    expected = [
        {"class": "a", "tau": 2.5, "tau error": 0.25, "share": 50.0},
        {"class": "a", "tau": "> 3", "tau error": None, "share": "inf"},
    ]
    assert json.loads(tables.render([table], "json")) == {"times": expected}
    assert tables.render([table, table], "csv") == "class,tau,tau error,share\na,2.5,0.25,50.0\na,> 3,,inf"
    assert tables.render([tables.Table("none", ["a", "b"], [])], "csv") == "a,b"
    assert tables.render([table, table], "text").count("class") == 2


def test_bounds_reach_programs_too() -> None:
    row = [tables.words("0"), tables.measured(np.nan, text="> 28.5"), tables.measured(np.nan)]
    table = tables.Table("times", ["class", "tau_mem", "tau_opt"], [row])
    assert table.records() == [{"class": "0", "tau_mem": "> 28.5", "tau_opt": None}]
