"""Training of a U-Net as a denoiser of the Ornstein-Uhlenbeck process; losses per class and t, checkpoints that resume exactly.

    x_t = e^{-t} x_0 + √Δ ξ,  loss = (1/d) E ‖ε̂(x_t, λ) - ξ‖²,  λ = log(e^{-2t}/Δ) uniform, or that of one t

Random numbers of step k are those of the run's key folded with k, and the order of the images is part of the state: a state on disk holds
all that the next step depends on.
"""

import contextlib
import functools
import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax  # type: ignore[import-untyped]
import xarray as xr
from jaxtyping import Array, Float, Int, PyTree

from rfdiff.diffusion import log_snr, time_at_log_snr
from rfdiff.errors import InputError
from rfdiff.files.dataset_file import save_dataset
from rfdiff.images import checkpoints
from rfdiff.images.architecture import Architecture
from rfdiff.images.devices import Devices
from rfdiff.images.losses import SETS, LossMeter
from rfdiff.images.protocol import ImageSet, fitted_law, law_numbers
from rfdiff.images.settings import Settings
from rfdiff.images.unet import UNet, initial_parameters, noise_estimate, noised
from rfdiff.progress import progress

CHUNK_SECONDS = 2.0  # about how long the host waits for the devices before it looks for an interruption
CONTENT = "losses of a U-Net"

Measured = Mapping[str, np.ndarray]  # the step and the losses there
History = list[Measured]


class State(NamedTuple):
    """What a step takes and leaves: number of steps done, parameters, optimiser, order of the images."""

    step: Int[Array, ""] | np.int32
    parameters: PyTree
    optimizer: PyTree
    order: Int[Array, " n"] | np.ndarray


class Recipe(NamedTuple):
    """What of `Settings` the program of a training step is made from; `groups` where the images do not all weigh the same, else ()."""

    architecture: Architecture
    batch: int
    sampling: str
    optimizer: str
    learning_rate: float
    momentum: float
    t: float | None
    log_snr: tuple[float, float]
    dtype: str
    groups: tuple[tuple[int, float], ...] = ()  # class after class, the number of images and the weight of each in the loss

    @property
    def weights(self) -> Float[np.ndarray, " n"] | None:
        """(n,) weights of the images in the loss, of mean 1; None where all weigh 1."""
        return np.repeat([weight for _, weight in self.groups], [count for count, _ in self.groups]) if self.groups else None


def recipe_of(settings: Settings) -> Recipe:
    """What the program of a run's steps is made from."""
    weights = settings.image_weights
    groups = () if weights is None else tuple(zip(settings.protocol.counts, weights, strict=True))
    return Recipe(**{name: getattr(settings, name) for name in Recipe._fields if name != "groups"}, groups=groups)


def optimizer_of(recipe: Recipe) -> optax.GradientTransformation:
    """The optimiser of a recipe."""
    rate = recipe.learning_rate
    return optax.adam(rate) if recipe.optimizer == "adam" else optax.sgd(rate, recipe.momentum)


