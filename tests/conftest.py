"""Fixtures that every part of the suite shares, and a guard: no test may leave a global JAX setting changed."""

import gc
import os
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# Most of the suite's time is compilation. With this release another backend compiles twice as fast, and few optimisations halve the rest
# (`full_optimisation` is for files that compute more than they compile). Without fused multiply-adds, of which such code has some here and
# some there, the same draws are the same numbers in every program.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false --xla_cpu_max_isa=AVX")
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# part of the time to lower a program is for the record of where each operation was written, which no test reads
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# programs, however small, are compiled once for all workers and for the commands that tests start; the first process makes the folder,
# and removes it
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _cache = tempfile.TemporaryDirectory(prefix="rfdiff-tests-")
    os.environ.update(JAX_COMPILATION_CACHE_DIR=_cache.name, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")

# a test may put another constant into a module: what is traced then must not be kept for others
os.environ.setdefault("RFDIFF_CACHE", "off")

import jax
import pytest

from rfdiff.mixture import MixtureLaw
from rfdiff.problem import Problem
from rfdiff.theory import ready_programs

os.environ["MPLBACKEND"] = "agg"  # before any test, or process it starts, imports matplotlib: no window may open


@pytest.fixture(autouse=True)
def _unchanged_jax_settings() -> Iterator[None]:
    """The package promises to change no global setting (its float64 work runs in a context manager)."""

    before = dict(jax.config.values)  # the values in force in this thread, so that a context manager left open shows too
    yield
    after = dict(jax.config.values)
    changed = {name: (before.get(name), value) for name, value in after.items() if before.get(name) != value}
    if changed:
        pytest.fail(f"global JAX settings were left changed: {changed}")


MOST_MAPPINGS = 40_000  # of the 65,530 that Linux lets a process have by default: compilation ends in a segmentation fault beyond them


@pytest.fixture(scope="module", autouse=True)
def _programs_are_let_go() -> Iterator[None]:
    """Compiled programs of earlier files are dropped where there are many: each holds several mappings of memory."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()
        ready_programs.forget()
        gc.collect()


@pytest.fixture(scope="module")
def full_optimisation() -> Iterator[None]:
    """Programs compile with all optimisations, as users have them: for files (`pytestmark`) whose time is computation."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def strict_ranks() -> Iterator[None]:
    """JAX refuses to broadcast arrays of different rank: what the vocabulary is held to, since users call it with any shape."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="session")
def case_a() -> Problem:
    """Case A of the equations, section 10: tanh, two isotropic classes with centroids, noise averaged exactly."""
    law = MixtureLaw.isotropic([0.7, 0.3], [1.5, 0.4], [[0.5, 0.1], [0.1, 1.0]])
    return Problem(law, "tanh", t=0.1, psi_p=4.0, psi_n=3.0)


@pytest.fixture(scope="session")
def case_b() -> Problem:
    """Case B of the equations, section 10: erf, two anisotropic classes, three noise draws per sample."""
    law = MixtureLaw([0.6, 0.4], [[1.6, 0.2], [0.4, 1.2]], [0.5, 0.5], [[0.5, 0.0], [0.0, 0.5]])
    return Problem(law, "erf", t=0.2, psi_p=2.0, psi_n=2.0, noise_draws=3)


@pytest.fixture(scope="session")
def fashion_mnist_directory() -> Path:
    """The four original files of Fashion-MNIST: where RFDIFF_FASHION_MNIST says, or in shared/data beside the checkout."""
    named = os.environ.get("RFDIFF_FASHION_MNIST")
    places = [*([Path(named)] if named else []), Path(__file__).resolve().parents[2] / "shared" / "data" / "fashion-mnist"]
    for place in places:
        if place.is_dir():
            return place
    pytest.skip(f"no Fashion-MNIST: RFDIFF_FASHION_MNIST is {named!r}, and there is no shared/data/fashion-mnist beside the checkout")
