"""Who may ask the server what: requests of this machine's own page, of bounded size, with the token of this run (docs/explore.md)."""

import hmac
import ipaddress
import json
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 8192  # of a query, and of the body of a request
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
LOST = "This page belongs to a server that asks for its token: open the address that rfdiff explore printed in the terminal."


class Guard:
    """An ASGI application around another: it refuses foreign names, foreign pages, large requests and those without the token.

    The first address carries the token and is answered by a cookie and the same address without it. A page of another site cannot send
    the cookie (SameSite=Strict), and a foreign name that resolves to this machine (DNS rebinding) is not among the names of the server.

    Args:
        app: what answers requests that pass.
        token: the secret of this run.
        port: of the server, part of the cookie's name: servers at different ports do not overwrite each other's.
        exposed: whether the server listens to other machines, which reach it by any literal address and by `host`.
        host: the address or name at which it was told to listen; its user vouches for that name.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, exposed: bool = False, host: str = "") -> None:
        self.app, self.token, self.exposed = app, token, exposed
        self.cookie = f"rfdiff_{port}"
        self.names = {f"127.0.0.1:{port}", f"localhost:{port}"}
        if exposed and host:
            self.names.add(f"{host.lower()}:{port}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)  # the beginning and the end of the server; there are no web sockets
            return
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        query = scope["query_string"].decode("latin-1")
        refusal = self._refusal(headers, query)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        words = parse_qsl(query, keep_blank_values=True)
        given = [value for name, value in words if name == "token"]
        if given and scope["method"] == "GET" and scope["path"] == "/":
            if not hmac.compare_digest(given[0].encode(), self.token.encode()):
                await _answer(send, 403, LOST)
                return
            rest = urlencode([(name, value) for name, value in words if name != "token"], safe=",")
            cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(send, 303, "", {"location": f"/?{rest}" if rest else "/", "set-cookie": cookie})
            return
        if not self._knows_token(headers):
            await _answer(send, 403, LOST)
            return
        await self.app(scope, _bounded(receive), _with_headers(send))

    def _refusal(self, headers: list[tuple[str, str]], query: str) -> tuple[int, str] | None:
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1 or not self._own(hosts[0]):
            return 421, "Host: not a name of this server."
        for origin in (value for name, value in headers if name == "origin"):
            if origin not in (f"http://{name}" for name in (*self.names, hosts[0])):
                return 403, "Origin: another page's."
        lengths = [value for name, value in headers if name == "content-length"]
        if len(query) > MOST_BYTES or any(
            not value.isascii() or not value.isdecimal() or int(value[:12]) > MOST_BYTES for value in lengths
        ):
            return 413, f"A request of more than {MOST_BYTES} bytes."
        return None

    def _own(self, host: str) -> bool:
        if host in self.names:
            return True
        if not self.exposed:
            return False
        try:
            return bool(ipaddress.ip_address(urlsplit(f"//{host}").hostname or ""))  # a literal address: no name was resolved
        except ValueError:
            return False

    def _knows_token(self, headers: list[tuple[str, str]]) -> bool:
        for _, value in ((name, value) for name, value in headers if name == "cookie"):
            known = cookie_parser(value).get(self.cookie, "")  # the standard library stops at the first foreign cookie it does not like
            if hmac.compare_digest(known.encode(), self.token.encode()):
                return True
        return False


class TooLong(Exception):  # noqa: N818 - the name of what the client did
    """A body of more than `MOST_BYTES`."""


def _bounded(receive: Receive) -> Receive:
    """What receives at most `MOST_BYTES` of a body, whatever its length was said to be."""
    total = 0

    async def bounded() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MOST_BYTES:
            raise TooLong
        return message

    return bounded


def _with_headers(send: Send) -> Send:
    """What sends an answer with the headers that every one has."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *((name.encode(), value.encode()) for name, value in HEADERS.items())]
        await send(message)

    return sending


async def _answer(send: Send, status: int, text: str, more: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": text}).encode() if status != 303 else b""
    headers = {"content-type": "application/json", "content-length": str(len(body)), **HEADERS, **(more or {})}
    pairs = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
