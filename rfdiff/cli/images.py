"""The commands images data, train and evaluate: handed over to `images_actions`, which needs flax and orbax, when they are used."""

from rfdiff.cli.command import Command
from rfdiff.cli.image_options import OPTION_NAMES, ImageData, ImageEvaluate, Images, ImageTrain
from rfdiff.errors import InputError


def run(action: ImageData | ImageTrain | ImageEvaluate) -> int:
    """Do what a command on images asks for.

    Raises:
        InputError: bad input, or the extra is not installed.
        OSError: files that cannot be read or written.
    """
    try:
        from rfdiff.cli import images_actions
    except ModuleNotFoundError as err:
        raise InputError(f"images: the module {err.name} is missing; allowed: an environment with the extra, rfdiff[images]") from err
    return images_actions.run(action)


COMMAND = Command("images", Images, run, {"data": ImageData, "train": ImageTrain, "evaluate": ImageEvaluate}, OPTION_NAMES)
