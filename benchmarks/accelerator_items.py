"""The items of `accelerator.py`, each a list of cases, and the process that works through one of them.

    python benchmarks/accelerator_items.py ITEM FORM SECONDS DONE PART

prints a line of JSON when it begins a case and one when the case has ended. DONE is a JSON list of cases to leave out, PART one of a number
of this part and how many parts there are; no case is begun after SECONDS. A case that fails says why, and the next is begun.
`accelerator.py` reads the lines, and ends the process where it must.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar

import harness
import jax
import jax.numpy as jnp
import numpy as np
import scaling
from accelerator_cases import CASES, TAUS

import rfdiff
from rfdiff import simulation, theory

REFERENCE = harness.RESULTS / "accelerator_reference.json"
FORMS: dict[str, dict[str, Any]] = {
    "small": {
        "cases": 4, "product": 1024, "copy": 2**24, "assembly": (512, 1024), "exact_flow": (256, 512), "wide": (512,),
        "krylov": (512, 1024), "d": 32, "unet": ("smoke",), "d_sampling": 1024, "each": 200, "t_sampling": 1.8,
    },
    "full": {
        "cases": 10, "product": 8192, "copy": 2**30, "assembly": (4096, 8192, 16384), "exact_flow": (4096, 8192, 16384),
        "wide": (4096, 8192, 16384), "krylov": (32768, 65536, 131072), "d": 128, "unet": ("gpu", "gpu, batch 512"), "d_sampling": 16_384,
        "each": 5000, "t_sampling": 2.8,
    },
}  # fmt: skip
CHAIN = 8  # products or copies in one program, so that its launch is a small part
REPEATS, LIMIT = 3, 6.0  # warm repeats, none begun after so many seconds
Found = dict[str, Any]
Work = dict[str, Callable[[], Found]]


def correctness(form: Found) -> Work:
    """Largest deviation of any loss: float64 from the committed curves, float32 from both."""
    committed = json.loads(REFERENCE.read_text(encoding="utf-8"))["cases"]

    def one(name: str) -> Found:
        wide, narrow = (CASES[name].losses(dtype) for dtype in ("float64", "float32"))
        expected = np.asarray(committed[name]["losses"])
        pairs = {"float64_to_committed": (wide, expected), "float32_to_float64": (narrow, wide), "float32_to_committed": (narrow, expected)}
        found = {what: float(np.max(abs(a - b))) for what, (a, b) in pairs.items()}
        limits = {"float64_to_committed": 1e-5, "float32_to_float64": CASES[name].limit, "float32_to_committed": CASES[name].limit}
        right = all(found[what] <= limit for what, limit in limits.items())
        says = f"float64 to committed {found['float64_to_committed']:.1e}, float32 to float64 {found['float32_to_float64']:.1e}"
        return {**found, "limits": limits, "right": right, "says": says + ("" if right else "  WRONG")}

    return {name: partial(one, name) for name in list(CASES)[: form["cases"]]}


def ceilings(form: Found) -> Work:
    """Rates of square matrix products in each precision, and of a copy in bytes read and written."""

    def product(dtype: str, precision: Any) -> Found:
        side = form["product"]
        with jax.enable_x64(dtype == "float64"):
            key, other = jax.random.split(jax.random.key(0))
            a, b = (jax.random.normal(k, (side, side), jnp.float32).astype(dtype) for k in (key, other))
            chain = jax.jit(lambda a, b: jax.lax.fori_loop(0, CHAIN, lambda _, y: jnp.matmul(a, y, precision=precision) / side**0.5, b))
            seconds = _each(harness.measure(lambda: chain(a, b.astype(a.dtype)), 10, LIMIT), CHAIN)
        rate = 2.0 * side**3 / seconds["best_s"]
        return {"seconds": seconds, "side": side, "flops_per_s": rate, "says": f"{rate / 1e12:.4g} TFLOP/s"}

    def copy() -> Found:
        x = jax.random.normal(jax.random.key(0), (form["copy"],), jnp.float32)
        shift = jax.jit(lambda x: jax.lax.fori_loop(0, CHAIN, lambda _, y: y + 1, x))
        seconds = _each(harness.measure(lambda: shift(x), 10, LIMIT), CHAIN)
        rate = 2.0 * x.nbytes / seconds["best_s"]
        return {"seconds": seconds, "bytes_read_and_written": 2 * x.nbytes, "bytes_per_s": rate, "says": f"{rate / 1e9:.4g} GB/s"}

    highest = jax.lax.Precision.HIGHEST
    kinds = {"float32": ("float32", highest), "float64": ("float64", highest), "float32, reduced": ("float32", None)}
    kinds["bfloat16"] = ("bfloat16", None)
    return {"copy": copy, **{f"product {name}": partial(product, *kind) for name, kind in kinds.items()}}


def assembly(form: Found) -> Work:
    """Training moments of both classes, by their operations over the rate of a product of the same precision measured in turns."""

    def one(p: int, dtype: str) -> Found:
        with jax.enable_x64(dtype == "float64"):
            found = scaling.assembly(p, dtype, form)
        own, rate = found["flops_per_s"] / 1e12, found["product_flops_per_s"] / 1e12
        says = f"{own:.3g} TFLOP/s, {100 * found['fraction']:.0f} % of the product's {rate:.3g}"
        return {**found, "target_fraction": scaling.TARGET, "says": says}

    return {f"{p} float32": partial(one, p, "float32") for p in reversed(form["assembly"])} | {
        f"{p} float64": partial(one, p, "float64") for p in form["assembly"][-2:-1]
    }


def exact_flow(form: Found) -> Work:
    """Eigendecompositions of p × p matrices, and curves of one network at 80 times from end to end."""

    def eigh(p: int, dtype: str) -> Found:
        with jax.enable_x64(dtype == "float64"):
            a = jax.random.normal(jax.random.key(0), (p, 2 * p), jnp.float32).astype(dtype)
            U = jnp.matmul(a, a.T, precision=jax.lax.Precision.HIGHEST) / (2 * p)
            solve = jax.jit(lambda U: jnp.linalg.eigh(U, symmetrize_input=False))
            seconds = harness.measure(lambda: solve(U), REPEATS, LIMIT)
            values, basis = solve(U)
            error = jnp.matmul(U, basis[:, :64], precision=jax.lax.Precision.HIGHEST) - basis[:, :64] * values[:64]
            residual = float(jnp.max(abs(error)) / values[-1])
        return {"seconds": seconds, "residual": residual, "says": f"residual {residual:.1e} of the largest eigenvalue"}

    def flow(p: int, dtype: str) -> Found:
        case = scaling.problem(4.0, 3.0)
        seconds = harness.measure(scaling.curves(case, p // 4, dtype, "exact"), REPEATS, LIMIT)
        return {"seconds": seconds, **_planned(case, p // 4, dtype, "exact", seconds["best_s"])}

    def pair(p: int, dtype: str) -> Iterator[tuple[str, Callable[[], Found]]]:
        yield f"eigh {p} {dtype}", partial(eigh, p, dtype)
        yield f"flow {p} {dtype}", partial(flow, p, dtype)

    sizes = [(p, "float32") for p in form["exact_flow"]] + [(p, "float64") for p in form["wide"]]
    return dict(case for size in sizes for case in pair(*size))


def krylov(form: Found) -> Work:
    """Curves of one network at 80 times by Krylov spaces without U in memory, to the default tolerance.

    Those of float32 are held against those of float64 where that came before in the same process.
    """
    wide: dict[int, np.ndarray] = {}

    def one(p: int, dtype: str) -> Found:
        d, kept = form["d"], []
        case = scaling.problem(p / d, 4.0)
        run = scaling.curves(case, d, dtype, "krylov-matrix-free")
        seconds = _once_or_more(lambda: kept.append(run()), 25.0)
        error, losses = float(kept[-1].error_estimate[0]), np.stack([kept[-1].train_loss[0], kept[-1].test_loss[0]])
        found = _planned(case, d, dtype, "krylov-matrix-free", seconds["best_s"])
        says = f"error estimate {error:.1e}, {found['says']}"
        if dtype == "float64":
            wide[p] = losses
        elif p in wide:
            by_time = np.max(abs(losses - wide[p]), axis=(0, 2))
            found |= {"to_float64": float(np.max(by_time)), "to_float64_at_80_times": by_time.round(9).tolist()}
            says += f", {found['to_float64']:.1e} from float64"
        return {"seconds": seconds, "d": d, "n": 4 * d, "error_estimate": error, **found, "says": says}

    sizes = [(form["krylov"][0], "float64"), *((p, "float32") for p in form["krylov"])]
    return {f"{p} {dtype}": partial(one, p, dtype) for p, dtype in sizes}


def unet(form: Found) -> Work:
    """Training steps of a U-Net, by their operations over the rate of a product in the same type."""
    import images  # flax is an extra

    def one(name: str) -> Found:
        kind, _, batch = name.partition(", batch ")
        found = images.run({**images.SIZES[kind], **({"batch": int(batch)} if batch else {})}, REPEATS)
        seconds = found.pop("seconds")["step"]
        says = f"{found['images_per_s']:.4g} images/s, {100 * found['part_of_the_matmul_rate']:.1f} % of the product's rate"
        return {"seconds": seconds, **found, "says": says}

    return {name: partial(one, name) for name in form["unet"]}


def sampling(form: Found) -> Work:
    """U-turns of the exact score, all coordinates simulated, beside the reduction to the span of the centroids."""
    import uturns

    def run() -> Found:
        found = uturns.run(form["d_sampling"], form["each"], form["t_sampling"])
        seconds = found.pop("seconds")
        right = all(case["within_four_errors"] for case in found["cases"].values())
        says = f"reduced {seconds['reduced']['best_s']:.3g} s; {'within' if right else 'NOT within'} four errors of the closed form"
        return {"seconds": seconds["full"], "seconds_reduced": seconds["reduced"]["best_s"], **found, "right": right, "says": says}

    return {f"d = {form['d_sampling']}": run}


def closed_form(form: Found) -> Work:
    """Case A in closed form: where the arrays of the theory live as it stands, and on the host's processor."""
    committed = json.loads(REFERENCE.read_text(encoding="utf-8"))["theory"]
    case = scaling.problem(4.0, 3.0)

    def one(where: Any) -> Found:
        kept: list[Any] = []
        with jax.default_device(where):
            seconds = _once_or_more(lambda: kept.append(theory.learning_curves(case, TAUS)), LIMIT)
            spectrum = _once_or_more(lambda: theory.spectrum(case), LIMIT)
        curves = kept[-1]
        deviation = float(np.max(abs(np.stack([curves.train_loss, curves.test_loss]) - np.asarray(committed["losses"]))))
        says = f"curves {seconds['best_s']:.3g} s, spectrum {spectrum['best_s']:.3g} s, {deviation:.1e} from the committed curves"
        place = "default" if where is None else where.platform
        return {"seconds": seconds, "spectrum_s": spectrum, "default_device": place, "deviation": deviation, "says": says}

    return {"host": partial(one, jax.devices("cpu")[0]), "default device": partial(one, None)}


