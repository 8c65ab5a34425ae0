"""The runs of a grid: list them, check that they can be made, and find those that are completed.

Completed runs are found by their configuration, whatever their name. :mod:`bbb.studies.cluster` makes the others.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbb import runs, system
from bbb.runs import (
    ALIASES,
    KEYS,
    WEIGHTS,
    Run,
    Settings,
    check_plain,
    checksums,
    experiment_folder,
    find_runs,
    record_files,
    unknown_key,
)
from bbb.system import InputError

# Keys that do not change what is computed: where it is written and read, how often it is saved, and on what it runs.
FREE = ("experiment_name", "data_dir", "checkpoint_minutes", "tensorboard", "num_threads", "device")


class GridError(InputError):
    """A grid that is not valid, or that has runs that cannot be made."""


@dataclass(frozen=True, eq=False)
class Job:
    """A run to be made.

    Attributes:
        config: its configuration, every key.
        words: the words after ``python experiment.py with`` that make this run by hand.
        source: the run whose weights ``pretrained`` names, if it must be made first; else None.
    """

    config: Mapping[str, Any]
    words: tuple[str, ...]
    source: "Job | None" = None

    def placed(self, source: Run | None) -> "Job":
        """Return the same run with ``pretrained`` set to the folder of its source, if that was found."""
        if source is None:
            return self
        config = {**self.config, "pretrained": str(source.folder)}
        kept = [word for word in self.words if not word.startswith("pretrained=")]
        return Job(config, (*kept, f"pretrained={source.folder}"))


def check_grid(grid: object) -> dict[str, list[Any]]:
    """Check a grid: keys of the configuration, each with a list of values.

    Raises:
        GridError: it is not a valid grid; the message says why.
    """
    if not isinstance(grid, Mapping) or not grid:
        raise GridError(f"grid={grid!r:.80}: must be keys with lists of values, as in {{'seed': [1, 2, 3]}}")
    for key, values in grid.items():
        if ALIASES.get(key, key) not in KEYS:
            raise GridError(f"grid: {unknown_key(str(key))}")
        if key in FREE:
            raise GridError(f"grid: {key}: does not tell runs apart; give it one value, outside the grid")
        if not isinstance(values, list | tuple) or not values:
            raise GridError(f"grid: {key}={values!r:.80}: must be a list of values, as in [1, 2, 3]")
        for i, value in enumerate(values):
            check_plain(f"grid: {key}", value)
            if value in values[:i]:
                raise GridError(f"grid: {key}={value!r:.80}: is there twice")
    return {ALIASES.get(str(key), str(key)): list(values) for key, values in grid.items()}


def expand(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """List all combinations of the values of a grid, the last key varying fastest."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def check_configs(jobs: Iterable[Job]) -> None:
    """Check the configurations of runs.

    Raises:
        GridError: some are not valid; the message has one line for each problem.
    """
    _all_right(Settings.from_config, (job.config for job in jobs))


def check_inputs(jobs: Iterable[Job]) -> None:
    """Load the data and weights that runs will read, to find problems before anything starts.

    Runs that differ only in their seed are checked once. Runs whose source is not made yet are skipped.

    Raises:
        GridError: something is missing or damaged, or results cannot be written; the message has one line for each.
    """
    distinct = {str(sorted({**job.config, "seed": 0}.items())): job.config for job in jobs if job.source is None}
    _all_right(_check_input, distinct.values())


def _check_input(config: Mapping[str, Any]) -> None:
    settings = Settings.from_config(config)
    runs.assemble(settings, system.find_device(settings.device))
    runs.check_writable(experiment_folder(settings.experiment_name))


def _all_right(judge: Callable[[Mapping[str, Any]], object], configs: Iterable[Mapping[str, Any]]) -> None:
    problems: dict[str, None] = {}
    for config in configs:
        try:
            judge(config)
        except InputError as error:
            problems.update(dict.fromkeys(str(error).splitlines()))
    if problems:
        raise GridError("\n".join(problems))


def identity(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the values that identify a configuration: all keys but :data:`FREE` and ``pretrained``, a mere name."""
    compared = sorted(set(KEYS) - {*FREE, "pretrained"})
    values = [config.get(key) for key in compared]
    return tuple(_comparable(value) for value in values)


def _comparable(value: Any) -> Any:
    """Turn lists of values and of tasks into texts, in which keys have one order."""
    return json.dumps(value, sort_keys=True) if isinstance(value, list | tuple | dict) else value


def find_completed(jobs: Iterable[Job]) -> dict[Job, Run]:
    """Find the completed runs with the configurations of jobs.

    If a run started from weights, or read files of the user's own, these must equal, to the last bit, those that the
    job would read now.

    Args:
        jobs: the jobs to look for, each after its source.

    Returns:
        For each job that is done, its run; the last one if there are several.
    """
    recorded: dict[tuple[object, ...], list[Run]] = {}
    for run in find_runs():
        if run.status == "COMPLETED" and (run.folder / WEIGHTS).is_file():
            recorded.setdefault((identity(run.config), _source_of(run), _files_of(run)), []).append(run)
    files_of_today: dict[tuple[str, str], frozenset[tuple[str, str]]] = {}  # one file serves many jobs
    completed: dict[Job, Run] = {}
    for job in jobs:
        if job.source is not None and job.source not in completed:
            continue
        source = _wanted_source(job.placed(completed.get(job.source) if job.source else None))
        names = job.config["network"], job.config["dataset"]
        if names not in files_of_today:
            files_of_today[names] = frozenset(checksums(record_files(job.config)).items())
        wanted = identity(job.config), source, files_of_today[names]
        if wanted in recorded:
            completed[job] = recorded[wanted][-1]
    return completed


def _source_of(run: Run) -> str | None:
    """The SHA-256 of the weights that a run started from."""
    if run.config.get("pretrained") is None:
        return None
    return checksums(run.info).get("source", "unknown")


def _files_of(run: Run) -> frozenset[tuple[str, str]]:
    """The SHA-256 of each of the user's own files that a run read."""
    return frozenset(checksums(run.info.get("files")).items())


def _wanted_source(job: Job) -> str | None:
    """The SHA-256 of the weights that a job would start from."""
    pretrained = job.config["pretrained"]
    return None if pretrained is None else runs.source_record(pretrained)["sha256"]


def in_order(jobs: Iterable[Job]) -> Iterator[Job]:
    """Yield each job once, and each after its source."""
    seen = set()
    for job in jobs:
        chain = [job]
        while (source := chain[-1].source) is not None:
            chain.append(source)
        for needed in reversed(chain):
            if needed not in seen:
                seen.add(needed)
                yield needed


def log_of(job: Job) -> Path:
    """Return the file in which a job's output is kept until it is completed."""
    digest = hashlib.sha256(str(sorted(job.config.items())).encode()).hexdigest()
    return folder_of(job.config) / "_logs" / f"{digest[:8]}.txt"


def folder_of(config: Mapping[str, Any]) -> Path:
    """Return the folder of the experiment that a configuration names, as NAME or as results/NAME."""
    return experiment_folder(Settings.from_config(config).experiment_name)
