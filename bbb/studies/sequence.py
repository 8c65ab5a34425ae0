"""A sequence of tasks as runs: each starts from the posterior of the one before, which is its prior.

A task is an ordinary run with a record of its own, found again by its configuration and the weights that it started
from. So a sequence is a chain of :class:`bbb.studies.Job`, one for each seed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbb import runs, system
from bbb.runs import (
    ALIASES,
    KEYS,
    TASK,
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

_OF_THE_SEQUENCE = (
    *FREE,
    "seed",
    "pretrained",
    "prior",
    "likelihood",
    "union",
    "coreset",
)  # keys that no task has for itself
_FLAGS = ("alone", "joint", "validation")
OWN_KEYS = (TASKS, "seeds", *_FLAGS)  # keys that a sequence has, and a run has not


class SequenceError(InputError):
    """Tasks that are no sequence, or whose earlier weights have changed."""


@dataclass(frozen=True)
class TaskSequence:
    """A sequence of tasks for some seeds.

    Attributes:
        name: of the experiment; task i is the experiment NAME/task1 and so on.
        labels: what each task is, in a word or two.
        chains: for each seed the runs, each the source of the next.
        alone: for each seed the same tasks from the second on, without the tasks before; empty if not asked for.
        joint: for each seed one run on all tasks at once; empty if not asked for.
        refined: for each seed and task the posterior of the chain, trained further on the coresets of the tasks so far;
            empty without coresets. No later task starts from it, so an example of a coreset counts once.
        on_validation: whether to test on what was held out of training.
    """

    name: str
    labels: tuple[str, ...]
    chains: Mapping[int, list[Job]]
    alone: Mapping[int, list[Job]]
    joint: Mapping[int, Job]
    refined: Mapping[int, list[Job]]
    on_validation: bool

    @property
    def jobs(self) -> list[Job]:
        """All runs, those of a chain in their order."""
        many = (*self.chains.values(), *self.alone.values(), *self.refined.values())
        return [*(job for jobs in many for job in jobs), *self.joint.values()]

    def jobs_of(self, seed: int) -> list[Job]:
        """All runs of a seed."""
        joint = [self.joint[seed]] if seed in self.joint else []
        return [*self.chains[seed], *self.alone.get(seed, []), *self.refined.get(seed, []), *joint]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TaskSequence":
        """Read a sequence from its configuration.

        Args:
            config: the keys that all tasks share, as for a run; ``tasks``, for each task the keys that differ; and
                perhaps ``seeds``, ``alone``, ``joint`` and ``validation``. Under ``prior=posterior`` the first task, which has no
                task before it, has ``prior=gaussian``, unless ``pretrained`` names its source.

        Raises:
            bbb.system.InputError: this is no sequence; the message says why.
        """
        tasks = _check_tasks(config.get(TASKS))
        seeds = _check_seeds(config.get("seeds", [config["seed"]]))
        for flag in _FLAGS:
            if not isinstance(config.get(flag, False), bool):
                raise SequenceError(f"{flag}={config[flag]!r:.80}: must be True or False")
        base = {key: value for key, value in config.items() if key not in (*OWN_KEYS, "config_filename")}
        name = str(base["experiment_name"]).removeprefix(f"{runs.RESULTS}/")
        chains = {seed: _chain(base, tasks, seed, name) for seed in seeds}
        return cls(
            name=name,
            labels=tuple(_label(task) for task in tasks),
            chains=chains,
            alone={seed: _alone(base, tasks, seed, name) for seed in seeds} if config.get("alone") else {},
            joint={seed: _joint(base, tasks, seed, name) for seed in seeds} if config.get("joint") else {},
            refined={seed: _refined(base, tasks, chain, name) for seed, chain in chains.items()}
            if base["coreset"]
            else {},
            on_validation=bool(config.get("validation")),
        )


def sequence_folder(sequence: TaskSequence) -> Path:
    """Return the folder of a sequence's own files; those of its runs are below."""
    return runs.experiment_folder(sequence.name)


