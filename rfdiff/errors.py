"""The errors of the package: a refused input, and the failure of another process. Any other error is a bug."""


class InputError(ValueError):
    """An input that is refused: the message names the field, its value and the allowed range.

    The command line turns this error into one line and exit status 2. Any other exception is a bug and keeps its
    traceback.
    """


class OtherProcessError(RuntimeError):
    """Another of several processes failed, so that this one cannot go on; what the other says tells why.

    The command line turns this error into one line and exit status 3.

    Args:
        message: what is known here.
        lost: whether the other is gone, so that there is nobody to wait for at the end.
    """

    def __init__(self, message: str, lost: bool = False) -> None:
        super().__init__(message)
        self.lost = lost
