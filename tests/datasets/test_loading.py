"""Data sets come in as they are: every format gives the same samples, and the record says what was done to them."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rfdiff import MixtureLaw, Samples
from rfdiff.datasets import load_samples
from tests.tolerances import rejects

KINDS = ("bag", "shoe")


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    """Grey images (12, 4, 6) of bytes, 7 of one class and 5 of another."""
    levels = np.random.default_rng(0).integers(0, 256, (12, 4, 6), dtype=np.uint8)
    return levels, np.array([KINDS[int(i >= 7)] for i in range(12)])


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def written(form: str, folder: Path, levels: np.ndarray, labels: np.ndarray) -> Path:
    """The data set in one of the formats."""
    path = folder / {"csv": "data.csv", "npz": "data.npz", "parquet": "data.parquet"}.get(form, "data")
    if form == "npz":
        np.savez(path, x=levels, y=labels)
    elif form in ("csv", "parquet"):
        frame = pd.DataFrame(levels.reshape(len(levels), -1)).add_prefix("pixel")
        frame.insert(3, "label", labels)
        frame.to_csv(path, index=False) if form == "csv" else frame.to_parquet(path)
    elif form == "folders":
        for i, (image, label) in enumerate(zip(levels, labels, strict=True)):
            (path / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path / label / f"{i:03d}.png")
        (path / "bag" / "notes.txt").write_text("not an image")
    elif form == "idx":
        path.mkdir()
        (path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(levels)))
        (path / "train-labels-idx1-ubyte").write_bytes(idx((labels == "shoe").astype(np.uint8)))
    return path


@pytest.mark.parametrize("form", ["npz", "csv", "parquet", "folders", "idx"])
def test_every_format_gives_the_same_samples(form: str, images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow, of the extra data")
    path = written(form, tmp_path, *images)
    before = sorted(tmp_path.rglob("*"))
    samples = load_samples(path, standardise="none")
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written beside the data"
    highest = 255 if form != "csv" else images[0].max()  # a table's whole numbers have no type
    np.testing.assert_allclose(samples.samples, images[0].reshape(12, -1) / highest, atol=1e-12)
    rejects(lambda: np.testing.assert_allclose(samples.samples, images[0].transpose(0, 2, 1).reshape(12, -1) / highest, atol=1e-12))
    np.testing.assert_array_equal(samples.labels, (images[1] == "shoe").astype(int))
    assert samples.class_names == (("0", "1") if form == "idx" else KINDS)
    assert samples.shape == ((24,) if form in ("csv", "parquet") else (4, 6))
    assert samples.held_out == 1  # a fifth of 5


def test_a_pair_of_npy_files(images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", images[0] / 255)
    np.save(tmp_path / "y.npy", images[1])
    samples = load_samples(tmp_path / "x.npy", labels=tmp_path / "y.npy", standardise="none", held_out=0.5)
    np.testing.assert_array_equal(samples.samples, images[0].reshape(12, -1) / 255)
    assert samples.held_out == 2


def test_colours_come_last_and_grey_images_beside_them_have_three_equal_ones(tmp_path: Path) -> None:
    levels = np.random.default_rng(1).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    for i, image in enumerate(levels):
        (tmp_path / f"c{i // 2}").mkdir(exist_ok=True)
        Image.fromarray(image if i else image[..., 0]).save(tmp_path / f"c{i // 2}" / f"{i}.png")
    samples = load_samples(tmp_path, standardise="none")
    assert samples.shape == (2, 2, 3)
    np.testing.assert_array_equal(samples.samples[1:], levels[1:].reshape(3, -1) / 255)
    np.testing.assert_array_equal(samples.samples[0], np.repeat(levels[0, ..., 0].ravel(), 3) / 255)


def test_sixteen_bits_are_shares_of_their_own_highest_level(tmp_path: Path) -> None:
    levels = np.array([[[0, 65535], [1, 40000]], [[7, 9], [11, 65535]]], np.uint16)
    (tmp_path / "one").mkdir()
    for i, image in enumerate(levels):
        Image.fromarray(image).save(tmp_path / "one" / f"{i}.png")
    np.testing.assert_allclose(load_samples(tmp_path, standardise="none").samples, levels.reshape(2, -1) / 65535, atol=1e-15)


def saved(folder: Path, x: np.ndarray, y: np.ndarray) -> Path:
    np.savez(folder / "data.npz", x=x, y=y)
    return folder / "data.npz"


def gaussian(folder: Path) -> Path:
    """Two classes in 6 dimensions of variance 9 and 1 about (5, …, 5)."""
    x = np.random.default_rng(2).normal(size=(400, 6)) * np.repeat([3.0, 1.0], 200)[:, None] + 5
    return saved(folder, x, np.repeat([3.0, 8.0], 200))


def test_the_mean_class_variance_is_one_and_the_record_undoes_it(tmp_path: Path) -> None:
    samples = load_samples(gaussian(tmp_path))
    assert samples.class_names == ("3", "8")
    law = MixtureLaw.fit(samples.samples, samples.labels, shrinkage=0)
    assert np.mean(law.variances) == pytest.approx(1, abs=1e-12) and samples.samples.mean() == pytest.approx(0, abs=1e-12)
    record = dict(samples.preparation)
    with np.load(tmp_path / "data.npz") as archive:
        np.testing.assert_allclose(samples.samples * float(record["divided by"]) + float(record["subtracted"]), archive["x"], atol=1e-12)
    assert record["source"] == "data.npz"


def test_coordinates_can_be_standardised_and_constant_ones_stay(tmp_path: Path) -> None:
    x = np.random.default_rng(3).normal(size=(60, 4)) * [1, 100, 1e-3, 0] + [0, 5, 7, 2]
    samples = load_samples(saved(tmp_path, x, np.repeat([0, 1], 30)), standardise="coordinates")
    deviations = samples.samples.std(0)
    np.testing.assert_allclose(deviations[:3], deviations[0], rtol=1e-12)
    np.testing.assert_allclose(samples.samples[:, 3], samples.samples[0, 3], atol=1e-12)
    assert dict(samples.preparation)["coordinates standardised"] == "3 of 4, the others constant"


def test_principal_components_keep_distances_and_say_their_share(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 20)) + 2
    samples = load_samples(saved(tmp_path, x, np.repeat([0, 1], 25)), components=3, standardise="none")
    assert samples.dimension == 3 and dict(samples.preparation)["principal components"] == "3 of 20, 1.000000 of the variance"
    np.testing.assert_allclose(samples.samples @ samples.samples.T, (x - x.mean(0)) @ (x - x.mean(0)).T, atol=1e-9)
    assert np.all(np.diff(samples.samples.var(0)) < 0)
    fewer = load_samples(tmp_path / "data.npz", components=2, standardise="none")
    np.testing.assert_allclose(fewer.samples, samples.samples[:, :2], atol=1e-9)


def test_pixels_are_averages_of_whole_blocks(images: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    samples = load_samples(written("npz", tmp_path, *images), pixels=2, standardise="none")
    assert samples.shape == (2, 2)
    np.testing.assert_allclose(samples.samples[:, 1], images[0][:, :2, 3:].mean((1, 2)) / 255, atol=1e-12)


def test_classes_and_counts_are_chosen_in_a_fixed_random_order(tmp_path: Path) -> None:
    x = np.arange(60.0).reshape(30, 2)
    path = saved(tmp_path, x, np.repeat(["a", "b", "c"], 10))

    def chosen(**options: object) -> Samples:
        return load_samples(path, classes=["c", "a"], standardise="none", **options)  # type: ignore[arg-type]

    few, more, other = chosen(samples_per_class=3), chosen(samples_per_class=5), chosen(samples_per_class=3, seed=1)
    assert few.class_names == ("a", "c") and few.counts == (3, 3)
    rows = [{tuple(sample) for sample in samples.samples} for samples in (few, more, other)]
    assert rows[0] < rows[1] and rows[0] != rows[2]
    assert all(sample[0] / 2 > 9 for sample in few.samples[few.labels == 1]) and np.all(few.samples[few.labels == 0, 0] < 20)