def check_fit(chain: Iterable[Job]) -> None:
    """Load the data of all tasks, and check that the posterior of each can be the prior of the next.

    Raises:
        bbb.system.InputError: data cannot be loaded, or tasks do not fit each other; the message names them.
    """
    before = None
    for number, job in enumerate(chain, start=1):
        settings = Settings.from_config({**job.config, **_without_source(job.config)})
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


def _check_tasks(tasks: object) -> list[dict[str, Any]]:
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


def _check_seeds(seeds: object) -> list[int]:
    is_list = isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)
    if not isinstance(seeds, list) or not is_list or len({*seeds}) < len(seeds):
        raise SequenceError(f"seeds={seeds!r:.80}: must be a list of different whole numbers, as in [1, 2, 3]")
    return seeds


def _chain(base: Mapping[str, Any], tasks: list[dict[str, Any]], seed: int, name: str) -> list[Job]:
    chain: list[Job] = []
    for number, task in enumerate(tasks, start=1):
        source = chain[-1] if chain else None
        start = {"pretrained": source.config["experiment_name"]} if source is not None else {}
        if source is None and base["pretrained"] is None:
            start = _without_source(base)
        chain.append(_job({**base, **task, **start}, f"{name}/task{number}", seed, source))
    return chain


def _alone(base: Mapping[str, Any], tasks: list[dict[str, Any]], seed: int, name: str) -> list[Job]:
    """List the runs of the tasks from the second on, as if each were the first."""
    numbered = [*enumerate(tasks, start=1)][1:]
    return [_job({**base, **task, **_without_source(base)}, f"{name}/alone{i}", seed) for i, task in numbered]


def _joint(base: Mapping[str, Any], tasks: list[dict[str, Any]], seed: int, name: str) -> Job:
    """Make the run on all tasks at once, which knows no order."""
    union = _united(tasks, "joint=True")
    return _job({**base, **_without_source(base), "union": union, "coreset": 0}, f"{name}/joint", seed)


def _refined(base: Mapping[str, Any], tasks: list[dict[str, Any]], chain: list[Job], name: str) -> list[Job]:
    """List the runs on the coresets of the tasks so far, each from the posterior of the last of these tasks."""
    asked = f"coreset={base['coreset']}"
    if base["head"] != "keep":
        raise SequenceError(f"{asked}: needs one head for all tasks, which head={base['head']} does not give; use keep")
    union = _united(tasks, asked)
    refined = []
    for number, source in enumerate(chain, start=1):
        start = {"prior": base["prior"], "pretrained": source.config["experiment_name"]}
        config = {**base, **start, "union": union[:number]}
        refined.append(_job(config, f"{name}/coreset{number}", source.config["seed"], source))
    return refined


def _united(tasks: list[dict[str, Any]], asked: str) -> list[dict[str, Any]]:
    """Return the tasks for one training on all of them."""
    for number, task in enumerate(tasks, start=1):
        other = next((key for key in task if key not in TASK), None)
        if other is not None:
            raise SequenceError(
                f"{asked}: trains on several tasks at once, which may differ in {', '.join(TASK)}; task {number} has "
                f"{other}={task[other]!r:.80}"
            )
    return tasks


def _job(config: dict[str, Any], name: str, seed: int, source: Job | None = None) -> Job:
    return Job({**config, "experiment_name": name, "seed": seed}, (f"experiment_name={name}", f"seed={seed}"), source)


def _without_source(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a task that no task comes before."""
    return {"pretrained": None, "prior": "gaussian" if config["prior"] == "posterior" else config["prior"]}


def _label(task: Mapping[str, Any]) -> str:
    """Put a task into a word or two: 0/1 for classes, else the keys with their values."""
    if [*task] == ["classes"] and isinstance(task["classes"], list):
        return "/".join(map(str, task["classes"]))
    return ", ".join(f"{key} {value}" for key, value in task.items()) or "as it is"


def _described(network: object, kind: tuple[str, int, str | None]) -> str:
    posterior, num_flows, flow = kind
    return f"{network}, posterior={posterior}" + (f" with {num_flows} {flow} flows" if num_flows else "")
