"""The commands other than training, and what they print; :mod:`bbb.studies` itself prints nothing."""

import contextlib
import re
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tqdm import tqdm

from bbb import studies
from bbb.cli.options import Options
from bbb.cli.own_studies import draw_study, run_study
from bbb.cli.signals import into_a_pipe, stopped_by_signals
from bbb.system import InputError, write_aside

if TYPE_CHECKING:  # PyTorch is loaded when a command needs it
    from bbb.runs import Run
    from bbb.studies import Failure, Job, Row

UNITS = (
    "Means over seeds, with standard errors. Errors and ECE in %, NLL and ELBO in nats per example, KL in nats, the "
    "seconds of a whole run."
)


class MissingError(InputError):
    """Runs or figures that could not be made."""


@into_a_pipe()
def print_config(config: Mapping[str, Any], default: Path) -> None:
    """Print every key with its value and its meaning; * marks what differs from the default.

    Args:
        config: the configuration.
        default: the commented file of all keys.
    """
    text = default.read_text()
    defaults = yaml.safe_load(text)
    for line in text.splitlines():
        if entry := re.fullmatch(r"(\w+): +.*? +# (.*)", line):
            key, meaning = entry.groups()
            value = _plain(config[key])
            mark = " " if value == defaults[key] else "*"
            print(f"{mark} {f'{key} = {value}':<36} # {meaning}")
        elif line.startswith("# ---"):
            print(line)


@into_a_pipe()
@stopped_by_signals()
def run_grid(config: Mapping[str, Any], options: Options, entry: Path) -> None:
    """Make the runs of a grid and write their results as a table, ``grid.md`` and ``grid.csv``.

    Args:
        config: the keys that all runs share.
        options: the command's options: the grid, and the scheduler.
        entry: as in :func:`bbb.studies.make_runs`.

    Raises:
        bbb.system.InputError: the grid cannot be run, or some of its runs could not be completed.
    """
    if options.grid is None:
        raise InputError("grid: missing; give keys with lists of values, as in grid=\"{'seed': [1, 2, 3]}\"")
    base = {key: _plain(value) for key, value in config.items()}
    jobs = {studies.Job({**base, **changes}, _words(changes)): changes for changes in studies.expand(options.grid)}
    completed, failures = _make(list(jobs), entry, options.scheduler)
    rows = studies.summarise([(changes, completed[job].result) for job, changes in jobs.items() if job in completed])
    if rows:
        print(f"\n{studies.markdown(rows)}")
        _write_table(rows, studies.folder_of(base) / "grid")
    _report(failures, len(jobs))


@into_a_pipe()
@stopped_by_signals()
def reproduce(options: Options, entry: Path) -> None:
    """Make the missing runs and the other studies of the figures, and draw all figures.

    Args:
        options: the command's options: ``fast``, and the scheduler.
        entry: as in :func:`bbb.studies.make_runs`.

    Raises:
        bbb.system.InputError: some runs, and therefore their figures, could not be completed.
    """
    plots = studies.plots(options.fast, entry.parent / "configs")
    jobs = [job for plot in plots for job in plot.jobs]
    completed, failures = _make(jobs, entry, options.scheduler)
    folder, drawn = studies.figures_folder(options.fast), []
    for plot in plots:
        if all(job in completed for job in plot.jobs):
            print(f"drawing {folder / plot.name}.png", flush=True)
            studies.draw(plot, completed, folder)
            drawn.append(plot)
    if drawn:
        _write_table(studies.results(drawn, folder), folder / "results")
    for study in studies.all_studies(options.fast):
        run_study(study, folder)
    _report(failures, len([*studies.in_order(jobs)]))


@into_a_pipe()
@stopped_by_signals()
def figures(options: Options, entry: Path) -> None:
    """Draw every figure whose runs or parts exist, or whose JSON file has the same configurations.

    Args:
        options: the command's options: ``fast``.
        entry: as in :func:`reproduce`.

    Raises:
        MissingError: some cannot be drawn; the commands that make their missing runs have been printed.
    """
    plots, folder = studies.plots(options.fast, entry.parent / "configs"), studies.figures_folder(options.fast)
    completed = studies.find_completed(studies.in_order(job for plot in plots for job in plot.jobs))
    drawn, undrawn = [], []
    commands: dict[tuple[str, ...], None] = {}
    for plot in plots:
        missing = [job for job in studies.in_order(plot.jobs) if job not in completed]
        if not missing:
            studies.draw(plot, completed, folder)
            drawn.append(plot)
            print(f"{folder / plot.name}.png: drawn from {len(plot.jobs)} runs")
        elif studies.redraw(plot, folder):
            drawn.append(plot)
            print(f"{folder / plot.name}.png: drawn from {plot.name}.json; {len(missing)} of its runs are not here")
        else:
            undrawn.append(plot.name)
            placed = [job.placed(completed.get(job.source) if job.source else None) for job in missing]
            commands.update((("with", *job.words), None) for job in placed)
    if drawn:
        _write_table(studies.results(drawn, folder), folder / "results")
    for study in studies.all_studies(options.fast):
        if not draw_study(study, folder):
            undrawn.append(study.name)
            commands[study.words] = None
    for words in commands:
        print(f"python experiment.py {' '.join(words)}")
    if undrawn:
        raise MissingError(
            f"{', '.join(undrawn)}: not drawn; the {len(commands)} commands above make the missing runs, or at once: "
            f"python experiment.py reproduce{' fast=True' * options.fast}"
        )


def _make(jobs: Sequence["Job"], entry: Path, scheduler: str | None) -> tuple[dict["Job", "Run"], list["Failure"]]:
    """Make the runs that are not completed yet, with a bar that shows the time left."""
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


def _write_table(rows: Sequence["Row"], path: Path) -> None:
    """Write a table of results as Markdown and CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)  # all runs of the grid may be in other folders
    write_aside(path.with_suffix(".md"), f"{studies.markdown(rows)}\n{UNITS}\n".encode())
    write_aside(path.with_suffix(".csv"), studies.as_csv(rows).encode())
    print(f"in {path}.md and {path}.csv")


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


def _report(failures: Sequence["Failure"], num_jobs: int) -> None:
    """Report the runs that failed.

    Raises:
        MissingError: some failed.
    """
    if failures:
        lines = [f"{len(failures)} of {num_jobs} runs missing; the same command tries them again"]
        for failure in failures:
            log = f"; see {failure.log}" if failure.log is not None else ""
            lines.append(f"{' '.join(failure.job.words)}: {failure.reason.splitlines()[0]}{log}")
        raise MissingError("\n".join(lines))


def _words(changes: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{key}={value}".replace(" ", "") for key, value in changes.items())


def _plain(value: Any) -> Any:
    """Replace Sacred's read-only lists, which cannot be changed or sent to another process, by plain lists."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
