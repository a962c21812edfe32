"""Options of rfdiff images data | train | evaluate; here, and not in rfdiff.images, so that help and parsing need no optional extra."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, Union

import tyro

from rfdiff.cli.options import Directory, Flag, Integer, Integers, Number, Numbers, OptionalDirectory, OptionalFile
from rfdiff.images.architecture import Architecture
from rfdiff.images.protocol import Protocol
from rfdiff.images.settings import Settings

Classes = Annotated[tuple[int, ...], tyro.conf.arg(metavar="CLASS ...")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageChoice:
    """Which images."""

    data: OptionalDirectory = None
    """Folder of the four original Fashion-MNIST files; the environment variable RFDIFF_FASHION_MNIST names it if not given."""
    download: Flag = False
    """Fetch the files that the folder lacks, 30 MB in all, from the authors' server; the folder is created if it does not exist."""
    classes: Classes = (8, 7)
    """Classes 0 to 9: T-shirt, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot."""
    counts: Integers = None
    """Training images of each class; 500 each if neither this nor --total is given."""
    total: Integer = None
    """Training images in all, shared equally or by --imbalance; in place of --counts."""
    imbalance: Number = None
    """Images of the first class over those of each other class; goes with --total."""
    held_out: int = Protocol.held_out
    """Images of each class that are never trained on, to measure losses on."""
    side: Integer = None
    """Pixels a side: 28, or 14 or 7 by averaging over blocks. If not given, 28 on an accelerator and 14 on a CPU."""
    rescale: Numbers = None
    """Factors of the class variances, about the class means."""
    split_seed: int = Protocol.split_seed
    """Random order of the images of a class."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageData(ImageChoice):
    """Variances, centroid norms and angles of the classes, as the theory takes them; nothing is trained or written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTrain(ImageChoice):
    """Train a U-Net, or continue a run that was stopped: losses of each class at each t, and checkpoints, at log-spaced steps."""

    out: Directory = Path("rfdiff-images")
    """Folder of the run; if it holds the same run, training continues from its last checkpoint."""
    width: Integer = None
    """Channels of the finest level of the U-Net. If not given, 32 on an accelerator and 16 on a CPU."""
    depth: Integer = None
    """Number of its levels. If not given, 3 on an accelerator and 2 on a CPU."""
    blocks: int = Architecture.blocks
    """Residual blocks of a level."""
    attention: int = Architecture.attention
    """Number of coarsest levels with self-attention."""
    steps: Integer = None
    """Training steps; more of them continue a finished run. If not given, 20000 on an accelerator and 2000 on a CPU: minutes on either."""
    batch: Integer = None
    """Images of a step. If not given, 128 on an accelerator and 32 on a CPU."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser."""
    learning_rate: float = Settings.learning_rate
    """Step size."""
    momentum: float = Settings.momentum
    """Momentum of sgd."""
    t: Number = None
    """The one diffusion time to train at, as in the random-features theory; all t if not given."""
    log_snr: tuple[float, float] = Settings.log_snr
    """Range of the log-SNR of training at all t."""
    levels: int = Settings.levels
    """Number of log-SNRs at which losses are measured."""
    measured: int = Settings.measured
    """Most images of a class on which train and held-out losses are measured."""
    per_decade: int = Settings.per_decade
    """Measured steps per decade."""
    kept_per_decade: int = Settings.kept_per_decade
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
    """Folder of the four original Fashion-MNIST files; the environment variable RFDIFF_FASHION_MNIST names it if not given."""
    download: Flag = False
    """Fetch the files that the folder lacks, 30 MB in all, from the authors' server; the folder is created if it does not exist."""
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
