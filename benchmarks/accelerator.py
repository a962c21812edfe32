"""What does an accelerator make of this package? One command for a lent device: at most 9 minutes on one GPU, most important first.

1 correctness: ten networks in float32 and float64 against curves committed from a CPU. 2 ceilings: rates of matrix products and of a copy.
3 assembly of U over the product's rate (target 70 %). 4 exact flow and its eigendecomposition at p = 4,096 to 16,384. 5 Krylov spaces at
32,768 to 131,072. 6 U-Net in bfloat16. 7 U-turns at d = 16,384. 8 the closed form, on the host's processor and on the default device.

Each item runs in a process of its own, the ten networks in one each. The file of results is written after every case, and the same
command goes on from it: finished cases are left out, those that failed or found no time are attempted again. On a CPU the form is small
and takes at most 5 minutes.
Run: python benchmarks/accelerator.py [--form small|full] [--minutes M] [--only ITEM ...] [--out FOLDER]
     python benchmarks/accelerator.py --reference        (on a CPU: writes the committed curves)
"""

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHARES = {  # of the time; what an item leaves over goes to those after it
    "correctness": 60, "ceilings": 20, "assembly": 80, "exact_flow": 140, "krylov": 130, "unet": 55, "sampling": 30, "theory": 25,
}  # fmt: skip
# Of an item at once. Ten small networks are traced and compiled, which threads of one process do one after the other.
PROCESSES = {("correctness", "full"): 10}
MINUTES = {"full": 9.0, "small": 5.0}
# With XLA's own choice (jax 0.11, an H100) the exact flow of p = 4,096 was not compiled in 45 s; with these, in 9 s.
FLAGS = "--xla_gpu_enable_triton_gemm=false --xla_gpu_experimental_enable_fusion_autotuner=false"
LEAST = 5.0  # seconds below which no process is started


