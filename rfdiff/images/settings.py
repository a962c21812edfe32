"""Everything that a training run depends on, as one value, checked, written to the run's folder and compared when the run resumes."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from rfdiff.diffusion import log_snr
from rfdiff.errors import InputError
from rfdiff.images.architecture import Architecture
from rfdiff.images.protocol import Protocol
from rfdiff.problem import checked_loss_weights
from rfdiff.rules import log_spaced
from rfdiff.value_types import as_integer, as_number

LONGEST = 10_000_000


@dataclass(frozen=True, kw_only=True)
class Form:
    """Sizes of a run that ends in minutes on a kind of device.

    Args:
        side: pixels a side.
        width, depth: of the network.
        batch: images of a step.
        steps: training steps.
    """

    side: int
    width: int
    depth: int
    batch: int
    steps: int


# two cores do 12 steps a second of the first, an H100 more than 100 of the second
CPU_FORM = Form(side=14, width=16, depth=2, batch=32, steps=2000)
ACCELERATOR_FORM = Form(side=28, width=32, depth=3, batch=128, steps=20_000)


def form_of(platform: str) -> Form:
    """Sizes of a run that ends in minutes on a device.

    Args:
        platform: of the device as JAX names it: "cpu", "gpu", "tpu", …
    """
    return CPU_FORM if platform == "cpu" else ACCELERATOR_FORM


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A training run.

    Args:
        protocol: its images.
        architecture: its network.
        steps: number of training steps; a run may go on to more later.
        batch: images of a step.
        loss_weights: K weights ω_c ≥ 0 of the classes in the training loss, summing to 1; None for the fractions of the images n_c/n.
        sampling: "weighted": batches walk through a random order of the training images, drawn anew when it is used up, and the losses of
            class c are multiplied by ω_c n/n_c. "balanced": images with replacement, of class c with probability ω_c.
        optimizer: "adam", or "sgd" with momentum.
        learning_rate: constant.
        momentum: of sgd.
        t: the one diffusion time of training, as in the random-features theory; None for all t, uniform in log-SNR.
        log_snr: least and greatest log-SNR of training at all t.
        levels: number of log-SNRs at which losses are measured, in the middles of as many equal parts of that range.
        measured: most images of a class and set on which losses are measured.
        per_decade: measured steps per decade.
        kept_per_decade: checkpoints per decade.
        dtype: floating type of the arithmetic, "float32" or "bfloat16"; parameters and optimiser are float32.
        seed: of parameters, noise and order.

    Raises:
        InputError: naming the field, its value and the allowed range.
    """

    protocol: Protocol = dataclasses.field(default_factory=Protocol)
    architecture: Architecture = dataclasses.field(default_factory=Architecture)
    steps: int = 20_000
    batch: int = 128
    loss_weights: tuple[float, ...] | None = None
    sampling: Literal["weighted", "balanced"] = "weighted"
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    t: float | None = None
    log_snr: tuple[float, float] = (-8.0, 7.0)
    levels: int = 8
    measured: int = 256
    per_decade: int = 8
    kept_per_decade: int = 4
    dtype: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_snr", tuple(float(value) for value in self.log_snr))
        limits = (
            ("steps", 1, LONGEST),
            ("batch", 1, sum(self.protocol.counts)),
            ("levels", 1, 1000),
            ("measured", 2, 10**6),
            ("per_decade", 1, 1000),
            ("kept_per_decade", 1, 1000),
            ("seed", 0, 2**32 - 1),
        )
        for name, least, most in limits:
            object.__setattr__(self, name, as_integer(name, getattr(self, name), least, most))
        choices = {"optimizer": ("adam", "sgd"), "dtype": ("float32", "bfloat16"), "sampling": ("weighted", "balanced")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name}: {getattr(self, name)!r}; allowed: {' or '.join(allowed)}")
        if self.loss_weights is not None:
            checked = checked_loss_weights(self.loss_weights, self.protocol.num_classes)
            object.__setattr__(self, "loss_weights", tuple(checked.tolist()))
        if not 0 < as_number(self.learning_rate) < np.inf:
            raise InputError(f"learning_rate: {self.learning_rate!r}; allowed: a finite number > 0")
        if not 0 <= as_number(self.momentum) < 1:
            raise InputError(f"momentum: {self.momentum!r}; allowed: 0 <= momentum < 1")
        if self.t is not None and not 1e-4 <= as_number(self.t) <= 10:
            raise InputError(f"t: {self.t!r}; allowed: a diffusion time, 0.0001 to 10")
        if len(self.log_snr) != 2 or not -20 <= self.log_snr[0] < self.log_snr[1] <= 20:
            raise InputError(f"log_snr: {self.log_snr}; allowed: two increasing numbers, -20 to 20")

    @property
    def image_weights(self) -> tuple[float, ...] | None:
        """K weights ω_c n/n_c of an image of each class in the training loss; None where all weigh 1."""
        if self.loss_weights is None:
            return None
        total, counts = sum(self.protocol.counts), self.protocol.counts
        return tuple(weight * total / count for weight, count in zip(self.loss_weights, counts, strict=True))

    def measured_log_snrs(self) -> Float[np.ndarray, " T"]:
        """(T,) log-SNRs λ = log(e^{-2t}/Δ) at which losses are measured, ascending: that of t alone, or the grid."""
        if self.t is not None:
            return log_snr(self.t).astype(np.float32)[None]
        low, high = self.log_snr
        return (low + (high - low) * (np.arange(self.levels) + 0.5) / self.levels).astype(np.float32)

    def measured_steps(self) -> list[int]:
        """Steps at which losses are measured: 0, then log-spaced, then the last."""
        return [0, *log_spaced(self.steps, self.per_decade)]

    def kept_steps(self) -> list[int]:
        """Steps at which a checkpoint is kept: log-spaced, then the last."""
        return log_spaced(self.steps, self.kept_per_decade)

    def record(self) -> dict[str, object]:
        """Plain data, as JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> "Settings":
        """The settings of a record.

        Raises:
            InputError: an unknown or a missing field, or a value out of range.
        """
        try:
            known = dict(record)
            return cls(protocol=Protocol(**known.pop("protocol")), architecture=Architecture(**known.pop("architecture")), **known)
        except (TypeError, KeyError, AttributeError) as err:
            raise InputError(f"settings: cannot be understood ({err}); allowed: the fields of Settings") from err
