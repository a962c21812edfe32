"""What a diagnosis says, in sentences, and what the networks on the data say of each: borne out, contradicted, or not resolved.

Every statement carries the deviation of theory that was measured on these data. An order of two classes counts as known only where theory
puts them further apart than that.
"""

import dataclasses
import itertools

import numpy as np
import xarray as xr
from jaxtyping import Float

from rfdiff.diagnosis.predictions import best_common_stop
from rfdiff.diagnosis.remedies import SHARED

CONFIRMED, CONTRADICTED, UNRESOLVED, UNCHECKED = "confirmed", "contradicted", "not resolved", "not checked"
CLEAR = 2.0  # standard errors
LEAST_GAP, LEAST_OFF = 0.02, 0.02  # of a loss: smaller final gaps are not compared; of a gap: smaller deviations are not told
REGIMES = ("up to tau_gen", "tau_gen to tau_mem", "after tau_mem")
LOSSES = ("train_loss", "test_loss")
VERBS = {"tau_gen": "learned", "tau_mem": "memorised"}


@dataclasses.dataclass(frozen=True)
class Statement:
    """One thing that theory says of the data at one diffusion time.

    Args:
        t: the diffusion time.
        topic: "learning", "memorisation", "window" or "bottleneck".
        text: what theory says.
        verdict: what the networks say of it: confirmed, contradicted, not resolved, not checked.
        measured: the networks' own numbers, and the deviation of theory's, in words; "" without networks.
    """

    t: float
    topic: str
    text: str
    verdict: str
    measured: str


def statements(data: xr.Dataset) -> list[Statement]:
    """Everything a diagnosis says, t by t."""
    found = []
    for i, t in enumerate(data["t"].values):
        at = data.isel(t=i)
        found += [
            _order(at, float(t), "learning", "tau_gen"),
            _order(at, float(t), "memorisation", "tau_mem"),
            _window(at, float(t)),
            _bottleneck(at, float(t)),
        ]
    return found


def deviations(data: xr.Dataset) -> Float[np.ndarray, "2 3 K"] | None:
    """Deviation of the networks' loss from theory, relative, of largest size over all t in each regime of a class; None without networks.

    First axis train and held-out loss; the regimes are bounded by theory's τ_gen and τ_mem of the class.
    """
    if "network_test_loss" not in data:
        return None
    off = np.stack([(data[f"network_{name}"].mean("seed") / data[name] - 1).transpose("t", "step", "class").values for name in LOSSES])
    taus = data["tau"].values[:, :, None]
    gen, mem = (data["time"].sel(quantity=name).transpose("t", "class").values[:, None, :] for name in VERBS)
    inside = np.stack([taus <= gen, (taus > gen) & ~(taus > mem), taus > mem])
    parts = np.where(inside[None] & np.isfinite(off)[:, None], off[:, None], 0.0)  # (loss, regime, t, step, class)
    flat = parts.reshape(2, len(REGIMES), -1, parts.shape[-1])
    largest = np.argmax(abs(flat), axis=2, keepdims=True)
    return np.take_along_axis(flat, largest, axis=2)[:, :, 0]


