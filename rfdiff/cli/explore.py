"""The command explore: the theory in the browser, with sliders; handed over to `rfdiff.explorer`, which needs an extra."""

import dataclasses

from rfdiff.cli.command import Command
from rfdiff.cli.options import Flag, Integer, OptionalProblemFile, check, read_problem
from rfdiff.cli.terminal import note, say
from rfdiff.errors import InputError

LOCAL = "127.0.0.1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explore:
    """Open the theory in the browser: move a slider, see every class's curves move. Needs the extra rfdiff[explore]."""

    problem: OptionalProblemFile = None
    """Problem that is shown at first; an example without one."""
    port: Integer = None
    """Port of the server; without it 8717, or any other one that is free."""
    no_browser: Flag = False
    """Print the address only."""
    host: str = LOCAL
    """Address to listen at. Another one than 127.0.0.1 lets other machines in, and needs --expose."""
    expose: Flag = False
    """With --host: whoever reaches that address and knows the token can compute on this machine; nothing is encrypted."""


def run(options: Explore) -> int:
    """Serve the page until Ctrl-C.

    Raises:
        InputError: bad options, a problem that the sliders cannot hold, or the extra is not installed.
        OSError: the problem file cannot be read.
    """
    if options.port is not None:
        check(options, port=(0 <= options.port <= 65535, "0 (any free one) to 65535"))
    if options.host != LOCAL and not options.expose:
        raise InputError(
            f"--host: {options.host!r} without --expose; allowed: {LOCAL}; with --expose whoever reaches that address and knows the token "
            "can compute on this machine, over a connection that is not encrypted"
        )
    try:
        from rfdiff.explorer import serving
    except ModuleNotFoundError as err:
        needed = "an environment with the extra, pip install 'rfdiff[explore]'"
        raise InputError(f"explore: the module {err.name} is missing; allowed: {needed}") from err
    state = serving.State()
    if options.problem is not None:
        problem = read_problem(options.problem)
        try:
            state = serving.State.from_problem(problem)
        except InputError as err:
            raise InputError(f"{options.problem}: {err}") from err
    return serving.serve(state, host=options.host, port=options.port, browser=not options.no_browser, say=say, note=note)


COMMAND = Command("explore", Explore, run)
