"""Make the missing runs of a command with a bar, and report those that could not be made."""

import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bbb import studies
from bbb.system import InputError

if TYPE_CHECKING:  # PyTorch is loaded when a command needs it
    from bbb.runs import Run
    from bbb.studies import Failure, Job


class MissingError(InputError):
    """Runs or figures that could not be made."""


def make_missing(
    jobs: Sequence["Job"], entry: Path, scheduler: str | None
) -> tuple[dict["Job", "Run"], list["Failure"]]:
    """Make the runs that are not completed yet, with a bar that shows the time left.

    Args:
        jobs: the runs.
        entry: as in :func:`bbb.studies.make_runs`.
        scheduler: likewise.

    Returns:
        The completed runs, and those that could not be made.

    Raises:
        bbb.system.InputError: a configuration is not valid, or what a run reads is not there.
    """
    jobs = list(studies.in_order(jobs))
    studies.check_configs(jobs)
    completed = studies.find_completed(jobs)
    todo = [job for job in jobs if job not in completed]
    studies.check_inputs(todo)
    print(f"{len(jobs)} runs: {len(completed)} completed before, {len(todo)} to do", flush=True)
    bar = tqdm(total=len(todo), unit="run", file=sys.__stderr__, disable=None, dynamic_ncols=True, smoothing=0)
    with bar, _ticking(bar):

        def on_end(job: "Job", failure: "Failure | None") -> None:
            end = "completed" if failure is None else f"missing: {failure.reason.splitlines()[0]}"
            bar.write(f"{' '.join(job.words)}: {end}", file=sys.stdout)
            sys.stdout.flush()
            bar.update()

        failures = studies.make_runs(todo, completed, entry, scheduler, on_end)
    return studies.find_completed(jobs), failures


@contextlib.contextmanager
def _ticking(bar: "tqdm[Any]") -> Iterator[None]:
    """Update a bar's time every second, although its runs take minutes."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1.0):
            bar.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def report_failures(failures: Sequence["Failure"], num_jobs: int) -> None:
    """Report the runs that failed.

    Args:
        failures: of the runs.
        num_jobs: how many there are in all.

    Raises:
        MissingError: some failed.
    """
    if failures:
        lines = [f"{len(failures)} of {num_jobs} runs missing; the same command tries them again"]
        for failure in failures:
            log = f"; see {failure.log}" if failure.log is not None else ""
            lines.append(f"{' '.join(failure.job.words)}: {failure.reason.splitlines()[0]}{log}")
        raise MissingError("\n".join(lines))


def as_plain(value: Any) -> Any:
    """Replace Sacred's read-only lists and dictionaries, which cannot be sent to another process, by plain ones."""
    if isinstance(value, Mapping):
        return {key: as_plain(item) for key, item in value.items()}
    return [as_plain(item) for item in value] if isinstance(value, list | tuple) else value
