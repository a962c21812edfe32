"""Options of rfdiff images data | train | evaluate; here, and not in rfdiff.images, so that help and parsing need no optional extra."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, Union

import tyro

from rfdiff.cli.options import Directory, Flag, Integer, Integers, Number, Numbers, OptionalDirectory, OptionalFile

Classes = Annotated[tuple[int, ...], tyro.conf.arg(metavar="CLASS ...")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageChoice:
    """Which images."""

    data: OptionalDirectory = None
    """Folder of the four original Fashion-MNIST files; where RFDIFF_FASHION_MNIST says if not given."""
    classes: Classes = (8, 7)
    """Classes 0 to 9: T-shirt, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot."""
    counts: Integers = None
    """Training images of each class; 500 each if neither this nor --total is given."""
    total: Integer = None
    """Training images in all, shared equally or by --imbalance; in place of --counts."""
    imbalance: Number = None
    """Images of the first class over those of each other class; goes with --total."""
    held_out: int = 250
    """Images of each class that are never trained on, to measure losses on."""
    side: int = 28
    """Pixels a side: 28, or 14 or 7 by averaging over blocks."""
    rescale: Numbers = None
    """Factors of the class variances, about the class means."""
    split_seed: int = 0
    """Random order of the images of a class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageData(ImageChoice):
    """Variances, centroid norms and angles of the classes, as the theory takes them; nothing is trained or written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTrain(ImageChoice):
    """Train a U-Net, or go on with a run that was stopped: losses per class and t, and checkpoints, at log-spaced steps."""

    out: Directory = Path("rfdiff-images")
    """Folder of the run; one that holds the same run is gone on with."""
    width: int = 32
    """Channels of the finest level of the U-Net."""
    depth: int = 3
    """Number of its levels."""
    blocks: int = 1
    """Residual blocks of a level."""
    attention: int = 1
    """Number of coarsest levels with self-attention."""
    steps: int = 20_000
    """Training steps."""
    batch: int = 128
    """Images of a step."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser."""
    learning_rate: float = 1e-3
    """Step size."""
    momentum: float = 0.9
    """Momentum of sgd."""
    t: Number = None
    """The one diffusion time to train at, as in the random-features theory; all t if not given."""
    log_snr: tuple[float, float] = (-8.0, 7.0)
    """Range of the log-SNR of training at all t."""
    levels: int = 8
    """Number of log-SNRs at which losses are measured."""
    measured: int = 256
    """Most images of a class on which train and held-out losses are measured."""
    per_decade: int = 8
    """Measured steps per decade."""
    kept_per_decade: int = 4
    """Checkpoints per decade."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the network; bfloat16 is for accelerators."""
    seed: int = 0
    """Random key of parameters, noise and order."""
    devices: Integer = None
    """Number of devices that share a batch; all if not given."""
    overwrite: Flag = False
    """Remove the run that stands in the folder, and start anew."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageEvaluate:
    """Samples of the checkpoints of a run: quality and memorised fraction per class; times, figures, evaluation.nc."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of the run."""
    data: OptionalDirectory = None
    """Folder of the four original Fashion-MNIST files; where RFDIFF_FASHION_MNIST says if not given."""
    samples: int = 1000
    """Samples of a checkpoint."""
    sampler_steps: int = 50
    """Evaluations of the network for a sample."""
    seed: int = 0
    """Random key of the noise that samples start from."""
    from_step: int = 30
    """Earlier checkpoints are not evaluated."""
    classifier: OptionalFile = None
    """File of the classifier, made if absent; classifier.npz in the folder of the run if not given."""
    classifier_epochs: int = 8
    """Passes of the classifier's training."""
    devices: Integer = None
    """Number of devices that share the work; all if not given."""
    overwrite: Flag = False
    """Replace the evaluation that stands in the folder."""


@dataclasses.dataclass(frozen=True)
class Images:
    """A U-Net on Fashion-MNIST: when does it learn each class, and when does it memorise it (needs the extra images)."""

    action: Annotated[
        Union[  # noqa: UP007
            Annotated[ImageData, tyro.conf.subcommand("data")],
            Annotated[ImageTrain, tyro.conf.subcommand("train")],
            Annotated[ImageEvaluate, tyro.conf.subcommand("evaluate")],
        ],
        tyro.conf.arg(name=""),
    ]
