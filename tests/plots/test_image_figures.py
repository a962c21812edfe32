"""Figures of a U-Net's run: curves with times on the held-out loss, evaluations with intervals, samples above their neighbours."""

from typing import Any, cast

import numpy as np
import pytest

from rfdiff import plots
from rfdiff.errors import InputError
from tests.plots import datasets, drawn
from tests.plots.drawn import lines, marks, xs, ys


def test_losses_and_times() -> None:
    data = datasets.images()
    figure = plots.image_run(data)
    losses, gap, frechet, memorised = figure.axes
    for c, color in enumerate(plots.OKABE_ITO[:2]):
        for name, style in (("train", "--"), ("held_out", "-")):
            (line,) = [item for item in lines(losses, style, color) if len(xs(item)) > 1]
            np.testing.assert_array_equal(ys(line), data.mean_loss.sel(set=name).values[1:, c])
        (line,) = lines(gap, "-", color)
        np.testing.assert_array_equal(ys(line), data.gap.values[1:, c])
        (line,) = lines(frechet, "-", color)
        np.testing.assert_array_equal(ys(line), data.frechet.values[1:, c])  # the first checkpoint has too few samples
        (line,) = lines(memorised, "-", color)
        np.testing.assert_array_equal(ys(line), data.memorised.values[:, c])
    assert [xs(mark)[0] for mark in marks(losses, "^")] == [20.0, 40.0]
    assert [xs(mark)[0] for mark in marks(losses, "D")] == [500.0]  # the other class has no τ_mem
    assert {"Bag", "Sneaker", "held out", "two halves of the real images"} <= drawn.legend(figure)
    assert drawn.legend_is_clear(figure)


def test_panels_that_a_run_does_not_have() -> None:
    figure = plots.image_run(datasets.images(sampled=False))
    assert [panel.get_ylabel() for panel in figure.axes] == ["loss per coordinate", "held-out − train loss"]
    only = plots.image_run(datasets.images(), panels="memorised", class_names=("a", "b"))
    assert drawn.legend(only) == {"a", "b"} and len(only.axes) == 1
    with pytest.raises(InputError, match="panels: frechet; allowed: some of losses, gap"):
        plots.image_run(datasets.images(sampled=False), panels="frechet")


def test_too_few_samples_are_said() -> None:
    data = datasets.images()
    data["frechet"] = data["frechet"] * np.nan
    panel = plots.image_run(data).axes[2]
    assert [text.get_text() for text in panel.texts] == ["too few samples of a class"] and panel.get_yscale() == "linear"


@pytest.mark.parametrize("checkpoint", [-1, 0])
def test_samples_are_above_their_neighbours(checkpoint: int) -> None:
    data = datasets.images()
    figure = plots.image_samples(data, checkpoint=checkpoint)
    assert figure.get_suptitle() == f"step {data.checkpoint.values[checkpoint]}"
    for c, panel in enumerate(figure.axes):
        assert panel.get_title() == data["class"].values[c]
        pixels = np.asarray(cast(Any, panel.images[0]).get_array())
        np.testing.assert_array_equal(pixels[1:8, 1:8], 255 - data.grid.values[checkpoint, c, 0, 0])
        np.testing.assert_array_equal(pixels[10:17, 1:8], 255 - data.grid.values[checkpoint, c, 1, 0])
        assert np.all(pixels[[0, 8, 9, 17]] == 255)  # white frames


def test_bad_input_is_named() -> None:
    for checkpoint in (3, -4):
        with pytest.raises(InputError, match=f"checkpoint: {checkpoint}; allowed: -3 to 2, an index into the evaluated checkpoints"):
            plots.image_samples(datasets.images(), checkpoint=checkpoint)
    with pytest.raises(InputError, match="class_names: 1 names; allowed: 2"):
        plots.image_run(datasets.images(), class_names=("a",))
