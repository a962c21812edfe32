"""At equal fractions the class of higher variance generalises first, at every diffusion time; whether it is also memorised first depends
on t and on the definition of memorised.

Two classes with σ²_0/σ²_1 = r at σ²_0 σ²_1 = 1, and three classes with variances √r, 1, 1/√r, all isotropic and centred. Memorised: half of
the class's own final gap. By a gap of one size for all classes (τ_gap) the class of higher variance is memorised first at every t.
"""

import sys

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import harness
from experiments.harness import Criterion
from experiments.limits import Comparison, agreement, compare, points, rejection, same_order, variables, with_error
from experiments.readings import GAP, GEN, LABELS, MEM, ROWS, isotropic, log_ratio, predicted, simulated
from rfdiff.plots import class_colors

# panels with networks: name -> classes, diffusion time, dimension (n = 4 d is a multiple of K, and so at d/2)
CASES = {"K = 2, t = 0.1": (2, 0.1, 40), "K = 3, t = 0.1": (3, 0.1, 36), "K = 2, t = 0.3": (2, 0.3, 40)}
SMOKE_SIZE = 40  # of the first case, the only one
EXCHANGED = "a theory with the classes exchanged"
LAST_AT = (0.3, 0.01)  # diffusion times at which the class of higher variance is memorised last


def variances(k: int, ratio: float) -> list[float]:
    return [ratio**0.5, ratio**-0.5] if k == 2 else [ratio**0.5, 1.0, ratio**-0.5]


def compute(smoke: bool, cells: harness.Cells) -> xr.Dataset:
    ratios = [float(r) for r in (1, 2, 4, 8)] if smoke else [float(r) for r in np.geomspace(1, 8, 13)]
    shown, seeds = ([8.0], 14) if smoke else ([2.0, 4.0, 8.0], 14)
    times_t = [0.1, 0.01] if smoke else [0.3, 0.1, 0.03, 0.01]
    cases = dict(list(CASES.items())[:1]) if smoke else CASES
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name, (k, t, size) in cases.items():
        d = SMOKE_SIZE if smoke else size
        rest = ("reading", f"class{k}")
        theory = cells(f"theory, {name}", predicted, [isotropic([1 / k] * k, variances(k, r), t=t) for r in ratios])
        ask = [isotropic([1 / k] * k, variances(k, r), t=t) | {"d": d, "seeds": seeds} for r in shown]
        found[f"{name}, theory"] = (("ratio", *rest), harness.stack(theory, "value"))
        # networks of different sizes: the axis of the networks is one for all cases
        found |= variables(cells(f"networks, {name}", simulated, ask), name, {"shown": len(shown)}, rest)
        found[f"{name}, d"] = ((), np.asarray(d))
    by_t = cells("theory against t", predicted, [isotropic([0.5, 0.5], variances(2, r), t=t) for t in times_t for r in ratios])
    found["theory_t"] = (("t", "ratio", "reading", "class2"), harness.stack(by_t, "value", (len(times_t), len(ratios))))
    axes = {"ratio": ratios, "shown": shown, "t": times_t, "reading": list(ROWS)}
    return xr.Dataset(found, axes, {"seeds": seeds, "psi_p": 8.0, "psi_n": 4.0, "activation": "tanh"})


def _cases(data: xr.Dataset) -> list[str]:
    return [name for name in CASES if f"{name}, d" in data]


def _comparisons(data: xr.Dataset, name: str, row: int) -> tuple[Comparison, Comparison]:
    """Log times of each class, and log ratios of the first to the last class."""
    at = data[f"{name}, theory"].sel(ratio=data["shown"].values, method="nearest").values[:, row]
    d = int(data[f"{name}, d"])
    return (
        compare(data, name, np.log(at), lambda values: np.log(values[..., row, :]), d),
        compare(data, name, log_ratio(at), lambda values: log_ratio(values[..., row, :]), d),
    )


def criteria(data: xr.Dataset) -> list[Criterion]:
    unequal = data["ratio"].values > 1
    judged, by_time, leads, both = [], [], [], []
    for row, what in ((GEN, "τ_gen"), (MEM, "τ_mem")):
        for last in (False, True):
            names = [name for name in _cases(data) if (row == MEM and CASES[name][1] in LAST_AT) == last]
            if names:
                sign = -1 if last else 1
                leads_of = [sign * np.diff(data[f"{name}, theory"].values[unequal][:, row], axis=-1) for name in names]
                steps = min(float(lead.min()) for lead in leads_of)
                order = "last" if last else "first"
                text = f"theory, {'; '.join(names)}: class of higher variance {order} by {what}, least difference of two times"
                judged.append(Criterion(text, f"{steps:+.3f}", "> 0", steps > 0))
    for t in (t for t in data["t"].values if t in LAST_AT):
        later = float(log_ratio(data["theory_t"].sel(t=t).values[unequal][:, MEM]).min())
        judged.append(
            Criterion(f"theory, K = 2, t = {t:g}: log(τ_0/τ_1) by τ_mem, higher variance last", f"{later:+.3f}", "> 0", later > 0)
        )
    first = float(log_ratio(data["theory_t"].values[:, unequal, GAP]).max())
    judged.append(Criterion("theory, K = 2, every t: log(τ_0/τ_1) by τ_gap, higher variance first", f"{first:+.3f}", "< 0", first < 0))
    for name in _cases(data):
        for row in (GEN, MEM, GAP):
            each, lead = _comparisons(data, name, row)
            by_time.append(each)
            leads.append(lead)
            both += [(each, each.theory[:, ::-1])] * (row != GAP)
    names = "τ_gen, τ_mem, τ_gap"
    return [*judged, agreement(names, by_time), rejection("τ_gen, τ_mem", both), same_order(names, leads)]


