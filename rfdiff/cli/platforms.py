"""The platforms that JAX is asked for by the environment, looked at before a command computes."""

import importlib
import os
from typing import Any

from rfdiff.errors import InputError


def check_platform() -> None:
    """Refuse platforms that this machine does not have, or without the CPU, on which the theory computes whatever else there is.

    JAX looks for its devices here, so a process that joins others does so before.

    Raises:
        InputError: naming JAX_PLATFORMS.
    """
    asked = os.environ.get("JAX_PLATFORMS", "")
    if not asked or asked == "cpu":
        return
    jax: Any = importlib.import_module("jax")
    try:
        jax.devices()
        jax.local_devices(backend="cpu")
    except Exception as err:  # an AssertionError or a RuntimeError, by the version of JAX and the platform
        reason = (str(err).strip().splitlines() or ["no such device"])[0]
        raise InputError(
            f"JAX_PLATFORMS: {asked!r} ({reason}); allowed: platforms of this machine with cpu among them, as in cuda,cpu"
        ) from err
