"""Batches of seeds: their mean over a run, files of single seeds, and what is refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rfdiff import simulation
from rfdiff.errors import InputError
from rfdiff.files.atomic import write_arrays
from rfdiff.simulation import SeedBatch
from rfdiff.simulation.distributed import one_by_one
from rfdiff.simulation.kept_seeds import holds, load_seed, save_seed
from rfdiff.simulation.seed_batches import MOST_SEEDS, check_seeds


def batch(seeds: list[int], **changes: Any) -> SeedBatch:
    """Made-up curves (T = 3, K = 2, p = 4) that depend on the seed alone."""
    rows = [np.random.default_rng(seed) for seed in seeds]
    curves = {name: np.array([row.random((3, 2)) for row in rows]) for name in ("train_loss", "test_loss", "score_error")}
    spectrum = {"eigenvalues": np.ones((len(seeds), 4)), "class_weights": np.full((len(seeds), 4, 2), 0.125)}
    numbers: dict[str, Any] = {"optimal_loss": np.array([0.5, 0.4]), "weights": np.array([0.7, 0.3]), "kappa": 0.3, "dimension": 2}
    fields = {**curves, **spectrum, **numbers, "truncation": np.full(len(seeds), 1e-6), **changes}
    return SeedBatch(seeds=np.array(seeds), taus=fields.pop("taus", np.array([1.0, 10.0, 100.0])), **fields)


def same(one: SeedBatch, other: SeedBatch) -> bool:
    return one.equals(other)  # type: ignore[attr-defined]


def test_the_mean_over_batches_is_that_over_their_seeds() -> None:
    together, apart = simulation.summarize([batch([0, 1, 2])]), simulation.summarize([batch([2]), batch([0, 1])])
    np.testing.assert_array_equal(together.test_loss, apart.test_loss)
    expected = batch([0, 1, 2]).test_loss
    np.testing.assert_allclose(together.test_loss, expected.mean(0), rtol=1e-15)
    np.testing.assert_allclose(together.test_loss_stderr, expected.std(0, ddof=1) / np.sqrt(3), rtol=1e-12)


def test_the_error_is_that_of_the_solver_and_of_the_averages() -> None:
    assert simulation.summarize([batch([0, 1])]).error_estimate == 1e-6
    solved = batch([2, 3], error_estimate=np.array([1e-7, 3e-6]))
    assert simulation.summarize([batch([0, 1]), solved]).error_estimate == pytest.approx(4e-6, rel=1e-12)


@pytest.mark.parametrize("changes", [{}, {"eigenvalues": None, "class_weights": None, "probe_stderr": np.ones((3, 1, 3, 2))}])
def test_a_stored_seed_comes_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    stored = batch([7], **changes)
    assert load_seed(tmp_path / "run", 7) is None and not holds(tmp_path / "run", 7)
    save_seed(tmp_path / "run", stored)
    again = load_seed(tmp_path / "run", 7)
    assert again is not None and holds(tmp_path / "run", 7)
    assert same(again, stored) and type(again.kappa) is float and again.dtype == "float64"
    assert not same(again, batch([8], **changes))


@pytest.mark.parametrize("changes", [{}, {"eigenvalues": None, "class_weights": None, "probe_stderr": np.ones((3, 3, 3, 2))}])
def test_a_batch_comes_apart_into_its_seeds(changes: dict[str, Any]) -> None:
    whole, (first, *rest) = batch([3, 1, 2], **changes), one_by_one(batch([3, 1, 2], **changes))
    assert [int(one.seeds[0]) for one in (first, *rest)] == [3, 1, 2]
    np.testing.assert_array_equal(rest[1].test_loss, whole.test_loss[2:])
    if whole.probe_stderr is not None:
        assert first.probe_stderr is not None
        np.testing.assert_array_equal(first.probe_stderr, whole.probe_stderr[:, :1])
    np.testing.assert_array_equal(simulation.summarize([first, *rest]).test_loss, simulation.summarize([whole]).test_loss)


def test_a_damaged_seed_is_refused_by_name(tmp_path: Path) -> None:
    arrays = batch([7]).to_arrays()
    for damaged, message in (
        ({name: value for name, value in arrays.items() if name != "kappa"}, "kappa is missing"),
        ({**arrays, "colour": np.ones(1)}, "colour is no field of it"),
    ):
        write_arrays(tmp_path / "seed-7.npz", damaged)
        with pytest.raises(InputError, match=rf"seed-7\.npz: damaged checkpoint \(batch: {message}.*delete it to compute this seed again"):
            load_seed(tmp_path, 7)
    (tmp_path / "seed-7.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"seed-7\.npz: damaged checkpoint"):
        load_seed(tmp_path, 7)


def test_batches_that_do_not_belong_together() -> None:
    with pytest.raises(InputError, match=r"batches: none given"):
        simulation.summarize([])
    with pytest.raises(InputError, match=r"batches: seed 0 occurs more than once"):
        simulation.summarize([batch([0]), batch([0])])
    for change in ({"dimension": 3}, {"dtype": "float32"}, {"taus": np.array([2.0, 11.0, 101.0])}, {"kappa": 3.0}):
        with pytest.raises(InputError, match=r"allowed: batches of one run"):
            simulation.summarize([batch([0]), batch([1], **change)])


@pytest.mark.parametrize(
    "seeds", [[], [1, 1], [-1], [0.5], [2**32], [True], 3, None, "12", range(MOST_SEEDS + 1), range(10**12)], ids=lambda seeds: str(seeds)
)
def test_refused_seeds(seeds: Any) -> None:
    with pytest.raises(InputError, match=r"seeds: .*distinct integers in \[0, 2\^32\)"):
        check_seeds(seeds)


def test_accepted_seeds() -> None:
    assert check_seeds([3, np.int64(1), np.array(2)]) == [3, 1, 2]  # type: ignore[list-item]
    assert check_seeds(np.arange(2)) == check_seeds(range(2)) == [0, 1]  # type: ignore[arg-type]
    assert all(type(seed) is int for seed in check_seeds(np.arange(2)))  # type: ignore[arg-type]


def test_optax_is_imported_with_step_by_step_training_alone() -> None:
    script = (
        "import sys; from rfdiff import simulation; simulation.learning_curves, simulation.plan; assert 'optax' not in sys.modules; "
        "assert set(simulation.__all__) <= set(dir(simulation)); simulation.descend; assert 'optax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        simulation.train  # noqa: B018
