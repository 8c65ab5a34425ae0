"""What a sequence of tasks must be, and what would break it, each said in one line."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bbb import runs, system
from bbb.runs import (
    ALIASES,
    KEYS,
    TASKS,
    WEIGHTS,
    Run,
    Settings,
    check_tasks,
    checksums,
    find_runs,
    unknown_key,
)
from bbb.studies.grid import FREE, Job, identity
from bbb.system import InputError

# Keys that no task has for itself.
_OF_THE_SEQUENCE = (*FREE, "seed", "pretrained", "prior", "likelihood", "union", "coreset")


class SequenceError(InputError):
    """Tasks that are no sequence, or whose earlier weights have changed."""


def checked_tasks(tasks: object) -> list[dict[str, Any]]:
    """Return the tasks of a sequence, with keys by their names of today.

    Raises:
        bbb.system.InputError: they are no sequence.
    """
    if tasks is None:
        raise SequenceError(
            f"{TASKS}: missing; name a sequence, as in: python experiment.py sequence with split_mnist, or give a list "
            "of the keys that differ, as in tasks=\"[{'classes': [0, 1]}, {'classes': [2, 3]}]\""
        )
    check_tasks(TASKS, tasks)
    assert isinstance(tasks, list)
    if len(tasks) < 2:
        raise SequenceError(f"{TASKS}={tasks!r:.80}: must be at least two tasks")
    renamed = [{ALIASES.get(str(key), str(key)): value for key, value in task.items()} for task in tasks]
    for number, task in enumerate(renamed, start=1):
        for key in task:
            if key not in KEYS:
                raise SequenceError(f"{TASKS}: {number}: {unknown_key(key)}")
            if key in _OF_THE_SEQUENCE:
                raise SequenceError(f"{TASKS}: {number}: {key}: is the same for all tasks; give it outside {TASKS}")
        if task in renamed[: number - 1]:
            raise SequenceError(f"{TASKS}: {number}: is the same as task {renamed.index(task) + 1}")
    return renamed


def checked_seeds(seeds: object) -> list[int]:
    """Return the seeds of a sequence.

    Raises:
        SequenceError: they are not different whole numbers.
    """
    is_list = isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)
    if not isinstance(seeds, list) or not is_list or len({*seeds}) < len(seeds):
        raise SequenceError(f"seeds={seeds!r:.80}: must be a list of different whole numbers, as in [1, 2, 3]")
    return seeds


def check_fit(chain: Iterable[Job]) -> None:
    """Load the data of all tasks, and check that the posterior of each can be the prior of the next.

    Raises:
        bbb.system.InputError: data cannot be loaded, or tasks do not fit each other; the message names them.
    """
    before = None
    for number, job in enumerate(chain, start=1):
        settings = Settings.from_config({**job.config, **without_source(job.config)})
        if settings.likelihood != "categorical":
            raise SequenceError(f"likelihood={settings.likelihood}: a sequence is of classes; use categorical")
        try:
            assembly = runs.assemble(settings, system.find_device(settings.device))
        except InputError as error:
            raise SequenceError(f"{TASKS}: {number}: {error}") from None
        network = assembly.architecture
        kind = settings.posterior, settings.num_flows, settings.flow if settings.num_flows else None
        if before is not None:
            theirs, their_kind = before
            end = None if settings.head == "keep" else -1
            if network.layers[:end] != theirs.layers[:end] or kind != their_kind:
                fits = network.layers[:-1] == theirs.layers[:-1] and kind == their_kind
                change = "; or use head=fresh" if fits else ""
                raise SequenceError(
                    f"{TASKS}: {number}: has {_described(network, kind)}, the task before has "
                    f"{_described(theirs, their_kind)}; make its data, network and posterior alike{change}"
                )
        before = network, kind


def check_unchanged(jobs: Iterable[Job], completed: Mapping[Job, Run]) -> None:
    """Refuse weights that have changed since a later task started from them.

    Raises:
        SequenceError: some have; the message names both runs.
    """
    todo = [job for job in jobs if job not in completed and job.source in completed]
    recorded = [run for run in find_runs() if run.status == "COMPLETED"] if todo else []
    for job in todo:
        assert job.source is not None
        path = completed[job.source].folder / WEIGHTS
        for run in recorded:
            started = run.info.get("source")
            if not isinstance(started, dict) or identity(run.config) != identity(job.config):
                continue
            is_source = Path(str(started.get("weights"))).resolve() == path.resolve()
            if is_source and checksums(run.info).get("source") != runs.source_record(str(path))["sha256"]:
                raise SequenceError(
                    f"{path}: has changed since {run.folder} started from it; restore it, or move {run.folder} out of "
                    f"{runs.RESULTS}/ to train on the later tasks again"
                )


def without_source(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a task that no task comes before."""
    return {"pretrained": None, "prior": "gaussian" if config["prior"] == "posterior" else config["prior"]}


def _described(network: object, kind: tuple[str, int, str | None]) -> str:
    posterior, num_flows, flow = kind
    return f"{network}, posterior={posterior}" + (f" with {num_flows} {flow} flows" if num_flows else "")
