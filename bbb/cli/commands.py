"""The commands other than training, and what they print; :mod:`bbb.studies` itself prints nothing."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bbb import studies
from bbb.cli.making import MissingError, as_plain, make_missing, report_failures
from bbb.cli.options import Options
from bbb.cli.own_studies import draw_study, run_study
from bbb.cli.signals import into_a_pipe, stopped_by_signals
from bbb.system import InputError, write_aside

if TYPE_CHECKING:  # PyTorch is loaded when a command needs it
    from bbb.studies import Row

UNITS = (
    "Means over seeds, with standard errors. Errors and ECE in %, NLL and ELBO in nats per example, KL in nats, the "
    "seconds of a whole run."
)


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
            value = as_plain(config[key])
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
    base = {key: as_plain(value) for key, value in config.items()}
    jobs = {studies.Job({**base, **changes}, _words(changes)): changes for changes in studies.expand(options.grid)}
    completed, failures = make_missing(list(jobs), entry, options.scheduler)
    rows = studies.summarise([(changes, completed[job].result) for job, changes in jobs.items() if job in completed])
    if rows:
        print(f"\n{studies.markdown(rows)}")
        _write_table(rows, studies.folder_of(base) / "grid")
    report_failures(failures, len(jobs))


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
    completed, failures = make_missing(jobs, entry, options.scheduler)
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
    report_failures(failures, len([*studies.in_order(jobs)]))


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


def _write_table(rows: Sequence["Row"], path: Path) -> None:
    """Write a table of results as Markdown and CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)  # all runs of the grid may be in other folders
    write_aside(path.with_suffix(".md"), f"{studies.markdown(rows)}\n{UNITS}\n".encode())
    write_aside(path.with_suffix(".csv"), studies.as_csv(rows).encode())
    print(f"in {path}.md and {path}.csv")


def _words(changes: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(f"{key}={value}".replace(" ", "") for key, value in changes.items())
