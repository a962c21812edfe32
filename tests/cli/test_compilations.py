"""A command compiles no program twice: each costs up to seconds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOML = """\
activation = "tanh"
t = 0.3
psi_p = 2.0
psi_n = 2.0
[mixture]
weights = [0.6, 0.4]
variances = [1.4, 0.5]
"""
COUNT = """
import collections, logging, sys
from rfdiff.cli.entry import main

class Count(logging.Handler):
    def emit(self, record):
        if "with key %r" in str(record.msg) and "compilation cache" in str(record.msg).lower():  # a hash of the whole program
            compiled[record.args[1]] += 1

compiled = collections.Counter()
logger = logging.getLogger("jax._src.compiler")
logger.handlers[:], logger.propagate = [Count()], False
logger.setLevel(logging.DEBUG)
status = main(sys.argv[1:])
print("programs:", len(compiled))
for key, times in compiled.items():
    if times > 1:
        print("twice:", key)
sys.exit(status)
"""
SMALL = ["--d", "40", "--num-seeds", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [["predict"], ["simulate", *SMALL], ["compare", *SMALL], ["times"]], ids=lambda words: words[0])
def test_no_program_is_compiled_twice_in_one_command(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(TOML)
    name, *options = words
    command = [sys.executable, "-c", COUNT, name, "p.toml", *options, "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode in (0, 1), result.stderr
    lines = result.stdout.splitlines()
    (number,) = (int(line.split()[1]) for line in lines if line.startswith("programs: "))
    assert number > 5, "the count works"
    assert [line for line in lines if line.startswith("twice: ")] == []