class Report:
    """The file of results: seconds and facts of finished cases, reasons of the others; all under names "item: case"."""

    def __init__(self, folder: Path, form: str, device: dict[str, Any]) -> None:
        card = re.sub(r"[^a-z0-9]+", "_", device["environment"]["device"].lower()).strip("_")
        self.path, self.lock = folder / f"accelerator_{card}.json", threading.Lock()
        head = {"benchmark": "accelerator", "date": datetime.date.today().isoformat(), "form": form, **device}
        self.document: dict[str, Any] = {**head, "seconds": {}, "cases": {}, "failed": {}, "item_wall_s": {}}
        if self.path.exists():
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if found["form"] == form and found["environment"]["versions"] == device["environment"]["versions"]:
                self.document = found

    def done(self, item: str) -> list[str]:
        """Finished cases of an item."""
        return [name.removeprefix(f"{item}: ") for name in self.document["cases"] if name.startswith(f"{item}: ")]

    def keep(self, item: str, case: str, found: dict[str, Any]) -> None:
        """A finished case, or why it is not."""
        name = f"{item}: {case}"
        with self.lock:
            self.document["failed"].pop(name, None)
            if "failed" in found:
                self.document["failed"][name] = found["failed"]
            else:
                if "seconds" in found:
                    self.document["seconds"][name] = found.pop("seconds")
                self.document["cases"][name] = found
            print(self._line(name), file=sys.stderr, flush=True)
            self.save()

    def save(self) -> None:
        """Write the file whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = self.path.with_suffix(".part")
        whole.write_text(json.dumps(self.document, indent=2) + "\n", encoding="utf-8")
        whole.replace(self.path)

    def table(self) -> str:
        """A line for each case: seconds of the best warm run, and what was found."""
        environment = self.document["environment"]
        head = f"{environment['device']}, jax {environment['versions']['jax']}, {self.document['form']} form"
        return "\n".join([head, *(self._line(name) for name in [*self.document["cases"], *self.document["failed"]])])

    def _line(self, name: str) -> str:
        if name in self.document["failed"]:
            return f"{name:62}    FAILED  {self.document['failed'][name]}"
        best = self.document["seconds"].get(name, {}).get("best_s")
        return f"{name:62}{'' if best is None else f'{best:.4g} s':>10}  {self.document['cases'][name]['says']}"


def run_item(report: Report, item: str, form: str, deadline: float) -> None:
    """Attempt the cases of an item that are not finished: each part of them in one process, and after a crash its rest in another."""
    begun, parts = time.monotonic(), PROCESSES.get((item, form), 1)
    report.document["failed"].pop(f"{item}: all", None)
    with ThreadPoolExecutor(parts) as pool:
        for result in [pool.submit(run_part, report, item, form, deadline, (part, parts)) for part in range(parts)]:
            result.result()
    report.document["item_wall_s"][item] = round(time.monotonic() - begun, 1)
    report.save()


def run_part(report: Report, item: str, form: str, deadline: float, part: tuple[int, int]) -> None:
    """Attempt the cases of one part (its number and how many there are) of an item."""
    attempted = report.done(item)
    while (left := deadline - time.monotonic()) > LEAST:
        in_flight, trouble = run_process(report, item, form, left, attempted, part)
        for case in in_flight:
            report.keep(item, case, {"failed": trouble})
        if trouble and not in_flight:
            report.keep(item, "all", {"failed": trouble})
        if not trouble or not in_flight:
            return
        attempted = [*attempted, *in_flight]
    if not attempted:
        report.keep(item, "all", {"failed": "no time was left"})


def run_process(
    report: Report, item: str, form: str, seconds: float, leave_out: list[str], part: tuple[int, int]
) -> tuple[list[str], str | None]:
    """Cases begun and not ended by a process, and what the matter with it was; None if it ended well."""
    in_flight: list[str] = []
    arguments = (item, form, str(seconds), json.dumps(leave_out), json.dumps(part))
    shared = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if part[1] > 1 else {}  # no process takes the memory of the others
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **shared}) as process,
    ):
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        for line in process.stdout or ():
            told = json.loads(line) if line.startswith("{") else {}
            if "begin" in told:
                in_flight.append(told["begin"])
            elif "end" in told:
                in_flight.remove(told["end"])
                leave_out.append(told["end"])
                report.keep(item, told["end"], told["found"])
        status, in_time = process.wait(), timer.is_alive()
        timer.cancel()
        errors.seek(0)
        message = (errors.read().strip().splitlines() or ["no message"])[-1][:400]
    if status == 0:
        return [], None
    return in_flight, f"exit status {status}: {message}" if in_time else f"stopped after the {seconds:.0f} s that were left"


def command(*arguments: str) -> list[str]:
    """Command line of a process for an item."""
    return [sys.executable, str(HERE / "accelerator_items.py"), *arguments]


def probe() -> dict[str, Any]:
    """The device, from a process of its own; sets the flags of XLA for all that follow, where this version knows them."""
    for flags in (os.environ.get("XLA_FLAGS", FLAGS), ""):
        os.environ["XLA_FLAGS"] = flags
        done = subprocess.run(command("device"), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return {**json.loads(done.stdout), "xla_flags": flags}
    raise SystemExit(f"accelerator: no device answers: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=list(MINUTES), help="small on a CPU, full on an accelerator")
    parser.add_argument("--minutes", type=float, help="of the whole; 9 for the full form, 5 for the small one")
    parser.add_argument("--only", nargs="+", choices=list(SHARES), default=list(SHARES), help="items to run")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the file of results")
    parser.add_argument("--reference", action="store_true", help="compute the committed curves instead")
    options = parser.parse_args()
    if options.reference:
        raise SystemExit(subprocess.run(command("reference"), check=False).returncode)
    start = time.monotonic()
    device = probe()
    form = options.form or ("small" if device["platform"] == "cpu" else "full")
    report = Report(options.out, form, device)
    minutes = options.minutes or MINUTES[form]
    second = 60 * minutes / sum(SHARES[item] for item in options.only)
    shared = 0.0
    for item in options.only:
        shared += SHARES[item] * second
        run_item(report, item, form, start + shared)
    print(report.table())
    print(f"{time.monotonic() - start:.0f} s; results in {report.path}")


if __name__ == "__main__":
    main()
