"""What all figures share: colours and names of the classes, marks of the times, sizes, and how a figure is shown and written."""

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import matplotlib as mpl
import xarray as xr
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from rfdiff.errors import InputError
from rfdiff.files.atomic import write_bytes
from rfdiff.labels import class_colors
from rfdiff.value_types import as_number

MARKERS = {"train_loss": "s", "test_loss": "o"}
LINE_STYLES: dict[str, Any] = {"train_loss": "--", "test_loss": "-"}
TIME_SYMBOLS = {"tau_gen": r"\tau_{\rm gen}", "tau_stop": r"\tau_{\rm stop}", "tau_mem": r"\tau_{\rm mem}", "tau_opt": r"\tau_{\rm opt}"}
TIME_MARKERS = {"tau_gen": "^", "tau_mem": "D"}
FORMATS = ("png", "pdf", "svg")
MOST_TICKED = 100.0  # ratio of the ends of a logarithmic axis up to which ticks within a decade are labelled
NO_ROOM = "constrained_layout not applied"  # how matplotlib begins to say that labels leave no room for a panel
SIZES = (1.0, 60.0)  # inches, least and most of a side
RESOLUTIONS = (10, 2400)
# Text stays text in PDF, and no drawing holds the time at which it was written: the same figure gives the same file.
FILE_SETTINGS: Mapping[Any, Any] = {"pdf.fonttype": 42, "svg.hashsalt": "rfdiff"}
UNDATED: dict[str, dict[str, None]] = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}


class HasDataset(Protocol):
    """A result that can be written as labelled arrays."""

    def to_xarray(self) -> xr.Dataset:
        """Its arrays with named axes."""
        ...


LabelledResult: TypeAlias = HasDataset | xr.Dataset


class NotebookFigure(Figure):
    """A matplotlib figure that a notebook displays by itself: no pyplot, no backend to choose, no global list of open figures."""

    def _repr_png_(self) -> bytes:
        return _drawn(self, "png", self.dpi)

    def renderer(self) -> RendererAgg:
        """What measures text and lines before they are drawn."""
        return FigureCanvasAgg(self).get_renderer()


def new_figure(width: float, height: float, size: tuple[float, float] | None = None) -> NotebookFigure:
    """An empty figure.

    Args:
        width, height: default size in inches.
        size: the size that the caller of a figure asked for, or None.

    Raises:
        InputError: a size that is not two lengths of 1 to 60 inches.
    """
    if size is not None:
        lengths = [as_number(length) for length in size] if isinstance(size, Sequence) else []
        if len(lengths) != 2 or not all(SIZES[0] <= length <= SIZES[1] for length in lengths):
            raise InputError(f"size: {size!r}; allowed: (width, height) in inches, each {SIZES[0]:g} to {SIZES[1]:g}")
        width, height = lengths
    return NotebookFigure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 160) -> Path:
    """Write a figure in the format that its name ends in: .png, .pdf or .svg. The file is written whole or not at all.

    Args:
        figure: what the functions of `rfdiff.plots` return, or any matplotlib figure.
        path: file to write; `~` is the home folder. An existing file is replaced.
        dpi: dots per inch of a PNG, and of the few parts of a PDF or SVG that are images.

    Returns:
        The path that was written.

    Raises:
        InputError: another ending, or a dpi outside 10 to 2400.
        OSError: the file cannot be written.
    """
    path = Path(path).expanduser()
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise InputError(f"path: {str(path)!r}; allowed: a name that ends in .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}")
    if not RESOLUTIONS[0] <= as_number(dpi) <= RESOLUTIONS[1]:
        raise InputError(f"dpi: {dpi!r}; allowed: {RESOLUTIONS[0]} to {RESOLUTIONS[1]}")
    content = _drawn(figure, suffix, dpi)
    return write_bytes(path, content)


def svg_of(figure: Figure) -> bytes:
    """A figure as the content of an SVG file."""
    return _drawn(figure, "svg", 160)


def class_labels(num_classes: int, class_names: Sequence[str] | None) -> list[str]:
    """The given names of the classes, or "class 0", "class 1", ….

    Raises:
        InputError: not one name a class.
    """
    if class_names is None:
        return [f"class {c}" for c in range(num_classes)]
    if isinstance(class_names, str) or len(class_names) != num_classes:
        count = 1 if isinstance(class_names, str) else len(class_names)
        raise InputError(f"class_names: {count} names; allowed: {num_classes}, one a class")
    names = [str(name) for name in class_names]
    if fault := fault_of_names(names):
        raise InputError(f"class_names: {fault}")
    return names


def fault_of_names(names: Sequence[str]) -> str:
    """What is wrong with names of classes: one that shows nothing, holds a control character, or stands twice; "" if nothing is."""
    for i, name in enumerate(names):
        if not name.strip() or not name.isprintable():
            return f"{name!r} as the name of class {i}; allowed: words of printable characters"
        if name in names[:i]:
            return f"{name!r} twice; allowed: another name for each class"
    return ""


