"""What a checkpoint generates, class by class: share of the samples, memorised fraction, and distance from real images in feature space."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.spatial
from jaxtyping import Float, PyTree

from rfdiff.errors import InputError
from rfdiff.files.atomic import read_arrays, write_arrays
from rfdiff.images import checkpoints
from rfdiff.images.classifier import Classifier
from rfdiff.images.devices import Devices
from rfdiff.images.fashion_mnist import FashionMNIST
from rfdiff.images.protocol import ImageSet
from rfdiff.images.sampling import draw_samples
from rfdiff.images.settings import Settings
from rfdiff.images.training import parameters_at
from rfdiff.memorisation import memorised_fraction, near_training
from rfdiff.progress import progress
from rfdiff.value_types import as_integer

FEWEST = 40  # samples below which the covariance of 32 features is not estimated
SHOWN = 8  # samples of a class that a grid shows
KEPT = "evaluations"
MEASURED = ("number", "fraction", "memorised", "low", "high", "frechet", "floor", "energy", "energy_floor")  # of a class


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a checkpoint is sampled.

    Args:
        samples: of a checkpoint.
        sampler_steps: evaluations of the network for a sample.
        seed: of the noise they start from, the same for every checkpoint.

    Raises:
        InputError: naming the field, its value and the allowed range.
    """

    samples: int = 1000
    sampler_steps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (("samples", 2, 10**6), ("sampler_steps", 2, 10_000), ("seed", 0, 2**32 - 1)):
            object.__setattr__(self, name, as_integer(name, getattr(self, name), least, most))


def frechet(a: Float[np.ndarray, "n f"], b: Float[np.ndarray, "m f"]) -> float:
    """Squared Fréchet distance of the normal laws with the moments of two sets of features (n, f); NaN below `FEWEST` of either.

    ‖m_a - m_b‖² + tr(C_a + C_b - 2 (C_a C_b)^{1/2}). In this classifier's features: not the Inception distance of the literature.
    """
    if min(len(a), len(b)) < FEWEST:
        return np.nan
    covariances = [np.cov(np.asarray(x, np.float64), rowvar=False) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] + 1e-10 * np.eye(a.shape[1])).real
    product = np.linalg.eigvalsh(root @ covariances[1] @ root)
    shift = np.asarray(a, np.float64).mean(0) - np.asarray(b, np.float64).mean(0)
    return float(max(shift @ shift + sum(np.trace(c) for c in covariances) - 2 * np.sqrt(np.maximum(product, 0)).sum(), 0.0))


def energy_distance(a: Float[np.ndarray, "n f"], b: Float[np.ndarray, "m f"]) -> float:
    """Unbiased energy distance of the laws of two sets of features, 2 E‖a - b‖ - E‖a - a'‖ - E‖b - b'‖; NaN below two of either.

    0 in expectation for sets of one law, whatever their sizes, so few samples are enough; of the order of a length in this classifier's
    features. Reference: Székely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018.
    """
    if min(len(a), len(b)) < 2:
        return np.nan
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    within = sum(scipy.spatial.distance.pdist(x).mean() for x in (a, b))
    return float(2 * scipy.spatial.distance.cdist(a, b).mean() - within)


