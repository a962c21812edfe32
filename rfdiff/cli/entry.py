"""The command line as one function: it runs a command and turns what it raises into one line and an exit status."""

import sys
import traceback
from collections.abc import Sequence

import jax

from rfdiff.cli.parsing import parse
from rfdiff.errors import InputError
from rfdiff.files.provenance import version_of

AGREE, DISAGREE, BAD_INPUT, BUG, INTERRUPTED = 0, 1, 2, 70, 130
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # how the message of JAX's error begins when a device is out of memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        arguments: the words after `rfdiff`; those of this process if None.

    Returns:
        0 done (and in agreement), 1 theory and simulation disagree or cells of a sweep are not done, 2 bad input, a file that cannot be
        read or written, or too little memory (one line on standard error), 70 a bug (its traceback, and a request to report it),
        130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if list(arguments) == ["--version"]:
        print(f"rfdiff {version_of('rfdiff')}")
        return AGREE
    try:
        command, options = parse(arguments)
        return command.run(options)
    except (InputError, OSError) as err:
        return _refuse(str(err))
    except MemoryError as err:
        return _refuse(f"out of memory: {err}" if str(err) else "out of memory")
    except jax.errors.JaxRuntimeError as err:
        return _refuse(f"out of memory: {err}") if OUT_OF_MEMORY in str(err) else _report_bug()
    except KeyboardInterrupt as stop:
        print(f"rfdiff: interrupted{f'; {stop}' if str(stop) else ''}", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:  # after printing help
        return int(stop.code or 0)
    except Exception:  # noqa: BLE001 whatever else arises is a fault of the package, and keeps its traceback
        return _report_bug()


def _refuse(message: str) -> int:
    print(f"rfdiff: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


def _report_bug() -> int:
    traceback.print_exc()
    print("rfdiff: this is a bug in rfdiff; please report it with the command and the traceback above", file=sys.stderr)
    return BUG
