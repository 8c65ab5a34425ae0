"""The commands that make many runs, from the words of the command line to what they print; knows nothing of Sacred.

They are apart from ``experiment.py``, which stays the thin border to Sacred, and from :mod:`bbb.grid` and
:mod:`bbb.reproduction`, which print nothing.
"""

import contextlib
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from bbb import cluster, grid, reproduction, runs, table
from bbb.cluster import Failure
from bbb.errors import InputError
from bbb.files import write_aside
from bbb.grid import GridError, Job
from bbb.runs import Run
from bbb.settings import read_value
from bbb.table import Row

OPTIONS = {"grid": ("grid", "scheduler"), "reproduce": ("fast", "scheduler"), "figures": ("fast",)}
UNITS = (
    "Means over seeds, with standard errors. Errors and ECE in %, NLL and ELBO in nats per example, KL in nats, the "
    "seconds of a whole run."
)


class MissingError(InputError):
    """Runs or figures that are missing in the end."""


def check_option(command: str, word: str) -> bool:
    """Tell whether a word of the command line is an option of a command, and judge it.

    Args:
        command: a key of :data:`OPTIONS`, or any other command.
        word: a word after ``with``.

    Raises:
        bbb.errors.InputError: the option has a value that cannot be, or the command takes nothing but its options.
    """
    key, is_change, text = word.partition("=")
    if not is_change or key not in OPTIONS.get(command, ()):
        if command in ("reproduce", "figures"):
            raise InputError(f"{word}: {command} takes only {' and '.join(f'{key}=' for key in OPTIONS[command])}")
        return False
    value = read_value(key, text)
    if key == "grid":
        grid.check_grid(value)
    elif key == "fast" and not isinstance(value, bool):
        raise InputError(f"fast={text}: must be True or False")
    elif key == "scheduler" and not re.fullmatch(r"\w+://\S+:\d+", str(value)):
        raise InputError(f"scheduler={text}: must be the address of a Dask scheduler, as in tcp://host:8786")
    return True


@cluster.stopped_by_signals()
def run_grid(config: Mapping[str, object], entry: Path, root: Path = Path(runs.RESULTS)) -> None:
    """Make the runs of a grid and write their results as a table, ``grid.md`` and ``grid.csv``.

    Args:
        config: the keys that all runs share, and the options of the command.
        entry: as in :func:`bbb.cluster.run`.
        root: the results folder.

    Raises:
        bbb.errors.InputError: the grid cannot be run, or runs of it are missing in the end.
    """
    base = {key: _plain(value) for key, value in config.items() if key not in OPTIONS["grid"]}
    if "grid" not in config:
        raise GridError("grid: missing; give keys with lists of values, as in grid=\"{'seed': [1, 2, 3]}\"")
    keys = grid.check_grid({key: _plain(values) for key, values in config["grid"].items()})
    jobs = {Job({**base, **changes}, _words(changes)): changes for changes in grid.expand(keys)}
    completed, failures = _make(list(jobs), entry, config.get("scheduler"), root)
    rows = table.summarise([(changes, completed[job].result) for job, changes in jobs.items() if job in completed])
    if rows:
        print(f"\n{table.markdown(rows)}")
        _write_table(rows, grid.folder_of(base, root) / "grid")
    _report(failures, len(jobs))


@cluster.stopped_by_signals()
def reproduce(fast: bool, scheduler: str | None, entry: Path, root: Path = Path(runs.RESULTS)) -> None:
    """Make the runs that figures are missing, and draw all figures.

    Args:
        fast: at toy size, on the embedded digits.
        scheduler: as in :func:`bbb.cluster.run`.
        entry: the same.
        root: the results folder.

    Raises:
        bbb.errors.InputError: runs are missing in the end, and so are their figures.
    """
    plots = reproduction.plots(fast, entry.parent / "configs")
    jobs = [job for plot in plots for job in plot.jobs]
    completed, failures = _make(jobs, entry, scheduler, root)
    folder, drawn = reproduction.folder(fast), []
    for plot in plots:
        if all(job in completed for job in plot.jobs):
            print(f"drawing {folder / plot.name}.png", flush=True)
            reproduction.draw(plot, completed, folder)
            drawn.append(plot)
    if drawn:
        _write_table(reproduction.results(drawn, folder), folder / "results")
    _report(failures, len([*grid.in_order(jobs)]))


