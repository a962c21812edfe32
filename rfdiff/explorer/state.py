"""What the page of the explorer shows: the numbers on its sliders, as a query string and as a problem with its training rule."""

import dataclasses
import math
import typing
from urllib.parse import parse_qsl, urlencode

import numpy as np

from rfdiff.activation import ACTIVATIONS
from rfdiff.errors import InputError
from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.rules import GradientFlow, MinibatchSGD, Rule

MOST_CLASSES = 4
MOST_CHARACTERS = 2000  # of a query, beyond the longest that a state has
MOST_NUMBER = 32  # characters of one number
BOUNDS: dict[str, tuple[float, float]] = {
    "t": (0.01, 5.0),
    "psi_p": (0.1, 100.0),
    "psi_n": (0.1, 100.0),
    "noise_draws": (1, 1000),
    "fraction": (0.01, 1.0),
    "variance": (0.01, 10.0),
    "norm": (0.0, 2.0),
    "angle": (0.0, 360.0),
    "overlap": (0.05, 1.0),
    "loss_weight": (0.0, 1.0),
    "weight_decay": (0.0, 10.0),
    "averaging": (0.0, 1e6),
    "step_size": (1e-4, 100.0),
    "batch": (0.01, 1000.0),
}
LISTS = ("fraction", "variance", "norm", "angle", "loss_weight")
RULES = ("flow", "sgd")
SUM_ERROR = 1e-6  # of fractions and of loss weights
SAME = 1e-9  # relative: how closely a law must be one that the sliders can hold


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """The numbers of K classes on the page; the names are those of its query string.

    Args:
        activation: σ by name.
        t, psi_p, psi_n, noise_draws: as in `Problem`.
        fraction: (K,) class fractions, summing to 1.
        variance: (K,) variances per coordinate.
        norm, angle: (K,) centroids in a plane: length ‖μ_c‖/√d, and direction in degrees.
        overlap: share of the directions in which all classes vary; in each of K equal parts of the others one class varies alone. 1 for
            isotropic classes. The variance of a class stays what it is.
        loss_weight: (K,) weights of the classes in the training loss, () for the fractions.
        rule: "flow" (gradient flow) or "sgd".
        weight_decay: ρ.
        averaging: time constant T of a moving average of the weights in units of τ; 0 for none.
        step_size, batch: η and the batch over d, of sgd.

    Raises:
        InputError: naming the number, its value and the allowed range.
    """

    activation: str = "tanh"
    t: float = 0.1
    psi_p: float = 4.0
    psi_n: float = 3.0
    noise_draws: float = math.inf
    fraction: tuple[float, ...] = (0.7, 0.3)
    variance: tuple[float, ...] = (1.5, 0.4)
    norm: tuple[float, ...] = (0.7, 1.0)
    angle: tuple[float, ...] = (0.0, 80.0)
    overlap: float = 1.0
    loss_weight: tuple[float, ...] = ()
    rule: str = "flow"
    weight_decay: float = 0.0
    averaging: float = 0.0
    step_size: float = 0.1
    batch: float = 1.0

    def __post_init__(self) -> None:
        for name, words in (("activation", tuple(ACTIVATIONS)), ("rule", RULES)):
            if getattr(self, name) not in words:
                raise InputError(f"{name}: {getattr(self, name)!r}; allowed: {', '.join(words)}")
        for name, (least, most) in BOUNDS.items():
            values = getattr(self, name)
            for value in values if isinstance(values, tuple) else (values,):
                if not (least <= value <= most or (name == "noise_draws" and value == math.inf)):
                    raise InputError(f"{name}: {value!r}; allowed: {least:g} to {most:g}{', or inf' if name == 'noise_draws' else ''}")
        if self.noise_draws != math.inf and self.noise_draws != int(self.noise_draws):
            raise InputError(f"noise_draws: {self.noise_draws!r}; allowed: a whole number, or inf")
        self._check_lists()

    def _check_lists(self) -> None:
        count = len(self.fraction)
        if not 1 <= count <= MOST_CLASSES:
            raise InputError(f"fraction: {count} classes; allowed: 1 to {MOST_CLASSES}")
        for name in LISTS[1:]:
            values = getattr(self, name)
            if len(values) != count and not (name == "loss_weight" and not values):
                raise InputError(f"{name}: {len(values)} numbers; allowed: {count}, one for each class")
        for name in ("fraction", "loss_weight"):
            values = getattr(self, name)
            if values and abs(sum(values) - 1) > SUM_ERROR:
                raise InputError(f"{name}: the numbers sum to {sum(values):.8g}; allowed: a sum of 1")

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return len(self.fraction)

    @classmethod
    def from_query(cls, text: str) -> "State":
        """The state of a query string; what it does not name is as in a new state.

        Raises:
            InputError: a text that is too long, a name that no number has or that comes twice, what is no number, a number out of range.
        """
        if len(text) > MOST_CHARACTERS:
            raise InputError(f"query: {len(text)} characters; allowed: at most {MOST_CHARACTERS}")
        try:
            pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=32, errors="strict")
        except ValueError as err:
            raise InputError(f"query: {err}; allowed: name=value, joined by &") from err
        kinds = typing.get_type_hints(cls)
        fields: dict[str, typing.Any] = {}
        for name, value in pairs:
            if name not in kinds or name in fields:
                what = "given twice" if name in fields else "unknown"
                raise InputError(f"query: {name[:40]!r} is {what}; allowed: {', '.join(kinds)}, each once")
            if kinds[name] is str:
                fields[name] = value[:40]
            elif name in LISTS:
                fields[name] = tuple(_number(name, word) for word in value.split(",")[: 2 * MOST_CLASSES]) if value else ()
            else:
                fields[name] = _number(name, value)
        return cls(**fields)

    def query(self) -> str:
        """The state as a query string, from which `from_query` makes it again."""
        words = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not (field.name == "loss_weight" and not value):
                words[field.name] = (
                    ",".join(map(_word, value)) if isinstance(value, tuple) else value if isinstance(value, str) else _word(value)
                )
        return urlencode(words, safe=",")

    def problem(self) -> Problem:
        """The problem that the sliders describe."""
        angles = np.deg2rad(self.angle)
        cosines = np.round(np.cos(angles[:, None] - angles), 15)  # opposite and right angles exactly, which keeps the rank
        gram = np.outer(self.norm, self.norm) * cosines
        weights = np.asarray(self.fraction)
        loss_weights = self.loss_weight or None
        return Problem(self._law(weights, gram), self.activation, self.t, self.psi_p, self.psi_n, self.noise_draws, loss_weights)

    def _law(self, weights: np.ndarray, gram: np.ndarray) -> MixtureLaw:
        k = self.num_classes
        if self.overlap == 1 or k == 1:
            return MixtureLaw.isotropic(weights, np.asarray(self.variance), gram)
        alone = (1 - self.overlap) / k
        level = np.asarray(self.variance) / (self.overlap + alone)
        return MixtureLaw(weights, np.vstack([level, np.diag(level)]), [self.overlap, *[alone] * k], gram)

    def training_rule(self) -> Rule:
        """The training rule; the average of sgd forgets at the rate of one with the time constant T.

        Raises:
            InputError: a step size longer than the time constant of the average.
        """
        averaging = self.averaging or None
        if self.rule == "flow":
            return GradientFlow(self.weight_decay, averaging)
        if averaging is not None and averaging <= self.step_size:
            raise InputError(f"averaging: {averaging:g}; allowed: 0, or longer than the step size {self.step_size:g}")
        return MinibatchSGD(
            self.step_size,
            self.batch,
            weight_decay=self.weight_decay,
            averaging=None if averaging is None else 1 - self.step_size / averaging,
            sampling="balanced" if self.loss_weight else "uniform",
        )

    @classmethod
    def from_problem(cls, problem: Problem) -> "State":
        """The state that describes a problem, with gradient flow.

        Raises:
            InputError: the problem is one that the sliders cannot hold; the message says what they can.
        """
        law = problem.mixture
        if problem.num_classes > MOST_CLASSES:
            raise InputError(f"weights: {problem.num_classes} classes; allowed in the explorer: 1 to {MOST_CLASSES}")
        norms, angles = _plane(law.centroid_gram)
        return cls(
            activation=problem.activation.name,
            t=float(problem.t),
            psi_p=float(problem.psi_p),
            psi_n=float(problem.psi_n),
            noise_draws=problem.noise_draws,
            fraction=tuple(map(float, law.weights)),
            variance=tuple(map(float, law.variances)),
            norm=norms,
            angle=angles,
            overlap=_overlap(law),
            loss_weight=() if problem.loss_weights is None else tuple(map(float, problem.loss_weights)),
        )


