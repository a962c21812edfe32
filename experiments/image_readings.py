"""What the results of U-Nets say: which class is memorised first, orders of the times of classes, the table, the figure.

A class counts as memorised at the step at which half of its samples are: read from the memorised fractions of the checkpoints, linear in
the logarithm of the step between them; its interval from the ends of their bootstrap intervals.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from experiments import harness
from experiments.images import HALF, RULES, THEORY_RATIO, THEORY_TIME
from rfdiff.plots import class_colors

READ = ("tau_gen", "tau_mem")
# Least ratio of two classes' times that counts as an order: measured steps are a factor 10^(1/8) = 1.33 apart, read between.
RESOLVED = 1.15


def level_of(data: xr.Dataset) -> int:
    """Index of the measured t nearest to that of the theory, on the scale of log t."""
    return int(np.argmin(abs(np.log(data["t"].values / THEORY_TIME))))


def log_ratio(data: xr.Dataset, reading: str, a: int, b: int, level: int | None = None) -> np.ndarray:
    """log of the ratio of two classes' times at a measured t, None for that of the theory, (case, seed); NaN where one does not exist."""
    at = data["time_at"].sel(curve_reading=reading).isel(log_snr=level_of(data) if level is None else level).values
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.log(at[..., a] / at[..., b])
    return np.where(np.isfinite(ratio), ratio, np.nan)


def orders(data: xr.Dataset, reading: str, level: int | None = None) -> tuple[int, int]:
    """Pairs of classes whose order is resolved (the same in all seeds, by a factor `RESOLVED` on average), and those as in theory.

    At a measured t with the theory of that t; None for the one nearest to the theory's own time.
    """
    resolved = right = 0
    own = data["predicted"] if level is None else data["predicted_at"].isel(log_snr=level)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.log(own.sel(predicted_reading=reading).mean("seed").values)
    for a, b in itertools.combinations(range(data.sizes["class"]), 2):
        for ratios, theirs in zip(log_ratio(data, reading, a, b, level), expected[:, a] - expected[:, b], strict=True):
            if np.isfinite([*ratios, theirs]).all() and abs(ratios.mean()) > np.log(RESOLVED) and len(set(np.sign(ratios))) == 1:
                resolved += 1
                right += int(np.sign(ratios.mean()) == np.sign(theirs))
    return resolved, right


def orders_at_each_t(data: xr.Dataset, reading: str) -> tuple[int, int]:
    """`orders`, counted over the measured t at which there is a theory."""
    counts = [orders(data, reading, level) for level in range(data.sizes["log_snr"])]
    return sum(resolved for resolved, _ in counts), sum(right for _, right in counts)


def at_end(data: xr.Dataset, name: str) -> np.ndarray:
    """A variable at the last step, or checkpoint, of each run: (case, seed, class, …)."""
    axis = "step" if "step" in data[name].dims else "checkpoint"
    values = data[name].transpose("case", "seed", axis, ...).values
    if "last_step" not in data:
        return values[:, :, -1]
    places = np.minimum(np.searchsorted(data[axis].values, data["last_step"].values), len(data[axis]) - 1)  # a missing run: NaN
    return np.take_along_axis(values, places.reshape(*places.shape, 1, *(1,) * (values.ndim - 3)), 2)[:, :, 0]


def half_memorised(data: xr.Dataset, fraction: str = "memorised") -> np.ndarray:
    """Step at which half of a class's samples are memorised (case, seed, class); inf where the run ended before.

    Args:
        fraction: "memorised", or "high" and "low" for the earliest and the latest step that their intervals allow.
    """
    steps = np.log(data["checkpoint"].values)
    values = np.nan_to_num(data[fraction].transpose("case", "seed", "class", "checkpoint").values)

    def crossing(row: np.ndarray) -> float:
        above = np.flatnonzero(row >= HALF)
        if not len(above):
            return np.inf
        i = above[0]
        return float(np.exp(steps[0] if i == 0 else np.interp(HALF, row[i - 1 : i + 1], steps[i - 1 : i + 1])))

    return np.apply_along_axis(crossing, -1, values)


def memorised_first(data: xr.Dataset, a: int, b: int) -> np.ndarray:
    """Steps to half of class a over those of class b (case, seed).

    Where only one came so far, a bound: by the last step in place of the other's. NaN where neither did.
    """
    half, last = half_memorised(data), data["last_step"].values
    one, other = (np.where(np.isfinite(half[..., c]), half[..., c], last) for c in (a, b))
    return np.where(np.isfinite(half[..., [a, b]]).any(-1), one / other, np.nan)


def lead(data: xr.Dataset, name: str, a: int, b: int) -> np.ndarray:
    """A variable of class a minus that of class b at the end of each run (case, seed)."""
    values = at_end(data, name)
    return values[..., a] - values[..., b]


