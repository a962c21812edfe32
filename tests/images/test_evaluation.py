"""Copies, distances, times and figures: each against a case whose answer is known, and a whole run through them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.special import erf

from rfdiff import plots
from rfdiff.class_times import times
from rfdiff.cli import image_results
from rfdiff.cli.options import Redrawing
from rfdiff.curves import LearningCurves
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.images import checkpoints, evaluation, readout
from rfdiff.images.classifier import FEATURES, trained_classifier
from rfdiff.images.devices import Devices
from rfdiff.images.evaluation import Evaluator, Sampling, energy_distance, evaluated_steps, frechet
from rfdiff.images.sampling import draw_samples
from rfdiff.images.training import initial_state, train
from tests.images.toy import SETTINGS, toy_data, toy_images
from tests.tolerances import rejects


def test_frechet_distance_is_its_closed_form() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 20_000, 3))
    b = b * np.array([2.0, 1.0, 0.5]) + np.array([1.0, 0, 0])
    found = frechet(a, b)

    def agrees(value: float) -> None:
        assert abs(found - value) < 0.1

    agrees(1 + 1 + 0 + 0.25)  # shift², and (σ_a - σ_b)² of each axis
    rejects(lambda: agrees(1 + 9 + 0 + 0.5625))  # variances where standard deviations are meant
    assert frechet(a, a) < 1e-8 and np.isnan(frechet(a[:10], b))


def test_energy_distance_needs_few_samples_and_is_its_closed_form() -> None:
    """Of normal laws on a line, unit variance and means m apart: 2 E|N(m, 2)| - 2 E|N(0, 2)|; without bias however few the samples."""
    rng, m = np.random.default_rng(0), 1.5
    expected = 2 * (2 / np.sqrt(np.pi) * np.exp(-(m**2) / 4) + m * erf(m / 2)) - 4 / np.sqrt(np.pi)
    found = energy_distance(rng.standard_normal((4000, 1)), rng.standard_normal((4000, 1)) + m)

    def agrees(value: float) -> None:
        np.testing.assert_allclose(found, value, atol=0.05)

    agrees(expected)
    rejects(lambda: agrees(m**2))  # a squared distance of means
    few = [energy_distance(*rng.standard_normal((2, 3, 2))) for _ in range(4000)]
    assert abs(np.mean(few)) < 4 * np.std(few) / np.sqrt(len(few))
    assert np.isnan(energy_distance(np.zeros((1, 2)), np.zeros((5, 2))))


def losses_of(steps: np.ndarray, gen: float, mem: float, start: float = 1.0) -> xr.Dataset:
    """Losses of two classes: the first as given, the second ten times as slow; held-out falls and rises again, train falls."""
    columns = [(1 - 0.8 * (1 - np.exp(-steps / g)), 0.3 * (1 - np.exp(-steps / m))) for g, m in ((gen, mem), (10 * gen, 10 * mem))]
    loss = start * np.stack([np.stack([fall - rise, fall + rise]) for fall, rise in columns], -1)
    loss = np.moveaxis(loss, 1, 0)
    axes = ("step", "set", "log_snr", "class")
    variables: dict[str, Any] = {"loss": (axes, loss[:, :, None]), "loss_stderr": (axes, np.full_like(loss[:, :, None], 0.01))}
    variables |= {"mean_loss": (("step", "set", "class"), loss), "mean_loss_stderr": (("step", "set", "class"), np.full_like(loss, 0.01))}
    variables |= {"count": ("class", np.array([10, 10])), "t": ("log_snr", np.array([0.1]))}
    return xr.Dataset(variables, {"step": steps, "set": ["train", "held_out"], "log_snr": [1.0], "class": ["a", "b"]})


def measured_steps(last: int) -> np.ndarray:
    return np.array([0, *np.unique(np.round(np.geomspace(1, last, 70))).astype(int)])


def test_times_are_those_of_the_package_definitions() -> None:
    steps = measured_steps(100_000)
    read, at = readout.class_times(losses_of(steps, 30.0, 500.0, start=1.02))  # the measured noise is not 1 exactly
    np.testing.assert_array_equal(read.tau_gen, at[0].tau_gen)
    test = losses_of(steps, 30.0, 500.0)["mean_loss"].values[:, 1, 0]
    lowest = test.min()
    expected = np.interp(-(lowest + (1 - lowest) / np.e), -test[: np.argmin(test)], steps[: np.argmin(test)])
    np.testing.assert_allclose(read.tau_gen, [expected, 10 * expected], rtol=0.03)
    np.testing.assert_allclose(read.tau_mem, 500 * np.log(2) * np.array([1, 10]), rtol=0.03)
    ones = np.zeros((len(steps), 1))
    curves = LearningCurves(steps * 1.0, ones, test[:, None], ones, np.zeros(1), np.ones(1), 1.0, np.nan, ones, ones, ones)
    np.testing.assert_allclose(read.tau_gen[0], times(curves).tau_gen[0], rtol=1e-9)
    small = losses_of(steps, 30.0, 500.0)
    small["mean_loss_stderr"] += 1.0
    noisy = readout.class_times(small).mean
    assert np.isnan(noisy.tau_mem).all() and noisy.text("tau_mem", 0) == "-"
    assert noisy.reason("tau_mem", 0) == "the last gap is within 3 standard errors of 0"
    few = readout.class_times(small.isel(step=slice(2))).mean
    assert np.isnan(few.tau_gen).all() and few.reason("tau_gen", 1) == "fewer than 3 measured steps"


def test_a_run_whose_gap_still_grows_has_a_bound_for_its_memorisation_time() -> None:
    """The true τ_mem is 347 steps; a run of 40 has the gap of step 40 for its last, and half of that is no memorisation time."""
    losses = losses_of(measured_steps(40), 30.0, 500.0)
    read = readout.class_times(losses).mean
    assert np.isnan(read.tau_mem).all()
    assert read.bounds is not None
    low, high = read.bounds["tau_mem"][0]
    assert 15 < low < 347 and np.isnan(high) and read.text("tau_mem", 0).startswith("> ")
    assert read.reason("tau_mem", 0).startswith("the gap between test and train loss still grows")
    dataset = readout.read_out(losses, [], [])
    assert np.isnan(dataset.time.sel(reading="tau_mem")).all()
    assert f"> {low:.4g}" in image_results.run_table(dataset)[0].lines()[1]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xr.Dataset]:
    """A trained run with its evaluation, and the file of it."""
    folder = tmp_path_factory.mktemp("evaluated")
    losses = train(SETTINGS, toy_images(), folder)
    classifier = trained_classifier(toy_data(), toy_images(), 30, Devices(), folder / "classifier.npz")
    assert classifier.accuracy > 0.9
    steps = evaluated_steps(folder, 6)
    rows = evaluator(folder, classifier).run(steps)
    dataset = readout.read_out(losses, steps, rows, accuracy=classifier.accuracy)
    save_dataset(dataset, folder / readout.FILE)
    return folder, dataset


def evaluator(folder: Path, classifier: Any, seed: int = 0) -> Evaluator:
    return Evaluator(folder, SETTINGS, toy_images(), toy_data(), classifier, Sampling(samples=60, sampler_steps=3, seed=seed), Devices())


@pytest.mark.thorough
def test_an_evaluated_run(evaluated: tuple[Path, xr.Dataset], capsys: pytest.CaptureFixture[str]) -> None:
    folder, dataset = evaluated
    assert readout.steps_of(dataset) == [6, 10, 12]
    assert float(dataset["fraction"].sum("class").max()) <= 1
    np.testing.assert_allclose(dataset["number"], 60 * dataset["fraction"], rtol=1e-12)
    xr.testing.assert_equal(load_dataset(folder / readout.FILE).drop_attrs(), dataset.drop_attrs())
    np.testing.assert_array_equal(dataset["gap"][0], 0)
    assert image_results.redraw(Redrawing(file=folder / readout.FILE)) == 0
    text = capsys.readouterr().out
    assert "Trouser" in text and "accuracy of the classifier on the test images" in text and "below 90%" not in text
    assert "below 90%: more --classifier-epochs" in image_results.run_table(dataset.assign_attrs(accuracy=0.87))[1][-1]
    assert (folder / readout.CURVES).stat().st_size > 0 and (folder / readout.SAMPLES).stat().st_size > 0
    assert len(plots.image_run(dataset[["mean_loss", "gap", "time"]]).axes) == 2


@pytest.mark.thorough
def test_evaluations_are_kept_and_the_classifier_is_read_again(evaluated: tuple[Path, xr.Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = evaluated[0]
    again = trained_classifier(toy_data(), toy_images(), 30, Devices(), folder / "classifier.npz")
    assert again.read(toy_images().train[:5])[0].shape == (5, FEATURES)
    with pytest.raises(ValueError, match=r"classifier of other images or epochs; allowed: another file, or delete it"):
        trained_classifier(toy_data(), toy_images(), 1, Devices(), folder / "classifier.npz")

    def forbidden(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation, "draw_samples", forbidden)
    assert len(evaluator(folder, again).run([6, 12])) == 2
    with pytest.raises(KeyboardInterrupt, match="0 of 2 checkpoints are evaluated, the same command resumes from them"):
        evaluator(folder, again, seed=1).run([6, 12])
    with pytest.raises(ValueError, match=r"no checkpoint from step 100 on"):
        evaluated_steps(folder, 100)
    assert checkpoints.kept(folder)[-1] == 12


@pytest.mark.thorough
def test_samples_depend_on_the_seed_alone_and_need_all_times() -> None:
    parameters = initial_state(SETTINGS).parameters
    one, same, other = (draw_samples(parameters, SETTINGS, Devices(), number=60, steps=3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other) and one.shape == (60, 7, 7)
    with pytest.raises(ValueError, match=r"^t: 0.5, the one time that the network was trained at; allowed: .* trained at all t"):
        draw_samples(parameters, dataclasses.replace(SETTINGS, t=0.5), Devices(), number=60, steps=3, seed=0)


@pytest.mark.parametrize("change", [{"samples": 1}, {"sampler_steps": 1}, {"seed": -1}])
def test_refusals(change: dict[str, int]) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=f"^{name}: {change[name]}; allowed: an integer"):
        Sampling(**change)
