"""Data sets of images: a folder that holds one folder of images for each class, named by it."""

from pathlib import Path

import numpy as np

from rfdiff.datasets.raw import Raw, one_line, require_memory
from rfdiff.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L")  # what Pillow calls grey levels of 16 bits


def image_folders(path: Path) -> dict[str, list[Path]]:
    """The images of each class in a folder, in the order of their names; empty where it holds no folder with images."""
    folders = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    images = {folder.name: sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES) for folder in folders}
    return {name: files for name, files in images.items() if files}


def read_images(path: Path, images: dict[str, list[Path]]) -> Raw:
    """Samples (N, height, width) of grey images, (N, height, width, 3) where one of them has colours; labelled by folder.

    Raises:
        InputError: an image that cannot be read; images of more than one size. The message names the image.
    """
    files = [(name, file) for name, group in images.items() for file in group]
    coloured = any(_open(file)[0] for _, file in files)
    first = _open(files[0][1])[1]
    shape = (first[1], first[0], *((3,) if coloured else ()))
    require_memory(path, (len(files), *shape))
    samples = []
    for _, file in files:
        pixels = _pixels(file, coloured)
        if pixels.shape != shape:
            raise InputError(
                f"{file}: {pixels.shape[1]} x {pixels.shape[0]} pixels, where {files[0][1].name} has {shape[1]} x {shape[0]}; "
                "allowed: images of one size"
            )
        samples.append(pixels)
    if len({pixels.dtype for pixels in samples}) > 1:  # of 8 and of 16 bits: both as shares of their highest level
        samples = [pixels / np.iinfo(pixels.dtype).max for pixels in samples]
    return Raw(np.stack(samples), np.array([name for name, _ in files]), path, lambda i: str(files[i][1]))


def _open(file: Path) -> tuple[bool, tuple[int, int]]:
    """Whether an image has colours, and its width and height, from its header."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.mode not in ("1", "L", "LA", *SIXTEEN_BITS), image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise InputError(f"{file}: cannot be read as an image ({one_line(err)})") from err


def _pixels(file: Path, coloured: bool) -> np.ndarray:
    """Levels (height, width) or (height, width, 3) of an image, uint8 or uint16."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode in SIXTEEN_BITS and not coloured:
                return np.asarray(image).astype(np.uint16)
            return np.asarray(image.convert("RGB" if coloured else "L"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        raise InputError(f"{file}: cannot be read as an image ({one_line(err)})") from err
