"""Options of rfdiff images data | train | evaluate; here, and not in rfdiff.images, so that help and parsing need no optional extra."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, Union

import tyro

from rfdiff.cli.options import Directory, Drawing, Flag, Integer, Integers, Number, Numbers, OptionalDirectory, OptionalFile, Printing
from rfdiff.images.architecture import Architecture
from rfdiff.images.protocol import Protocol
from rfdiff.images.settings import Settings

Classes = Annotated[tuple[int, ...], tyro.conf.arg(metavar="CLASS ...")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageChoice(Printing):
    """Which images."""

    data: OptionalDirectory = None
    """Folder of the four original Fashion-MNIST files; if not given, the one that the variable RFDIFF_FASHION_MNIST names."""
    download: Flag = False
    """Fetch the files that the folder lacks, 30 MB in all, from the authors' server; the folder is created if it does not exist."""
    classes: Classes = (8, 7)
    """Classes 0 to 9: T-shirt, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot."""
    counts: Integers = None
    """Training images of each class; if neither this nor --total is given, 500 each."""
    total: Integer = None
    """Training images of all classes together, instead of --counts; shared equally, or by --imbalance."""
    imbalance: Number = None
    """With --total: how many times more images the first class has than each other class."""
    held_out: int = Protocol.held_out
    """Images of each class that are not trained on; the held-out losses are measured on them."""
    side: Integer = None
    """Pixels along a side: 28, or 14 or 7 (averages over blocks). If not given, 28 on an accelerator and 14 on a CPU."""
    rescale: Numbers = None
    """One factor for each class, by which its variance about its mean is scaled."""
    split_seed: int = Protocol.split_seed
    """Random key of the order in which the images of a class are taken."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageData(ImageChoice):
    """Print variances, centroid norms and angles of the classes, as the theory takes them. Trains and writes nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTrain(ImageChoice):
    """Train a U-Net, or resume a stopped run. Writes losses of each class at each t, and checkpoints, at log-spaced steps."""

    out: Directory = Path("rfdiff-images")
    """Folder of the run; if it holds the same run, training continues from its last checkpoint."""
    width: Integer = None
    """Channels of the finest level of the U-Net. If not given, 32 on an accelerator and 16 on a CPU."""
    depth: Integer = None
    """Number of levels of the U-Net. If not given, 3 on an accelerator and 2 on a CPU."""
    blocks: int = Architecture.blocks
    """Residual blocks in each level."""
    attention: int = Architecture.attention
    """Number of coarsest levels with self-attention."""
    steps: Integer = None
    """Training steps; more continue a finished run. If not given, 20000 on an accelerator and 2000 on a CPU: minutes on either."""
    batch: Integer = None
    """Images in each step. If not given, 128 on an accelerator and 32 on a CPU."""
    loss_weights: Numbers = None
    """Weight of each class in the training loss, summing to 1; if not given, the fractions of the training images."""
    sampling: Literal["weighted", "balanced"] = "weighted"
    """How batches follow --loss-weights: images as they come, with weighted losses; or balanced, a class drawn with its weight."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser."""
    learning_rate: float = Settings.learning_rate
    """Step size."""
    momentum: float = Settings.momentum
    """Momentum of sgd."""
    t: Number = None
    """Train at this diffusion time only, as in the random-features theory; if not given, at all t."""
    log_snr: tuple[float, float] = Settings.log_snr
    """Range of the log-SNR of training at all t."""
    levels: int = Settings.levels
    """Number of log-SNRs at which losses are measured."""
    measured: int = Settings.measured
    """Train and held-out losses are measured on at most this many images of each class."""
    per_decade: int = Settings.per_decade
    """Steps per decade at which losses are measured."""
    kept_per_decade: int = Settings.kept_per_decade
    """Checkpoints per decade."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Floating type of the network; bfloat16 is for accelerators."""
    seed: int = 0
    """Random key of the parameters, the noise and the order of the images."""
    devices: Integer = None
    """Number of devices that share each batch; if not given, all."""
    overwrite: Flag = False
    """Delete the run in the folder and start anew."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageEvaluate(Drawing):
    """Draw samples from the checkpoints of a run: their quality and memorised fraction for each class, and the class-wise times."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of the run."""
    data: OptionalDirectory = None
    """Folder of the four original Fashion-MNIST files; if not given, the one that the variable RFDIFF_FASHION_MNIST names."""
    download: Flag = False
    """Fetch the files that the folder lacks, 30 MB in all, from the authors' server; the folder is created if it does not exist."""
    samples: int = 1000
    """Samples drawn from each checkpoint."""
    sampler_steps: int = 50
    """Evaluations of the network for each sample."""
    seed: int = 0
    """Random key of the noise that the samples start from."""
    from_step: int = 30
    """Evaluate checkpoints from this step on."""
    classifier: OptionalFile = None
    """File of the classifier, trained if it does not exist; if not given, classifier.npz in the folder of the run."""
    classifier_epochs: int = 8
    """Passes over the images in which the classifier is trained."""
    devices: Integer = None
    """Number of devices that share the work; if not given, all."""
    overwrite: Flag = False
    """Replace an earlier evaluation in the folder."""


@dataclasses.dataclass(frozen=True)
class Images:
    """A U-Net on Fashion-MNIST: when it learns each class, and when it memorises it (needs the extra images)."""

    action: Annotated[
        Union[  # noqa: UP007
            Annotated[ImageData, tyro.conf.subcommand("data")],
            Annotated[ImageTrain, tyro.conf.subcommand("train")],
            Annotated[ImageEvaluate, tyro.conf.subcommand("evaluate")],
        ],
        tyro.conf.arg(name=""),
    ]
