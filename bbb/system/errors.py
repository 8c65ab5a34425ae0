"""Mistakes that are the user's to mend, and a stop that the user asked for."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something the user gave cannot be used: a key, a file, a folder, a device.

    The message has one line for each thing that is wrong: what it was, what is allowed, what to do.
    """


class StoppedError(KeyboardInterrupt):
    """Work that was stopped by a signal.

    Args:
        what_next: what the same command does when it is given again, in words.
        number: the signal.
    """

    def __init__(self, what_next: str = "starts again; nothing was saved yet", number: int = signal.SIGINT) -> None:
        super().__init__(what_next)
        self.what_next, self.number = what_next, number


def in_lines(error: InputError) -> str:
    """Put an error into the lines that a user of the command line sees."""
    return "\n".join(f"error: {line}" for line in str(error).splitlines())


@contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Turn an :class:`InputError` into its lines on standard error and exit status 1."""
    try:
        yield
    except InputError as error:
        raise SystemExit(in_lines(error)) from None
