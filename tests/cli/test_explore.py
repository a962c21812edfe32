"""What rfdiff explore refuses before it serves anything."""

import http.client
import socket
import sys
import time
from pathlib import Path

import pytest

from rfdiff.explorer import serving
from tests.cli.command_line import refused
from tests.explorer.conftest import Served


def test_other_addresses_ask_for_a_flag_that_says_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "explore", "--host", "0.0.0.0")
    assert "--host: '0.0.0.0' without --expose; allowed: 127.0.0.1;" in line and "not encrypted" in line


def test_ports_out_of_range_and_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--port: 70000; allowed: 0 (any free one) to 65535" in refused(capsys, "explore", "--port", "70000")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        taken = other.getsockname()[1]
        assert f"--port: {taken} at 127.0.0.1" in refused(capsys, "explore", "--no-browser", "--port", str(taken))
    for words in ([], ["--port", "0"]):
        line = refused(capsys, "explore", "--no-browser", "--host", "192.0.2.1", "--expose", *words)
        assert "address: 192.0.2.1 (" in line and "allowed: an address of this machine" in line


def test_without_a_port_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        monkeypatch.setattr(serving, "PORT", other.getsockname()[1])
        with serving.bound("127.0.0.1", None) as found:
            assert found.getsockname()[1] not in (0, serving.PORT)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in [name for name in sys.modules if name.startswith("rfdiff.explorer")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("rfdiff.explorer", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    line = refused(capsys, "explore")
    assert "the module uvicorn is missing; allowed: an environment with the extra, pip install 'rfdiff[explore]'" in line


def test_a_problem_without_sliders_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wide.toml"
    path.write_text('activation = "tanh"\nt = 0.1\npsi_p = 500.0\npsi_n = 3.0\n[mixture]\nweights = [1.0]\nvariances = [1.0]\n')
    assert f"{path}: psi_p: 500.0; allowed: 0.1 to 100" in refused(capsys, "explore", str(path), "--no-browser")
    assert f"{path.parent / 'none.toml'}: cannot be read" in refused(capsys, "explore", str(path.parent / "none.toml"))


@pytest.mark.thorough
def test_requests_cut_off_by_ctrl_c_leave_no_traceback() -> None:
    server = Served("--port", "0")
    token = server.url.split("token=")[1]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Cookie": f"rfdiff_{server.port}={token}"}
    connection.request("GET", "/api/alive", headers=headers)
    connection.getresponse().read()
    connection.request("GET", "/api/exact?activation=relu&t=0.37", headers=headers)  # compiles for seconds
    time.sleep(0.5)  # by which it has arrived; were it later, the test would pass without having tried anything
    status, told = server.interrupt()
    connection.close()
    assert status == 0 and "Traceback" not in told and told.endswith("rfdiff explore has ended\n")
