"""Maps of times: every cell is the problem's own, failures stay in their cells, a second map compiles nothing."""

from typing import Any

import numpy as np
import pytest

from rfdiff import theory
from rfdiff.class_times import ClassTimes, times
from rfdiff.host import double_on_host
from rfdiff.mixture import MixtureLaw
from rfdiff.parameters import set_parameter
from rfdiff.problem import Problem
from rfdiff.rules import GradientDescent, GradientFlow
from rfdiff.theory import map_program, map_setting, maps

AXES = {"variance_ratio": [0.5, 1.0, 2.0], "weight_0": [0.3, 0.5, 0.7]}  # one program: no cell needs a second attempt
NAMES = ("tau_gen", "tau_stop", "tau_mem", "tau_opt")


def centred() -> Problem:
    return Problem(MixtureLaw.isotropic([0.5, 0.5], [1.0, 1.0]), "tanh", t=0.1, psi_p=8.0, psi_n=4.0)


def on_a_grid(problem: Problem) -> Any:
    return times(theory.learning_curves(problem, theory.time_grid(problem, num_times=800)))


def cell(problem: Problem, found: Any, i: int, j: int) -> Problem:
    return set_parameter(set_parameter(problem, found.names[0], found.first[i]), found.names[1], found.second[j])


def assert_cell(found: Any, problem: Problem, i: int, j: int) -> None:
    expected = on_a_grid(cell(problem, found, i, j))
    for name in NAMES:
        np.testing.assert_allclose(getattr(found.times, name)[i, j], getattr(expected, name), rtol=2e-3, err_msg=f"{name} at {i}, {j}")


@pytest.mark.thorough
def test_cells_are_the_problems_own_and_nothing_compiles_twice() -> None:
    seen: list[tuple[int, int]] = []
    found = theory.phase_map(centred(), AXES, progress=lambda done, total: seen.append((done, total)))
    assert found.names == ("variance_ratio", "weight_0")
    assert seen[-1] == (9, 9)
    assert found.converged.all()
    assert np.all(found.error_estimate < 1e-4)
    for i, j in ((0, 0), (2, 1), (1, 2)):
        assert_cell(found, centred(), i, j)
    assert not np.allclose(found.times.tau_gen[0, 0], found.times.tau_gen[2, 2], rtol=0.1)
    # equal classes at equal weight: one curve
    np.testing.assert_allclose(found.times.tau_mem[1, 1, 0], found.times.tau_mem[1, 1, 1], rtol=1e-9)
    programs: Any = map_program.forms
    compiled = programs._cache_size()
    theory.phase_map(centred(), {"variance_ratio": [0.5, 1.1, 2.0], "weight_0": [0.3, 0.6, 0.7]})
    assert programs._cache_size() == compiled


@pytest.mark.thorough
def test_a_failed_cell_is_marked_and_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A contour's error is made to look large in one cell: it stays NaN, with its error, and the others keep their times."""
    whole = theory.phase_map(centred(), AXES)
    true = maps._in_chunks

    def spoiled(cells: Any, setting: Any, which: np.ndarray, *rest: Any) -> Any:
        found, error = true(cells, setting, which, *rest)
        return found, np.where(which == 4, np.inf, error)

    monkeypatch.setattr(maps, "_in_chunks", spoiled)
    monkeypatch.setattr(maps, "ATTEMPTS", 1)
    found = theory.phase_map(centred(), AXES)
    assert (~found.converged).sum() == 1 and not found.converged[1, 1]
    assert np.isinf(found.error_estimate[1, 1])
    assert np.all(np.isnan(found.times.tau_gen[1, 1]))
    others = found.converged
    np.testing.assert_array_equal(found.times.tau_mem[others], whole.times.tau_mem[others])


def test_cells_are_done_again_with_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    """More nodes where the contour was too coarse, the same with care where the fixed point failed; the rest is left alone."""
    calls: list[tuple[list[int], int, bool]] = []

    def pretended(cells: Any, setting: Any, which: np.ndarray, how: Any, *_: Any) -> Any:
        size, q, careful = how.size, how.q, how.careful
        calls.append((which.tolist(), size, careful))
        coarse, lost = (which == 1) & (size == calls[0][1]), (which == 2) & (not careful)
        made_up = dict.fromkeys(NAMES, np.full((which.size, 2), float(size)))
        return ClassTimes(*made_up.values(), q=q), np.where(lost, np.inf, np.where(coarse, 1e-3, 1e-6))

    monkeypatch.setattr(maps, "_in_chunks", pretended)
    found = theory.phase_map(centred(), {"variance_ratio": [0.9, 1.0], "weight_0": [0.4, 0.5]})
    first = calls[0][1]
    assert sorted(calls[1:]) == [([1], maps.NODES[maps.NODES.index(first) + 1], False), ([2], first, True)]
    assert calls[0] == ([0, 1, 2, 3], first, False) and found.converged.all()
    assert found.times.tau_gen[0, 1, 0] > found.times.tau_gen[0, 0, 0]


@pytest.mark.slow
def test_a_cell_that_needs_more_nodes() -> None:
    found = theory.phase_map(centred(), {"variance_ratio": [1.0, 10.0], "weight_0": [0.5, 0.95]})
    assert found.converged.all() and found.error_estimate.max() <= 1e-4
    assert_cell(found, centred(), 1, 1)


