"""Training steps in compiled chunks: one program for all of them, with the losses measured, and an early stop decided, inside.

A chunk is a `lax.scan` over a fixed number of steps that do nothing once the training is over, so that chunks of any position have one
shape. The state goes in donated and comes out; it is all that a checkpoint has to hold.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped]
from jaxtyping import Array, Bool, Float, Int, PyTree

from rfdiff.activation import Activation
from rfdiff.errors import InputError
from rfdiff.simulation.descent.gradient import Training, batch_gradient, drawn_by_class, fresh_noise, losses, whole_gradient
from rfdiff.value_types import as_integer, as_number, value_type


@dataclass(frozen=True)
class StopWhen:
    """Early stop on the test loss: over after `patience` measurements in a row without a new best.

    Measurements are those of the logged steps, log-spaced by default: early ones are close together, and their losses differ little. Leave
    `improvement` small or the patience long.

    Args:
        class_index: class whose test loss counts; None for the total Σ_c π_c L_c.
        patience: measurements ≥ 1 without improvement.
        improvement: relative decrease in [0, 1) below the best so far (that of A = 0 to begin with) that counts as one.

    Raises:
        InputError: a number out of range.
    """

    class_index: int | None = None
    patience: int = 5
    improvement: float = 0.0

    def __post_init__(self) -> None:
        if self.class_index is not None:
            as_integer("class_index", self.class_index, 0, why="or None for the total loss")
        as_integer("patience", self.patience, 1)
        if not 0 <= as_number(self.improvement) < 1:
            raise InputError(f"improvement: {self.improvement!r}; allowed: 0 <= improvement < 1")


@dataclass(frozen=True)
class Recipe:
    """What is compiled into a chunk.

    Args:
        activation: σ.
        noise: "average", "fixed" or "fresh".
        batch: pairs B a step; None for the whole training set.
        pairs: pairs (sample, draw) to choose batches from: n m, or n with fresh noise.
        stop: early stop, or None.
        chunk: steps of a chunk.
        balanced: whether the class of each pair of a batch is drawn first, with its weight in the loss.
    """

    activation: Activation
    noise: str
    batch: int | None
    pairs: int
    stop: StopWhen | None
    chunk: int
    balanced: bool = False

    @property
    def in_epochs(self) -> bool:
        """Whether batches walk through a permutation of all pairs."""
        return self.batch is not None and not self.balanced


@value_type
class State:
    """A training under way (T measurements, K classes).

    Args:
        A: (d, p) readout.
        optimizer: state of the optimiser.
        step: steps taken.
        order: (pairs,) this epoch's permutation; empty where batches walk through none.
        row: measurements made.
        train_loss, test_loss: (T, K) measured losses, NaN where still to come.
        best: lowest monitored loss so far.
        since: measurements since then.
        early: whether early stopping triggered.
        finite: whether every number has stayed finite.
    """

    A: Float[Array, "d p"]
    optimizer: PyTree
    step: Int[Array, ""]
    order: Int[Array, " pairs"]
    row: Int[Array, ""]
    train_loss: Float[Array, "T K"]
    test_loss: Float[Array, "T K"]
    best: Float[Array, ""]
    since: Int[Array, ""]
    early: Bool[Array, ""]
    finite: Bool[Array, ""]


def start(training: Training, recipe: Recipe, optimizer: optax.GradientTransformation) -> State:
    """The state at A = 0; a measurement asked for at step 0 is made."""
    p, d = training.V.shape
    A = jnp.zeros((d, p), training.V.dtype)
    shape, now = (len(training.log_steps), len(training.weights)), int(training.log_steps[0]) == 0
    blank = jnp.full(shape, math.nan, A.dtype)
    state = State(
        A=A,
        optimizer=optimizer.init(A),
        step=jnp.int32(0),
        order=jnp.zeros(recipe.pairs if recipe.in_epochs else 0, jnp.int32),
        row=jnp.int32(now),
        train_loss=blank.at[0].set(training.train.untrained_loss) if now else blank,
        test_loss=blank.at[0].set(training.test.untrained_loss) if now else blank,
        best=_monitored(training.test.untrained_loss, training, recipe),
        since=jnp.int32(0),
        early=jnp.zeros((), bool),
        finite=jnp.ones((), bool),
    )
    return owned(state)


def owned(state: State) -> State:
    """A copy in buffers of its own (they will be donated), without weak types (a second chunk would be compiled for their lack)."""
    keep = jax.dtypes.prng_key
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if jnp.issubdtype(leaf.dtype, keep) else jnp.array(leaf, leaf.dtype), state)


@functools.partial(jax.jit, static_argnames=("recipe", "optimizer"), donate_argnames="state")
def advance(state: State, training: Training, recipe: Recipe, optimizer: optax.GradientTransformation) -> State:
    """The state a chunk later, or at the end of the training, at its early stop, or where a number was not finite any more."""

    def body(state: State, _: None) -> tuple[State, None]:
        active = (state.step < training.log_steps[-1]) & ~state.early & state.finite
        return jax.lax.cond(active, lambda s: _step(s, training, recipe, optimizer), lambda s: s, state), None

    return jax.lax.scan(body, state, None, length=recipe.chunk)[0]


def _step(state: State, training: Training, recipe: Recipe, optimizer: optax.GradientTransformation) -> State:
    order, gradient = _gradient(state, training, recipe)
    updates, inner = optimizer.update(gradient, state.optimizer, state.A)
    A = optax.apply_updates(state.A, updates)
    moved = dataclasses.replace(state, A=A, optimizer=inner, step=state.step + 1, order=order, finite=jnp.all(jnp.isfinite(A)))
    due = moved.finite & (training.log_steps[state.row] == moved.step)
    return jax.lax.cond(due, lambda s: _measure(s, training, recipe), lambda s: s, moved)


def _gradient(state: State, training: Training, recipe: Recipe) -> tuple[jax.Array, jax.Array]:
    """This epoch's permutation, and the gradient of this step."""
    if recipe.batch is None and recipe.noise != "fresh":
        return state.order, whole_gradient(state.A, training)
    assert training.samples is not None  # `prepared_replica` draws them for such recipes
    noise_key, batch_key = training.keys
    n, d = training.samples[1].shape
    order, chosen, weights = state.order, jnp.arange(n, dtype=jnp.int32), training.sample_weights
    if recipe.balanced:
        drawn_key = jax.random.fold_in(batch_key, state.step)
        chosen, weights = drawn_by_class(drawn_key, training, recipe.batch or 0, recipe.pairs // n), None
    elif recipe.batch is not None:
        steps = recipe.pairs // recipe.batch  # an epoch leaves out the few pairs that fill no batch, others each time
        position = state.step % steps

        def shuffled() -> jax.Array:
            return jax.random.permutation(jax.random.fold_in(batch_key, state.step // steps), jnp.arange(recipe.pairs, dtype=jnp.int32))

        order = jax.lax.cond(position == 0, shuffled, lambda: state.order)
        chosen = jax.lax.dynamic_slice(order, (position * recipe.batch,), (recipe.batch,))
    if recipe.noise == "fresh":
        noise = fresh_noise(noise_key, state.step, (len(chosen), d), state.A.dtype)
    else:
        assert training.noise is not None  # "fixed": the stored draws
        noise = training.noise[chosen]
    chosen = chosen % n
    return order, batch_gradient(state.A, training, recipe.activation, chosen, noise, None if weights is None else weights[chosen])


def _measure(state: State, training: Training, recipe: Recipe) -> State:
    train, test = losses(state.A, training)
    best, since, early = state.best, state.since, state.early
    if recipe.stop is not None:
        value = _monitored(test, training, recipe)
        better = value < best * (1 - recipe.stop.improvement)
        best, since = jnp.where(better, value, best), jnp.where(better, 0, since + 1)
        early = since >= recipe.stop.patience
    return dataclasses.replace(
        state,
        row=state.row + 1,
        train_loss=state.train_loss.at[state.row].set(train),
        test_loss=state.test_loss.at[state.row].set(test),
        best=best,
        since=since,
        early=early,
        finite=jnp.all(jnp.isfinite(train)) & jnp.all(jnp.isfinite(test)),
    )


def _monitored(test: jax.Array, training: Training, recipe: Recipe) -> jax.Array:
    index = None if recipe.stop is None else recipe.stop.class_index
    return jnp.sum(training.weights * test) if index is None else test[index]
