"""The command line as one function: it runs a command and turns what it raises into one line and an exit status.

Nothing heavy is imported before `main` runs: an interrupt in the seconds in which Python loads JAX must end the process at once.
"""

import _thread
import contextlib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from rfdiff.cli import program_cache
from rfdiff.cli.command import BAD_INPUT, BUG, INTERRUPTED, NOT_COMPUTED
from rfdiff.cli.platforms import check_platform
from rfdiff.errors import InputError, OtherProcessError

__all__ = ["BAD_INPUT", "BUG", "INTERRUPTED", "NOT_COMPUTED", "main"]
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # how JAX says in a RuntimeError that a device is out of memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Args:
        arguments: the words after `rfdiff`; those of this process if None.

    Returns:
        0 done (and in agreement), 1 theory and simulation disagree, 2 bad input, a file that cannot be read or written, or too little
        memory (one line on standard error), 3 something could not be computed, here or in another process, 70 a bug (its traceback, and
        a request to report it), 130 interrupted.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with contextlib.nullcontext() if arguments is not None else _process():
            return _run(words)
    except InputError as err:
        return _refuse(str(err))
    except OSError as err:
        return _refuse(_system_error(err))
    except MemoryError as err:
        return _refuse(f"out of memory: {err}" if str(err) else "out of memory")
    except KeyboardInterrupt as stop:
        print(f"rfdiff: interrupted{f'; {stop}' if str(stop) else ''}", file=sys.stderr, flush=True)
        if arguments is None:
            _leave_the_others(INTERRUPTED)
        return INTERRUPTED
    except OtherProcessError as err:
        print(f"rfdiff: {err}", file=sys.stderr, flush=True)
        if err.lost and arguments is None:
            _leave_the_others(NOT_COMPUTED)
        return NOT_COMPUTED
    except SystemExit as stop:  # after printing help
        return int(stop.code or 0)
    except RuntimeError as err:
        return _refuse(f"out of memory: {err}") if OUT_OF_MEMORY in str(err) else _report_bug()
    except Exception:  # noqa: BLE001 whatever else arises is a fault of the package, and keeps its traceback
        return _report_bug()


def _run(words: list[str]) -> int:
    if words == ["--version"]:
        from_package: Any = importlib.import_module("rfdiff")
        print(f"rfdiff {from_package.__version__}", flush=True)
        return 0
    parsing: Any = importlib.import_module("rfdiff.cli.parsing")
    terminal: Any = importlib.import_module("rfdiff.cli.terminal")
    command, options = parsing.parse(words)  # loads the command
    if _loading():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if getattr(options, "coordinator", None) is None:  # else it is looked at once the processes have joined
        check_platform()
    terminal.output_failure()  # that of an earlier command of this process is not of this one
    try:
        status = int(command.run(options))
    except InputError as err:
        raise InputError(parsing.naming_option(str(err), options, command.option_names)) from err
    if (failure := terminal.output_failure()) is not None:
        return _refuse(f"standard output cannot be written ({failure.strerror or failure}); files are written all the same")
    return status


@contextlib.contextmanager
def _process() -> Iterator[None]:
    """What belongs to a process that runs one command and ends: how it takes Ctrl-C, no backend of matplotlib, and kept programs.

    While modules load, Ctrl-C ends the process: an exception in the middle of an import may be swallowed, or leave half a module. Later a
    KeyboardInterrupt that Python drops, because it arose in a finaliser, is raised again.
    """
    os.environ.pop("MPLBACKEND", None)  # figures are drawn without one, and that of a notebook does not exist outside it
    signal.signal(signal.SIGINT, _end)

    def again(dropped: Any) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            _thread.interrupt_main()  # at the next step of the main thread; signal.raise_signal would raise here, to be dropped again
        else:
            sys.__unraisablehook__(dropped)

    sys.unraisablehook = again
    with program_cache.kept_programs():
        yield


def _loading() -> bool:
    """Whether Ctrl-C ends this process at once, as it does until all modules are loaded."""
    return signal.getsignal(signal.SIGINT) is _end


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"rfdiff: interrupted\n")
    os._exit(INTERRUPTED)


def _leave_the_others(status: int) -> None:
    """End a process that has joined others at once: JAX, which would have it wait for them at its end, then ends them too."""
    jax: Any = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        os._exit(status)


def _system_error(err: OSError) -> str:
    """An error of the system in one line: the file that it names, and the reason."""
    return f"{err.filename}: {err.strerror}" if err.filename and err.strerror else str(err)


def _refuse(message: str) -> int:
    print(f"rfdiff: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


def _report_bug() -> int:
    traceback.print_exc()
    print("rfdiff: this is a bug in rfdiff; please report it with the command and the traceback above", file=sys.stderr)
    return BUG
