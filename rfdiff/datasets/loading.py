"""The front door to labelled data: a path, its format by what lies there, and how the samples are to be prepared."""

from collections.abc import Sequence
from pathlib import Path

from rfdiff.datasets.arrays import read_archive, read_pair
from rfdiff.datasets.idx import IMAGES, PARTS, idx_images, read_idx
from rfdiff.datasets.image_folders import image_folders, read_images
from rfdiff.datasets.preparation import Preparation, prepare
from rfdiff.datasets.raw import Raw
from rfdiff.datasets.tables import read_table
from rfdiff.errors import InputError
from rfdiff.samples import Samples

FORMATS = (
    "an .npz of samples and labels; an .npy with labels=OTHER.npy; a .csv or .parquet with a column of labels; "
    "a folder with one folder of images per class; IDX files of images and labels, or their folder"
)


def load_samples(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    label_column: str | None = None,
    part: str = "train",
    classes: Sequence[str] | None = None,
    samples_per_class: int | None = None,
    held_out: float = 0.2,
    pixels: int | None = None,
    components: int | None = None,
    standardise: str = "whole",
    seed: int = 0,
) -> Samples:
    """Labelled samples from a file or folder, scaled for theory and simulation.

    Whole numbers are divided by the highest level of their type (255 for bytes), images keep their shape on record and are flattened,
    channels last. Nothing is written.

    Args:
        path: an .npz that holds samples and labels (x and y, samples and labels, images and labels, or data and target); an .npy of
            samples; a .csv or .parquet with a header and a column of labels; a folder with one folder of images for each class; an IDX
            file of images with its labels beside it, or the folder of both.
        labels: the .npy of labels, for samples in an .npy.
        label_column: column of labels in a table; None for the one that is called label, labels, class, target or y.
        part: "train" or "test" of a folder of IDX files.
        classes: labels of the classes to keep, as text; None for all.
        samples_per_class: most samples to keep of a class, the first of a fixed random order; None for all.
        held_out: share of the smallest class, in (0, 1), that a simulation holds out of each class to test on.
        pixels: side in pixels to which images are averaged over whole blocks; None to keep them.
        components: principal components of all samples to keep; None to keep the coordinates.
        standardise: "whole" to subtract one number and divide by one, so that the mean class variance per coordinate is 1; "coordinates"
            to do so first with each coordinate's own mean and deviation over all samples; "none".
        seed: of the random orders.

    Returns:
        `Samples`; `shape` is that of one sample before it was flattened, `preparation` says what was done, with the numbers used.

    Raises:
        InputError: a path that is not there or of no known format; a file that is damaged; samples that are not finite numbers or differ in
            shape; a class with fewer than 2 samples; an option out of its range. The message names the file, and the line or image.

    Reference: tests/datasets/.
    """
    wanted = Preparation(classes, samples_per_class, held_out, pixels, components, standardise, seed)
    return prepare(_read(Path(path).expanduser(), labels, label_column, part), wanted)


def _read(path: Path, labels: str | Path | None, label_column: str | None, part: str) -> Raw:
    if part not in PARTS:
        raise InputError(f"part: {part!r}; allowed: 'train' or 'test'")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; allowed: {FORMATS}")
    suffix = path.suffix.lower()
    if labels is not None and suffix != ".npy":
        raise InputError(f"labels: {labels} beside {path}; allowed: with an .npy of samples only")
    if label_column is not None and suffix not in (".csv", ".parquet"):
        raise InputError(f"label_column: {label_column!r} with {path}; allowed: with a .csv or .parquet only")
    if path.is_dir():
        return _read_folder(path, part)
    if suffix == ".npz":
        return read_archive(path)
    if suffix == ".npy":
        return read_pair(path, _labels_file(path, labels))
    if suffix in (".csv", ".parquet"):
        return read_table(path, label_column)
    if IMAGES in path.name:
        return read_idx(path)
    raise InputError(f"{path}: of no known format; allowed: {FORMATS}")


def _read_folder(path: Path, part: str) -> Raw:
    images = idx_images(path, part)
    if images is not None:
        return read_idx(images)
    folders = image_folders(path)
    if not folders:
        raise InputError(f"{path}: holds neither IDX files nor folders of images; allowed: {FORMATS}")
    return read_images(path, folders)


def _labels_file(path: Path, labels: str | Path | None) -> Path:
    if labels is None:
        raise InputError(f"{path}: labels are missing; allowed: labels=OTHER.npy, or an .npz that holds both")
    file = Path(labels).expanduser()
    if not file.is_file():
        raise InputError(f"labels: {file}: no such file; allowed: an .npy with one label for each sample")
    return file
