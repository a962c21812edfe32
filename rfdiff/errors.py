"""What the package raises when it refuses an input, told apart from the errors that would be faults of its own."""


class InputError(ValueError):
    """An input that is refused: the message names the field, its value and the allowed range.

    The command line turns this error into one line and exit status 2. Any other `ValueError` is a fault of the package and keeps its
    traceback.
    """
