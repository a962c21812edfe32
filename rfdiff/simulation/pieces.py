"""How large the pieces are that large arrays are made in: on a CPU they should stay in its cache, on an accelerator they should fill it."""

import jax


def piece(cpu: int, accelerator: int) -> int:
    """Size for the kind of device that programs are compiled for by default."""
    return cpu if jax.default_backend() == "cpu" else accelerator
