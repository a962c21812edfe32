"""Size of a U-Net, as a value that needs no optional extra."""

from dataclasses import dataclass

from rfdiff.errors import InputError
from rfdiff.value_types import as_integer

WIDEST = 4  # most channels of a level, in units of the first


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Size of a U-Net.

    Args:
        width: channels of the finest level, a multiple of 4; level l has width · min(2^l, 4).
        depth: number of levels; each halves the side of the one before (rounding up).
        blocks: residual blocks of a level on the way down; one more on the way up.
        attention: number of coarsest levels with self-attention, 0 to depth.

    Raises:
        InputError: naming the field, its value and the allowed range.
    """

    width: int = 32
    depth: int = 3
    blocks: int = 1
    attention: int = 1

    def __post_init__(self) -> None:
        limits = (("width", 4, 1024), ("depth", 1, 4), ("blocks", 1, 16), ("attention", 0, self.depth))
        for name, least, most in limits:
            object.__setattr__(self, name, as_integer(name, getattr(self, name), least, most))
        if self.width % 4:
            raise InputError(f"width: {self.width}; allowed: a multiple of 4")

    def channels(self, level: int) -> int:
        """Channels of a level."""
        return self.width * min(2**level, WIDEST)
