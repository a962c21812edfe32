"""A diagnosis put together from made-up curves and networks, without computing either."""

from typing import Any

import numpy as np
import xarray as xr

from rfdiff.curves import CURVE_NAMES, LearningCurves
from rfdiff.diagnosis import Setting, diagnose
from rfdiff.diagnosis.predictions import CURVE_FIELDS
from rfdiff.samples import Samples
from tests import synthetic

NAMES = ("<ant>", "bee", "wasp")
GRID = synthetic.taus(40)


def samples(num_classes: int = 2, count: int = 30, d: int = 4) -> Samples:
    """Gaussian classes of one size whose spread and mean grow from class to class."""
    rng = np.random.default_rng(0)
    x = np.concatenate([c + (1 + c) * rng.normal(size=(count, d)) for c in range(num_classes)])
    steps = (("source", "made up.npz"), ("divided by", "1.23456789"))
    return Samples(x, np.repeat(np.arange(num_classes), count), 6, NAMES[:num_classes], preparation=steps)


def setting(networks: int = 3, times: tuple[float, ...] = (0.03, 0.1), **more: Any) -> Setting:
    return Setting(times=times, psi_n=6.0, num_seeds=networks, remedies="none", **more)


def theory_part(curves: LearningCurves) -> dict[str, np.ndarray]:
    return {f"{kind}_{name}": np.asarray(getattr(curves, name)) for kind in ("shown", "covering") for name in CURVE_FIELDS}


def network_part(curves: LearningCurves, seed: int, noise: float) -> dict[str, np.ndarray]:
    """Curves of one network around some curves: every deviation from 1 times a factor of each class."""
    rng = np.random.default_rng(seed)
    factor = 1 + noise * rng.normal(size=curves.num_classes)
    return {name: 1 + factor * (np.asarray(getattr(curves, name)) - 1) for name in CURVE_NAMES}


def parts(theory: LearningCurves, networks: LearningCurves | None, asked: Setting, noise: float = 0.01) -> dict[str, dict[str, np.ndarray]]:
    found = {f"theory-{i}": theory_part(theory) for i in range(len(asked.times))}
    if networks is not None:
        for i in range(len(asked.times)):
            found |= {f"network-{i}-{r}": network_part(networks, 10 * i + r, noise) for r in range(asked.num_seeds)}
    return found


def diagnosis(
    theory: LearningCurves | None = None, networks: LearningCurves | None = None, noise: float = 0.01, num_classes: int = 2
) -> xr.Dataset:
    """A diagnosis in which the networks follow some curves; theory's where none are given, and no networks with `noise` 0."""
    theory = synthetic.theory(num_classes, GRID) if theory is None else theory
    asked = setting(3 if noise else 0)
    kept: Any = parts(theory, (theory if networks is None else networks) if noise else None, asked, noise)
    return diagnose(samples(num_classes), asked, parts=kept)
