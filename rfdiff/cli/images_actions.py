"""What the commands images data, train and evaluate do: from their options to their files. Needs the extra `images`."""

import dataclasses
import shutil
import time
from pathlib import Path

from rfdiff.cli import tables
from rfdiff.cli.image_options import ImageChoice, ImageData, ImageEvaluate, ImageTrain
from rfdiff.cli.image_results import loss_table, show
from rfdiff.cli.terminal import prepare_folder, say, say_cost
from rfdiff.errors import InputError
from rfdiff.files.dataset_file import load_dataset, save_dataset
from rfdiff.images import checkpoints, evaluation, readout
from rfdiff.images.classifier import trained_classifier
from rfdiff.images.devices import Devices
from rfdiff.images.fashion_mnist import load
from rfdiff.images.protocol import ImageSet, Protocol, fitted_law, imbalanced, law_numbers, prepare
from rfdiff.images.settings import Settings
from rfdiff.images.training import data_digest, train
from rfdiff.images.unet import Architecture
from rfdiff.mixture import MixtureLaw

EACH = 500  # training images of a class, if nothing is said
CLASSIFIER = "classifier.npz"
OWN = (checkpoints.RUN, checkpoints.METRICS, checkpoints.FOLDER, evaluation.KEPT, readout.FILE, readout.CURVES, readout.SAMPLES)


def run(action: ImageData | ImageTrain | ImageEvaluate) -> int:
    """Do what a command asks for.

    Returns:
        Exit status 0.

    Raises:
        InputError: bad input.
        OSError: files that cannot be read or written.
    """
    if isinstance(action, ImageData):
        images = prepare(load(action.data), protocol_of(action))
        say(law_table(images, fitted_law(images)))
        return 0
    return _evaluate(action) if isinstance(action, ImageEvaluate) else _train(action)


def law_table(images: ImageSet, law: MixtureLaw) -> str:
    """The numbers of `law_numbers` as a table, one line a class, and how the pixels were normalised."""
    found, protocol = law_numbers(law), images.protocol
    heads = [f"angle to {name}" for name in protocol.names]
    rows = [["class", "images", "held out", "weight", "variance", "centroid norm^2/d", *heads]]
    for k, name in enumerate(protocol.names):
        values = [f"{found[key][k]:.4g}" for key in ("weight", "variance", "centroid_norm")]
        rows.append([name, str(protocol.counts[k]), str(protocol.held_out), *values, *(f"{angle:.1f}" for angle in found["angle"][k])])
    text = f"pixels: {protocol.side} x {protocol.side}, (grey/255 - {images.shift:.4f})/{images.scale:.4f}"
    if protocol.rescale is not None:
        text += f"; variances times {', '.join(f'{r:g}' for r in protocol.rescale)} about the class means"
    return "\n".join([*tables.columns(rows), text])


def protocol_of(options: ImageChoice) -> Protocol:
    """The images that the options choose.

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
    own = {name: getattr(options, name) for name in ("held_out", "side", "rescale", "split_seed")}
    return Protocol(classes=classes, counts=counts, **own)


def settings_of(options: ImageTrain) -> Settings:
    """The run that the options describe.

    Raises:
        InputError: naming an option that is out of range.
    """
    architecture = Architecture(width=options.width, depth=options.depth, blocks=options.blocks, attention=options.attention)
    own = {field.name for field in dataclasses.fields(Settings)} - {"protocol", "architecture"}
    return Settings(protocol=protocol_of(options), architecture=architecture, **{name: getattr(options, name) for name in own})


def _train(options: ImageTrain) -> int:
    start = time.monotonic()
    settings, devices = settings_of(options), Devices(options.devices)
    devices.check_batch("--batch", settings.batch)
    images = prepare(load(options.data), settings.protocol)
    out = options.out
    if (out / checkpoints.RUN).exists() and not options.overwrite:
        checkpoints.refuse_another(out, settings, data_digest(images))
    else:
        prepare_folder(out, OWN, options.overwrite)
        _remove(out)
    say(law_table(images, fitted_law(images)))
    losses = train(settings, images, out, devices)
    say(loss_table(losses))
    say(f"in {out}: {checkpoints.RUN}, {checkpoints.METRICS}, {len(checkpoints.kept(out))} checkpoints")
    say_cost(time.monotonic() - start)
    return 0


def _evaluate(options: ImageEvaluate) -> int:
    start = time.monotonic()
    folder = options.run
    described = checkpoints.described(folder)
    settings: Settings = described["settings"]
    sampling = evaluation.Sampling(samples=options.samples, sampler_steps=options.sampler_steps, seed=options.seed)
    if not 1 <= options.classifier_epochs <= 1000:
        raise InputError(f"--classifier-epochs: {options.classifier_epochs}; allowed: 1 to 1000")
    devices = Devices(options.devices)
    prepare_folder(folder, (readout.FILE, readout.CURVES, readout.SAMPLES), options.overwrite)
    losses = load_dataset(folder / checkpoints.METRICS)
    attributes = {"t": settings.t} if settings.t is not None else {}
    steps: list[int] = []
    rows = []
    if settings.t is None:
        steps = evaluation.evaluated_steps(folder, options.from_step)
        data = load(options.data)
        images = prepare(data, settings.protocol)
        if data_digest(images) != described.get("images_sha256"):
            raise InputError(f"--data: the images are not those that {folder} was trained on")
        path = folder / CLASSIFIER if options.classifier is None else options.classifier
        classifier = trained_classifier(data, images, options.classifier_epochs, devices, path)
        rows = evaluation.Evaluator(folder, settings, images, data, classifier, sampling, devices).run(steps)
        attributes = {"accuracy": classifier.accuracy, "samples": sampling.samples, "sampler_steps": sampling.sampler_steps}
    dataset = readout.read_out(losses, steps, rows, **attributes)
    save_dataset(dataset, folder / readout.FILE)
    show(dataset, folder)
    say_cost(time.monotonic() - start)
    return 0


def _remove(out: Path) -> None:
    """Remove what stands of a run, its own files alone."""
    for name in OWN:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