ITEMS: dict[str, Callable[[Found], Work]] = {
    "correctness": correctness, "ceilings": ceilings, "assembly": assembly, "exact_flow": exact_flow, "krylov": krylov, "unet": unet,
    "sampling": sampling, "theory": closed_form,
}  # fmt: skip


def device() -> Found:
    """The device and the machine, as `harness.environment` has it, and how much memory there is."""
    there = jax.devices()[0]
    stats = there.memory_stats() or {}
    limit, environment = stats.get("bytes_limit"), harness.environment()
    environment["versions"]["rfdiff"] = rfdiff.__version__  # a lent machine may have it on its path alone
    return {"platform": there.platform, "memory_gib": limit and round(limit / 2**30, 1), "environment": environment}


def reference() -> Found:
    """Float64 curves of the ten cases and of case A in closed form, to be computed on a CPU."""
    cases, seconds = {}, {}
    for name, case in CASES.items():
        start = time.perf_counter()
        losses = case.losses("float64")
        took = time.perf_counter() - start
        seconds[name] = {**dict.fromkeys(("first_s", "best_s", "median_s", "worst_s"), took), "repeats": 1}
        cases[name] = {"d": case.d, "losses": losses.tolist()}
        print(f"{name}: {took:.1f} s", file=sys.stderr, flush=True)
    curves = theory.learning_curves(scaling.problem(4.0, 3.0), TAUS)
    closed = {"error_estimate": curves.error_estimate, "losses": np.stack([curves.train_loss, curves.test_loss]).tolist()}
    return {"axes": ["train, test", "time", "class"], "seconds": seconds, "cases": cases, "theory": closed}


