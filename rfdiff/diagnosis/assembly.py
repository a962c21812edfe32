"""The whole diagnosis as one labelled dataset, made of parts that an interrupted run keeps."""

import json
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from rfdiff.class_times import TIME_NAMES, ClassTimes, readings, stacked
from rfdiff.curves import LearningCurves
from rfdiff.diagnosis.data_law import Setting, class_numbers, fitted_law, problem_at
from rfdiff.diagnosis.predictions import GOOD, class_times_of, curves_in, good_windows, predicted
from rfdiff.diagnosis.remedies import Remedy, candidates, hardest, score_errors, searched, speciation, tried
from rfdiff.diagnosis.trained import NETWORK_CURVES, check_networks, trained
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.progress import Progress
from rfdiff.samples import Samples
from rfdiff.simulation.seed_batches import SeedBatch, summarize

CONTENT = "diagnosis"
Arrays = Mapping[str, np.ndarray]
Parts = MutableMapping[str, Arrays]
SKIPPED = "not asked for"


def diagnose(
    samples: Samples, setting: Setting, *, parts: Parts | None = None, progress: Callable[[str], Progress] | None = None
) -> xr.Dataset:
    """Theory of the fitted law at every diffusion time, networks trained on the data, what would help, and speciation times.

    Args:
        samples: the data.
        setting: what is diagnosed.
        parts: where finished parts are kept, by name; a dictionary of this call if None.
        progress: called with a label before each kind of work; what it returns is called with (parts done, parts in all).

    Returns:
        A dataset with content "diagnosis"; `statements` reads what it says.

    Raises:
        InputError: fewer than two classes, too few samples for networks, or what theory or networks refuse.
    """
    parts = {} if parts is None else parts
    law = fitted_law(samples)
    if setting.num_seeds:
        check_networks(problem_at(law, setting, setting.times[0]), samples)
    told = progress or (lambda _: lambda done, total: None)
    theory = {f"theory-{i}": problem_at(law, setting, t) for i, t in enumerate(setting.times)}
    wanted = {name: partial(predicted, problem, setting.tolerance) for name, problem in theory.items()}
    _fill(parts, wanted, partial(told, "closed form of the fitted law"))
    networks = {
        f"network-{i}-{r}": partial(trained, problem, samples, parts[name]["shown_taus"], setting.seed, r)
        for i, (name, problem) in enumerate(theory.items())
        for r in range(setting.num_seeds)
    }
    _fill(parts, networks, partial(told, "networks on the data"))
    variables = {**class_numbers(samples, law), **_theory(setting, [parts[name] for name in theory], samples.num_classes)}
    if setting.num_seeds:
        variables |= _networks(setting, parts, law)
    attributes = {**_attributes(samples, setting), **_beyond(samples, setting, law, parts, variables, told)}
    attributes["reasons"] = json.dumps([class_times_of(dict(parts[name])).reasons for name in theory], ensure_ascii=False)
    coordinates: dict[str, Any] = {"t": list(setting.times), "class": list(samples.class_names), "quantity": list(TIME_NAMES)}
    return xr.Dataset(variables, coordinates | {"edge": ["first", "last"]}, attributes)


def _fill(parts: Parts, wanted: Mapping[str, Callable[[], Arrays]], begin: Callable[[], Progress]) -> None:
    """Compute the parts that are missing, one after another."""
    missing = [name for name in wanted if name not in parts]
    if not missing:
        return
    report, done = begin(), len(wanted) - len(missing)
    report(done, len(wanted))
    for count, name in enumerate(missing, 1):
        parts[name] = wanted[name]()
        report(done + count, len(wanted))


