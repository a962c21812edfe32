"""A labelled data set in place of a mixture: real samples, of whose law nothing is assumed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from rfdiff.covariance_estimates import checked_names, distinct_labels
from rfdiff.errors import InputError
from rfdiff.value_types import Value, as_integer, as_real_array, set_field, static, value_type


@value_type
class Samples(Value):
    """Labelled samples from which a simulation draws training sets, and the held-out sets that it tests on.

    `simulation.learning_curves(..., data=samples)` trains on them unchanged, so centre and scale them first to a variance
    of order 1 per coordinate. `MixtureLaw.fit` needs the same scaling.

    Args:
        samples: (N, d) one sample a row.
        labels: (N,) class labels, numbers or text; the classes are the distinct ones in ascending order, as in `MixtureLaw.fit`, and stand
            for those of the problem's mixture in this order. The field holds their numbers 0 … K-1.
        held_out: most held-out samples of a class per replica, ≥ 1; a class with fewer left gives all that it has left.
        class_names: K names of the classes; () for the labels themselves.
        shape: shape of one sample before it was flattened; () where nothing is known of it.
        preparation: what was done to the samples, as pairs of words; `datasets.load_samples` says it.

    Raises:
        InputError: naming the argument, its value and the allowed range.
    """

    samples: Float[np.ndarray, "N d"]
    labels: Int[np.ndarray, " N"]
    held_out: int = static(default=1000)
    class_names: tuple[str, ...] = static(default=())
    shape: tuple[int, ...] = static(default=())
    preparation: tuple[tuple[str, str], ...] = static(default=())

    if TYPE_CHECKING:  # what the constructor accepts is wider than what the fields hold

        def __init__(
            self,
            samples: ArrayLike,
            labels: ArrayLike,
            held_out: int | np.integer = 1000,
            class_names: Sequence[str] = (),
            shape: tuple[int, ...] = (),
            preparation: tuple[tuple[str, str], ...] = (),
        ) -> None: ...

    def __post_init__(self) -> None:
        x = as_real_array("samples", self.samples)
        if x.ndim != 2 or x.size == 0:
            raise InputError(f"samples: shape {x.shape}; allowed: (N, d) with N, d >= 1, one sample a row (flatten images first)")
        if not np.all(np.isfinite(x)):
            raise InputError(f"samples: row {int(np.flatnonzero(~np.isfinite(x).all(1))[0])} is not finite; allowed: finite numbers")
        names, members = distinct_labels(self.labels, len(x))
        set_field(self, "samples", x)
        set_field(self, "labels", members)
        set_field(self, "class_names", checked_names(self.class_names, len(names)) or tuple(map(str, names)))
        set_field(self, "held_out", as_integer("held_out", self.held_out, 1))

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return len(self.class_names)

    @property
    def dimension(self) -> int:
        """Dimension d."""
        return int(np.shape(self.samples)[1])

    @property
    def counts(self) -> tuple[int, ...]:
        """K sample counts N_c."""
        return tuple(np.bincount(self.labels).tolist())