def table(data: xr.Dataset) -> str:
    rows = []
    for name in _cases(data):
        for j, r in enumerate(data["shown"].values):
            row = [name, f"{r:g}"]
            for reading in (GEN, MEM):
                each, _ = _comparisons(data, name, reading)
                row.append(" / ".join(f"{np.exp(v):.3g}" for v in each.theory[j]))
                row.append(" / ".join(with_error(v, e) for v, e in zip(each.seen[j], each.seen_error[j], strict=True)))
                row.append(" / ".join(with_error(v, e) for v, e in zip(each.limit[j], each.error[j], strict=True)))
            rows.append(row)
    head = ["case", "σ²_0/σ²_K-1", *(f"{s} {side}" for s in ("τ_gen", "τ_mem") for side in ("theory", "networks at d", "networks, d → ∞"))]
    first = harness.markdown(head, rows)
    sizes = "; ".join(f"{name}: d = {int(data[f'{name}, d'])}" for name in _cases(data))
    last = data["theory_t"].isel(ratio=-1).values
    head = ["t", f"τ_gen,0/τ_gen,1 at ratio {data['ratio'].values[-1]:g}", "τ_mem,0/τ_mem,1", "τ_gap,0/τ_gap,1"]
    ratios = np.exp(log_ratio(last))[:, [GEN, MEM, GAP]]
    second = [[f"{t:g}", *(f"{v:.3f}" for v in row)] for t, row in zip(data["t"].values, ratios, strict=True)]
    return f"{first}\n\n{sizes}; {data.attrs['seeds']} networks per point, twice as many at d/2.\n\n{harness.markdown(head, second)}"


def draw(data: xr.Dataset) -> Figure:
    figure = Figure(figsize=(11.5, 7.6), layout="constrained")
    panels = figure.subplots(2, 3)
    for panel, name in zip(panels.ravel(), _cases(data), strict=False):
        k = CASES[name][0]
        for row, style, marker in ((GEN, "-", "o"), (MEM, "--", "s")):
            each, _ = _comparisons(data, name, row)
            for c, color in enumerate(class_colors(k)):
                panel.plot(data["ratio"], data[f"{name}, theory"].values[:, row, c], style, color=color)
                points(panel, data["shown"].values, each, (slice(None), c), marker, color)
        panel.set(xscale="log", yscale="log", ylabel=r"training time $\tau$")
        panel.set_title(f"{name}; d = {int(data[f'{name}, d'])}", fontsize=10)
    titles = {GEN: r"$1-1/e$ of the class's own descent", MEM: "half of the class's own final gap", GAP: "a gap of one size for both"}
    for panel, (row, title) in zip(panels[1], titles.items(), strict=True):
        label = LABELS[ROWS[row]].strip("$")
        for t, color, style in zip(data["t"].values, class_colors(len(data["t"])), ("-", "--", "-.", ":"), strict=False):
            panel.plot(data["ratio"], np.exp(log_ratio(data["theory_t"].sel(t=t).values[:, row])), style, color=color, label=f"t = {t:g}")
            for name in _cases(data):
                if CASES[name][:2] == (2, t):
                    points(panel, data["shown"].values, _comparisons(data, name, row)[1], slice(None), "o", color)
        panel.axhline(1, color="0.5", linewidth=0.8)
        panel.set(xscale="log", yscale="log", ylabel=f"${label}$ of class 0 over class 1")
        panel.set_title(f"K = 2, ${label}$: {title}", fontsize=10)
        ticks = [v for v in (0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1, 1.2, 1.5, 2) if panel.get_ylim()[0] <= v <= panel.get_ylim()[1]]
        panel.set_yticks(ticks, [f"{v:g}" for v in ticks])
    panels[1, 0].legend(fontsize=8, loc="lower left")
    for panel in panels.ravel():
        panel.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        panel.xaxis.minorticks_off()
        panel.set_xlabel(r"$\sigma^2_0\,/\,\sigma^2_{K-1}$")
    for panel in panels[1]:
        panel.yaxis.minorticks_off()
    handles = [Line2D([], [], color=color, linewidth=3, label=f"class {c}") for c, color in enumerate(class_colors(3))]
    handles += [Line2D([], [], color="0.3", linestyle=s, marker=m, label=LABELS[name])
                for s, m, name in (("-", "o", "tau_gen"), ("--", "s", "tau_mem"))]  # fmt: skip
    handles += [Line2D([], [], color="0.3", marker="o", linestyle="", markerfacecolor=face, label=label)
                for face, label in (("0.3", "networks at d"), ("none", r"networks, $d\to\infty$"))]  # fmt: skip
    panels[0, 0].legend(handles=handles, fontsize=7, loc="center left", bbox_to_anchor=(0.0, 0.5), ncols=2)
    return figure


if __name__ == "__main__":
    sys.exit(harness.main(sys.modules[__name__]))
