"""Networks beside the curves: trained in the background, seed by seed, with the error bars of those that are finished."""

import dataclasses
import functools

import jax
import numpy as np

from rfdiff import simulation
from rfdiff.curves import LearningCurves
from rfdiff.errors import InputError
from rfdiff.explorer.answers import Axis, Json, numbers
from rfdiff.explorer.state import State
from rfdiff.explorer.workers import Background
from rfdiff.rules import MinibatchSGD
from rfdiff.simulation.features import floating_type
from rfdiff.simulation.networks import check_sgd
from rfdiff.simulation.seed_batches import SeedBatch

NUM_TIMES = 17  # points on each curve
DIMENSIONS, SEEDS = (10, 2000), (1, 100)


@dataclasses.dataclass(frozen=True)
class Networks:
    """Networks of one state, and how many are finished.

    Args:
        state: what they were trained for.
        d: dimension of the data.
        num_seeds: networks asked for.
        done: networks finished.
        curves: mean and standard error of those; None before the first.
    """

    state: State
    d: int
    num_seeds: int
    done: int = 0
    curves: LearningCurves | None = None

    def json(self) -> Json:
        """For the page."""
        answer: Json = {"d": self.d, "num_seeds": self.num_seeds, "done": self.done}
        if self.curves is not None:
            answer["taus"] = numbers(self.curves.taus)
            for name in ("train_loss", "test_loss", "score_error"):
                for suffix in ("", "_stderr"):
                    columns = np.asarray(getattr(self.curves, name + suffix)).T
                    answer[name + suffix] = [numbers(column) for column in columns]
        return answer


def start(background: Background[Networks], state: State, axis: Axis, d: int, num_seeds: int) -> int:
    """Train the networks of a state in the background, and the number of this work.

    Raises:
        InputError: d or num_seeds out of range; networks that do not fit in memory, or that SGD cannot train; the message of the command
            line.
    """
    for name, value, (least, most) in (("d", d, DIMENSIONS), ("num_seeds", num_seeds, SEEDS)):
        if not least <= value <= most:
            raise InputError(f"{name}: {value}; allowed: {least} to {most}")
    problem, rule, taus = state.problem(), state.training_rule(), axis.taus(state, NUM_TIMES)
    dtype = floating_type(None)
    if isinstance(rule, MinibatchSGD):
        check_sgd(problem, taus, d=d, rule=rule, dtype=dtype)
        solver = None
    else:
        solver = simulation.fitting_solver(problem, d=d, num_times=taus.size, num_seeds=num_seeds, dtype=dtype)
    run = functools.partial(simulation.run_seeds, problem, taus, d=d, key=jax.random.key(0), rule=rule, dtype=dtype, solver=solver)

    def work() -> None:
        batches: list[SeedBatch] = []
        background.tell(Networks(state, d, num_seeds))
        for seed in range(num_seeds):
            batches.append(run(seeds=[seed]))
            background.tell(Networks(state, d, num_seeds, len(batches), simulation.summarize(batches)))

    return background.start(work)
