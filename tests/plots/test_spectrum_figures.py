"""The figure of a spectrum: areas are weights, the histogram counts every eigenvalue once, atoms carry their weight."""

import dataclasses
from typing import Any, cast

import numpy as np
import pytest

from rfdiff import plots
from rfdiff.curves import EmpiricalSpectrum
from rfdiff.errors import InputError
from tests import synthetic
from tests.plots import drawn
from tests.plots.drawn import marks, xs, ys

K = 2


def networks(num_classes: int = 2) -> EmpiricalSpectrum:
    return synthetic.given(synthetic.simulation(num_classes).spectrum)


def test_spectrum_shows_density_per_decade_of_each_bulk() -> None:
    spectrum = synthetic.spectrum()
    panel = plots.spectrum(spectrum).axes[0]
    assert panel.get_xscale() == "log"
    assert r"\lambda" in panel.get_xlabel()
    assert "weight per decade" in panel.get_ylabel()
    grid, density, shares = (np.asarray(x) for x in (spectrum.eigenvalues, spectrum.density, spectrum.class_density))
    for b in range(2):
        inside = np.asarray(spectrum.bulk) == b
        heights = [ys(line) for line in panel.lines if np.array_equal(xs(line), grid[inside])]
        assert len(heights) == 1 + K
        scale = grid[inside] * np.log(10)
        np.testing.assert_allclose(heights[0], scale * density[inside])
        np.testing.assert_allclose(np.stack(heights[1:], 1), scale[:, None] * shares[inside])
        mass = np.trapezoid(np.asarray(heights[0]), np.log10(grid[inside]))
        assert mass == pytest.approx((0.3, 0.45)[b], rel=2e-2)


def test_histogram_counts_every_positive_eigenvalue_once() -> None:
    empirical = networks()
    panel = plots.spectrum(empirical, bins_per_decade=10).axes[0]
    total, *shares = [cast(Any, patch).get_data() for patch in panel.patches if hasattr(patch, "get_data")]
    widths = np.diff(np.log10(total.edges))
    np.testing.assert_allclose(widths, 0.1)
    assert np.sum(total.values * widths) == pytest.approx(0.8)
    modes = np.asarray(empirical.eigenvalues)
    expected = np.histogram(modes[modes > 0], total.edges)[0] / modes.size / 0.1
    np.testing.assert_allclose(total.values, expected)
    np.testing.assert_allclose(sum(share.values for share in shares), total.values)
    np.testing.assert_allclose([np.sum(share.values * widths) for share in shares], 0.8 * np.array([2, 1]) / 3)


def test_atoms_are_stems_with_their_weight_and_support_is_shaded() -> None:
    spectrum = synthetic.spectrum()
    figure = plots.spectrum(networks(), spectrum)
    panel = figure.axes[0]
    stems = [float(xs(line)[0]) for line in marks(panel, "^")]
    assert len(stems) == 2
    assert stems[1] == 20.0
    assert panel.get_xlim()[0] < stems[0] < 0.02
    assert panel.get_xlim()[1] > 20
    assert dict(zip([text.get_text() for text in panel.get_xticklabels()], panel.get_xticks(), strict=True))["0"] == stems[0]
    assert [text.get_text() for text in panel.texts] == ["0.2\n(sim. 0.2)", "0.05"]
    spans = sorted(
        patch.get_extents().transformed(panel.transData.inverted()).x0 for patch in panel.patches if not hasattr(patch, "get_data")
    )
    np.testing.assert_allclose(spans, np.asarray(spectrum.support)[:, 0])
    assert {"simulation (3 networks)", "theory", "support", "atom (weight)", "share of class 0"} <= drawn.legend(figure)
    alone = plots.spectrum(networks())
    assert [text.get_text() for text in alone.axes[0].texts] == ["(sim. 0.2)"]


def test_one_class_has_no_shares() -> None:
    figure = plots.spectrum(synthetic.spectrum(1), networks(1))
    panel = figure.axes[0]
    assert len([line for line in panel.lines if len(xs(line)) == 40]) == 2
    assert len([patch for patch in panel.patches if hasattr(patch, "get_data")]) == 1
    assert not any("share" in label for label in drawn.legend(figure))


def test_legend_covers_no_data() -> None:
    assert drawn.legend_is_clear(plots.spectrum(synthetic.spectrum(3), networks(3)))


def test_bad_input_is_named() -> None:
    spectrum, empirical = synthetic.spectrum(), networks()
    with pytest.raises(InputError, match="spectra: 0 closed forms and 0 of networks; allowed: one of either kind"):
        plots.spectrum()
    with pytest.raises(InputError, match="spectra: 2 closed forms and 0 of networks; allowed"):
        plots.spectrum(spectrum, spectrum)
    with pytest.raises(InputError, match="spectra: a LearningCurves; allowed: Spectrum or EmpiricalSpectrum"):
        plots.spectrum(synthetic.theory())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="spectra: of 1 and 2 classes; allowed: spectra of one problem"):
        plots.spectrum(synthetic.spectrum(1), empirical)
    with pytest.raises(InputError, match="class_names: 1 names; allowed: 2"):
        plots.spectrum(spectrum, class_names=("a",))
    with pytest.raises(InputError, match="no eigenvalue of the networks is positive"):
        plots.spectrum(dataclasses.replace(empirical, eigenvalues=np.zeros((3, 80))))
    for bins in (0, 1.5, 10_000):
        with pytest.raises(InputError, match="bins_per_decade: .*; allowed: an integer from 1 to 1000"):
            plots.spectrum(empirical, bins_per_decade=bins)  # type: ignore[arg-type]