def _planned(case: Any, d: int, dtype: str, solver: str, seconds: float) -> Found:
    """What the plan said that a network costs, beside what it took."""
    plan = simulation.plan(case, d=d, num_times=len(scaling.TAUS), dtype=dtype)
    found = next(e for e in plan.estimates if e.solver == solver)
    stated = {"planned_s": found.seconds, "planned_gib": found.bytes / 2**30, "planned_rate": plan.rate, "planned_flops": found.flops}
    return {**stated, "says": f"planned {found.seconds:.3g} s, {found.bytes / 2**30:.3g} GiB ({seconds / found.seconds:.2g} x in time)"}


def _each(seconds: Found, count: int) -> Found:
    """Times of one of `count` equal parts of a program."""
    return {name: value if name in ("first_s", "repeats") else value / count for name, value in seconds.items()}


def _once_or_more(run: Callable[[], Any], limit: float) -> Found:
    """As `harness.measure`, but a first call longer than the limit is the only one, and `compiled` says that it holds the compilation."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    first = time.perf_counter() - start
    if first > limit:
        return {**dict.fromkeys(("first_s", "best_s", "median_s", "worst_s"), first), "repeats": 1, "compilation_included": True}
    start = time.perf_counter()
    jax.block_until_ready(run())
    warm = time.perf_counter() - start
    return {"first_s": first, **dict.fromkeys(("best_s", "median_s", "worst_s"), warm), "repeats": 1}


def main(item: str, form: str, limit: float, done: list[str], part: tuple[int, int]) -> None:
    """Work through a part of an item's cases, telling of each on standard output."""
    begun, spent = time.perf_counter(), _Spent()
    number, parts = part
    for name, run in list(ITEMS[item](FORMS[form]).items())[number::parts]:
        if name in done:
            continue
        start, before = time.perf_counter(), dict(spent.seconds)
        _tell({"begin": name})
        if start - begun > limit:
            _tell({"end": name, "found": {"failed": "no time was left"}})
            continue
        try:
            found = run()
        except Exception as err:  # noqa: BLE001 - whatever stops one case must not stop the next
            found = {"failed": f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''}"[:400]}
        stats = jax.local_devices()[0].memory_stats() or {}
        peak = stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        preparing = {stage: round(seconds - before.get(stage, 0), 2) for stage, seconds in spent.seconds.items()}
        facts = {"wall_s": round(time.perf_counter() - start, 2), "preparing_s": preparing, "peak_gib_so_far": round(peak / 2**30, 3)}
        _tell({"end": name, "found": {**found, **facts}})


class _Spent:
    """Seconds that JAX has spent on tracing, lowering and compiling so far."""

    STAGES: ClassVar = {"jaxpr_trace": "trace", "jaxpr_to_mlir": "lower", "backend_compile": "compile"}

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, seconds: float, **_: Any) -> None:
        stage = next((stage for part, stage in self.STAGES.items() if part in event), None)
        if stage is not None:
            self.seconds[stage] = self.seconds.get(stage, 0) + seconds


def _tell(line: Found) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "device":
        _tell(device())
    elif sys.argv[1] == "reference":
        harness.write("accelerator_reference", reference())
    else:
        main(sys.argv[1], sys.argv[2], float(sys.argv[3]), json.loads(sys.argv[4]), json.loads(sys.argv[5]))
