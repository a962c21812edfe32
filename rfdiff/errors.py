"""The error that refuses an input. Any other error is a bug in the package."""


class InputError(ValueError):
    """An input that is refused: the message names the field, its value and the allowed range.

    The command line turns this error into one line and exit status 2. Any other exception is a bug and keeps its
    traceback.
    """