@cluster.stopped_by_signals()
def figures(fast: bool, entry: Path, root: Path = Path(runs.RESULTS)) -> None:
    """Draw the figures whose runs, or whose JSON files with the same configurations, are there.

    Args:
        fast: those of toy size.
        entry: as in :func:`reproduce`.
        root: the results folder.

    Raises:
        MissingError: some are not; the commands that make their missing runs have been printed.
    """
    plots, folder = reproduction.plots(fast, entry.parent / "configs"), reproduction.folder(fast)
    completed = grid.find_completed(grid.in_order(job for plot in plots for job in plot.jobs), root)
    drawn, undrawn, commands = [], [], {}
    for plot in plots:
        missing = [job for job in grid.in_order(plot.jobs) if job not in completed]
        if not missing:
            reproduction.draw(plot, completed, folder)
            drawn.append(plot)
            print(f"{folder / plot.name}.png: drawn from {len(plot.jobs)} runs")
        elif reproduction.redraw(plot, folder):
            drawn.append(plot)
            print(f"{folder / plot.name}.png: drawn from {plot.name}.json; {len(missing)} of its runs are not here")
        else:
            undrawn.append(plot.name)
            commands.update((job.placed(completed.get(job.source)).words, None) for job in missing)
    if drawn:
        _write_table(reproduction.results(drawn, folder), folder / "results")
    for words in commands:
        print(f"python experiment.py with {' '.join(words)}")
    if undrawn:
        raise MissingError(
            f"{', '.join(undrawn)}: not drawn; the {len(commands)} commands above make the missing runs, or at once: "
            f"python experiment.py reproduce{' fast=True' * fast}"
        )


def _make(jobs: Sequence[Job], entry: Path, scheduler: str | None, root: Path) -> tuple[dict[Job, Run], list[Failure]]:
    """Make the runs that are not completed yet, with a bar that tells the time left."""
    jobs = list(grid.in_order(jobs))
    grid.check(jobs)
    completed = grid.find_completed(jobs, root)
    todo = [job for job in jobs if job not in completed]
    grid.check_inputs(todo, root)
    print(f"{len(jobs)} runs: {len(completed)} completed before, {len(todo)} to do", flush=True)
    bar = tqdm(total=len(todo), unit="run", file=sys.__stderr__, disable=None, dynamic_ncols=True, smoothing=0)
    with bar, _ticking(bar):

        def on_end(job: Job, failure: Failure | None) -> None:
            end = "completed" if failure is None else f"missing: {failure.reason.splitlines()[0]}"
            bar.write(f"{' '.join(job.words)}: {end}", file=sys.stdout)
            sys.stdout.flush()
            bar.update()

        failures = cluster.run(todo, completed, entry, scheduler, root, on_end)
    return grid.find_completed(jobs, root), failures


def _write_table(rows: Sequence[Row], path: Path) -> None:
    """Write a table of results as Markdown and CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)  # the runs of a grid may all be elsewhere
    write_aside(path.with_suffix(".md"), f"{table.markdown(rows)}\n{UNITS}\n".encode())
    write_aside(path.with_suffix(".csv"), table.as_csv(rows).encode())
    print(f"in {path}.md and {path}.csv")


@contextlib.contextmanager
def _ticking(bar: tqdm) -> Iterator[None]:
    """Let a bar tell the time each second, though its runs take minutes."""
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


def _report(failures: Sequence[Failure], num_jobs: int) -> None:
    """Tell what is missing.

    Raises:
        MissingError: something is.
    """
    if failures:
        lines = [f"{len(failures)} of {num_jobs} runs missing; the same command tries them again"]
        for failure in failures:
            log = f"; see {failure.log}" if failure.log is not None else ""
            lines.append(f"{' '.join(failure.job.words)}: {failure.reason.splitlines()[0]}{log}")
        raise MissingError("\n".join(lines))


def _words(changes: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(f"{key}={value}".replace(" ", "") for key, value in changes.items())


def _plain(value: object) -> object:
    """Return lists as lists: those of Sacred's configurations are of a kind that cannot be changed or sent."""
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
