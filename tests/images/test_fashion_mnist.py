"""Fashion-MNIST: every fault of a file is named, nothing that is there is overwritten, and the real images are what is published."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from rfdiff.images import fashion_mnist
from rfdiff.images.fashion_mnist import CLASS_NAMES, FashionMNIST, class_pixels, load
from rfdiff.mixture import MixtureLaw
from tests.tolerances import rejects

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = NAMES


def idx(array: np.ndarray, code: int = 8) -> bytes:
    """An array as IDX, written from the format's description and not with the loader's code."""
    return bytes([0, 0, code, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def arrays() -> dict[str, np.ndarray]:
    """A small data set: 12 and 5 images, every pixel random."""
    rng = np.random.default_rng(0)
    made = {}
    for count, images, labels in ((12, TRAIN_IMAGES, TRAIN_LABELS), (5, TEST_IMAGES, TEST_LABELS)):
        made[images] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        made[labels] = rng.integers(0, 10, count, np.uint8)
    return made


def publish(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the files of a folder the originals, their own checksums and sizes the published ones."""
    small = arrays()
    table = []
    for original in fashion_mnist._ORIGINALS:
        raw = (folder / original.name).read_bytes()
        table.append(original._replace(md5=hashlib.md5(raw).hexdigest(), size=len(raw), shape=small[original.name].shape))
    monkeypatch.setattr(fashion_mnist, "_ORIGINALS", tuple(table))


