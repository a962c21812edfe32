"""What a sweep computes, as a TOML file: problems, dimensions, seeds, solvers, training; refused by name before anything is computed."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from rfdiff.errors import InputError
from rfdiff.problem import Problem
from rfdiff.problem_file import check_keys, read_toml
from rfdiff.rules import RULES, MinibatchSGD, Ridge, Rule, check_taus, rule_of
from rfdiff.rules.minibatch import MOST_STEPS
from rfdiff.simulation import SOLVERS as NETWORK_SOLVERS
from rfdiff.simulation.features import DTYPES, LARGEST_DIMENSION, sizes_at
from rfdiff.sweep.grid import LIST_AXIS, problems_of
from rfdiff.sweep.refusals import counted, distinct, is_integer, named, one_of
from rfdiff.theory.input_checks import checked_tolerance
from rfdiff.value_types import as_number

THEORY = "theory"
SOLVERS = (THEORY, *NETWORK_SOLVERS)
KEYS = (
    "problem", "problems", "axes", "d", "seeds", "seeds_per_cell", "solvers", "taus", "points", "rule", "dtype", "tolerance",
    "krylov_tolerance", "random_seed",
)  # fmt: skip
MOST_CELLS = 100_000
MOST_SEEDS = 2**32
BATCH = "batch"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep as it was asked for, every number of it checked.

    Args:
        axes: values of each axis by the name of its number; for a list of problems {"problem": 0, 1, …}.
        scales: "log" or "linear", how each axis is drawn.
        problems: the problems, the last axis fastest.
        dimensions: dimensions d of the networks; empty if only theory is computed.
        seeds: networks of each problem, dimension and solver: replicas 0 … seeds - 1.
        seeds_per_cell: how many of them are one cell.
        solvers: what is computed of each problem, out of `SOLVERS`.
        taus: training times; None for `points` chosen by the theory, or with ridge.
        points: number of training times where they are chosen.
        rule: training rule, and its name in `RULES`.
        rule_name: that name.
        dtype: floating type of the networks.
        tolerance: numerical error of the theory; None for 1e-6.
        krylov_tolerance: that of Krylov spaces; None for the default of `simulation.learning_curves`. A file that gives only `tolerance`
            means both by it.
        random_seed: number from which all networks are drawn.
        document: the file's content, the values of every axis written out.
    """

    axes: dict[str, np.ndarray]
    scales: dict[str, str]
    problems: tuple[Problem, ...]
    dimensions: tuple[int, ...]
    seeds: int
    seeds_per_cell: int
    solvers: tuple[str, ...]
    taus: tuple[float, ...] | None
    points: int
    rule: Rule
    rule_name: str
    dtype: str
    tolerance: float | None
    krylov_tolerance: float | None
    random_seed: int
    document: dict[str, Any]

    @property
    def networks(self) -> tuple[str, ...]:
        """The solvers that build networks."""
        return tuple(name for name in self.solvers if name != THEORY)


def read_spec(path: str | Path) -> Sweep:
    """A sweep from a TOML file (the commented example is experiments/sweep.toml).

    Raises:
        InputError: no such file, not TOML; unknown, missing or malformed keys; a cell that cannot exist. The message names the file.
    """
    try:
        document = read_toml(path)
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({err.strerror or err})") from err
    try:
        return sweep_from_dict(document)
    except InputError as err:
        raise InputError(f"{path}: {err}") from err


def sweep_from_dict(document: dict[str, Any]) -> Sweep:
    """A sweep from plain numbers, lists and tables (the content of the TOML file).

    Raises:
        InputError: unknown, missing or malformed keys; a cell that cannot exist.
    """
    check_keys("sweep", document, KEYS)
    solvers = distinct("solvers", document.get("solvers"), lambda name: name in SOLVERS, f"a list out of {', '.join(SOLVERS)}")
    simulated = any(name != THEORY for name in solvers)
    for name in ("d", "seeds"):
        if simulated and name not in document:
            raise InputError(f"sweep: key {name!r} is missing; required for {next(s for s in solvers if s != THEORY)}")
    for name in ("d", "seeds", "seeds_per_cell", "dtype", "random_seed"):
        if not simulated and name in document:
            raise InputError(
                f"{name}: {document[name]!r}, but the only solver is theory, which does not use it; allowed: with a solver of networks"
            )
    wanted = document.get("d", [])
    good, allowed = lambda d: is_integer(d, 1, LARGEST_DIMENSION), f"an integer from 1 to {LARGEST_DIMENSION}, or a list of such"
    dimensions = distinct("d", wanted if isinstance(wanted, list) else [wanted], good, allowed) if simulated else ()
    seeds = counted(document, "seeds", 1, 1, MOST_CELLS)
    rule_name, rule = _rule(document.get("rule", {"name": "gradient-flow"}))
    axes, scales, problems = problems_of(document)
    sweep = Sweep(
        axes=axes,
        scales=scales,
        problems=problems,
        dimensions=dimensions,
        seeds=seeds,
        seeds_per_cell=counted(document, "seeds_per_cell", 1, 1, seeds),
        solvers=solvers,
        taus=_taus(document, rule_name),
        points=counted(document, "points", 80, 3, MOST_CELLS),
        rule=rule,
        rule_name=rule_name,
        dtype=one_of("dtype", document.get("dtype", "float64"), DTYPES),
        tolerance=None if (tolerance := document.get("tolerance")) is None else checked_tolerance(tolerance),
        krylov_tolerance=_krylov_tolerance(document),
        random_seed=counted(document, "random_seed", 0, 0, MOST_SEEDS - 1),
        document=_written_out(document, axes, scales),
    )
    _check_cells(sweep)
    return sweep


