"""What figures share: colours, sizes, display in notebooks, files, labels; and no trace in matplotlib's global state."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import _pylab_helpers
from matplotlib.colors import to_hex, to_rgb

from rfdiff import plots
from rfdiff.errors import InputError
from rfdiff.plots import style
from tests import synthetic

HEADS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
TAILS = {"png": b"IEND\xaeB`\x82", "pdf": b"%%EOF", "svg": b"</svg>"}


def png_size(content: bytes) -> tuple[int, int]:
    """Pixels of a PNG, from its header."""
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


@pytest.mark.parametrize("num_classes", [1, 2, 7, 8, 12])
def test_classes_have_distinct_colours(num_classes: int) -> None:
    assert len({to_hex(color) for color in plots.class_colors(num_classes)}) == num_classes


def test_colours_beyond_okabe_ito_differ_in_lightness() -> None:
    """So that they can be told apart in grey, too."""
    rgb = np.array([to_rgb(color) for color in plots.class_colors(10)])
    assert np.all(np.diff(rgb @ [0.2126, 0.7152, 0.0722]) > 0.02)


def test_a_notebook_displays_a_figure_by_itself() -> None:
    figure = plots.curves(synthetic.theory(), size=(4, 3))
    content = figure._repr_png_()
    assert content.startswith(HEADS["png"])
    assert png_size(content) == (4 * figure.dpi, 3 * figure.dpi)


@pytest.mark.thorough
@pytest.mark.parametrize("suffix", style.FORMATS)
def test_the_name_of_a_file_says_its_format(tmp_path: Path, suffix: str) -> None:
    figure = plots.spectrum(synthetic.spectrum())
    written = [plots.save_figure(figure, tmp_path / f"{name}.{suffix}", dpi=50).read_bytes() for name in ("a", "b")]
    assert written[0].startswith(HEADS[suffix]) and written[0].rstrip().endswith(TAILS[suffix])
    assert written[0] == written[1]  # nothing in it depends on when or where it was written
    assert plots.save_figure(figure, str(tmp_path / f"c.{suffix.upper()}")).read_bytes().startswith(HEADS[suffix])


def test_size_and_resolution_of_a_file(tmp_path: Path) -> None:
    figure = plots.curves(synthetic.theory(), size=(np.float64(5), 4))
    assert png_size(plots.save_figure(figure, tmp_path / "a.png", dpi=50).read_bytes()) == (250, 200)


def test_home_folders_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert plots.save_figure(plots.curves(synthetic.theory()), "~/a.svg", dpi=50) == tmp_path / "a.svg"
    assert (tmp_path / "a.svg").is_file()


def test_figures_are_free_of_global_state_and_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(mpl.rcParams)
    figure = plots.curves(synthetic.theory())
    plots.save_figure(figure, tmp_path / "a.png", dpi=50)
    assert dict(mpl.rcParams) == before
    assert not _pylab_helpers.Gcf.figs
    with pytest.raises(OSError, match="nowhere"):
        plots.save_figure(figure, tmp_path / "nowhere" / "a.png", dpi=50)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    whole = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(figure, "savefig", stop)
    with pytest.raises(KeyboardInterrupt):
        plots.save_figure(figure, tmp_path / "a.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"] and (tmp_path / "a.png").read_bytes() == whole


@pytest.mark.parametrize("name", ["talk.jpg", "talk", "talk.nc", ".png"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"path: .*; allowed: a name that ends in \.png, \.pdf or \.svg"):
        plots.save_figure(plots.new_figure(3, 2), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dpi", [0, -1, 1e6, float("nan"), "fine"])
def test_bad_resolutions_are_refused(tmp_path: Path, dpi: Any) -> None:
    with pytest.raises(InputError, match="dpi: .*; allowed: 10 to 2400"):
        plots.save_figure(plots.new_figure(3, 2), tmp_path / "a.png", dpi=dpi)


@pytest.mark.parametrize("size", [(0, 4), (4,), (4, 5, 6), (float("nan"), 4), (4, 1000), ("wide", 4), 4])
def test_bad_sizes_are_refused(size: Any) -> None:
    with pytest.raises(InputError, match=r"size: .*; allowed: \(width, height\) in inches, each 1 to 60"):
        plots.curves(synthetic.theory(), size=size)


def test_names_of_classes() -> None:
    assert style.class_labels(2, None) == ["class 0", "class 1"]
    assert style.class_labels(2, ("a", "b")) == ["a", "b"]
    for names, count in ((("a",), 1), ("ab", 1), (("a", "b", "c"), 3)):
        with pytest.raises(InputError, match=f"class_names: {count} names; allowed: 2, one a class"):
            style.class_labels(2, names)
    named = xr.Dataset(coords={"class": ["shirt", "bag"]})
    assert style.labels_of(named, None) == ["shirt", "bag"]
    assert style.labels_of(named, ("a", "b")) == ["a", "b"]
    assert style.labels_of(xr.Dataset(coords={"class": [0, 1]}), None) == ["class 0", "class 1"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("t", r"diffusion time $t$"),
        ("weight_0", r"class fraction $\pi$ of class 0"),
        ("loss_weight_1", r"loss weight $\omega$ of class 1"),
        ("samples_0", r"samples $n/d$ of class 0"),
        ("variance_12", r"variance $\sigma^2$ of class 12"),
        ("centroid_norm_1", r"squared centroid norm $\|\mu\|^2/d$ of class 1"),
        ("problem", "problem"),
    ],
)
def test_labels_of_parameters(name: str, label: str) -> None:
    assert style.parameter_label(name) == label


def test_results_of_another_kind_are_refused() -> None:
    with pytest.raises(InputError, match="result: a list; allowed: a result of rfdiff, or the dataset that its file holds"):
        plots.generation([1, 2])  # type: ignore[arg-type]
    empty = xr.Dataset()
    draw: Any
    for draw, missing in (
        (plots.generation, "counts, .*; allowed: a result of generation"),
        (plots.image_run, "mean_loss, gap, time; allowed: an evaluated run of a U-Net"),
        (plots.image_samples, "grid; allowed: an evaluated run of a U-Net with samples"),
        (plots.return_probability, "return_probability, speciation_time; allowed: a result of speciation"),
        (plots.trajectories, "path, path_class, speciation_time; allowed: a result of speciation with trajectories"),
        (lambda result: plots.sweep_times(result, "t"), "axes; allowed: a collected sweep"),
        (lambda result: plots.sweep_curves(result, "t"), "axes; allowed: a collected sweep"),
    ):
        with pytest.raises(InputError, match=f"result: holds no {missing}"):
            draw(empty)


@pytest.mark.parametrize(("top", "labels"), [(1.5, {"1", "0.5", "0.3", "0.2"}), (500.0, {"0.1", "1", "10", "100"})])
def test_logarithmic_ticks_are_plain_numbers(top: float, labels: set[str]) -> None:
    figure = plots.new_figure(4, 3)
    panel = figure.subplots()
    panel.plot([1, 2], [0.15, top])
    style.plain_log_ticks(panel.yaxis)
    figure.draw_without_rendering()
    shown = {text.get_text() for text in [*panel.yaxis.get_majorticklabels(), *panel.yaxis.get_minorticklabels()] if text.get_text()}
    low, high = panel.get_ylim()
    assert {text for text in shown if low <= float(text) <= high} == labels
