"""The command init: a commented problem file to start from."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from rfdiff.cli.command import Command
from rfdiff.cli.options import Flag
from rfdiff.cli.terminal import say
from rfdiff.errors import InputError
from rfdiff.files.atomic import write_bytes

PROBLEM = """\
# A problem: which mixture, which network, how much data. It has no dimension d: the theory is the limit d -> infinity, and a
# simulation takes d on the command line.
#
#   rfdiff predict FILE                       learning curves and spectrum in closed form
#   rfdiff compare FILE --d 100 --num-seeds 10    the same and real networks, and whether they agree

activation = "tanh" # tanh, erf, relu, softplus, gelu or sin
t = 0.1             # diffusion time > 0: a sample becomes exp(-t) x + sqrt(1 - exp(-2t)) noise
psi_p = 4.0         # features per dimension, p/d
psi_n = 3.0         # training samples per dimension, n/d, all classes together
noise_draws = inf   # noise draws for each sample: an integer >= 1, or inf for the exact average over the noise
# loss_weights = [0.5, 0.5] # weights of the classes in the training loss, summing to 1; without this line the class fractions

[mixture]
weights = [0.7, 0.3] # class fractions, summing to 1

# Isotropic classes: one variance (not standard deviation) for each class.
variances = [1.5, 0.4]
# For anisotropic classes delete the line above and give joint eigenvalues of the class covariances, one row for each group of directions
# and one column for each class, with the fraction of the directions in each group:
#   eigenvalues = [[1.6, 0.2], [0.4, 1.2]]
#   eigenvalue_weights = [0.5, 0.5]

# Inner products of the class centroids over d: symmetric, positive semi-definite. Delete the line for centred classes.
centroid_gram = [[0.5, 0.1], [0.1, 1.0]]
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """Write a commented problem file to start from."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="[FILE]")] = Path("problem.toml")
    """File to write."""
    overwrite: Flag = False
    """Replace an existing file."""


def run(options: Init) -> int:
    """Write the problem file.

    Raises:
        InputError: the file exists.
        OSError: it cannot be written.
    """
    if options.file.exists() and not options.overwrite:
        raise InputError(f"{options.file}: exists already; choose another name or add --overwrite")
    write_bytes(options.file, PROBLEM.replace("FILE", options.file.name).encode())
    say(f"{options.file}: a commented problem; next: rfdiff predict {options.file}")
    return 0


COMMAND = Command("init", Init, run)