@pytest.mark.slow
def test_the_edge_p_equals_nm() -> None:
    """Where the limit diverges the memorisation time is unknown, and all else stays known; the fixed point needs care there."""
    problem = Problem(MixtureLaw.isotropic([0.6, 0.4], [1.5, 0.5]), "tanh", t=0.1, psi_p=8.0, psi_n=4.0, noise_draws=1)
    found = theory.phase_map(problem, {"psi_p": [2.0, 4.0, 16.0], "psi_n": [2.0, 8.0]}, tolerance=1e-3)
    assert found.converged.all()
    assert np.all(np.isnan(found.times.tau_mem[0, 0]))
    assert np.all(np.isfinite(found.times.tau_stop[0, 0]))
    np.testing.assert_allclose(found.times.tau_stop[0, 0], on_a_grid(cell(problem, found, 0, 0)).tau_stop, rtol=2e-3)
    assert_cell(found, problem, 2, 1)


@pytest.mark.thorough
def test_the_neuron_types_of_each_cell_are_fine_enough() -> None:
    """Little noise makes steep types: a map takes finer ones there, and marks a cell whose error it cannot bring below the tolerance."""
    law = MixtureLaw.isotropic([0.95, 0.05], [0.04, 0.4], [[0.5, 0.1], [0.1, 1.0]])
    problem = Problem(law, "tanh", t=0.005, psi_p=4.0, psi_n=3.0)
    cells = [problem, set_parameter(problem, "t", 0.3)]
    with double_on_host():
        setting, stacked = map_setting.shared_setting(cells)
        levels, error = map_setting.type_levels(stacked, setting, 1e-4)
        assert levels[0] > levels[1] and np.all(error < 1e-4)
        coarse, fine = (np.asarray(map_program.ridge(stacked, setting(n), *map_program.bounds(stacked, setting(2)), 2)[0]) for n in (1, 3))
    assert np.max(abs(coarse[0] - fine[0])) > 1e-3


@pytest.mark.slow
def test_centroids(case_a: Problem) -> None:
    found = theory.phase_map(case_a, {"centroid_norm_1": [0.1, 1.0], "variance_1": [0.4, 1.5]})
    assert found.converged.all()
    for i in range(2):
        for j in range(2):
            assert_cell(found, case_a, i, j)


@pytest.mark.parametrize(
    ("axes", "keywords", "message"),
    [
        ({"t": [0.1]}, {}, "axes: t; allowed: a mapping of two names"),
        (["t", "psi_n"], {}, "axes: t, psi_n; allowed: a mapping"),
        ({"t": ["a"], "psi_n": [1.0]}, {}, r"axes: t: \['a'\] is not an array of numbers"),
        ({"t": [[0.1, 0.2]], "psi_n": [1.0]}, {}, "axes: t = .*allowed: a list of finite values that increase"),
        ({"t": [0.1], "sigma": [1.0]}, {}, "parameter: 'sigma'; allowed"),
        ({"t": [0.2, 0.1], "psi_n": [1.0]}, {}, r"axes: t = \[0.2, 0.1\]; allowed: a list of finite values that increase"),
        ({"t": [0.1], "psi_n": [np.nan]}, {}, r"axes: psi_n = \[nan\]; allowed"),
        ({"t": [0.1], "weight_0": [0.5, 1.0]}, {}, "weights: .* has an entry <= 0"),
        ({"t": [0.1], "psi_n": [1.0]}, {"q": 0}, "q: 0; allowed: 0 < q < 1"),
        ({"t": [0.1], "psi_n": [1.0]}, {"tolerance": 1.0}, "tolerance: 1.0; allowed"),
        ({"t": np.linspace(0.1, 1, 2000), "psi_n": np.linspace(1, 2, 2000)}, {}, "axes: 2000 x 2000 cells; allowed: at most 1e"),
    ],
)
def test_refused(axes: Any, keywords: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        theory.phase_map(centred(), axes, **keywords)


@pytest.mark.thorough
def test_a_rule_without_kernels_is_evaluated_cell_by_cell() -> None:
    """Each cell is `theory.times` of its problem; cells on file are not done again."""
    rule = GradientFlow(averaging=20.0)
    axes: dict[str, Any] = {"psi_n": [3.0, 4.0], "t": [0.1, 0.2]}
    seen: list[tuple[int, int]] = []
    store: dict[str, Any] = {}
    found = theory.phase_map(centred(), axes, rule=rule, progress=lambda done, total: seen.append((done, total)), store=store)
    assert seen == [(i, 4) for i in range(1, 5)] and maps.cells_in(store) == 4 and found.converged.all()
    expected = theory.times(cell(centred(), found, 1, 0), rule=rule, tolerance=1e-4)
    for name in NAMES:
        np.testing.assert_allclose(getattr(found.times, name)[1, 0], getattr(expected, name), rtol=1e-9)
    flow = theory.phase_map(centred(), axes)
    assert np.all(found.times.tau_gen > flow.times.tau_gen)
    del store["cell-2"]
    store["cell-0"] = {**store["cell-0"], "tau_gen": np.array([1.0, 2.0])}
    again = theory.phase_map(centred(), axes, rule=rule, store=store)
    np.testing.assert_array_equal(again.times.tau_gen[0, 0], [1.0, 2.0])
    np.testing.assert_array_equal(again.times.tau_gen[1], found.times.tau_gen[1])


@pytest.mark.thorough
def test_cells_that_diverge_have_failed() -> None:
    """A step that is stable at t = 0.05 and not at t = 0.4, where κ is six times as large; one that diverges everywhere is refused."""
    axes: dict[str, Any] = {"t": [0.05, 0.4], "psi_n": [3.0, 4.0]}
    found = theory.phase_map(centred(), axes, rule=GradientDescent(5.0))
    np.testing.assert_array_equal(found.converged, [[True, True], [False, False]])
    assert np.all(np.isnan(found.times.tau_gen[1])) and np.all(np.isinf(found.error_estimate[1]))
    with pytest.raises(ValueError, match="^step_size: 400"):
        theory.phase_map(centred(), axes, rule=GradientDescent(400.0))
