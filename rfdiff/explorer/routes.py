"""The addresses of the explorer: the page and its files, what it asks for, and what leaves it."""

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from rfdiff.activation import ACTIVATIONS
from rfdiff.errors import InputError
from rfdiff.explorer import downloads, networks, phase
from rfdiff.explorer.answers import Axis, Json
from rfdiff.explorer.guard import Guard, TooLong
from rfdiff.explorer.session import ANSWERS, FIRST_AXIS, Session
from rfdiff.explorer.state import BOUNDS, MOST_CLASSES, State
from rfdiff.explorer.workers import BusyError
from rfdiff.labels import class_colors
from rfdiff.parameters import parameter_names

PAGE = Path(__file__).parent / "page"
KINDS = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
LOOK = 0.2  # seconds between two looks whether somebody still waits
Handler = Callable[[Request], Awaitable[Response]]


def application(session: Session, token: str, port: int, exposed: bool = False, host: str = "") -> Guard:
    """The explorer as an ASGI application.

    Args:
        session: what computes.
        token: the secret that a request must carry.
        port: of the server.
        exposed: whether it listens to other machines.
        host: the address at which it was told to listen then.
    """
    app = Starlette(
        routes=[*_files(), *_questions(session), *_long_work(session)],
        exception_handlers={InputError: _refused, BusyError: _refused, TooLong: _refused, HTTPException: _refused},
    )
    return Guard(app, token, port, exposed, host)


def _refused(request: Request, error: Exception) -> Response:
    """A refusal in one line: 422 what the package refuses, 413 what is too long, 503 what does not get done."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code)
    if isinstance(error, TooLong):
        return JSONResponse({"error": "A request that is too long."}, 413)
    return JSONResponse({"error": str(error), "field": str(error).partition(":")[0]}, 503 if isinstance(error, BusyError) else 422)


def _files() -> list[Route]:
    """The page, and the files it asks for: those of the package's folder by name, no other path."""

    def serve(path: Path) -> Handler:
        async def handler(request: Request) -> Response:
            return FileResponse(path, media_type=KINDS[path.suffix])

        return handler

    names = sorted(path for path in PAGE.iterdir() if path.suffix in KINDS)
    return [Route("/", serve(PAGE / "index.html")), *(Route(f"/{path.name}", serve(path)) for path in names if path.name != "index.html")]


def asked(request: Request, *more: str) -> tuple[State, dict[str, str]]:
    """The state in the query of a request, and what else the query names.

    Args:
        request: the request.
        more: names of what is no number of the state.

    Raises:
        InputError: as `State.from_query`; a name twice; bytes that are no text.
    """
    try:
        pairs = parse_qsl(request.scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=40, errors="strict")
    except ValueError as err:
        raise InputError(f"query: {err}; allowed: name=value, joined by &") from err
    names = [name for name, _ in pairs]
    if any(names.count(name) > 1 for name in more):
        raise InputError(f"query: one of {', '.join(more)} is given twice; allowed: once")
    extra = {name: value for name, value in pairs if name in more}
    return State.from_query(urlencode([(name, value) for name, value in pairs if name not in more])), extra


def asked_nothing(request: Request) -> None:
    """Refuse a query where none is looked at.

    Raises:
        InputError: there is one.
    """
    if request.scope["query_string"]:
        raise InputError(f"query: given to {request.scope['path']}; allowed: none")


async def unless_gone(request: Request, answer: Coroutine[Any, Any, Json]) -> Json:
    """An answer, which is given up once nobody waits for it: a page asks for the newest state alone.

    Raises:
        HTTPException: whoever asked is gone.
    """
    task = asyncio.ensure_future(answer)
    while not (await asyncio.wait({task}, timeout=LOOK))[0]:
        if await request.is_disconnected():
            task.cancel()
            raise HTTPException(499, "nobody waits")
    return task.result()


def _whole(extra: dict[str, str], name: str) -> int:
    word = extra.get(name, "")
    if not (word.isascii() and word.isdecimal() and len(word) < 10):
        raise InputError(f"{name}: {word[:40]!r}; allowed: a whole number")
    return int(word)


