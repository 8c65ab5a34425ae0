"""A run in the process of a worker: its output goes to a file, and the number of tries is limited."""

import contextlib
import importlib
import os
import platform
import sys
import threading
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bbb.runs import ResultsError, find_unfinished
from bbb.studies.grid import Job, find_completed, folder_of

TRIES = 2
_BEGIN, _ERROR = "--- try ", "error: "


class RunError(RuntimeError):
    """A run that ended without a result; the message is the worker's."""


def work(entry: Path, config: Mapping[str, Any], log: Path) -> None:
    """Make one run in this process, or resume it where an earlier attempt left a checkpoint.

    Args:
        entry: the Python file whose ``command_line`` makes a run.
        config: its configuration.
        log: where its output goes; removed once it is completed.

    Raises:
        RunError: it failed, or has been tried often enough.
    """
    if num_tries(log) >= TRIES:  # whatever the settings of an external scheduler
        raise RunError(last_error(log) or f"its worker died {TRIES} times")
    if str(entry.parent) not in sys.path:
        sys.path.insert(0, str(entry.parent))
    if find_completed([Job(config, ())]):  # Dask repeats a run if its worker died soon after the end
        return
    with _output_to(log):
        print(f"{_BEGIN}{num_tries(log) + 1} on {platform.node()}, process {os.getpid()} ---", flush=True)
        try:
            find_unfinished(folder_of(config), config)
            options = ["resume=True"]
        except ResultsError:
            options = []
        words = [f"{key}={value!r}" for key, value in config.items()] + options
        tqdm.set_lock(threading.RLock())  # else tqdm uses a semaphore, which a killed worker leaves behind
        try:
            importlib.import_module(entry.stem).command_line([str(entry), "with", *words])
        except SystemExit as end:
            print(end.code, flush=True)
            raise RunError(str(end.code).removeprefix(_ERROR)) from None
    log.unlink(missing_ok=True)


def num_tries(log: Path) -> int:
    """Count how often a run has begun."""
    return sum(line.startswith(_BEGIN) for line in log.read_text().splitlines()) if log.exists() else 0


def last_error(log: Path) -> str | None:
    """Read the error that the last try ended with; None if it ended without one.

    A worker that dies soon after an error never sends it to Dask.
    """
    lines = log.read_text().splitlines() if log.exists() else []
    errors = [*takewhile(lambda line: line.startswith(_ERROR), reversed(lines))]
    return "\n".join(reversed(errors)).removeprefix(_ERROR) or None


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what this process prints to a file, including the output of its libraries and of its end."""
    sys.stdout.flush()
    sys.stderr.flush()
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", buffering=1) as file, contextlib.ExitStack() as stack:
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, descriptor)
            os.dup2(file.fileno(), descriptor)
        with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            yield
