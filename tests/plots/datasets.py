"""Made-up datasets in the form of the files of generate, collect and images evaluate."""

from typing import Any

import numpy as np
import xarray as xr

TAUS = np.array([1.0, 10.0, 100.0, np.inf])
CLASSES = 2


def generation(networks: int = 3) -> xr.Dataset:
    """Counts of 100 samples a source; four training times, then the empirical and the exact score."""
    rng = np.random.default_rng(0)
    sources, times = len(TAUS) + 2, np.array([0.03, 0.1, 0.3])
    dims = ("network", "source", "class")
    shape = (networks, sources, CLASSES)
    share = np.broadcast_to(np.linspace(0, 0.6, sources)[:, None], (sources, CLASSES))
    interval = np.stack([share, share - 0.05, share + 0.1], -1)
    error = np.abs(rng.normal(0.3, 0.05, (networks, sources, 3, CLASSES)))
    error[:, -1] = 0.0  # of the exact score
    variables: dict[str, Any] = {
        "counts": (dims, rng.integers(30, 70, shape)),
        "mean_error": (dims, np.abs(rng.normal(0.1, 0.02, shape))),
        "variance_error": (dims, rng.normal(0.0, 0.1, shape)),
        "score_error": (("network", "source", "time", "class"), error),
        "memorised_interval": (("source", "class", "edge"), interval),
        "tau_gen": ("class", [3.0, 5.0]),
        "tau_mem": ("class", [40.0, 2000.0]),
        "theory_score_error": (("theory_tau", "class"), np.full((5, CLASSES), 0.3)),
        "tau": ("source", np.append(TAUS, [np.nan, np.nan])),
    }
    names = [*[f"tau = {tau:.4g}" for tau in TAUS], "empirical score", "exact score"]
    coordinates = {"source": names, "time": times, "theory_tau": np.geomspace(0.1, 1e4, 5), "class": [0, 1]}
    return xr.Dataset(variables, coordinates, {"samples": 100, "threshold": 1 / 3, "t": 0.12})


def sweep(simulated: bool = True, values: int = 3) -> xr.Dataset:
    """Two axes, t and psi_n (logarithmic), with theory, and networks of one solver in two dimensions."""
    t, psi_n, d, quantities = np.linspace(0.1, 0.3, 2), np.geomspace(1, 4, values), [10, 20], ["tau_gen", "tau_mem", "best_test_loss"]
    tau = np.concatenate([[0.0], np.geomspace(0.1, 1e3, 8), [np.inf]])
    cells = (t.size, values)
    theory_time = np.arange(t.size * values * 3 * CLASSES, dtype=float).reshape(*cells, 3, CLASSES) + 1
    theory_time[0, 0, 1, 0] = np.inf
    loss = np.linspace(1, 0.5, tau.size)[:, None] * np.array([1.0, 0.9]) * np.ones((*cells, 1, 1))
    variables: dict[str, Any] = {"theory_class_time": (("t", "psi_n", "quantity", "class"), theory_time)}
    for name, factor in (("test_loss", 1.0), ("train_loss", 0.8)):
        variables[f"theory_{name}"] = (("t", "psi_n", "time", "class"), factor * loss)
    coordinates: dict[str, Any] = {"t": t, "psi_n": ("psi_n", psi_n, {"spacing": "log"}), "quantity": quantities, "class": [0, 1]}
    if simulated:
        coordinates |= {"solver": ["exact"], "d": d}
        networks = ("t", "psi_n", "solver", "d", "quantity", "class")
        seen = theory_time[:, :, None, None] * np.array([1.2, 1.1])[:, None, None]
        variables |= {"class_time": (networks, seen), "class_time_stderr": (networks, np.full(seen.shape, 0.1))}
        for name, factor in (("test_loss", 1.1), ("train_loss", 0.7)):
            runs = factor * loss[:, :, None, None] * np.ones((1, 1, 1, 2, 1, 1))
            dims = ("t", "psi_n", "solver", "d", "time", "class")
            variables |= {name: (dims, runs), f"{name}_stderr": (dims, np.full(runs.shape, 0.01))}
    return xr.Dataset(variables | {"tau": ("time", tau)}, coordinates, {"axes": "t, psi_n"})


def images(sampled: bool = True) -> xr.Dataset:
    """Losses at ten steps of two classes, and evaluations at three checkpoints, the first without enough samples."""
    steps = np.concatenate([[0], np.unique(np.geomspace(1, 1000, 9).astype(int))])
    fall = 1 - 0.6 * (1 - np.exp(-steps[:, None, None] / np.array([30.0, 60.0]))) * np.array([1.2, 1.0])[:, None]
    variables: dict[str, Any] = {
        "mean_loss": (("step", "set", "class"), fall),
        "gap": (("step", "class"), fall[:, 1] - fall[:, 0]),
        "time": (("reading", "class"), [[20.0, 40.0], [np.nan, 500.0]]),
    }
    coordinates: dict[str, Any] = {
        "step": steps,
        "set": ["train", "held_out"],
        "reading": ["tau_gen", "tau_mem"],
        "class": ["Bag", "Sneaker"],
    }
    if sampled:
        at = ("checkpoint", "class")
        variables |= {
            "frechet": (at, [[np.nan, np.nan], [20.0, 30.0], [5.0, 8.0]]),
            "floor": (at, np.full((3, 2), 2.0)),
            "memorised": (at, [[0.0, 0.0], [0.1, 0.2], [0.5, 0.6]]),
            "low": (at, [[0.0, 0.0], [0.05, 0.1], [0.4, 0.5]]),
            "high": (at, [[0.1, 0.1], [0.2, 0.3], [0.6, 0.7]]),
            "grid": (
                ("checkpoint", "class", "kind", "place", "row", "column"),
                np.random.default_rng(0).integers(0, 256, (3, 2, 2, 6, 7, 7)).astype(np.uint8),
            ),
        }
        coordinates |= {"checkpoint": [10, 100, 1000], "kind": ["sample", "nearest"]}
    return xr.Dataset(variables, coordinates)