def _questions(session: Session) -> list[Route]:
    """What is answered at once."""

    async def start(request: Request) -> Response:
        state, _ = asked(request) if request.scope["query_string"] else (session.state, {})
        return _json(start_json(session, state))

    async def preview(request: Request) -> Response:
        state, extra = asked(request, "axis")
        axis = Axis.from_text(extra["axis"]) if "axis" in extra else FIRST_AXIS
        return _json(await session.preview(state, axis))

    def answered(name: str) -> Handler:
        async def handler(request: Request) -> Response:
            return _json(await unless_gone(request, session.answer(name, asked(request)[0])))

        return handler

    async def snippets(request: Request) -> Response:
        state, _ = asked(request)
        lines = {"toml": downloads.toml_of(state), "python": downloads.python_of(state), "command": downloads.command_of(state)}
        return _json({**lines, "map_names": parameter_names(state.problem())})

    async def download(request: Request) -> Response:
        name, state = request.path_params["name"], asked(request)[0]
        if name not in downloads.file_names():
            raise HTTPException(404, "no such file")
        body = await session.files.run(functools.partial(downloads.content, name, state, session.networks.latest))
        disposition = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(body, media_type=downloads.MEDIA[name.rpartition(".")[2]], headers=disposition)

    async def alive(request: Request) -> Response:
        asked_nothing(request)
        return _json({"compiled": session.compiled(), "programs": len(session.programs), "warm": session.warm})

    handlers: dict[str, Handler] = {
        "start": start, "preview": preview, "snippets": snippets, "alive": alive, **{name: answered(name) for name in ANSWERS}
    }  # fmt: skip
    return [*(Route(f"/api/{name}", handler) for name, handler in handlers.items()), Route("/download/{name:str}", download)]


def start_json(session: Session, state: State) -> Json:
    """What the page needs to know before it draws anything."""
    fields = {name: getattr(state, name) for name in State.__dataclass_fields__}
    fields["noise_draws"] = None if state.noise_draws == float("inf") else state.noise_draws
    return {
        "state": fields,
        "bounds": BOUNDS,
        "most_classes": MOST_CLASSES,
        "activations": list(ACTIVATIONS),
        "colors": [str(color) for color in class_colors(MOST_CLASSES)],
        "axis": list(FIRST_AXIS),
        "files": list(downloads.file_names()),
    }


def _long_work(session: Session) -> list[Route]:
    """What is begun, looked at and cancelled: networks and the map."""

    async def train(request: Request) -> Response:
        await request.body()
        state, extra = asked(request, "axis", "d", "num_seeds")
        axis = Axis.from_text(extra.get("axis", ""))
        d, seeds = _whole(extra, "d"), _whole(extra, "num_seeds")
        number = await session.files.run(functools.partial(networks.start, session.networks, state, axis, d, seeds))
        return _json({"running": True, "number": number})

    async def map_(request: Request) -> Response:
        await request.body()
        state, extra = asked(request, "first", "second", "quantity")
        names = (extra.get("first", ""), extra.get("second", ""))
        number = await session.files.run(functools.partial(phase.start, session.phase, state, names, extra.get("quantity", "tau_gen")))
        return _json({"running": True, "number": number})

    def looked_at(name: str) -> Handler:
        async def handler(request: Request) -> Response:
            asked_nothing(request)
            work = session.networks if name == "train" else session.phase
            number, running, error, latest = work.seen()
            return _json({"running": running, "number": number, "error": error, **({} if latest is None else latest.json())})

        return handler

    def cancelled(name: str) -> Handler:
        async def handler(request: Request) -> Response:
            asked_nothing(request)
            await request.body()
            (session.networks if name == "train" else session.phase).cancel()
            return _json({"running": False})

        return handler

    return [
        Route("/api/train", train, methods=["POST"]),
        Route("/api/train", looked_at("train")),
        Route("/api/train/cancel", cancelled("train"), methods=["POST"]),
        Route("/api/map", map_, methods=["POST"]),
        Route("/api/map", looked_at("map")),
        Route("/api/map/cancel", cancelled("map"), methods=["POST"]),
    ]


def _json(value: Json) -> Response:
    return Response(json.dumps(value, allow_nan=False, separators=(",", ":")), media_type="application/json")
