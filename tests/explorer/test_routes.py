"""Who may ask the server of the explorer what, and what malformed requests get; nothing here computes a curve."""

import asyncio
import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from rfdiff import Problem, theory
from rfdiff.explorer import answers, downloads
from rfdiff.explorer.guard import HEADERS, MOST_BYTES, Guard
from rfdiff.explorer.routes import PAGE, application
from rfdiff.explorer.session import Session
from rfdiff.explorer.state import State

PORT, TOKEN = 8717, "a-token-of-this-run"
HERE = f"http://127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(State(), warm=False)


@pytest.fixture
def stranger(session: Session) -> Iterator[TestClient]:
    """A client that does not know the token."""
    with TestClient(application(session, TOKEN, PORT), base_url=HERE, follow_redirects=False, raise_server_exceptions=True) as client:
        yield client


@pytest.fixture
def client(stranger: TestClient) -> TestClient:
    stranger.cookies.set(f"rfdiff_{PORT}", TOKEN)
    return stranger


def test_the_first_address_gives_the_cookie_and_hides_the_token(stranger: TestClient) -> None:
    first = stranger.get(f"/?token={TOKEN}&t=0.3&fraction=0.5,0.5")
    assert first.status_code == 303 and first.headers["location"] == "/?t=0.3&fraction=0.5,0.5"
    assert first.headers["set-cookie"] == f"rfdiff_{PORT}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    assert stranger.get("/?t=0.3").status_code == 200
    assert stranger.get("/api/start").json()["state"]["t"] == State().t


def test_without_the_token_nothing_is_answered(stranger: TestClient) -> None:
    for path in ("/", "/main.js", "/api/start", "/api/alive", "/download/problem.toml", "/nothing"):
        refused = stranger.get(path)
        assert refused.status_code == 403 and "open the address" in refused.json()["error"]
    assert stranger.get("/?token=another").status_code == 403
    assert stranger.get(f"/api/start?token={TOKEN}").status_code == 403
    assert stranger.get("/", headers={"cookie": f"rfdiff_{PORT}=another"}).status_code == 403
    assert stranger.get("/", headers={"cookie": f"rfdiff_{PORT + 1}={TOKEN}"}).status_code == 403
    assert stranger.post("/api/train/cancel").status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", f"127.0.0.1.evil:{PORT}", ""]
)
def test_foreign_names_are_refused(client: TestClient, host: str) -> None:
    """DNS rebinding: a name of somebody else that resolves to this machine."""
    assert client.get("/api/start", headers={"host": host}).status_code == 421
    assert client.get("/api/start", headers={"host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", f"https://127.0.0.1:{PORT}", "null", "http://127.0.0.1:1"])
def test_foreign_pages_are_refused(client: TestClient, origin: str) -> None:
    assert client.get("/api/start", headers={"origin": origin}).status_code == 403
    assert client.post("/api/map/cancel", headers={"origin": origin}).status_code == 403
    assert client.post("/api/map/cancel", headers={"origin": HERE}).status_code == 200


