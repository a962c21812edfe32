"""Where closed forms compute, of training and of the backward process: in double precision on the CPU of the host, whatever the device.

They need complex128, which a TPU does not have, and are small loops of few numbers, in which a GPU would wait for itself. A program
that the caller compiles around them, with `curve_kernel` inside, runs where the caller puts it.
"""

import contextlib
from collections.abc import Iterator

import jax

from rfdiff.errors import InputError


@contextlib.contextmanager
def double_on_host() -> Iterator[None]:
    """Double precision on the CPU.

    Raises:
        InputError: JAX was started without its CPU.
    """
    with jax.enable_x64(True):
        if jax.default_backend() == "cpu" and jax.config.values["jax_default_device"] is None:
            yield  # as it is: a device that is named would compile every program once more
        else:
            with jax.default_device(_cpu()):
                yield


def _cpu() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError as err:
        default = jax.default_backend()
        raise InputError(
            f"JAX_PLATFORMS: without the CPU, on which the closed forms compute; allowed: JAX_PLATFORMS={default},cpu, or not set"
        ) from err
