"""What the commands images data, train and evaluate do: from their options to their files. Needs the extra `images`."""

import dataclasses
import shutil
import time
from pathlib import Path

from rfdiff.cli.folder import check_drawing, prepare_folder, results_folder
from rfdiff.cli.image_options import OPTION_NAMES, ImageChoice, ImageData, ImageEvaluate, ImageTrain
from rfdiff.cli.image_results import FILES, loss_table, show
from rfdiff.cli.options import in_options
from rfdiff.cli.tables import Cell, Table, integer, render, shown, words
from rfdiff.cli.terminal import note, report, say, say_cost
from rfdiff.errors import InputError
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.files.lock import locked
from rfdiff.images import checkpoints, evaluation, readout
from rfdiff.images.architecture import Architecture
from rfdiff.images.classifier import trained_classifier
from rfdiff.images.devices import Devices
from rfdiff.images.fashion_mnist import FashionMNIST, load
from rfdiff.images.protocol import ImageSet, Protocol, fitted_law, imbalanced, law_numbers, prepare
from rfdiff.images.settings import ACCELERATOR_FORM, Form, Settings, form_of
from rfdiff.images.training import data_digest, train
from rfdiff.mixture import MixtureLaw

SIZES = ("width", "depth", "batch", "steps")  # options that the device chooses where they are not given, beside --side
WORDS = {  # what `fashion_mnist.load` calls its arguments
    "directory: None, and the environment variable": "--data: not given, and",
    "as the argument or in that variable": "as --data or in that variable",
    "directory: ": "--data: ",
    "download=True": "--download",
}
EACH = 500  # training images of a class, if nothing is said
CLASSIFIER = "classifier.npz"
RUN_FILES = (checkpoints.RUN, checkpoints.METRICS, checkpoints.FOLDER, evaluation.KEPT, readout.FILE, *FILES.figure_names())


def run(action: ImageData | ImageTrain | ImageEvaluate) -> int:
    """Do what a command asks for.

    Returns:
        Exit status 0.

    Raises:
        InputError: bad input.
        OSError: files that cannot be read or written.
    """
    if isinstance(action, ImageData):
        images = prepare(_loaded(action), protocol_of(action, form_of(Devices().platform)))
        table, text = law_table(images, fitted_law(images))
        report([table], action.table, [text])
        return 0
    return _evaluate(action) if isinstance(action, ImageEvaluate) else _train(action)


def _loaded(options: ImageChoice | ImageEvaluate) -> FashionMNIST:
    """The original files; a refusal speaks of the options.

    Raises:
        InputError: as `fashion_mnist.load`.
    """
    try:
        return load(options.data, download=options.download)
    except InputError as err:
        raise InputError(in_options(str(err), WORDS)) from err


def law_table(images: ImageSet, law: MixtureLaw) -> tuple[Table, str]:
    """The numbers of `law_numbers` as a table, one line per class, and how the pixels were normalised."""
    numbers, protocol = law_numbers(law), images.protocol
    headings = ["class", "images", "held out", "weight", "variance", "centroid norm^2/d", *(f"angle to {name}" for name in protocol.names)]
    rows: list[list[Cell]] = []
    for k, name in enumerate(protocol.names):
        values = (shown(float(numbers[key][k]), ".4g") for key in ("weight", "variance", "centroid_norm"))
        angles = (shown(float(angle), ".1f") for angle in numbers["angle"][k])
        rows.append([words(name), integer(protocol.counts[k]), integer(protocol.held_out), *values, *angles])
    text = f"pixels: {protocol.side} x {protocol.side}, (grey/255 - {images.shift:.4f})/{images.scale:.4f}"
    if protocol.rescale is not None:
        text += f"; variances times {', '.join(f'{r:g}' for r in protocol.rescale)} about the class means"
    return Table("classes", headings, rows), text


def protocol_of(options: ImageChoice, form: Form) -> Protocol:
    """The images that the options choose; the form gives the number of pixels per side where it is not chosen.

    Raises:
        InputError: options that contradict each other, or out of range.
    """
    if options.counts is not None and (options.total is not None or options.imbalance is not None):
        raise InputError("--counts: given beside --total or --imbalance; allowed: one of the two ways")
    if options.imbalance is not None and options.total is None:
        raise InputError("--imbalance: given without --total; allowed: both")
    classes = options.classes
    if options.total is not None:
        counts = imbalanced(options.total, 1.0 if options.imbalance is None else options.imbalance, max(len(classes), 1))
    else:
        counts = options.counts if options.counts is not None else (EACH,) * len(classes)
    side = form.side if options.side is None else options.side
    chosen = {name: getattr(options, name) for name in ("held_out", "rescale", "split_seed")}
    return Protocol(classes=classes, counts=counts, side=side, **chosen)