def chosen_panels(panels: str | Sequence[str] | None, available: Sequence[str]) -> list[str]:
    """The panels to draw, in the order of the figure; all of them where None is asked for.

    Raises:
        InputError: an unknown name, or none.
    """
    if panels is None:
        return list(available)
    asked = [panels] if isinstance(panels, str) else list(panels)
    if not asked or not set(asked) <= set(available):
        raise InputError(f"panels: {', '.join(map(str, asked)) or 'none'}; allowed: some of {', '.join(available)}")
    return [name for name in available if name in asked]


def class_handles(labels: Sequence[str], *, linewidth: float = 1.5, marker: str = "") -> list[Line2D]:
    """Legend entries of the classes: a line of each one's colour."""
    colors = class_colors(len(labels))
    return [Line2D([], [], color=c, label=label, linewidth=linewidth, marker=marker) for c, label in zip(colors, labels, strict=True)]


def time_handles(*, markersize: float = 7, linestyle: Literal["", ":"] = "") -> list[Line2D]:
    """Legend entries of the marks of τ_gen and τ_mem."""
    options: dict[str, Any] = {"color": "0.6", "linestyle": linestyle, "markeredgecolor": "black", "markersize": markersize}
    return [Line2D([], [], marker=marker, label=f"${TIME_SYMBOLS[time]}$", **options) for time, marker in TIME_MARKERS.items()]


def legend_below(figure: NotebookFigure, handles: Sequence[Any], columns: int = 5) -> None:
    """A legend under the panels, where it covers no data, in at most so many columns as fit into the width of the figure."""
    if not handles:
        return
    for count in range(min(len(handles), columns), 0, -1):
        legend = figure.legend(handles=list(handles), loc="outside lower center", ncols=count, frameon=False)
        if count == 1 or legend.get_window_extent(figure.renderer()).width <= figure.bbox.width:
            return
        legend.remove()


def plain_log_ticks(axis: Axis) -> None:
    """Ticks of a logarithmic axis as plain numbers: 1, 2, 3, 5 of each decade, the decades alone where there are more than two."""
    panel = axis.axes
    (panel.set_xscale if axis is panel.xaxis else panel.set_yscale)("log", subs=(2, 3, 5))

    def minor(value: float, _: int | None = None) -> str:
        low, high = axis.get_view_interval()
        return f"{value:g}" if high < MOST_TICKED * low else ""

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(minor))


def _drawn(figure: Figure, suffix: str, dpi: float) -> bytes:
    """The figure as the content of a file; one that is too small for its labels is laid out without regard to them."""
    content = io.BytesIO()
    with mpl.rc_context(dict(FILE_SETTINGS)), warnings.catch_warnings():
        warnings.filterwarnings("error", message=NO_ROOM)
        try:
            figure.savefig(content, format=suffix, dpi=dpi, metadata=UNDATED[suffix])
        except UserWarning:
            figure.set_layout_engine("none")
            content = io.BytesIO()
            figure.savefig(content, format=suffix, dpi=dpi, metadata=UNDATED[suffix])
    return content.getvalue()


def is_crowded(figure: Figure) -> bool:
    """Whether a figure that was drawn is too small for its labels, so that they overlap."""
    return isinstance(figure.get_layout_engine(), PlaceHolderLayoutEngine)


def parameter_label(name: str) -> str:
    """Axis label of a number of a problem, by its name in `rfdiff.parameters`."""
    labels = {
        "t": r"diffusion time $t$",
        "psi_p": r"$\psi_p = p/d$",
        "psi_n": r"$\psi_n = n/d$",
        "variance_ratio": r"$\sigma_0^2/\sigma_1^2$ at fixed $\sigma_1^2$",
    }
    symbols = {
        "weight": r"class fraction $\pi",
        "samples": r"samples $n/d",
        "loss_weight": r"loss weight $\omega",
        "variance": r"variance $\sigma^2",
        "centroid_norm": r"squared centroid norm $\|\mu\|^2/d",
    }
    kind, _, c = name.rpartition("_")
    return labels.get(name, f"{symbols[kind]}$ of class {c}" if kind in symbols else name)


def dataset_of(result: LabelledResult) -> xr.Dataset:
    """The labelled arrays of a result, or of its file.

    Raises:
        InputError: neither a dataset nor a result with `to_xarray`.
    """
    dataset = result if isinstance(result, xr.Dataset) or not hasattr(result, "to_xarray") else result.to_xarray()
    if not isinstance(dataset, xr.Dataset):
        raise InputError(f"result: a {type(result).__name__}; allowed: a result of rfdiff, or the dataset that its file holds")
    return dataset


def require_variables(dataset: xr.Dataset, names: Sequence[str], what: str) -> None:
    """Refuse a dataset of another kind.

    Raises:
        InputError: a variable or attribute is missing.
    """
    missing = [name for name in names if name not in dataset and name not in dataset.attrs]
    if missing:
        raise InputError(f"result: holds no {', '.join(missing)}; allowed: {what}")


def labels_of(dataset: xr.Dataset, class_names: Sequence[str] | None) -> list[str]:
    """Names of the classes: the given ones, those of the dataset where it has names, or "class 0", "class 1", ….

    Raises:
        InputError: not one name a class.
    """
    if class_names is None and "class" in dataset.coords and dataset["class"].dtype.kind in "UOT":
        class_names = [str(name) for name in dataset["class"].values]
    return class_labels(dataset.sizes["class"], class_names)