def judged(name: str, value: float, spec: str, allowed: str, holds: bool) -> harness.Criterion:
    """A criterion on a number; not decided where it is NaN: a time that no run reached, or a run that is missing."""
    known = not np.isnan(value)
    return harness.Criterion(name, f"{value:{spec}}" if known else "not known", allowed, bool(holds) if known else None)


def learned(data: xr.Dataset) -> harness.Criterion:
    """Whether every class was learned at all."""
    held_out = data["mean_loss"].sel(set="held_out")
    fall = float((1 - held_out.min("step") / held_out.isel(step=0)).min())  # of the runs there are
    least = 0.02 if data.attrs["form"] == "smoke" else 0.5
    return judged("fall of the held-out loss of every class", fall, ".0%", f"> {least:.0%}", fall > least)


def table(data: xr.Dataset) -> str:
    """A line a case and class: the numbers of the law, times in theory and in steps, and what the last checkpoint generates."""
    end = {name: at_end(data, name) for name in ("gap", "fraction", "memorised", "low", "high", "frechet", "floor")}
    timed = "last_step" in data
    distance, floor = (at_end(data, name) if timed else end[other] for name, other in (("energy", "frechet"), ("energy_floor", "floor")))
    half, earliest, latest = (half_memorised(data, fraction) for fraction in ("memorised", "high", "low"))
    heads = ["images", "class", "variance", "centroid norm²/d", "theory τ_gen", "theory τ_mem", "τ_gen, steps", "τ_mem, steps"]
    heads += [
        "half memorised, steps (95 %)" if timed else "half memorised, steps",
        "last gap",
        "share of samples",
        "memorised (95 %)",
        "energy distance" if timed else "Fréchet distance",
    ]
    rows, means = [], data[["count", "variance", "centroid_norm", "predicted"]].mean("seed")
    for i, k in np.ndindex(data.sizes["case"], data.sizes["class"]):
        at = means.isel({"case": i, "class": k})
        line = [
            f"{int(at['count'])}",
            str(data["classes"].values[i, k]),
            f"{float(at['variance']):.3f}",
            f"{float(at['centroid_norm']):.3f}",
        ]
        line += [f"{value:.4g}" for value in at["predicted"].values]
        line += [", ".join(f"{value:.4g}" for value in data["time"].sel(reading=name).values[i, :, k]) for name in READ]
        spans = zip(half[i, :, k], earliest[i, :, k], latest[i, :, k], strict=True)
        line.append(", ".join(f"{value:.4g} ({low:.4g}-{high:.4g})" if timed else f"{value:.4g}" for value, low, high in spans))
        line += [", ".join(f"{value:{spec}}" for value in end[name][i, :, k]) for name, spec in (("gap", ".3f"), ("fraction", ".0%"))]
        ends = (end[name][i, :, k] for name in ("memorised", "low", "high"))
        line.append(", ".join(f"{value:.0%} ({low:.0%}-{high:.0%})" for value, low, high in zip(*ends, strict=True)))
        pairs = zip(distance[i, :, k], floor[i, :, k], strict=True)
        rows.append([*line, ", ".join(f"{value:.3g} ({real:.2g})" for value, real in pairs)])
    text = f"{_sizes(data)}\n\n{harness.markdown(heads, rows)}"
    return text if "of_batches" not in data else f"{text}\n\n{_of_batches(data)}"


def _of_batches(data: xr.Dataset) -> str:
    """What batches change in theory, as a table."""
    names = data["classes"].values[0]
    heads = ["rule", *(f"{reading}, {name}" for reading in ("τ_gen", "τ_mem") for name in names)]
    rows = [[rule, *(f"{value:.3g}" for value in read.ravel())] for rule, read in zip(RULES, data["of_batches"].values, strict=True)]
    batch = data.attrs["form_batch"]
    text = f"Theory of batches of {batch}, t = {THEORY_TIME}, for centred isotropic classes with the variances of the images:"
    return f"{text}\n\n{harness.markdown(heads, rows)}"


def _sizes(data: xr.Dataset) -> str:
    """What was run, and what the theory is."""
    size = data.attrs
    text = f"{size['images']}, form {size['form']}: {size['form_side']} × {size['form_side']} pixels, width {size['form_width']}, "
    seeds = f"{data.sizes['seed']} seeds (numbers: one per seed)" if data.sizes["seed"] > 1 else "one seed"
    steps = f"{size['form_steps']} steps"
    if "last_step" in data:
        last, minutes = (data[name].values[data["ran"].values] for name in ("last_step", "minutes"))
        last = last.astype(int)
        steps = f"{_range(last, 'd')} steps ({_range(minutes, '.1f')} minutes of processor time)"
    text += f"{steps} of {size['form_batch']} images, {seeds}. "
    text += f"Accuracy of the classifier on the test images: {float(data['accuracy'].min()):.1%} or better. Distances: of the samples of "
    text += f"a class from real images, in brackets of other real images. Theory: tanh, t = {THEORY_TIME}, ψ_p = {THEORY_RATIO:g}, "
    text += "ψ_n = images/pixels, the law fitted to the training images, in its own unit of time, the mean over the seeds it is known for."
    if "predicted_at" in data and np.isfinite(data["predicted_at"].values).any():
        for reading, name in (("tau_gen", "τ_gen"), ("tau_mem", "τ_mem")):
            resolved, right = orders_at_each_t(data, reading)
            text += f" Orders of {name} that the seeds resolve at the measured t of the theory: {resolved}, as in theory: {right}."
    return text