@pytest.fixture
def originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "originals"
    folder.mkdir()
    for name, array in arrays().items():
        (folder / name).write_bytes(packed(idx(array)))
    publish(monkeypatch, folder)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_arrays_are_those_of_the_files(originals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, expected = load(str(originals)), arrays()
    found = dict(zip(NAMES, (data.train_images, data.train_labels, data.test_images, data.test_labels), strict=True))
    for name, array in found.items():
        assert array.dtype == np.uint8 and not array.flags.writeable
        np.testing.assert_array_equal(array, expected[name])
    monkeypatch.setenv("RFDIFF_FASHION_MNIST", str(originals))
    np.testing.assert_array_equal(load().train_images, data.train_images)


def test_missing_directories(tmp_path: Path, originals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        monkeypatch.delenv("RFDIFF_FASHION_MNIST", raising=False)
        if value is not None:
            monkeypatch.setenv("RFDIFF_FASHION_MNIST", value)
        with pytest.raises(ValueError, match="^directory: None, and the environment variable RFDIFF_FASHION_MNIST is not set; allowed: "):
            load()
    with pytest.raises(ValueError, match="^directory: .*nowhere: no such directory; allowed: .*download=True"):
        load(tmp_path / "nowhere")
    monkeypatch.setenv("RFDIFF_FASHION_MNIST", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="^RFDIFF_FASHION_MNIST: .*nowhere: no such directory"):
        load()
    for download in (False, True):
        with pytest.raises(ValueError, match=f"{TRAIN_LABELS}: is not a directory"):
            load(originals / TRAIN_LABELS, download=download)


def test_missing_files(originals: Path) -> None:
    (originals / TRAIN_LABELS).unlink()
    (originals / TEST_IMAGES).unlink()
    with pytest.raises(ValueError, match=f"{TRAIN_LABELS}: no such file .missing: {TRAIN_LABELS}, {TEST_IMAGES}.; download=True"):
        load(originals)
    (originals / "t10k-images-idx3-ubyte").write_bytes(idx(arrays()[TEST_IMAGES]))
    with pytest.raises(ValueError, match="; t10k-images-idx3-ubyte is there, but unpacked: .*; download=True"):
        load(originals)


IMAGES = arrays()[TEST_IMAGES]
OWN = "an IDX header of 5 x 28 x 28 unsigned bytes"


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (packed(idx(IMAGES))[:-1], r"is truncated: 3,\d+ of 3,\d+ bytes"),
        (packed(idx(IMAGES))[:10], r"is truncated: 10 of 3,\d+ bytes"),
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"a name without end" * 999, "is damaged .it ends within"),
        (b"", "is not gzip-compressed: it holds nothing"),
        (b"<html>", "is not gzip-compressed: it holds no IDX header .its first bytes are 3c 68 74 6d"),
        (b"\0\0\x08\x03\0", "is not gzip-compressed: it holds no IDX header"),
        (idx(IMAGES), f"is not gzip-compressed: it holds {OWN}"),
        (packed(idx(arrays()[TRAIN_IMAGES])), "holds what belongs in train-images-idx3-ubyte.gz"),
        (packed(idx(arrays()[TRAIN_IMAGES] // 2)), f"holds an IDX header of 12 x 28 x 28 .*, which belongs in {TRAIN_IMAGES}, where"),
        (packed(idx(IMAGES[:4])), f"holds an IDX header of 4 x 28 x 28 unsigned bytes, where {OWN} is expected"),
        (packed(idx(IMAGES[:, :27])), f"holds an IDX header of 5 x 27 x 28 unsigned bytes, where {OWN} is expected"),
        (packed(idx(IMAGES.reshape(5, 784))), f"holds an IDX header of 5 x 784 unsigned bytes, where {OWN} is expected"),
        (packed(idx(IMAGES.astype(">f4"), 13)), f"holds an IDX header of 5 x 28 x 28 floats, where {OWN} is expected"),
        (packed(b"\0\1" + idx(IMAGES)[2:]), r"holds no IDX header .its first bytes are 00 01 08 03.*, where"),
        (packed(b""), "holds nothing, where"),
        (packed(idx(IMAGES)[:-1]), "unpacks to 3,935 bytes, where its header asks for 3,936"),
        (packed(idx(IMAGES) + b"\0"), "unpacks to more than 3,936 bytes, where its header asks for 3,936"),
        (packed(idx(255 - IMAGES)), "has the right header, but the MD5 [0-9a-f]{32} instead of [0-9a-f]{32}: changed, repacked, or"),
        (gzip.compress(idx(IMAGES), mtime=1), "has the right header, but the MD5"),
    ],
)
@pytest.mark.parametrize("download", [False, True])
def test_faults_of_a_file_are_named_and_left_as_they_are(originals: Path, raw: bytes, fault: str, download: bool) -> None:
    """One line that names the file; a damaged file is reported, not replaced, whether or not a download is allowed."""
    (originals / TEST_IMAGES).write_bytes(raw)
    before = contents(originals)
    with pytest.raises(ValueError, match=f"^{originals / TEST_IMAGES}: {fault}.*; allowed: .*remove this one") as caught:
        load(originals, download=download)
    assert "\n" not in str(caught.value) and contents(originals) == before


def test_headers_are_checked_though_checksums_agree(originals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels that do not count as many as the images, whatever table of checksums says that they are the originals."""
    (originals / TEST_LABELS).write_bytes(packed(idx(np.zeros(6, np.uint8))))
    publish(monkeypatch, originals)
    with pytest.raises(ValueError, match="holds an IDX header of 6 unsigned bytes, where an IDX header of 5 unsigned bytes is expected"):
        load(originals)


def test_swapped_files(originals: Path) -> None:
    before = contents(originals)
    for one, other in ((TRAIN_IMAGES, TEST_IMAGES), (TRAIN_LABELS, TEST_LABELS), (TRAIN_IMAGES, TRAIN_LABELS)):
        (originals / one).write_bytes(before[other])
        (originals / other).write_bytes(before[one])
        with pytest.raises(ValueError, match=f"{one}: holds what belongs in {other}"):
            load(originals)
        for name in (one, other):
            (originals / name).write_bytes(before[name])
    assert load(originals).test_labels.shape == (5,)


def test_every_changed_bit_and_every_cut_is_noticed(originals: Path) -> None:
    path = originals / TEST_LABELS
    raw = path.read_bytes()
    for position in range(len(raw)):
        for bit in range(8):
            path.write_bytes(raw[:position] + bytes([raw[position] ^ (1 << bit)]) + raw[position + 1 :])
            with pytest.raises(ValueError, match=f"^{path}: (is|has|holds|unpacks)"):
                load(originals)
    for length in range(2, len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(ValueError, match=f"^{path}: is truncated: {length} of {len(raw)} bytes"):
            load(originals)
    path.write_bytes(raw)
    load(originals)


def test_files_that_cannot_be_read(originals: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = originals / TEST_LABELS
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"{TEST_LABELS}: is not a regular file; allowed"):
        load(originals)
    path.rmdir()
    path.symlink_to(originals / "nothing")
    with pytest.raises(ValueError, match=f"{TEST_LABELS}: is not a regular file"):  # and is not overwritten
        load(originals, download=True)
    assert path.is_symlink()

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # the superuser may read everything
    with pytest.raises(ValueError, match=f"{TRAIN_IMAGES}: cannot be read .*Permission denied"):
        load(originals)


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


def test_import_needs_no_extra_and_no_network() -> None:
    """In a process where flax and orbax cannot be imported, and every use of the network is recorded."""
    script = """
import sys
sys.modules.update(flax=None, orbax=None)
sys.addaudithook(lambda event, args: print(event) if event.startswith(("socket.", "urllib.")) else None)
import rfdiff.images.fashion_mnist as loader
print("imported")
loader.ADDRESS = "file:///nothing"
loader.load("/nothing/here", download=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-B", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False)
    events = result.stdout.split()
    assert events[:1] == ["imported"], result.stderr
    assert "urllib.Request" in events and "cannot be fetched" in result.stderr  # the record sees what it should


@pytest.fixture
def small(originals: Path) -> FashionMNIST:
    return load(originals)


def test_class_pixels(small: FashionMNIST) -> None:
    kinds = [int(c) for c in np.unique(small.train_labels)[[2, 0]]]
    samples, labels = class_pixels(small, kinds)
    pairs = [*zip(small.train_images, small.train_labels, strict=True)]
    expected = [(image, k) for k, kind in enumerate(kinds) for image, c in pairs if c == kind]
    assert samples.dtype == np.float64 and samples.shape == (len(expected), 784)
    for row, label, (image, k) in zip(samples, labels, expected, strict=True):
        assert label == k and row[28] == image[1, 0] / 255  # row by row
        np.testing.assert_array_equal(row.reshape(28, 28), image / 255)
    again, _ = class_pixels(small, np.array(kinds, np.uint8))
    np.testing.assert_array_equal(again, samples)
    tests, marks = class_pixels(small, range(10), part="test")
    assert tests.shape == (5, 784) and np.array_equal(marks, np.sort(small.test_labels))


@pytest.mark.parametrize(
    "classes", [[], [1, 1], [10], [-1], [1.0], [True, 0], ["1"], "12", 3, {1, 2}, np.array([[1, 2]]), np.array(1), [1, None]]
)
def test_malformed_classes(small: FashionMNIST, classes: Any) -> None:
    with pytest.raises(ValueError, match="^classes: .*; allowed: at least one, distinct integers 0 to 9"):
        class_pixels(small, classes)


def test_unknown_part(small: FashionMNIST) -> None:
    with pytest.raises(ValueError, match="^part: 'valid'; allowed: 'train' or 'test'"):
        class_pixels(small, [1, 2], part="valid")


@pytest.fixture(scope="module")
def real(fashion_mnist_directory: Path) -> FashionMNIST:
    return load(fashion_mnist_directory)


def test_real_images(real: FashionMNIST) -> None:
    assert real.train_images.shape == (60000, 28, 28) and real.test_images.shape == (10000, 28, 28)
    assert real.train_labels.shape == (60000,) and real.test_labels.shape == (10000,)
    np.testing.assert_array_equal(np.bincount(real.train_labels), np.full(len(CLASS_NAMES), 6000))
    np.testing.assert_array_equal(np.bincount(real.test_labels), np.full(len(CLASS_NAMES), 1000))
    assert real.train_labels[0] == CLASS_NAMES.index("Ankle boot")  # the published sprite and every tutorial begin with it
    levels = sum(np.bincount(part.ravel(), minlength=256) for part in np.split(real.train_images, 60)) / real.train_images.size
    grey = np.arange(256) / 255
    mean = float(levels @ grey)
    assert (round(mean, 4), round(float(levels @ (grey - mean) ** 2) ** 0.5, 4)) == (0.2860, 0.3530)  # the normalisation in common use


def pooled(samples: np.ndarray) -> np.ndarray:
    """Averages over squares of 4 x 4 pixels: (n, 784) to (n, 49)."""
    return samples.reshape(-1, 7, 4, 7, 4).mean((2, 4)).reshape(-1, 49)


def test_law_fitted_to_two_classes(real: FashionMNIST) -> None:
    """Means, variances and Gram matrix of bags and trousers, against sums of the integer grey levels."""
    bag, trouser = CLASS_NAMES.index("Bag"), CLASS_NAMES.index("Trouser")
    samples, labels = class_pixels(real, [bag, trouser])
    law = MixtureLaw.fit(pooled(samples), labels)

    def agrees(order: tuple[int, int], unit: float = 255.0) -> None:
        own = [real.train_images[real.train_labels == c].astype(np.int64) for c in order]
        sums = [sum(x[:, i::4, j::4] for i in range(4) for j in range(4)).reshape(-1, 49) for x in own]  # 16 grey levels each
        means = np.array([s.sum(0) / len(s) for s in sums]) / (16 * unit)
        variances = np.array([np.mean((s**2).sum(0) / len(s) - (s.sum(0) / len(s)) ** 2) for s in sums]) / (16 * unit) ** 2
        assert law.centroids is not None and np.allclose(law.centroids, means, rtol=1e-12, atol=0)
        assert np.allclose(law.variances, variances, rtol=1e-11, atol=0)
        assert np.allclose(law.centroid_gram, means @ means.T / 49, rtol=1e-12, atol=0)

    agrees((bag, trouser))
    np.testing.assert_array_equal(law.weights, [0.5, 0.5])
    rejects(lambda: agrees((trouser, bag)))
    rejects(lambda: agrees((bag, trouser), unit=256.0))