def initial_state(settings: Settings) -> State:
    """The state before the first step, arrays of numpy."""
    side = settings.protocol.side
    shapes = jax.ShapeDtypeStruct((1, side, side), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
    parameters = initial_parameters(UNet(settings.architecture), settings.seed, *shapes)
    optimizer = jax.tree.map(np.asarray, optimizer_of(recipe_of(settings)).init(parameters))
    return State(np.int32(0), parameters, optimizer, np.arange(sum(settings.protocol.counts), dtype=np.int32))


@functools.lru_cache(maxsize=8)
def training_program(recipe: Recipe, devices: Devices) -> Callable[..., State]:
    """`run(state, n, images, seed)`: n steps of training; runs that differ in images or seeds share it."""
    return devices.repeated(training_step(recipe, devices))


def training_step(recipe: Recipe, devices: Devices) -> Callable[[State, jax.Array, jax.Array], State]:
    """`step(state, images, seed)`: one step of training on images (n, s, s)."""
    network, optimizer, batch = UNet(recipe.architecture, jnp.dtype(recipe.dtype)), optimizer_of(recipe), recipe.batch
    low, high = recipe.log_snr

    def step(state: State, images: jax.Array, seed: jax.Array) -> State:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        order_key, level_key, noise_key = jax.random.split(key, 3)
        order, chosen = _chosen(state, order_key, recipe, len(images))
        x0 = devices.split(images[chosen])
        if recipe.t is None:  # stratified over the range: one number in each of `batch` equal parts
            parts = (jnp.arange(batch) + jax.random.uniform(level_key, (batch,))) / batch
            levels = low + (high - low) * parts
        else:
            levels = jnp.full(batch, log_snr(recipe.t), jnp.float32)
        noise = jax.random.normal(noise_key, x0.shape)

        def loss(parameters: PyTree) -> jax.Array:
            squares = (noise_estimate(network, parameters, noised(x0, levels, noise), levels) - noise) ** 2
            if recipe.weights is None or recipe.sampling == "balanced":  # balanced batches hold the classes as they weigh
                return jnp.mean(squares)
            return jnp.mean(devices.split(jnp.asarray(recipe.weights, squares.dtype)[chosen]) * jnp.mean(squares, axis=(1, 2)))

        updates, own = optimizer.update(jax.grad(loss)(state.parameters), state.optimizer, state.parameters)
        return State(state.step + 1, optax.apply_updates(state.parameters, updates), own, order)

    return step


def _chosen(state: State, key: jax.Array, recipe: Recipe, total: int) -> tuple[jax.Array | np.ndarray, jax.Array]:
    """The order of the images, and the numbers (batch,) of those of this step."""
    if recipe.sampling == "balanced":
        probabilities = None if recipe.weights is None else jnp.asarray(recipe.weights / total, jnp.float32)
        return state.order, jax.random.choice(key, total, (recipe.batch,), p=probabilities)
    place = state.step % (total // recipe.batch)  # what an order leaves over is in the next one
    order = jax.lax.cond(place == 0, lambda old: jax.random.permutation(key, old), lambda old: old, state.order)
    return order, jax.lax.dynamic_slice(order, (place * recipe.batch,), (recipe.batch,))


def train(settings: Settings, images: ImageSet, folder: Path, devices: Devices | None = None) -> xr.Dataset:
    """Train to `settings.steps` steps, or go on with what the folder holds; checkpoints and metrics.nc are in the folder.

    Args:
        settings: the run; if the folder holds a run, it must agree in everything but the number of steps.
        images: prepared from `settings.protocol`.
        folder: of the run; made if absent.
        devices: that share each batch; all there are if None.

    Returns:
        The losses (content of metrics.nc).

    Raises:
        InputError: another run in the folder; a batch that the devices cannot share; a loss that is not finite; no whole checkpoint.
        OSError: a checkpoint cannot be written; the message says which one is the last.
        KeyboardInterrupt: after keeping a checkpoint, with a sentence that says so.

    Reference: tests/images/test_training.py.
    """
    devices = Devices() if devices is None else devices
    devices.check_batch("batch", settings.batch)
    state, history = _begun(settings, images, folder)
    run, losses = training_program(recipe_of(settings), devices), LossMeter(settings, images, devices)
    done = kept = int(state.step)
    state, arrays = devices.everywhere(state), (devices.everywhere(images.train), np.uint32(settings.seed))
    measured, kept_at, chunk = set(settings.measured_steps()), set(settings.kept_steps()), 1
    with progress("training", settings.steps, done, unit="step") as advance, _deferred_interrupt() as interrupted:
        while True:
            if done in measured and (not history or history[-1]["step"] < done):
                history.append({"step": np.asarray(done), **losses.measure(state.parameters)})
            if done > kept and (done in kept_at or interrupted()):
                _keep(folder, state, history, settings)
                kept = done
            if interrupted() and done < settings.steps:
                raise KeyboardInterrupt(f"step {kept} of {settings.steps} is kept in {folder}, and the same command resumes from it")
            if done >= settings.steps:
                break
            count = min(min(stop for stop in measured | kept_at if stop > done) - done, chunk)
            start = time.perf_counter()
            state = jax.block_until_ready(run(state, count, *arrays))
            seconds = time.perf_counter() - start
            chunk = max(1, min(4 * chunk, int(CHUNK_SECONDS * count / max(seconds, 1e-6))))  # the first has compiled: grow from there
            done += count
            advance(count)
    dataset = as_dataset(history, settings)
    save_dataset(dataset, folder / checkpoints.METRICS)
    return dataset


def parameters_at(folder: Path, step: int, settings: Settings) -> PyTree:
    """Parameters of the network at a checkpoint.

    Raises:
        InputError: no such checkpoint, a damaged one, or one of another architecture.
    """
    found = checkpoints.load(folder, step, "; the other checkpoints stand: delete this one to go on without it")
    return _restored(found, settings, f"{folder / checkpoints.FOLDER} at step {step}").parameters


def as_dataset(history: History, settings: Settings) -> xr.Dataset:
    """Losses per coordinate by step, set (train, held-out), log-SNR and class, with standard errors over images."""
    stacked = {name: np.stack([row[name] for row in history]) for name in history[0]}
    axes = ("step", "set", "log_snr", "class")
    log_snrs = settings.measured_log_snrs()
    variables = {
        "loss": (axes, stacked["loss"], {"long_name": "loss per coordinate"}),
        "loss_stderr": (axes, stacked["loss_stderr"], {"long_name": "its standard error over images"}),
        "mean_loss": (("step", "set", "class"), stacked["mean_loss"], {"long_name": "loss per coordinate, mean over the log-SNRs"}),
        "mean_loss_stderr": (("step", "set", "class"), stacked["mean_loss_stderr"], {"long_name": "its standard error over images"}),
        "t": ("log_snr", time_at_log_snr(log_snrs), {"long_name": "diffusion time"}),
        "count": ("class", np.asarray(settings.protocol.counts), {"long_name": "training images"}),
    }
    coordinates = {"step": stacked["step"], "set": list(SETS), "log_snr": log_snrs, "class": list(settings.protocol.names)}
    return xr.Dataset(variables, coordinates, {"content": CONTENT, "settings": repr(settings.record())})


def data_digest(images: ImageSet) -> str:
    """Hash of the images that a run trains on and is measured on."""
    return hashlib.sha256(images.train.tobytes() + images.held_out.tobytes()).hexdigest()


def _begun(settings: Settings, images: ImageSet, folder: Path) -> tuple[State, History]:
    """State and history that a run starts from."""
    digest = data_digest(images)
    if (folder / checkpoints.RUN).exists():
        checkpoints.refuse_another(folder, settings, digest)
        checkpoints.clear_unfinished(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = checkpoints.newest(folder)
    if found is not None and found[0] > settings.steps:
        raise InputError(f"steps: {settings.steps}, but {folder} is already at step {found[0]}; allowed: at least that many")
    checkpoints.describe(folder, settings, digest, {"law": _law_record(images), "pixel_shift": images.shift, "pixel_scale": images.scale})
    if found is None:
        return initial_state(settings), []
    rows = {name.removeprefix("history_"): value for name, value in found[1].items() if name.startswith("history_")}
    history = [{name: value[i] for name, value in rows.items()} for i in range(len(rows["step"]))]
    planned = set(settings.measured_steps())
    return _restored(found[1], settings, str(folder)), [row for row in history if int(row["step"]) in planned or row["step"] < found[0]]


@functools.lru_cache(maxsize=8)
def _law_record(images: ImageSet) -> dict[str, list[float]]:
    """Numbers of the fitted law as plain data; kept, since a fit takes longer than many steps and a run may go on in many pieces."""
    return {name: np.asarray(value).tolist() for name, value in law_numbers(fitted_law(images)).items()}


def _keep(folder: Path, state: State, history: History, settings: Settings) -> None:
    arrays = {f"leaf_{i:04d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    arrays |= {f"history_{name}": np.stack([row[name] for row in history]) for name in history[0]}
    checkpoints.save(folder, int(state.step), arrays)
    save_dataset(as_dataset(history, settings), folder / checkpoints.METRICS)


def _restored(arrays: dict[str, np.ndarray], settings: Settings, place: str) -> State:
    leaves, structure = jax.tree.flatten(initial_state(settings))
    found = [arrays[name] for name in sorted(arrays) if name.startswith("leaf_")]
    if [(leaf.shape, leaf.dtype) for leaf in found] != [(leaf.shape, leaf.dtype) for leaf in leaves]:
        raise InputError(f"{place}: checkpoint of another architecture or optimiser; allowed: that of its run.json")
    return jax.tree.unflatten(structure, found)


@contextlib.contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C takes effect at the next chunk boundary, a second one at once. Outside the main thread: no signal handler."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    noted: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)
