"""Errors that the user must fix, and a stop that the user asked for."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """User input that cannot be used: a key, a file, a folder, a device.

    The message has one line for each problem: what was given, what is allowed, what to do.
    """


class StoppedError(KeyboardInterrupt):
    """Work that was stopped by a signal.

    Args:
        what_next: words that say what the same command does when it is run again.
        number: the signal.
    """

    def __init__(self, what_next: str = "starts again; nothing was saved yet", number: int = signal.SIGINT) -> None:
        super().__init__(what_next)
        self.what_next, self.number = what_next, number


def in_lines(error: InputError) -> str:
    """Format an error as the lines that a user of the command line sees."""
    return "\n".join(f"error: {line}" for line in str(error).splitlines())


@contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Turn an :class:`InputError` into its lines on standard error and exit status 1."""
    try:
        yield
    except InputError as error:
        raise SystemExit(in_lines(error)) from None
