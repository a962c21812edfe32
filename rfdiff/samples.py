"""A labelled data set in place of a mixture: real samples, of whose law nothing is assumed."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from rfdiff.errors import InputError
from rfdiff.value_types import Value, as_integer, as_real_array, set_field, static, value_type


@value_type
class Samples(Value):
    """Labelled samples from which a simulation draws training sets, and the held-out sets that it tests on.

    `simulation.learning_curves(..., data=samples)` trains on them as they are: centre and scale them first, to a variance O(1) per
    coordinate, as `MixtureLaw.fit` must be given them too.

    Args:
        samples: (N, d) one sample a row.
        labels: (N,) integers 0 … K-1, each at least once: the classes in the order of the weights of the problem's mixture.
        held_out: most held-out samples of a class per replica, ≥ 1; a class with fewer left gives all that it has left.

    Raises:
        InputError: naming the argument, its value and the allowed range.
    """

    samples: Float[np.ndarray, "N d"]
    labels: Int[np.ndarray, " N"]
    held_out: int = static(default=1000)

    if TYPE_CHECKING:  # what the constructor accepts is wider than what the fields hold

        def __init__(self, samples: ArrayLike, labels: ArrayLike, held_out: int | np.integer = 1000) -> None: ...

    def __post_init__(self) -> None:
        x = as_real_array("samples", self.samples)
        if x.ndim != 2 or x.size == 0:
            raise InputError(f"samples: shape {x.shape}; allowed: (N, d) with N, d >= 1, one sample a row (flatten images first)")
        if not np.all(np.isfinite(x)):
            raise InputError(f"samples: row {int(np.flatnonzero(~np.isfinite(x).all(1))[0])} is not finite; allowed: finite numbers")
        labels = np.asarray(self.labels)
        if labels.shape != x.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"labels: shape {labels.shape} of {labels.dtype}; allowed: ({len(x)},) integers, one for each sample")
        present = np.unique(labels)
        if present[0] != 0 or present[-1] != len(present) - 1:
            raise InputError(f"labels: {present.tolist()[:8]}; allowed: 0, 1, …, K-1, every class at least once")
        set_field(self, "samples", x)
        set_field(self, "labels", labels.astype(np.int64))
        set_field(self, "held_out", as_integer("held_out", self.held_out, 1))

    @property
    def num_classes(self) -> int:
        """Number K of classes."""
        return int(np.max(self.labels)) + 1

    @property
    def dimension(self) -> int:
        """Dimension d."""
        return int(np.shape(self.samples)[1])

    @property
    def counts(self) -> tuple[int, ...]:
        """K sample counts N_c."""
        return tuple(np.bincount(self.labels).tolist())