def _theory(setting: Setting, found: list[Arrays], num_classes: int) -> dict[str, Any]:
    """Curves at the times shown, times of each class with their bounds, and good windows, for each t."""
    axes = ("t", "step", "class")
    read: list[ClassTimes] = [class_times_of(dict(arrays)) for arrays in found]
    unbounded = np.full((num_classes, 2), np.nan)
    bounds = np.stack([[(one.bounds or {}).get(name, unbounded) for name in TIME_NAMES] for one in read])
    covering = [curves_in(dict(arrays), "covering") for arrays in found]
    windows = np.stack([good_windows(np.asarray(one.taus), np.asarray(one.test_loss)) for one in covering])
    stack = {name: _stacked([arrays[f"shown_{name}"] for arrays in found]) for name in ("taus", *NETWORK_CURVES)}
    return {
        "tau": (("t", "step"), stack["taus"], {"long_name": "training time"}),
        "train_loss": (axes, stack["train_loss"], {"long_name": "theory: train loss per coordinate"}),
        "test_loss": (axes, stack["test_loss"], {"long_name": "theory: held-out loss per coordinate"}),
        "score_error": (axes, stack["score_error"], {"long_name": "theory: squared distance to the exact score per coordinate"}),
        "optimal_loss": (
            ("t", "class"), np.stack([arrays["shown_optimal_loss"] for arrays in found]), {"long_name": "loss of the exact score"},
        ),
        "kappa": ("t", np.array([float(arrays["shown_kappa"]) for arrays in found]), {"long_name": "relaxation rate of a unit eigenvalue"}),
        "error_estimate": ("t", np.array([float(arrays["shown_error_estimate"]) for arrays in found]), {"long_name": "numerical error"}),
        "time": (("t", "quantity", "class"), np.stack([stacked(one) for one in read]), {"long_name": "theory: training time of the class"}),
        "time_bounds": (("t", "quantity", "class", "bound"), bounds, {"long_name": "bounds of times that are not known"}),
        "window": (
            ("t", "class", "edge"), windows,
            {"long_name": f"training times at which the class has made {GOOD:.0%} of its best descent"},
        ),
    }  # fmt: skip