class Evaluator:
    """Evaluates the checkpoints of a run; what is evaluated is kept beside them.

    Args:
        folder: of the run.
        settings: of the run.
        images: of the run.
        data: the data set, whose test file is what samples are held against.
        classifier: trained on the same pixels.
        sampling: how.
        devices: that share the work.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        images: ImageSet,
        data: FashionMNIST,
        classifier: Classifier,
        sampling: Sampling,
        devices: Devices,
    ) -> None:
        self.folder, self.settings, self.images, self.classifier = folder, settings, images, classifier
        self.sampling, self.devices = sampling, devices
        self._halves = []
        for k, c in enumerate(settings.protocol.classes):
            real = classifier.read(images.normalized(data.test_images[data.test_labels == c], k))[0]
            self._halves.append((real[::2], real[1::2]))

    def run(self, steps: list[int]) -> list[dict[str, np.ndarray]]:
        """Evaluations of checkpoints, in order; Ctrl-C keeps the finished ones.

        Raises:
            InputError: a damaged checkpoint, or evaluation.
            OSError: an evaluation cannot be written.
            KeyboardInterrupt: with a sentence on what is kept.
        """
        evaluated = {step: known for step in steps if (known := self._kept(step)) is not None}
        try:
            with progress("samples of checkpoints", len(steps), len(evaluated), unit="checkpoint") as advance:
                for step in steps:
                    if step not in evaluated:
                        evaluated[step] = self.evaluate(parameters_at(self.folder, step, self.settings))
                        self._path(step).parent.mkdir(parents=True, exist_ok=True)
                        write_arrays(self._path(step), {**evaluated[step], "identity": np.array(self._identity())})
                        advance(1)
        except KeyboardInterrupt as stop:
            text = f"{len(evaluated)} of {len(steps)} checkpoints are evaluated, the same command resumes from them"
            raise KeyboardInterrupt(text) from stop
        return [evaluated[step] for step in steps]

    def evaluate(self, parameters: PyTree) -> dict[str, np.ndarray]:
        """Per class of samples (as classified): number, share, memorised fraction (interval), distances (floors); grids."""
        how = self.sampling
        samples = draw_samples(parameters, self.settings, self.devices, number=how.samples, steps=how.sampler_steps, seed=how.seed)
        finite = np.isfinite(samples).all((1, 2))
        features, marks = self.classifier.read(np.where(finite[:, None, None], samples, 0))
        marks = np.where(finite, marks, -1)
        copies, nearest = near_training(np.where(finite[:, None, None], samples, 0), self.images.train)
        rows: dict[str, list[float]] = {name: [] for name in MEASURED}
        grids = []
        for k, c in enumerate(self.settings.protocol.classes):
            of_class = marks == c
            number, (one, other) = int(of_class.sum()), self._halves[k]
            share = memorised_fraction(number, copies[of_class].sum(), seed=how.seed)
            real = other[: max(number, 1)]
            distances = (distance(x, one) for distance in (frechet, energy_distance) for x in (features[of_class], real))
            values = (number, of_class.mean(), *share, *distances)
            for name, value in zip(MEASURED, values, strict=True):
                rows[name].append(value)
            grids.append(self._grid(samples, nearest, np.flatnonzero(of_class)[:SHOWN]))
        everyone = copies[finite].mean() if finite.any() else np.nan
        return {
            **{name: np.asarray(values, np.float64) for name, values in rows.items()},
            "all_memorised": np.asarray(everyone, np.float64),
            "grid": np.stack(grids),
        }

    def _grid(self, samples: np.ndarray, nearest: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(2, SHOWN, s, s) grey levels 0..255 of samples and of the training images nearest to them; white where there is none."""
        side = samples.shape[-1]
        grid = np.full((2, SHOWN, side, side), 255, np.uint8)
        for i, row in enumerate(rows):
            for j, image in enumerate((samples[row], self.images.train[nearest[row]])):
                grid[j, i] = np.round(255 * self.images.grey(image)).astype(np.uint8)
        return grid

    def _path(self, step: int) -> Path:
        return self.folder / KEPT / f"step-{step:09d}.npz"

    def _identity(self) -> str:
        return f"{self.sampling} {self.classifier.identity} {' '.join(MEASURED)}"

    def _kept(self, step: int) -> dict[str, np.ndarray] | None:
        if not self._path(step).is_file():
            return None
        arrays = read_arrays(self._path(step), "delete it to evaluate this checkpoint again")
        same = str(arrays.pop("identity", "")) == self._identity()
        return arrays if same else None


def evaluated_steps(folder: Path, least: int) -> list[int]:
    """Steps of the checkpoints of a run from `least` on.

    Raises:
        InputError: there is none.
    """
    steps = [step for step in checkpoints.kept(folder) if step >= least]
    if not steps:
        raise InputError(f"{folder}: no checkpoint from step {least} on; allowed: one of {checkpoints.kept(folder)}")
    return steps
