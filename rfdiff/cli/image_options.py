"""Options of rfdiff images data | train | evaluate; here, and not in rfdiff.images, so that help and parsing need no optional extra."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import tyro

from rfdiff.cli.options import Directory, Drawing, Flag, Integer, Integers, Number, Numbers, OptionalDirectory, OptionalFile, Printing, hint
from rfdiff.images.architecture import Architecture
from rfdiff.images.protocol import Protocol
from rfdiff.images.settings import ACCELERATOR_FORM, CPU_FORM, Settings

OPTION_NAMES = {"batch": "batch_size", "samples": "num_samples", "sampler_steps": "num_sampler_steps"}  # of numbers in `rfdiff.images`
Classes = Annotated[tuple[int, ...], tyro.conf.arg(metavar="CLASS ...")]
Data = Annotated[OptionalDirectory, hint("(default: the folder that the environment variable RFDIFF_FASHION_MNIST names)")]


def _by_device(accelerator: int, cpu: int) -> Any:
    """What help says of a size that the device chooses."""
    return hint(f"(default: {accelerator} on an accelerator, {cpu} on a CPU)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageChoice(Printing):
    """Which images."""

    data: Data = None
    """Folder of the four original Fashion-MNIST files."""
    download: Flag = False
    """Fetch the files that the folder lacks, 30 MB in all, from the authors' server; the folder is created if it does not exist."""
    classes: Classes = (8, 7)
    """Which classes, 0 to 9: T-shirt, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot."""
    counts: Annotated[Integers, hint("(default: 500 each, if --total is not given)")] = None
    """Training images of each class."""
    total: Integer = None
    """Training images of all classes together, instead of --counts; divided equally, or by --imbalance."""
    imbalance: Number = None
    """With --total: how many times more images the first class has than each other class."""
    held_out: int = Protocol.held_out
    """Images of each class that are not trained on; held-out losses are measured on them."""
    side: Annotated[Integer, _by_device(ACCELERATOR_FORM.side, CPU_FORM.side)] = None
    """Pixels per side: 28, or 14 or 7 (averages over blocks)."""
    rescale: Numbers = None
    """Make the variance of each class about its mean so many times larger: one factor for each class."""
    split_seed: int = Protocol.split_seed
    """Random seed of the choice of training images and held-out images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageData(ImageChoice):
    """Print variances, centroid norms and angles of the classes, the numbers that the theory takes. Trains and writes nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTrain(ImageChoice):
    """Train a U-Net, or resume a stopped run. Writes losses of each class at each diffusion time, and checkpoints, at log-spaced steps."""

    out: Directory = Path("rfdiff-images")
    """Folder of the run; if it holds the same run, training continues from its last checkpoint."""
    width: Annotated[Integer, _by_device(ACCELERATOR_FORM.width, CPU_FORM.width)] = None
    """Channels of the finest level of the U-Net."""
    depth: Annotated[Integer, _by_device(ACCELERATOR_FORM.depth, CPU_FORM.depth)] = None
    """Number of levels of the U-Net."""
    blocks: int = Architecture.blocks
    """Residual blocks in each level."""
    attention: int = Architecture.attention
    """Number of coarsest levels with self-attention."""
    steps: Annotated[Integer, _by_device(ACCELERATOR_FORM.steps, CPU_FORM.steps)] = None
    """Training steps in all; with more of them a finished run continues."""
    batch_size: Annotated[Integer, _by_device(ACCELERATOR_FORM.batch, CPU_FORM.batch)] = None
    """Images in each step."""
    loss_weights: Annotated[Numbers, hint("(default: the fractions of the training images)")] = None
    """Weight of each class in the training loss; they sum to 1."""
    sampling: Literal["weighted", "balanced"] = "weighted"
    """weighted: draw images uniformly and weight their losses; balanced: draw the class by its weight, then an image."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser."""
    learning_rate: float = Settings.learning_rate
    """Learning rate."""
    momentum: float = Settings.momentum
    """Momentum of sgd."""
    t: Annotated[Number, hint("(default: all diffusion times in --log-snr)")] = None
    """Train at this diffusion time only, as in the random-features theory."""
    log_snr: Annotated[tuple[float, float], tyro.conf.arg(metavar="LOW HIGH")] = Settings.log_snr
    """Range of the log-SNR (logarithm of the signal-to-noise ratio of a noised image, which stands for t) in which to train."""
    levels: int = Settings.levels
    """Number of log-SNRs at which to measure losses."""
    measured: int = Settings.measured
    """Measure train and held-out losses on at most this many images of each class."""
    per_decade: int = Settings.per_decade
    """Number of steps in each decade (from 100 to 1000, say) after which to measure losses."""
    kept_per_decade: int = Settings.kept_per_decade
    """Number of checkpoints to keep in each decade of steps."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Floating type of the network; bfloat16 is for accelerators."""
    seed: int = 0
    """Random seed of the parameters, the noise and the order of the images."""
    devices: Annotated[Integer, hint("(default: all)")] = None
    """Number of devices that share each batch."""
    overwrite: Flag = False
    """Delete the run in the folder and start anew."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageEvaluate(Drawing):
    """Sample from the checkpoints of a run and measure, for each class, quality, memorised fraction and the times of the class."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """Folder of the run, as rfdiff images train wrote it."""
    data: Data = None
    """Folder of the four original Fashion-MNIST files."""
    download: Flag = False
    """Fetch the files that the folder lacks, 30 MB in all, from the authors' server; the folder is created if it does not exist."""
    num_samples: int = 1000
    """Samples drawn from each checkpoint."""
    num_sampler_steps: int = 50
    """Steps from noise to a sample, each of which evaluates the network once."""
    seed: int = 0
    """Random seed of the noise that the samples start from."""
    from_step: int = 30
    """Evaluate checkpoints from this step on."""
    classifier: Annotated[OptionalFile, hint("(default: classifier.npz in DIR)")] = None
    """File of the small classifier that says of which class a sample is; trained if it does not exist."""
    classifier_epochs: int = 8
    """Passes over the images in which the classifier is trained."""
    devices: Annotated[Integer, hint("(default: all)")] = None
    """Number of devices that share the work."""
    overwrite: Flag = False
    """Replace an earlier evaluation in the folder."""


@dataclasses.dataclass(frozen=True)
class Images:
    """Train a U-Net on Fashion-MNIST and measure when it learns and memorises each class (needs the extra images)."""

    action: Annotated[
        Union[  # noqa: UP007
            Annotated[ImageData, tyro.conf.subcommand("data")],
            Annotated[ImageTrain, tyro.conf.subcommand("train")],
            Annotated[ImageEvaluate, tyro.conf.subcommand("evaluate")],
        ],
        tyro.conf.arg(name=""),
    ]