def _stacked(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays of one shape, or with another number of training times (τ = ∞ is left out where p = n), filled with NaN at the end."""
    longest = max(len(array) for array in arrays)
    return np.stack([np.pad(array, [(0, longest - len(array)), *[(0, 0)] * (array.ndim - 1)], constant_values=np.nan) for array in arrays])


def _networks(setting: Setting, parts: Parts, law: MixtureLaw) -> dict[str, Any]:
    """Curves of each network, times of each class from their mean with standard errors, and windows."""
    curves, values, errors, windows = [], [], [], []
    for i, _ in enumerate(setting.times):
        runs = [parts[f"network-{i}-{r}"] for r in range(setting.num_seeds)]
        mean = _mean_curves(runs, dict(parts[f"theory-{i}"]))
        read, error = readings(mean, 0.5)
        values.append(read[: len(TIME_NAMES)])
        errors.append(error[: len(TIME_NAMES)])
        windows.append([good_windows(np.asarray(mean.taus), test) for test in (mean.test_loss, *(run["test_loss"] for run in runs))])
        curves.append({name: np.stack([run[name] for run in runs], axis=1) for name in NETWORK_CURVES})
    axes = ("t", "step", "seed", "class")
    stack = {name: _stacked([one[name] for one in curves]) for name in NETWORK_CURVES}
    found = np.stack(windows)
    with np.errstate(invalid="ignore"):
        spread = np.log(found[:, 1:]).std(axis=1, ddof=1) / np.sqrt(setting.num_seeds)
    return {
        **{f"network_{name}": (axes, value, {"long_name": f"networks: {name.replace('_', ' ')}"}) for name, value in stack.items()},
        "network_time": (("t", "quantity", "class"), np.stack(values), {"long_name": "networks: training time of the class"}),
        "network_time_stderr": (("t", "quantity", "class"), np.stack(errors), {"long_name": "its standard error"}),
        "network_window": (("t", "class", "edge"), found[:, 0], {"long_name": "networks: good training times of the class"}),
        "network_window_stderr": (("t", "class", "edge"), spread, {"long_name": "standard error of their logarithm"}),
    }


def _mean_curves(runs: list[Arrays], theory: dict[str, np.ndarray]) -> LearningCurves:
    """The networks at one t as curves with their mean and standard errors."""
    reference = curves_in(theory, "shown")
    many: dict[str, Any] = {name: np.stack([np.asarray(run[name]) for run in runs]) for name in NETWORK_CURVES}
    batch = SeedBatch(
        seeds=np.arange(len(runs)), taus=np.asarray(reference.taus), **many, eigenvalues=None, class_weights=None,
        truncation=np.zeros(len(runs)), optimal_loss=np.asarray(reference.optimal_loss), weights=np.asarray(reference.weights),
        kappa=float(reference.kappa),
    )  # fmt: skip
    return summarize([batch])


def _tried(problem: Problem, names: tuple[str, ...], setting: Setting, parts: Parts, begin: Callable[[], Progress]) -> Remedy:
    """What other weights and sample counts of the worst classes do."""
    theory = parts[f"theory-{setting.main}"]
    unchanged = {"taus": theory["shown_taus"], "score_error": theory["shown_score_error"]}
    worst = hardest(unchanged)
    taus = unchanged["taus"][np.isfinite(unchanged["taus"])]
    wanted = {f"remedy-{name}": partial(score_errors, one, taus, setting.tolerance) for name, one in candidates(problem, worst).items()}
    try:
        _fill(parts, wanted, begin)
    except InputError as err:
        return Remedy((), str(err), np.full(len(names), np.nan))
    found = {name.removeprefix("remedy-"): parts[name] for name in wanted}
    return tried(names, worst, unchanged, found, np.asarray(problem.mixture.weights))


def _beyond(
    samples: Samples, setting: Setting, law: MixtureLaw, parts: Parts, variables: dict[str, Any], told: Callable[[str], Progress]
) -> dict[str, Any]:
    """What would help and when generation decides, as attributes; adds the variables that go with them."""
    reason, found = "", dict.fromkeys(("time", "error"), np.full(law.num_classes, np.nan))
    try:
        _fill(
            parts, {"speciation": partial(speciation, law, samples.dimension, setting.tolerance)}, partial(told, "when generation decides")
        )
        found = dict(parts["speciation"])
    except InputError as err:
        reason = str(err)
    variables["speciation_time"] = ("class", found["time"], {"long_name": "diffusion time at which generation decides for the class"})
    variables["speciation_error"] = ("class", found["error"], {"long_name": "error of speciation_time"})
    attributes: dict[str, Any] = {"no_speciation": reason, "no_remedy": SKIPPED, "remedy": "[]"}
    if setting.remedies != "none":
        main = problem_at(law, setting, setting.times[setting.main])
        if setting.remedies == "search":
            remedy = searched(main, samples.class_names, told("what would help: searches"))
        else:
            remedy = _tried(main, samples.class_names, setting, parts, partial(told, "what would help"))
        attributes |= {"no_remedy": remedy.reason, "remedy": json.dumps(remedy.sentences, ensure_ascii=False)}
        variables["proposed_loss_weights"] = (
            "class",
            remedy.loss_weights,
            {"long_name": "weights of the classes in the loss that help most"},
        )
    return attributes


def _attributes(samples: Samples, setting: Setting) -> dict[str, Any]:
    preparation = json.dumps(samples.preparation, ensure_ascii=False)
    return {
        "content": CONTENT,
        "d": samples.dimension,
        "preparation": preparation,
        "held_out": samples.held_out,
        "activation": setting.activation,
        "psi_p": float(setting.psi_p),
        "psi_n": float(setting.psi_n),
        "tolerance": float(setting.tolerance),
        "num_seeds": setting.num_seeds,
        "random_seed": setting.seed,
        "main": setting.main,
    }
