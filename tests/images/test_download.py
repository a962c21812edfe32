"""Fetching Fashion-MNIST: nothing but originals is kept, nothing that is there is overwritten, and every fault of a server is named."""

import contextlib
import functools
import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from rfdiff.images import fashion_mnist
from rfdiff.images.fashion_mnist import load
from tests.images.original_files import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, arrays, contents, idx, packed


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


class _Cut(_Quiet):
    """Promises a whole file, sends half of it and hangs up."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        outputfile.write(content[: len(content) // 2])


class _Garbled(_Quiet):
    """Speaks something else than HTTP."""

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"220 ready\r\n\r\n")


class _Endless(_Quiet):
    """Sends zeros for as long as somebody listens (64 MiB at most, and reaching them is an error that the test sees)."""

    finished: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(64):
                self.wfile.write(bytes(1 << 20))
        except OSError:
            return
        self.finished.append(self.path)


@contextlib.contextmanager
def served(handler: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on this machine in place of the authors' bucket."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            monkeypatch.setattr(fashion_mnist, "ADDRESS", f"http://127.0.0.1:{server.server_address[1]}")
            yield fashion_mnist.ADDRESS
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def bucket(originals: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that a server publishes."""
    with served(_Quiet, originals, monkeypatch):
        yield originals


def test_download_fills_a_new_directory(bucket: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    np.testing.assert_array_equal(load(folder, download=True).test_images, arrays()[TEST_IMAGES])
    assert contents(folder) == contents(bucket)
    for path in bucket.iterdir():
        path.unlink()
    load(folder, download=True)  # nothing is missing: nothing is asked for


def test_download_fetches_missing_files_alone(bucket: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / TRAIN_IMAGES).write_bytes((bucket / TRAIN_IMAGES).read_bytes())
    os.utime(folder / TRAIN_IMAGES, (1, 1))
    load(folder, download=True)
    assert contents(folder) == contents(bucket) and (folder / TRAIN_IMAGES).stat().st_mtime == 1


def test_download_comes_after_a_damaged_file_is_reported(bucket: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / TEST_LABELS).write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"{TEST_LABELS}: is not gzip-compressed"):
        load(folder, download=True)
    assert contents(folder) == {TEST_LABELS: b"mine"}


def test_download_keeps_nothing_but_originals(bucket: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    address, good = fashion_mnist.ADDRESS, (bucket / TRAIN_IMAGES).read_bytes()
    for bad, fault in (
        (b"<html>moved</html>", "sent is not gzip-compressed: it holds no IDX header"),
        (good[:-3], "sent is truncated"),
        (good + bytes(10_000_000), "sent has the right header, but the MD5"),
        (packed(idx(arrays()[TRAIN_IMAGES] // 2)), "sent has the right header, but the MD5"),
    ):
        (bucket / TRAIN_IMAGES).write_bytes(bad)
        with pytest.raises(ValueError, match=f"^{folder / TRAIN_IMAGES}: what {address}/{TRAIN_IMAGES} {fault}.*nothing was written"):
            load(folder, download=True)
        assert not folder.exists()
    (bucket / TRAIN_IMAGES).write_bytes(good)
    (bucket / TEST_LABELS).unlink()
    with pytest.raises(ValueError, match=f"^{folder / TEST_LABELS}: {address}/{TEST_LABELS} cannot be fetched .*404.*by hand"):
        load(folder, download=True)
    assert contents(folder) == {name: raw for name, raw in contents(bucket).items() if name != TEST_LABELS}  # whole ones stay


@pytest.mark.parametrize(
    ("handler", "fault"),
    [
        (_Cut, "(sent is truncated|cannot be fetched)"),  # the standard library notices it itself in some versions
        (_Garbled, "cannot be fetched .220 ready"),
        (_Endless, "sent is not gzip-compressed: it holds no IDX header .its first bytes are 00 00 00 00"),
    ],
)
def test_servers_that_misbehave(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: Any, fault: str) -> None:
    with (
        served(handler, originals, monkeypatch) as address,
        pytest.raises(ValueError, match=f"{address}/{TRAIN_IMAGES} {fault}"),
    ):
        load(tmp_path / "data", download=True)
    assert not (tmp_path / "data").exists() and _Endless.finished == []


def test_download_without_a_network(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    with socket.socket() as silent:  # accepts no connection to the end: first it does not answer, then it is gone
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(fashion_mnist, "ADDRESS", address)
        monkeypatch.setattr(fashion_mnist, "TIMEOUT", 0.1)
        with pytest.raises(ValueError, match=f"{address}/{TRAIN_IMAGES} cannot be fetched .*timed out.; allowed: a network"):
            load(folder, download=True)
    with pytest.raises(ValueError, match=f"{address}/{TRAIN_IMAGES} cannot be fetched .*refused"):
        load(folder, download=True)
    monkeypatch.setattr(fashion_mnist, "ADDRESS", (tmp_path / "no bucket").as_uri())
    with pytest.raises(ValueError, match="file://.*cannot be fetched .*No such file"):
        load(folder, download=True)
    assert not folder.exists()


def test_download_that_cannot_be_written(bucket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ValueError, match=f"{TRAIN_IMAGES}: cannot be written .*No space left"):
        load(tmp_path / "data", download=True)
    assert contents(tmp_path / "data") == {}
