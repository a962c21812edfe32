"""Malformed data sets: each is one line that names the file and what is wrong with it, and where."""

import gzip
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rfdiff import InputError
from rfdiff.datasets import load_samples, raw

X, Y = np.arange(24.0).reshape(8, 3), np.repeat([0, 1], 4)
HEADER = struct.pack(">HBB3I", 0, 8, 3, 2, 2, 2)


def npz(folder: Path, **arrays: object) -> Path:
    np.savez(folder / "d.npz", **arrays)  # type: ignore[arg-type]
    return folder / "d.npz"


def text(folder: Path, content: str | bytes, name: str = "d.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def damaged(content: bytes) -> bytes:
    return content[:200] + bytes([content[200] ^ 255]) + content[201:]


def with_entry(value: float) -> np.ndarray:
    x = X.copy()
    x[5, 1] = value
    return x


def images(folder: Path, *sizes: tuple[int, int], damage: bool = False) -> Path:
    for name in ("a", "b"):
        (folder / name).mkdir()
        for i, size in enumerate(sizes):
            Image.fromarray(np.full(size, 9 * i, np.uint8)).save(folder / name / f"{i}.png")
    if damage:
        file = folder / "b" / "1.png"
        file.write_bytes(file.read_bytes()[:40])
    return folder


def idx(folder: Path, content: bytes, labels: bytes | None = struct.pack(">HBB1I", 0, 8, 1, 2) + b"\0\1") -> Path:
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    if labels is not None:
        (folder / "train-labels-idx1-ubyte").write_bytes(labels)
    return folder


CASES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda f: f / "no.csv", "no.csv: no such file or folder; allowed: an .npz"),
    "another format": (lambda f: text(f, "x", "d.docx"), "d.docx: of no known format"),
    "an empty folder": (lambda f: f, "holds neither IDX files nor folders of images"),
    "no archive": (lambda f: text(f, "not a zip", "d.npz"), "d.npz: no .npz archive, or cut short"),
    "a cut archive": (lambda f: text(f, npz(f, x=X, y=Y).read_bytes()[:-60], "cut.npz"), "cut.npz: no .npz archive, or cut short"),
    "a changed byte in an archive": (lambda f: text(f, damaged(npz(f, x=X, y=Y).read_bytes()), "bad.npz"), "bad.npz: damaged"),
    "names unknown": (lambda f: npz(f, a=X, b=Y), "d.npz: holds a, b: no pair of samples and labels"),
    "names twice": (lambda f: npz(f, x=X, y=Y, samples=X, labels=Y), "more than one pair"),
    "labels missing in an archive": (lambda f: npz(f, x=X), "d.npz: holds x: no pair"),
    "pickled objects": (lambda f: npz(f, x=np.array([[1, "a"]], object), y=[0]), "d.npz: x: .*; allowed: an array of numbers or text"),
    "one axis": (lambda f: npz(f, x=X[0], y=Y), r"d.npz: samples of shape \(3,\)"),
    "fewer labels": (lambda f: npz(f, x=X, y=Y[:-1]), r"d.npz: labels of shape \(7,\) for 8 samples"),
    "labels in columns": (lambda f: npz(f, x=X, y=np.eye(2)[Y]), r"d.npz: labels of shape \(8, 2\)"),
    "NaN": (lambda f: npz(f, x=with_entry(np.nan), y=Y), "d.npz: row 5 holds a number that is not finite"),
    "infinity": (lambda f: npz(f, x=with_entry(np.inf), y=Y), "d.npz: row 5 holds a number that is not finite"),
    "NaN among labels": (lambda f: npz(f, x=X, y=np.where(Y == 1, np.nan, 0)), "d.npz: labels: entry 4 is not a number"),
    "complex numbers": (lambda f: npz(f, x=X + 1j, y=Y), "d.npz: samples of type complex128"),
    "text for numbers": (lambda f: npz(f, x=X.astype(str), y=Y), "d.npz: samples of type"),
    "one sample in a class": (lambda f: npz(f, x=X[:5], y=Y[:5]), "d.npz: class '1' has 1 sample; allowed: at least 2"),
    "equal samples": (lambda f: npz(f, x=np.ones((4, 3)), y=[0, 0, 1, 1]), "d.npz: the samples of every class are equal"),
    "too many coordinates": (
        lambda f: npz(f, x=np.random.default_rng(0).normal(size=(4, 16385)), y=[0, 0, 1, 1]),
        "16385 coordinates per sample",
    ),
    "an npy without labels": (lambda f: text(f, b"", "x.npy"), "x.npy: labels are missing"),
    "an empty table": (lambda f: text(f, ""), "d.csv: empty"),
    "a header alone": (lambda f: text(f, "a,label\n"), "d.csv: no rows"),
    "no label column": (lambda f: text(f, "a,b\n1,2\n3,4\n"), "d.csv: no column is called label, .*; allowed: .* one of a, b"),
    "two label columns": (lambda f: text(f, "y,label\n1,2\n3,4\n"), "'y' and 'label' are all called"),
    "labels alone": (lambda f: text(f, "label\n1\n2\n"), "d.csv: no columns beside 'label'"),
    "a word among numbers": (lambda f: text(f, "a,b,label\n1,2,u\n3,x4,v\n"), "d.csv: line 3: column 'b' holds 'x4'; allowed: a number"),
    "an empty cell": (lambda f: text(f, "a,b,label\n1,2,u\n3,,v\n"), "d.csv: line 3 holds a number that is not finite"),
    "an empty label": (lambda f: text(f, "a,b,label\n1,2,u\n3,4,\n"), "d.csv: line 3: column 'label' is empty"),
    "a longer line": (lambda f: text(f, "a,b,label\n1,2,u\n3,4,v\n1,2,3,4,5\n"), "d.csv: cannot be read as CSV .*line 4"),
    "bytes for text": (lambda f: text(f, b"a,label\n\xff\xfe1,2\n"), "d.csv: is not text in UTF-8"),
    "no parquet": (lambda f: text(f, "nothing", "d.parquet"), "d.parquet: "),
    "images of two sizes": (
        lambda f: images(f, (4, 4), (4, 5)),
        r"1.png: 5 x 4 pixels, where 0.png has 4 x 4; allowed: images of one size",
    ),
    "a damaged image": (lambda f: images(f, (4, 4), (4, 4), damage=True), r"b.1.png: cannot be read as an image"),
    "no IDX labels": (lambda f: idx(f, HEADER + bytes(8), None), "train-images-idx3-ubyte: no labels; allowed: train-labels-idx1-ubyte"),
    "no IDX header": (lambda f: idx(f, b"abcdefgh"), r"no IDX header \(its first bytes are 61 62 63 64\)"),
    "cut IDX numbers": (lambda f: idx(f, HEADER + bytes(7)), "23 bytes unpacked, where its header asks for 24"),
    "damaged gzip": (lambda f: idx(f, gzip.compress(HEADER + bytes(8))[:-9]), "train-images-idx3-ubyte: damaged"),
    "an IDX that asks for a galaxy": (lambda f: idx(f, struct.pack(">HBB3I", 0, 8, 3, *[2**31] * 3)), "MiB as float64; allowed: at most"),
}


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        load_samples(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("case", CASES)
def test_malformed_data_are_one_line(case: str, tmp_path: Path) -> None:
    make, expected = CASES[case]
    assert re.search(expected, refusal(make(tmp_path)))


OPTIONS: dict[str, tuple[dict[str, object], str]] = {
    "classes": ({"classes": ["0", "7"]}, "classes: '7'; allowed: labels of .*d.npz: 0, 1"),
    "no classes": ({"classes": []}, "classes: none; allowed: labels of"),
    "classes twice": ({"classes": ["0", "0"]}, "classes: .*allowed: a list of different labels"),
    "a text": ({"classes": "01"}, "classes: '01'; allowed: a list"),
    "samples_per_class": ({"samples_per_class": 1}, "samples_per_class: 1; allowed: .*2"),
    "held_out": ({"held_out": 1.0}, "held_out: 1.0; allowed: a share 0 < held_out < 1"),
    "pixels of vectors": ({"pixels": 2}, r"pixels: 2 for samples of shape \(3,\)"),
    "components": ({"components": 4}, "components: 4 of .*d.npz; allowed: 1 to 3"),
    "standardise": ({"standardise": "yes"}, "standardise: 'yes'; allowed: 'whole', 'coordinates', 'none'"),
    "seed": ({"seed": -1}, "seed: -1"),
    "part": ({"part": "validation"}, "part: 'validation'; allowed: 'train' or 'test'"),
    "labels": ({"labels": "y.npy"}, "labels: y.npy beside .*allowed: with an .npy of samples only"),
    "label_column": ({"label_column": "y"}, "label_column: 'y' with .*allowed: with a .csv or .parquet only"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_out_of_range_are_one_line(case: str, tmp_path: Path) -> None:
    options, expected = OPTIONS[case]
    assert re.search(expected, refusal(npz(tmp_path, x=X, y=Y), **options))


def test_blocks_of_pixels_must_be_whole(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.random.default_rng(0).normal(size=(4, 6, 8)), y=[0, 0, 1, 1])
    assert "pixels: 4 for images of 8 x 6" in refusal(path, pixels=4) and refusal(path, pixels=4).endswith("allowed: 1, 2")


def test_what_does_not_fit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = npz(tmp_path, x=X, y=Y)
    monkeypatch.setattr(raw, "machine_bytes", lambda: 300)
    assert re.search(r"samples of shape \(8, 3\) take 0 MiB as float64; allowed: at most 0 MiB", refusal(path))
