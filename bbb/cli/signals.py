"""Ctrl-C, SIGTERM and pipes that close: how work is stopped from outside."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bbb import system
from bbb.system import StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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

    with _handled_by(notice) as before:
        try:
            yield received
        except system.LostError:
            before[signal.SIGTERM] = signal.SIG_IGN
            raise


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let the first SIGINT or SIGTERM raise :class:`StoppedError`; ignore later ones while work is being stopped."""

    def stop(number: int, frame: object) -> None:
        for handled in SIGNALS:
            signal.signal(handled, signal.SIG_IGN)
        raise StoppedError("goes on from there", number)

    with _handled_by(stop):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[dict[int, Any]]:
    """Let a function handle :data:`SIGNALS` in this context; yields the handlers to restore, which may be changed.

    In another thread than the main one, which alone may set handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield {}
        return
    before: dict[int, Any] = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield before
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)


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
