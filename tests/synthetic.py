"""Small made-up results with every field filled in, for the tests of files, figures and tables."""

from typing import TypeVar

import numpy as np

from rfdiff.curves import EmpiricalSpectrum, LearningCurves, Spectrum
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem

T = TypeVar("T")


def problem(num_classes: int = 2) -> Problem:
    weights = np.arange(num_classes, 0, -1) / sum(range(1, num_classes + 1))
    return Problem(MixtureLaw.isotropic(weights, np.linspace(1.5, 0.4, num_classes)), "tanh", t=0.1, psi_p=4.0, psi_n=3.0)


def taus(num: int = 24) -> np.ndarray:
    """0, a log grid over learning and memorisation, inf."""
    return np.concatenate([[0.0], np.geomspace(0.1, 1e5, num - 2), [np.inf]])


def theory(num_classes: int = 2, grid: np.ndarray | None = None) -> LearningCurves:
    """Curves that fall, then rise again where the train loss keeps falling: generalisation, then memorisation."""
    grid = taus() if grid is None else grid
    decay = lambda scale: -np.expm1(-grid[:, None] / scale)  # noqa: E731
    classes = np.arange(num_classes)
    learned, memorised = decay(5.0 + 3 * classes), decay(800.0 * (1 + classes))
    train = 1 - 0.3 * learned - 0.2 * memorised
    test = 1 - 0.25 * learned + (0.5 - 0.15 * classes) * memorised
    optimal = np.full(num_classes, 0.45)
    weights = problem(num_classes).mixture.weights
    zeros = np.zeros_like(train)
    score = (test - optimal) / 0.18
    return LearningCurves(grid, train, test, score, optimal, weights, 0.0906, 3e-7, zeros, zeros, zeros)


def simulation(num_classes: int = 2, seeds: int = 3, d: int = 20, grid: np.ndarray | None = None) -> LearningCurves:
    """Theory with noise of each seed, and eigenvalues in two bulks with a fifth of them at zero."""
    rng = np.random.default_rng(0)
    clean = theory(num_classes, grid)
    shape = (seeds, *np.shape(clean.train_loss))
    runs = {
        name: np.asarray(getattr(clean, name)) * (1 + 0.02 * rng.standard_normal((seeds, 1, 1))) + 0 * np.zeros(shape)
        for name in ("train_loss", "test_loss", "score_error")
    }
    mean = {name: run.mean(0) for name, run in runs.items()}
    stderr = {f"{name}_stderr": run.std(0, ddof=1) / np.sqrt(seeds) for name, run in runs.items()}
    p = 4 * d
    modes = np.sort(np.where(np.arange(p) < p // 5, 0.0, np.exp(rng.normal(np.where(np.arange(p) < p // 2, -3, 1), 0.3, (seeds, p)))))
    shares = np.where(modes[..., None] > 0, np.asarray(clean.weights) / p, 0.0)
    return LearningCurves(
        clean.taus,
        **mean,
        optimal_loss=clean.optimal_loss,
        weights=clean.weights,
        kappa=clean.kappa,
        error_estimate=float("nan"),
        **stderr,
        per_seed=runs,
        spectrum=EmpiricalSpectrum(modes, shares),
        source="simulation",
        dimension=d,
    )


def spectrum(num_classes: int = 2) -> Spectrum:
    """Two bulks three decades apart, an atom at zero and one outlier, of total mass 1."""
    support = np.array([[0.02, 0.15], [1.2, 7.0]])
    masses = (0.3, 0.45)
    grids = [np.geomspace(a, b, 40) for a, b in support]
    pieces = []
    for mass, grid, (a, b) in zip(masses, grids, support, strict=True):
        shape = np.sqrt((grid - a) * (b - grid)) / grid
        pieces.append(mass * shape / np.trapezoid(shape, grid))
    density = np.concatenate(pieces)
    weights = problem(num_classes).mixture.weights
    return Spectrum(
        support=support,
        eigenvalues=np.concatenate(grids),
        density=density,
        class_density=density[:, None] * weights,
        bulk=np.repeat([0, 1], 40),
        atom_locations=np.array([0.0, 20.0]),
        atom_weights=np.array([0.2, 0.05]),
        missing_mass=1e-8,
    )


def given(value: T | None) -> T:
    """A value that is there, told to the type checker too."""
    assert value is not None
    return value