def _range(values: np.ndarray, spec: str) -> str:
    """Least to greatest value, once where they agree."""
    return " to ".join(dict.fromkeys(f"{value:{spec}}" for value in (values.min(), values.max())))


def draw(data: xr.Dataset, title: str) -> Figure:
    """A column a case: losses, gap, Fréchet distance and memorised fraction of each class against steps; thin lines are seeds."""
    count = data.sizes["case"]
    figure = Figure(figsize=(3.6 * count + 1, 9), layout="constrained")
    panels = figure.subplots(4, count, squeeze=False, sharex="row", sharey="row")  # evaluations begin late
    colors = class_colors(data.sizes["class"])
    for i, s, k in np.ndindex(count, data.sizes["seed"], data.sizes["class"]):
        _draw_run(list(panels[:, i]), data.isel({"case": i, "seed": s, "class": k}), colors[k])
    for i in range(count):
        parts = [f"{n} {name}" for n, name in zip(data["count"].values[i], data["classes"].values[i], strict=True)]
        panels[0, i].set(title="\n".join(", ".join(parts[k : k + 2]) for k in range(0, len(parts), 2)))
        panels[0, i].set(yscale="log")
        for row, panel in enumerate(panels[:, i]):
            panel.set(xscale="log")
            if row >= 2:  # about one decade
                panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                panel.xaxis.set_major_formatter(ScalarFormatter())
                panel.xaxis.set_minor_formatter(NullFormatter())
        panels[3, i].set(xlabel="training step", ylim=(-0.03, 1.03))
    distance = "energy" if "energy" in data else "frechet"
    if distance == "energy":
        panels[2, 0].set(yscale="symlog")  # without bias, so below 0 too
    elif bool((data["frechet"] > 0).any()):
        panels[2, 0].set(yscale="log")
    for panel, text in zip(
        panels[:, 0],
        (
            "loss per coordinate",
            "held-out − train loss",
            "energy distance" if distance == "energy" else "Fréchet distance",
            "memorised fraction",
        ),
        strict=True,
    ):
        panel.set(ylabel=text)
    names = list(dict.fromkeys(data["classes"].values[0]))
    handles: list[Any] = [Line2D([], [], color=color, label=str(name)) for name, color in zip(names, colors, strict=True)]
    handles += [Line2D([], [], color="0.3", label="held out"), Line2D([], [], color="0.3", linestyle="--", label="train")]
    handles.append(Line2D([], [], color="0.3", linestyle=":", label="halves of the real test images"))
    handles += [
        Line2D([], [], color="0.3", linestyle="", marker=m, label=text) for m, text in (("^", r"$\tau_{gen}$"), ("D", r"$\tau_{mem}$"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, 2 * count), frameon=False)
    figure.suptitle(title)
    return figure


def _draw_run(panels: Sequence[Axes], at: xr.Dataset, color: Any) -> None:
    steps, checkpoints = at["step"].values, at["checkpoint"].values
    train_loss, test = at["mean_loss"].values[:, 0], at["mean_loss"].values[:, 1]
    if not np.isfinite(test).any():  # a run that is missing
        return
    panels[0].plot(steps[1:], test[1:], color=color, linewidth=0.9)
    panels[0].plot(steps[1:], train_loss[1:], "--", color=color, linewidth=0.9)
    for reading, marker in (("tau_gen", "^"), ("tau_mem", "D")):
        place = float(at["time"].sel(reading=reading))
        if np.isfinite(place) and place > 0:
            panels[0].plot(place, np.interp(place, steps, test), marker, color=color, markeredgecolor="black", markersize=6)
    panels[1].plot(steps[1:], at["gap"].values[1:], color=color, linewidth=0.9)
    distance, floor = ("energy", "energy_floor") if "energy" in at else ("frechet", "floor")
    panels[2].plot(checkpoints, at[distance].values, ".-", color=color, linewidth=0.9)  # some points have no neighbour
    panels[2].plot(checkpoints, at[floor].values, ":", color=color, linewidth=0.9)
    panels[3].plot(checkpoints, at["memorised"].values, color=color, linewidth=0.9)
    panels[3].fill_between(checkpoints, at["low"].values, at["high"].values, color=color, alpha=0.15, linewidth=0)