def settings_of(options: ImageTrain, form: Form) -> Settings:
    """The run that the options describe; the form gives the sizes that are not chosen.

    Raises:
        InputError: naming an option that is out of range.
    """
    given = {name: getattr(options, OPTION_NAMES.get(name, name)) for name in SIZES}
    sizes = {name: getattr(form, name) if number is None else number for name, number in given.items()}
    attention = min(options.attention, sizes["depth"]) if options.depth is None else options.attention
    architecture = Architecture(width=sizes.pop("width"), depth=sizes.pop("depth"), blocks=options.blocks, attention=attention)
    names = {field.name for field in dataclasses.fields(Settings)} - {"protocol", "architecture", *sizes}
    chosen = {name: getattr(options, name) for name in names}
    return Settings(protocol=protocol_of(options, form), architecture=architecture, **sizes, **chosen)


def _train(options: ImageTrain) -> int:
    start = time.monotonic()
    devices = Devices(options.devices)
    form = form_of(devices.platform)
    settings = settings_of(options, form)
    devices.check_batch("--batch-size", settings.batch)
    images = prepare(_loaded(options), settings.protocol)
    out = options.out
    fresh = options.overwrite or not (out / checkpoints.RUN).exists()
    if fresh:
        prepare_folder(out, [name for name in RUN_FILES if (out / name).exists()], options.overwrite)
    with locked(out, "run"):
        if fresh:
            _remove(out)
        else:
            checkpoints.refuse_another(out, settings, data_digest(images))
        tell = say if options.table == "text" else note
        law, pixels = law_table(images, fitted_law(images))
        tell(render([law], "text"))
        tell(pixels)
        note(_sizes_note(options, settings, devices.platform))
        losses = train(settings, images, out, devices)
        table, after = loss_table(losses)
        files = f"in {out}: {checkpoints.RUN}, {checkpoints.METRICS}, {len(checkpoints.kept(out))} checkpoints"
        report([table], options.table, [*after, files])
    say_cost(start, options.table)
    return 0


def _sizes_note(options: ImageTrain, settings: Settings, platform: str) -> str:
    """What is trained, and how to train another size where the device chose it."""
    network, protocol = settings.architecture, settings.protocol
    text = (
        f"train: {settings.steps} steps of {settings.batch} images of {protocol.side} x {protocol.side} pixels, "
        f"U-Net of width {network.width} and depth {network.depth}, on {platform}"
    )
    names = {name: OPTION_NAMES.get(name, name) for name in ("side", *SIZES)}
    if platform != "cpu" or all(getattr(options, option) is not None for option in names.values()):
        return text
    full = " ".join(f"--{option.replace('_', '-')} {getattr(ACCELERATOR_FORM, name)}" for name, option in names.items())
    return f"{text}; the sizes for an accelerator are {full}"


def _evaluate(options: ImageEvaluate) -> int:
    start = time.monotonic()
    folder = options.run
    described = checkpoints.described(folder)
    settings = described.settings
    sampling = evaluation.Sampling(samples=options.num_samples, sampler_steps=options.num_sampler_steps, seed=options.seed)
    if not 1 <= options.classifier_epochs <= 1000:
        raise InputError(f"--classifier-epochs: {options.classifier_epochs}; allowed: 1 to 1000")
    devices = Devices(options.devices)
    check_drawing(options, settings.protocol.num_classes)
    with results_folder(folder, FILES, options.overwrite):
        losses = load_dataset(folder / checkpoints.METRICS)
        attributes = {"t": settings.t} if settings.t is not None else {}
        steps: list[int] = []
        rows = []
        if settings.t is None:
            steps = evaluation.evaluated_steps(folder, options.from_step)
            data = _loaded(options)
            images = prepare(data, settings.protocol)
            if data_digest(images) != described.images_digest:
                raise InputError(f"--data: the images are not those that {folder} was trained on")
            path = folder / CLASSIFIER if options.classifier is None else options.classifier
            classifier = trained_classifier(data, images, options.classifier_epochs, devices, path)
            rows = evaluation.Evaluator(folder, settings, images, data, classifier, sampling, devices).run(steps)
            attributes = {"accuracy": classifier.accuracy, "samples": sampling.samples, "sampler_steps": sampling.sampler_steps}
        dataset = readout.read_out(losses, steps, rows, **attributes)
        save_dataset(dataset, folder / readout.FILE)
        show(dataset, folder, options, replace=True)
    say_cost(start, options.table)
    return 0


def _remove(out: Path) -> None:
    """Remove the files of a run, and no others."""
    for name in RUN_FILES:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
