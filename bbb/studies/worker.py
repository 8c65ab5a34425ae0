"""What happens in the process of a worker: one run, its output in a file, and how often it may be tried."""

import contextlib
import importlib
import os
import platform
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bbb.runs import ResultsError, find_unfinished
from bbb.studies.grid import Job, find_completed, folder_of

TRIES = 2
_BEGIN = "--- try "


class RunError(RuntimeError):
    """A run that ended without a result, in the worker's words."""


def work(entry: Path, config: Mapping[str, Any], log: Path) -> None:
    """Make one run in this process, or resume it where an earlier attempt left a checkpoint.

    Args:
        entry: the Python file whose ``command_line`` makes a run.
        config: its configuration.
        log: where its output goes; removed once it is completed.

    Raises:
        RunError: it failed, or has been tried often enough.
    """
    if num_tries(log) >= TRIES:  # whatever else a foreign scheduler is set to
        raise RunError(f"its worker died {TRIES} times")
    if str(entry.parent) not in sys.path:
        sys.path.insert(0, str(entry.parent))
    if find_completed([Job(config, ())]):  # Dask asks again where a worker died soon after it ended a run
        return
    with _output_to(log):
        print(f"{_BEGIN}{num_tries(log) + 1} on {platform.node()}, process {os.getpid()} ---", flush=True)
        try:
            find_unfinished(folder_of(config), config)
            options = ["resume=True"]
        except ResultsError:
            options = []
        words = [f"{key}={value!r}" for key, value in config.items()] + options
        tqdm.set_lock(threading.RLock())  # else it takes a semaphore, which a worker that is killed leaves behind
        try:
            importlib.import_module(entry.stem).command_line([str(entry), "with", *words])
        except SystemExit as end:
            print(end.code, flush=True)
            raise RunError(str(end.code).removeprefix("error: ")) from None
    log.unlink(missing_ok=True)


def num_tries(log: Path) -> int:
    """Count how often a run has begun."""
    return sum(line.startswith(_BEGIN) for line in log.read_text().splitlines()) if log.exists() else 0


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what this process prints to a file, that of its libraries and of its end included."""
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
