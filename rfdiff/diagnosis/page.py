"""The diagnosis as one page of HTML that needs nothing else: no network, no script; figures are inside it."""

import base64
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
import numpy as np
import xarray as xr

from rfdiff.diagnosis.predictions import GOOD
from rfdiff.diagnosis.verdicts import (
    CONFIRMED,
    CONTRADICTED,
    REGIMES,
    UNCHECKED,
    UNRESOLVED,
    Statement,
    deviations,
    overstatement,
    plain,
    statements,
    time_ratios,
)

TEMPLATE = "page.html"
MARKS = {CONFIRMED: "✓", CONTRADICTED: "✗", UNRESOLVED: "?", UNCHECKED: "–"}
MOST_ANGLES = 12  # classes up to which the angles between their centroids are listed
SHOWN_TIMES = {"tau_gen": "learned", "tau_stop": "best stop", "tau_mem": "memorised"}


def render_page(data: xr.Dataset, figures: Mapping[str, tuple[bytes, bytes]]) -> str:
    """The page of a diagnosis.

    Args:
        data: what `diagnose` returned.
        figures: SVG images by their captions, each for wide and for narrow screens.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("rfdiff.diagnosis").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    found = statements(data)
    main = float(data["t"].values[int(data.attrs["main"])])
    values: dict[str, Any] = {
        "names": [str(name) for name in data["class"].values],
        "d": int(data.attrs["d"]),
        "setting": data.attrs,
        "main": main,
        "answers": [one for one in found if one.t == main],
        "by_time": _by_time(found),
        "marks": MARKS,
        "counts": {verdict: sum(one.verdict == verdict for one in found) for verdict in MARKS},
        "good": f"{GOOD:.0%}",
        "classes": _class_rows(data),
        "angles": _angles(data),
        "times": _time_rows(data),
        "deviations": _deviation_rows(data),
        "regimes": [name.replace("tau_", "τ_") for name in REGIMES],
        "overstatement": overstatement(data),
        "remedy": json.loads(data.attrs["remedy"]),
        "no_remedy": data.attrs["no_remedy"],
        "speciation": _speciation(data),
        "no_speciation": data.attrs["no_speciation"],
        "preparation": [(name, _short(value)) for name, value in json.loads(data.attrs["preparation"])],
        "networks": int(data.attrs["num_seeds"]),
        "p": round(float(data.attrs["psi_p"]) * int(data.attrs["d"])),
        "n": round(float(data.attrs["psi_n"]) * int(data.attrs["d"])),
        "figures": [(caption, *(base64.b64encode(image).decode() for image in images)) for caption, images in figures.items()],
        "provenance": {name: data.attrs[name] for name in ("date", "rfdiff_version", "jax_version", "system") if name in data.attrs},
    }
    return template.render(**values)


def _by_time(found: Sequence[Statement]) -> list[tuple[float, list[Statement]]]:
    return [(t, [one for one in found if one.t == t]) for t in dict.fromkeys(one.t for one in found)]


def _class_rows(data: xr.Dataset) -> list[list[str]]:
    rows = []
    for c, name in enumerate(data["class"].values):
        at = data.isel({"class": c})
        numbers = (at["fraction"], at["variance"], at["effective_dimension"], at["centroid_norm"])
        rows.append([str(name), f"{int(at['samples']):,}", *(f"{float(number):.3g}" for number in numbers)])
    return rows


def _angles(data: xr.Dataset) -> list[list[str]]:
    names = data["class"].values
    if not 2 < len(names) <= MOST_ANGLES:
        return []
    return [[str(name), *(f"{angle:.0f}°" for angle in row)] for name, row in zip(names, data["centroid_angle"].values, strict=True)]


def _time_rows(data: xr.Dataset) -> list[tuple[float, str, list[str]]]:
    """Rows (t, class, cells): times and window of theory, each with the networks' over theory's where there are networks."""
    ratios, rows = time_ratios(data), []
    for i, t in enumerate(data["t"].values):
        for c, name in enumerate(data["class"].values):
            cells = []
            for quantity in SHOWN_TIMES:
                value = float(data["time"].sel(quantity=quantity).transpose("t", "class").values[i, c])
                cells.append(_with_ratio(value, ratios, i, list(data["quantity"].values).index(quantity), c))
            first, last = data["window"].transpose("t", "class", "edge").values[i, c]
            cells.append("–" if np.isnan(first) else f"{plain(first)} to {'end' if np.isinf(last) else plain(last)}")
            rows.append((float(t), str(name), cells))
    return rows


def _with_ratio(value: float, ratios: tuple[np.ndarray, np.ndarray] | None, i: int, j: int, c: int) -> str:
    text = plain(value)
    if ratios is None or not np.isfinite(ratios[0][i, j, c]):
        return text
    error = ratios[1][i, j, c] * ratios[0][i, j, c]
    return f"{text} (× {ratios[0][i, j, c]:.2f}{f' ± {error:.2f}' if np.isfinite(error) else ''})"


def _deviation_rows(data: xr.Dataset) -> list[tuple[str, list[str]]]:
    off = deviations(data)
    if off is None:
        return []
    return [
        (str(name), [f"{100 * off[k, r, c]:+.1f} %" for k in (1, 0) for r in range(len(REGIMES))])
        for c, name in enumerate(data["class"].values)
    ]  # fmt: skip


def _speciation(data: xr.Dataset) -> list[tuple[str, str]]:
    times = data["speciation_time"].values
    return [(str(name), "–" if np.isnan(t) else f"{t:.3g}") for name, t in zip(data["class"].values, times, strict=True)]


def _short(value: str) -> str:
    """A number to six digits; other words as they are."""
    try:
        return f"{float(value):.6g}"
    except ValueError:
        return value
