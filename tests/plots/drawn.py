"""What a figure shows, read back from it."""

from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def xs(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_xdata())


def ys(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata())


def colour(line: Line2D) -> str:
    return to_hex(cast(Any, line.get_color()))


def lines(panel: Axes, style: str, color: str) -> list[Line2D]:
    return [line for line in panel.lines if line.get_linestyle() == style and colour(line) == color.lower()]


def marks(panel: Axes, marker: str) -> list[Line2D]:
    return [line for line in panel.lines if line.get_marker() == marker]


def legend(figure: Figure) -> set[str]:
    """Labels of all legends of a figure."""
    return {text.get_text() for item in figure.legends for text in item.get_texts()}


def breaks(panel: Axes) -> list[Line2D]:
    """Strokes through the horizontal axis."""
    return [line for line in panel.lines if line.get_transform() == panel.get_xaxis_transform()]


def legend_is_clear(figure: Figure) -> bool:
    """Whether the legend lies within the figure and covers no panel."""
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    inside = figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and figure.bbox.y0 <= box.y0
    return inside and not any(box.overlaps(panel.get_window_extent()) for panel in figure.axes)