def _written_out(document: dict[str, Any], axes: dict[str, np.ndarray], scales: dict[str, str]) -> dict[str, Any]:
    """The document with axes as tables, which keep their order and every bit when they are written as TOML and read again."""
    if not document.get("axes"):
        return document
    return {**document, "axes": {name: {"values": values.tolist(), "scale": scales[name]} for name, values in axes.items()}}


def _rule(table: object) -> tuple[str, Rule]:
    if not isinstance(table, dict) or "name" not in table:
        raise InputError(f"rule: {table!r}; allowed: a table [rule] with a name")
    name = one_of("rule: name", table["name"], tuple(RULES))
    if name == MinibatchSGD.name and BATCH in table:  # the option --batch of the commands, under its name
        if "batch_per_dimension" in table:
            raise InputError(f"rule: {BATCH} beside batch_per_dimension, which is the same number; allowed: one of them")
        table = {("batch_per_dimension" if key == BATCH else key): value for key, value in table.items()}
    check_keys(f"rule: {name}", table, ("name", *RULES[name].arguments, *RULES[name].options), RULES[name].arguments)
    rule = named("rule", rule_of, name, **{key: value for key, value in table.items() if key != "name"})
    if isinstance(rule, Ridge) and (len(rule.penalties) < 3 or np.any(np.diff(rule.penalties) >= 0)):
        raise InputError(f"rule: penalties: {table['penalties']!r}; allowed: at least 3, decreasing, so that training times increase")
    return name, rule


def _taus(document: dict[str, Any], rule_name: str) -> tuple[float, ...] | None:
    for name in ("taus", "points"):
        if name in document and rule_name == Ridge.name:
            raise InputError(f"{name}: {document[name]!r} with ridge; allowed: none, its penalties take the place of training times")
    if "taus" not in document:
        return None
    if "points" in document:
        raise InputError(f"points: {document['points']!r} beside taus; allowed: one of them")
    taus = check_taus(document["taus"])
    if len(taus) < 3:
        raise InputError(f"taus: {len(taus)} given; allowed: at least 3, to read times from")
    return tuple(taus.tolist())


def _krylov_tolerance(document: dict[str, Any]) -> float | None:
    """That of Krylov spaces, or what a file that names none means by `tolerance`."""
    value = document.get("krylov_tolerance", document.get("tolerance"))
    if value is not None and not 0 < as_number(value) < 1:
        raise InputError(f"krylov_tolerance: {value!r}; allowed: 0 < krylov_tolerance < 1")
    return None if value is None else float(value)


def _check_cells(sweep: Sweep) -> None:
    """Refuse too many cells, problems that occur twice, and networks and schedules that cannot exist.

    Raises:
        InputError: naming the problem and the dimension.
    """
    groups = -(-sweep.seeds // sweep.seeds_per_cell)
    theory = THEORY in sweep.solvers
    count = len(sweep.problems) * (theory + len(sweep.networks) * len(sweep.dimensions) * groups)
    if count > MOST_CELLS:
        raise InputError(f"sweep: {count} cells; allowed: at most {MOST_CELLS}")
    texts: dict[str, int] = {}
    for i, problem in enumerate(sweep.problems):
        first = texts.setdefault(problem.to_toml(), i)
        if first != i:
            raise InputError(f"problems: {i} is the same as {first}; allowed: each problem once")
        where = f"problem {i}" if LIST_AXIS in sweep.axes else f"axes: {point_text(sweep, i)}"
        if sweep.taus is not None or sweep.rule_name == Ridge.name:
            named(where, sweep.rule.schedule, sweep.taus, problem.kappa)
        for d in sweep.dimensions:
            named(where, sizes_at, problem, d)
        if isinstance(sweep.rule, MinibatchSGD):
            named(where, sweep.rule.check_loss_weights, problem.loss_weights, problem.mixture.weights)
    if isinstance(sweep.rule, MinibatchSGD) and sweep.networks:
        end = 0.0 if sweep.taus is None else sweep.taus[-1]
        if np.isfinite(end) and end / float(sweep.rule.step_size) > MOST_STEPS:
            raise InputError(f"taus: {end:g} takes more steps of sgd, one by one, than are allowed: {MOST_STEPS}")
        for d in sweep.dimensions:
            named(f"d = {d}", sweep.rule.batch_size, d)
        if sweep.networks != ("exact",):
            raise InputError(f"solvers: {', '.join(sweep.networks)} with sgd; allowed: theory and exact, which then trains step by step")
        if sweep.taus is None or np.isinf(sweep.taus[-1]):
            raise InputError("taus: none or inf with sgd, which trains networks step by step; allowed: finite training times")
    if "krylov-probes" in sweep.solvers and min(sweep.dimensions) < 2:
        raise InputError(f"d: {min(sweep.dimensions)} with krylov-probes; allowed: at least 2, the columns that it draws")


def point_of(sweep: Sweep, index: int) -> dict[str, float]:
    """Values of the axes at a problem of the sweep."""
    places = np.unravel_index(index, [len(values) for values in sweep.axes.values()])
    return {name: values[i].item() for (name, values), i in zip(sweep.axes.items(), places, strict=True)}


def point_text(sweep: Sweep, index: int) -> str:
    """The same in words."""
    return ", ".join(f"{name} = {value:g}" for name, value in point_of(sweep, index).items())
