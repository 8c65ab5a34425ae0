"""Ctrl-C, SIGTERM and pipes that close: how work is stopped from outside."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bbb import system
from bbb.system import StoppedError


@contextmanager
def noticing_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, which are handled after the step; a second Ctrl-C interrupts at once.

    A process that has lost another of its group ends by itself, and says why: ``torchrun`` sends it SIGTERM meanwhile,
    which is ignored from then on.
    """
    received: list[int] = []

    def notice(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield received
        return
    before = {number: signal.signal(number, notice) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    except system.LostError:
        before[signal.SIGTERM] = signal.SIG_IGN
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM raise :class:`StoppedError`; ignore later ones while work is being stopped."""

    def stop(number: int, frame: object) -> None:
        for handled in before:
            signal.signal(handled, signal.SIG_IGN)
        raise StoppedError("goes on from there", number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def into_a_pipe() -> Iterator[None]:
    """End quietly if the reader of the output closes the pipe, as ``head`` does.

    Raises:
        SystemExit: the pipe is closed; the status is that of a program that SIGPIPE ended.
    """
    try:
        yield
    except BrokenPipeError:
        raise SystemExit(128 + signal.SIGPIPE) from None
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())  # what is still in the buffer goes there, now or at the end