def time_ratios(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Networks' time over theory's and the relative standard error, each (t, quantity, class); None without networks."""
    if "network_time" not in data:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = (data["network_time"] / data["time"].where(np.isfinite(data["time"]))).transpose("t", "quantity", "class").values
        error = (data["network_time_stderr"] / data["network_time"]).transpose("t", "quantity", "class").values
    return np.where(np.isfinite(ratio), ratio, np.nan), error


def final_gaps(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Gap between held-out and train loss at the end of training: theory, networks, its standard error, each (t, class); None without."""
    if "network_test_loss" not in data:
        return None
    gap = (data["test_loss"] - data["train_loss"]).transpose("t", "step", "class").values
    runs = (data["network_test_loss"] - data["network_train_loss"]).transpose("t", "step", "seed", "class").values
    last = [int(np.flatnonzero(np.isfinite(gap[i]).all(axis=1))[-1]) for i in range(len(gap))]
    end, seen = np.stack([gap[i, k] for i, k in enumerate(last)]), np.stack([runs[i, k] for i, k in enumerate(last)])
    return end, seen.mean(axis=1), seen.std(axis=1, ddof=1) / np.sqrt(seen.shape[1])


def overstatement(data: xr.Dataset) -> list[str]:
    """Sentences on how much of what is memorised theory overstates, class by class, where the networks tell it."""
    gaps = final_gaps(data)
    if gaps is None:
        return []
    theory, seen, error = gaps
    told = []
    for c, name in enumerate(data["class"].values):
        clear = abs(seen - theory)[:, c] > np.maximum(CLEAR * error[:, c], LEAST_OFF * theory[:, c])
        known = (theory[:, c] > LEAST_GAP) & clear
        if not known.any():
            continue
        off = 100 * (seen / theory - 1)[known, c]
        low, high = round(off.min()), round(off.max())
        span = f"{low:+d} %" if low == high else f"{low:+d} to {high:+d} %"
        word = "overstates" if high < 0 else "understates" if low > 0 else "misses"
        told.append(
            f"{name} (effective dimension {float(data['effective_dimension'].values[c]):.3g}): theory {word} what is memorised; "
            f"the networks' final gap between held-out and train loss is {span} off theory's"
        )
    return told


def common_window(windows: Float[np.ndarray, "K 2"]) -> tuple[float, float, int, int]:
    """The training times good for every class, and the classes that open and close them; the first is above the last where none is."""
    opens, closes = int(np.nanargmax(windows[:, 0])), int(np.nanargmin(windows[:, 1]))
    return float(windows[opens, 0]), float(windows[closes, 1]), opens, closes


def _names(at: xr.Dataset) -> list[str]:
    return [str(name) for name in at["class"].values]


def plain(value: float) -> str:
    """A positive number to three digits, without an exponent up to a million: 13.2, 24,600."""
    if not np.isfinite(value):
        return "never" if value > 0 else "–"
    if not 1e3 <= value < 1e7:
        return f"{value:.3g}"
    return f"{float(f'{value:.3g}'):,.0f}"


def with_error(value: float, seen: float, stderr: float = 0.0) -> str:
    """A number of theory with the deviation of the networks' number from it, and the error of that, in per cent."""
    if not (np.isfinite(value) and np.isfinite(seen)):
        return plain(value)
    off = np.hypot(seen / value - 1, np.nan_to_num(stderr) / value)
    return f"{plain(value)} ± {max(100 * off, 1):.0f} %"


def _order(at: xr.Dataset, t: float, topic: str, quantity: str) -> Statement:
    """In which order the classes are learned, or memorised."""
    names, times = _names(at), at["time"].sel(quantity=quantity).values
    there = np.flatnonzero(np.isfinite(times))
    order = there[np.argsort(times[there])]
    without = [names[c] for c in range(len(names)) if c not in there]
    if not order.size:
        return Statement(t, topic, f"no class has a time at which it is {VERBS[quantity]}", UNCHECKED, "")
    checked, off = "network_time" in at, _deviation(at, quantity)
    seen = at["network_time"].sel(quantity=quantity).values if checked else np.full(len(names), np.nan)
    error = at["network_time_stderr"].sel(quantity=quantity).values if checked else seen
    each = [f"{names[c]} ({with_error(times[c], seen[c], error[c])})" for c in range(len(names))]
    pairs = list(itertools.pairwise(order))
    text = each[order[0]] + "".join(f" {'≈' if abs(np.log(times[b] / times[a])) <= off else '<'} {each[b]}" for a, b in pairs)
    text = f"{VERBS[quantity]}, first to last: {text}" + (f"; without such a time: {', '.join(without)}" if without else "")
    if not checked:
        return Statement(t, topic, text, UNCHECKED, "")
    verdict, against = _order_verdict(at, quantity, pairs, off)
    listed = ", ".join(f"{names[c]} × {seen[c] / times[c]:.2f}" for c in order if np.isfinite(seen[c]))
    measured = f"networks over theory: {listed}" if listed else "the networks have no such time"
    wrong = "; ".join(f"{names[other]} comes before {names[one]}" for one, other in against)
    return Statement(t, topic, text, verdict, measured + (f"; in the networks {wrong}" if wrong else ""))


def _deviation(at: xr.Dataset, quantity: str) -> float:
    """Size of log(networks' time / theory's) over the classes at one t (root mean square); 0 without networks."""
    if "network_time" not in at:
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.log(at["network_time"].sel(quantity=quantity).values / at["time"].sel(quantity=quantity).values)
    off = off[np.isfinite(off)]
    return float(np.sqrt(np.mean(off**2))) if off.size else 0.0


def _order_verdict(at: xr.Dataset, quantity: str, pairs: list[tuple[int, int]], off: float) -> tuple[str, list[tuple[int, int]]]:
    """What the networks say of the order of neighbours, and the pairs that they order otherwise."""
    seen, error = at["network_time"].sel(quantity=quantity).values, at["network_time_stderr"].sel(quantity=quantity).values
    times = at["time"].sel(quantity=quantity).values
    against, resolved = [], 0
    for one, other in pairs:
        spread = np.hypot(error[one], error[other])
        gap = seen[other] - seen[one]
        if not np.isfinite(gap) or not np.isfinite(spread) or abs(gap) <= CLEAR * spread:
            continue
        tied = abs(np.log(times[other] / times[one])) <= off
        if gap < 0 and not tied:
            against.append((one, other))
        resolved += gap > 0 and not tied
    known = sum(abs(np.log(times[other] / times[one])) > off for one, other in pairs)
    if against:
        return CONTRADICTED, against
    return (CONFIRMED if known and resolved == known else UNRESOLVED), against


def _window(at: xr.Dataset, t: float) -> Statement:
    """The training times that are good for every class."""
    names, windows = _names(at), at["window"].transpose("class", "edge").values
    if np.isnan(windows).any():
        lost = ", ".join(name for name, window in zip(names, windows, strict=True) if np.isnan(window).any())
        return Statement(t, "window", f"no training time is good for every class: the held-out loss of {lost} never falls", UNCHECKED, "")
    first, last, opens, closes = common_window(windows)
    checked = "network_window" in at
    seen = at["network_window"].transpose("class", "edge").values if checked else np.full_like(windows, np.nan)
    begin, end = with_error(first, seen[opens, 0]), with_error(last, seen[closes, 1])
    if first < last:
        until = "the end of training" if np.isinf(last) else f"{end} (when {names[closes]} gets worse again)"
        text = f"training is good for every class from {begin} (when {names[opens]} is learned) to {until}"
    else:
        text = (
            f"no training time is good for every class: {names[closes]} is past its best after {end}, "
            f"and {names[opens]} is not learned before {begin}"
        )
    if not checked:
        return Statement(t, "window", text, UNCHECKED, "")
    if np.isnan(seen).any():
        return Statement(t, "window", text, UNRESOLVED, "a class of the networks has no good training time")
    start, stop, opened, closed = common_window(seen)
    error = np.nan_to_num(at["network_window_stderr"].transpose("class", "edge").values)
    clear = abs(np.log(stop / start)) > CLEAR * np.hypot(error[opened, 0], error[closed, 1])
    measured = (
        f"networks: from {plain(start)} to {'the end' if np.isinf(stop) else plain(stop)}" if start < stop else "networks: no common time"
    )
    agree = CONFIRMED if (start < stop) == (first < last) else CONTRADICTED
    return Statement(t, "window", text, agree if clear else UNRESOLVED, measured)


def _bottleneck(at: xr.Dataset, t: float) -> Statement:
    """The class with the largest score error where the largest is as small as one stop time makes it; often two classes share it there."""
    names, taus = _names(at), at["tau"].values
    errors = at["score_error"].transpose("step", "class").values
    if not np.isfinite(errors).any():
        return Statement(t, "bottleneck", "the losses are not known", UNCHECKED, "")
    best, worst = best_common_stop(taus, errors)
    largest = [c for c in range(len(names)) if errors[best, c] >= (1 - SHARED) * errors[best, worst]]
    who = " and ".join(names[c] for c in largest)
    checked = "network_score_error" in at
    there = (
        at["network_score_error"].transpose("step", "seed", "class").values[best].mean(axis=0) if checked else np.full(len(names), np.nan)
    )
    value = with_error(errors[best, worst], there[worst])
    text = f"bottleneck: {who}, with score error {value} at the best common stop time {plain(taus[best])}"
    if not checked:
        return Statement(t, "bottleneck", text, UNCHECKED, "")
    runs = at["network_score_error"].transpose("step", "seed", "class").values[best]
    mean = runs.mean(axis=0)
    seen = int(np.argmax(mean))
    measured = "networks there: " + ", ".join(f"{name} {value:.3g}" for name, value in zip(names, mean, strict=True))
    if seen in largest:
        return Statement(t, "bottleneck", text, CONFIRMED, measured)
    apart = runs[:, [seen]] - runs[:, largest]
    clear = np.all(apart.mean(axis=0) > CLEAR * apart.std(axis=0, ddof=1) / np.sqrt(len(apart)))
    return Statement(t, "bottleneck", text, CONTRADICTED if clear else UNRESOLVED, measured)