def test_exposed_servers_take_literal_addresses_and_their_own_name(session: Session) -> None:
    app = application(session, TOKEN, PORT, exposed=True, host="Lab-7.example")
    with TestClient(app, base_url=f"http://192.0.2.7:{PORT}", headers={"cookie": f"rfdiff_{PORT}={TOKEN}"}) as client:
        assert client.get("/api/alive").status_code == 200
        assert client.get("/api/alive", headers={"host": f"lab-7.example:{PORT}"}).status_code == 200
        for host in ("evil.example", f"evil.example:{PORT}", "lab-7.example:1"):
            assert client.get("/api/alive", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("foreign", ['x={"a":1}', "path=/; expires=never", "=;;=", "a,b c"])
def test_cookies_of_other_servers_do_not_hide_the_token(stranger: TestClient, foreign: str) -> None:
    """A browser sends the cookies of every server of this machine to each of them."""
    for cookies in (f"{foreign}; rfdiff_{PORT}={TOKEN}", f"rfdiff_{PORT}={TOKEN}; {foreign}"):
        assert stranger.get("/api/alive", headers={"cookie": cookies}).status_code == 200
    assert stranger.get("/api/alive", headers={"cookie": f"{foreign}; rfdiff_{PORT}=another"}).status_code == 403


def test_every_answer_has_the_policy(client: TestClient) -> None:
    for path in ("/", "/main.js", "/api/start", "/nothing", "/api/preview?t=9"):
        answer = client.get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    page = (PAGE / "index.html").read_text()
    assert "<style" not in page and " style=" not in page and "onclick" not in page and "http" not in page.replace("http-equiv", "")
    assert all("src=" in line for line in page.splitlines() if "<script" in line)


def test_large_requests_are_refused(client: TestClient) -> None:
    assert client.get(f"/api/start?t={'1' * (MOST_BYTES + 1)}").status_code == 413
    assert client.post("/api/map/cancel", content=b"x" * (MOST_BYTES + 1)).status_code == 413

    def pieces() -> Iterator[bytes]:  # without a length
        for _ in range(20):
            yield b"x" * 1000

    assert client.post("/api/map/cancel", content=pieces()).status_code == 413


def test_only_the_files_of_the_page_are_served(client: TestClient) -> None:
    for name in ("style.css", "uPlot.iife.min.js", "uPlot.min.css", "controls.js"):
        assert client.get(f"/{name}").status_code == 200
    for path in ("/../state.py", "/%2e%2e/state.py", "/..%2fstate.py", "/page/main.js", "/uPlot.LICENSE", "/download/..%2f..%2fstate.py"):
        assert client.get(path).status_code == 404
    assert client.post("/api/start").status_code == 405
    assert client.get("/api/train/cancel").status_code == 405


def test_problem_file_and_lines_of_a_state(client: TestClient) -> None:
    state = State(activation="erf", norm=(0.0, 0.0), rule="sgd", step_size=0.25, batch=2.0, weight_decay=0.01)
    answer = client.get(f"/download/problem.toml?{state.query()}")
    assert answer.headers["content-disposition"] == 'attachment; filename="problem.toml"'
    assert State.from_problem(Problem.from_text(answer.text)).activation == "erf"
    lines = client.get(f"/api/snippets?{state.query()}").json()
    assert "rfdiff predict problem.toml --rule sgd --step-size 0.25 --batch 2.0 --weight-decay 0.01" in lines["command"]
    made: dict[str, object] = {}
    exec(lines["python"].split("curves =")[0], made)
    assert state.problem().equals(made["problem"]) and state.training_rule().equals(made["rule"])
    assert {"t", "weight_0", "variance_1"} <= set(lines["map_names"])


def test_refusals_name_the_number(client: TestClient) -> None:
    answer = client.get("/api/preview?t=9")
    assert answer.status_code == 422
    assert answer.json() == {"error": "t: 9.0; allowed: 0.01 to 5", "field": "t"}
    assert client.get("/api/preview?axis=5,1").json()["error"].startswith("axis: '5,1'; allowed: two powers of ten")
    one = State(fraction=(1.0,), variance=(1.0,), norm=(0.0,), angle=(0.0,)).query()
    assert "allowed: two different numbers, 2 classes or more" in client.post(f"/api/map?{one}&first=t&second=psi_n").json()["error"]
    assert "quantity: 'tau_x'" in client.post("/api/map?first=t&second=psi_n&quantity=tau_x").json()["error"]
    assert "allowed: two of t, psi_p" in client.post("/api/map?first=t&second=nothing").json()["error"]
    assert "map: gradient flow without weight decay" in client.post("/api/map?first=t&second=psi_n&weight_decay=0.1").json()["error"]
    assert "d: 9999; allowed: 10 to 2000" in client.post("/api/train?axis=0,4&d=9999&num_seeds=2").json()["error"]


def test_numbers_have_seven_digits() -> None:
    draws = np.random.default_rng(0)
    values = draws.normal(size=4000) * 10.0 ** draws.integers(-40, 20, 4000)
    small = np.concatenate([values[abs(values) > 1e-10], [np.nan, np.inf, -np.inf, 0.0, 1.0, -123.45678]])
    for array in (values, small):
        assert answers.numbers(array) == [answers.number(value) for value in array.tolist()]
    assert answers.numbers([1 / 3, np.nan]) == [0.3333333, None]


def test_long_work_is_known_by_its_number(client: TestClient, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a page notices when another one has begun something else."""
    monkeypatch.setattr(theory, "phase_map", lambda *_, **__: 1 / 0)
    first = client.post("/api/map?first=t&second=psi_n").json()["number"]
    assert client.get("/api/map").json()["number"] == first
    second = client.post("/api/map?first=t&second=psi_p").json()["number"]
    assert second != first and client.get("/api/map").json()["number"] == second
    assert session.phase._thread is not None
    session.phase._thread.join()
    look = client.get("/api/map").json()
    assert not look["running"] and look["error"] == "ZeroDivisionError: division by zero"


@pytest.mark.thorough
def test_networks_that_do_not_fit_are_refused(client: TestClient) -> None:
    large = client.post("/api/train?axis=0,4&d=2000&num_seeds=2&psi_p=100&psi_n=100").json()["error"]
    assert large.startswith("d: 2000 makes p = 200000 features and needs about") and "allowed:" in large


NAMES = [*State.__dataclass_fields__, "axis", "d", "num_seeds", "first", "second", "quantity", "token", "x", "", "t\x00", "λ"]
WORDS = [
    "",
    "nan",
    "-1",
    "1e999",
    "inf",
    "1,2,3",
    ",,,",
    "0x10",
    "٣",
    "%",
    "%00",
    "%ff",
    "../..",
    "<script>",
    "'\"",
    "1_0",
    "9" * 50,
    "a" * 3000,
    "None",
]
PATHS = [
    "/api/preview",
    "/api/exact",
    "/api/spectrum",
    "/api/speciation",
    "/api/snippets",
    "/download/result.nc",
    "/download/x",
    "/api/start",
]
POSTS = ["/api/train", "/api/map"]


Request = tuple[str, str, bytes, list[tuple[bytes, bytes]], bytes]  # method, path, query, headers, body


def malformed(rng: random.Random) -> Request:
    """A request in which at least one number is wrong, or that is no query at all."""
    query = "&".join(f"{rng.choice(NAMES)}{rng.choice('==& ')}{rng.choice(WORDS)}" for _ in range(rng.randint(1, 6)))
    query = f"t={rng.choice(['nan', '-3', '', 'x', '1e9'])}&{query}" if rng.random() < 0.5 else f"y{rng.randint(0, 99)}=1&{query}"
    raw = query.encode() if rng.random() < 0.9 else b"y=1&" + rng.randbytes(rng.randint(1, 200))
    method = rng.choice(["GET", "GET", "GET", "POST", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "\x7f"])
    path = (
        rng.choice(PATHS + POSTS) if rng.random() < 0.8 else "/" + "".join(rng.choice("ab./%0\\~\x00é") for _ in range(rng.randint(2, 30)))
    )
    headers = [
        (rng.choice([b"range", b"content-type", b"accept", b"x-y", b"cookie"]), rng.choice([b"bytes=9-1", b"a/b; q=\xe9", b"", b"=;;="]))
    ]
    if rng.random() < 0.2:
        headers += [(rng.choice([b"host", b"origin", b"content-length"]), rng.choice([b"", b"-1", b"\xff", b"9" * 30, b"http://["]))]
    body = rng.randbytes(rng.choice([0, 10, 3000, 9000])) if method in ("POST", "PUT") else b""
    return method, path, raw, headers, body


async def asked(app: Guard, request: Request) -> tuple[int, bytes]:
    """Status and body of the answer to a request, as a server hands it on: no client has put it right before."""
    method, path, query, headers, body = request
    own = [(b"host", f"127.0.0.1:{PORT}".encode()), (b"cookie", f"rfdiff_{PORT}={TOKEN}".encode())]
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "root_path": "", "client": ("127.0.0.1", 1),
        "method": method, "path": path, "raw_path": path.encode(), "query_string": query, "headers": own + headers,
        "server": ("127.0.0.1", PORT),
    }  # fmt: skip
    messages: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    await asyncio.wait_for(app(scope, receive, send), 20)
    return messages[0]["status"], b"".join(message.get("body", b"") for message in messages[1:])


def test_a_thousand_malformed_requests(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is answered with a 4xx and one line; none reaches what computes."""

    def never(*_: object) -> None:
        raise AssertionError("a malformed request was computed")

    for module, name in ((answers, "exact"), (answers, "spectrum"), (answers, "speciation"), (downloads, "content")):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr(Session, "compile_for", never)
    app, rng = application(session, TOKEN, PORT), random.Random(0)

    async def all_of_them() -> list[int]:
        statuses = []
        for _ in range(1000):
            request = malformed(rng)
            status, body = await asked(app, request)
            assert 400 <= status < 500, (request, status, body)
            if body and request[0] != "HEAD":
                assert set(json.loads(body)) <= {"error", "field"} and b"Traceback" not in body, (request, body)
            statuses.append(status)
        return statuses

    statuses = asyncio.run(all_of_them())
    assert {403, 404, 405, 413, 421, 422} <= set(statuses)