def _word(value: float) -> str:
    return f"{value:.17g}" if value != round(value, 12) else f"{round(value, 12):.15g}"


def _number(name: str, word: str) -> float:
    if len(word) <= MOST_NUMBER:
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not math.isnan(number):
            return number
    raise InputError(f"{name}: {word[:MOST_NUMBER]!r}; allowed: a number")


def _plane(gram: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lengths and angles in degrees of centroids in a plane with a given Gram matrix; the first one that is not 0 has the angle 0.

    Raises:
        InputError: they do not lie in a plane.
    """
    norms = np.sqrt(np.diagonal(gram))
    values, vectors = np.linalg.eigh(gram)
    planar = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0))
    if np.max(abs(planar @ planar.T - gram)) > SAME * max(float(values[-1]), 1.0):
        raise InputError("centroid_gram: its centroids do not lie in a plane; allowed in the explorer: a matrix of rank at most 2")
    planar = np.hstack([planar, np.zeros((len(gram), 2))])[:, :2]
    angles = np.rad2deg(np.arctan2(planar[:, 1], planar[:, 0]))
    first = int(np.argmax(norms > 0))
    turned = np.where(norms > 0, (angles - angles[first]) % 360, 0.0)
    later = turned[(norms > 0) & (turned > SAME) & (abs(turned - 180) > 1e-6)]
    if later.size and later[0] > 180:
        turned = (360 - turned) % 360
    turned = np.where(abs(turned - np.round(turned)) < 1e-6, np.round(turned), turned) % 360
    return tuple(map(float, norms)), tuple(map(float, turned))


def _overlap(law: MixtureLaw) -> float:
    """The share of the directions that the classes of a law have in common.

    Raises:
        InputError: a law that no overlap makes.
    """
    k = law.num_classes
    if law.commuting and law.covariances is None:
        if np.all(abs(law.eigenvalues - law.eigenvalues[0]) <= SAME * abs(law.eigenvalues[0])):
            return 1.0
        if law.eigenvalues.shape == (k + 1, k):
            overlap, level = float(law.eigenvalue_weights[0]), law.eigenvalues[0]
            alike = np.allclose(law.eigenvalue_weights[1:], (1 - overlap) / k, rtol=SAME, atol=0)
            if alike and np.allclose(law.eigenvalues[1:], np.diag(level), rtol=SAME, atol=SAME):
                return overlap
    raise InputError(
        "mixture: covariances that no slider describes; allowed in the explorer: isotropic classes, or those of a file that it wrote itself"
    )
