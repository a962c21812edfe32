"""The server of the explorer: its socket, its address with the token, the browser, and its end."""

import contextlib
import errno
import logging
import os
import secrets
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

import uvicorn

from rfdiff.errors import InputError
from rfdiff.explorer.routes import application
from rfdiff.explorer.session import Session
from rfdiff.explorer.state import State

PORT = 8717  # if it is free; with --port another
LOCAL = "127.0.0.1"
SWITCH = 1e-3  # seconds after which a thread of Python that compiles lets one that answers go on


class Server(uvicorn.Server):
    """A server whose first Ctrl-C ends it, whatever is being computed."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at once; that requests are cut off by it is no error to be logged."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self.should_exit = self.force_exit = True


def bound(host: str, port: int | None) -> socket.socket:
    """A listening socket at a port; without one at `PORT`, or at a free one where that is taken.

    Raises:
        InputError: the port, or the address, cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (PORT, 0) if port is None else (port,):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, wanted))
        except UnicodeError as err:  # a part of the name that is empty or has more than 63 characters
            listening.close()
            raise InputError(f"address: {host[:40]!r} is no name of a machine; allowed: an address of this machine") from err
        except OSError as err:
            listening.close()
            wrong_host = isinstance(err, socket.gaierror) or err.errno == errno.EADDRNOTAVAIL
            if wrong_host or wanted == 0:
                raise InputError(f"address: {host} ({err.strerror or err}); allowed: an address of this machine") from err
            if port is not None:
                raise InputError(f"port: {wanted} at {host} ({err.strerror or err}); allowed: a free port of this machine") from err
        else:
            listening.listen(64)
            return listening
    raise AssertionError("a free port was asked for")


def serve(state: State, *, host: str, port: int | None, browser: bool, say: Callable[[str], None], note: Callable[[str], None]) -> NoReturn:
    """Serve the explorer until Ctrl-C, which ends the process with status 0: no computation that is left over is waited for.

    Args:
        state: what the page shows at first.
        host: address to listen at.
        port: port to listen at; None for `PORT` or, if that is taken, any.
        browser: whether a browser is opened.
        say: prints the address.
        note: prints what goes on.

    Raises:
        InputError: the port or the address cannot be had.
    """
    sys.setswitchinterval(SWITCH)
    listening = bound(host, port)
    number = int(listening.getsockname()[1])
    token = secrets.token_urlsafe(24)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{number}/?token={token}"
    session = Session(state)
    app = application(session, token, number, exposed=host != LOCAL, host=host)
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        lifespan="off",
        http="h11",
        ws="none",
        server_header=False,
        timeout_keep_alive=75,
        limit_concurrency=64,
        h11_max_incomplete_event_size=16384,
    )
    say(url)
    note(f"compiling the closed form for this problem{'; the page opens meanwhile' if browser else ''}. Ctrl-C ends the explorer.")
    if browser:
        threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[listening])
    note("rfdiff explore has ended")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)  # threads may be in the middle of a compilation, which nothing interrupts
