"""A sequence of tasks as runs: each starts from the posterior of the one before, which is its prior.

A task is an ordinary run with a record of its own, found again by its configuration and the weights that it started
from. So a sequence is a chain of :class:`bbb.studies.Job`, one for each seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbb import runs
from bbb.runs import TASK, TASKS
from bbb.studies.grid import Job
from bbb.studies.sequence_checks import SequenceError, checked_seeds, checked_tasks, without_source

_FLAGS = ("alone", "joint", "validation")
OWN_KEYS = (TASKS, "seeds", *_FLAGS)  # keys that a sequence has, and a run has not


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
        return [job for seed in self.chains for job in self.jobs_of(seed)]

    def jobs_of(self, seed: int) -> list[Job]:
        """All runs of a seed."""
        joint = [self.joint[seed]] if seed in self.joint else []
        return [*self.chains[seed], *self.alone.get(seed, []), *self.refined.get(seed, []), *joint]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "TaskSequence":
        """Read a sequence from its configuration.

        Args:
            config: the keys that all tasks share, as for a run; ``tasks``, for each task the keys that differ; and
                perhaps ``seeds``, ``alone``, ``joint`` and ``validation``. Under ``prior=posterior`` the first task,
                which has no task before it, has ``prior=gaussian``, unless ``pretrained`` names its source.

        Raises:
            bbb.system.InputError: this is no sequence; the message says why.
        """
        tasks = checked_tasks(config.get(TASKS))
        seeds = checked_seeds(config.get("seeds", [config["seed"]]))
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
            refined={s: _refined(base, tasks, chain, name) for s, chain in chains.items()} if base["coreset"] else {},
            on_validation=bool(config.get("validation")),
        )


def sequence_folder(sequence: TaskSequence) -> Path:
    """Return the folder of a sequence's own files; those of its runs are below."""
    return runs.experiment_folder(sequence.name)


def _chain(base: Mapping[str, Any], tasks: list[dict[str, Any]], seed: int, name: str) -> list[Job]:
    chain: list[Job] = []
    for number, task in enumerate(tasks, start=1):
        source = chain[-1] if chain else None
        start = {"pretrained": source.config["experiment_name"]} if source is not None else {}
        if source is None and base["pretrained"] is None:
            start = without_source(base)
        chain.append(_job({**base, **task, **start}, f"{name}/task{number}", seed, source))
    return chain


def _alone(base: Mapping[str, Any], tasks: list[dict[str, Any]], seed: int, name: str) -> list[Job]:
    """List the runs of the tasks from the second on, as if each were the first."""
    numbered = [*enumerate(tasks, start=1)][1:]
    return [_job({**base, **task, **without_source(base)}, f"{name}/alone{i}", seed) for i, task in numbered]


def _joint(base: Mapping[str, Any], tasks: list[dict[str, Any]], seed: int, name: str) -> Job:
    """Make the run on all tasks at once, which knows no order."""
    union = _united(tasks, "joint=True")
    return _job({**base, **without_source(base), "union": union, "coreset": 0}, f"{name}/joint", seed)


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


def _label(task: Mapping[str, Any]) -> str:
    """Put a task into a word or two: 0/1 for classes, else the keys with their values."""
    if [*task] == ["classes"] and isinstance(task["classes"], list):
        return "/".join(map(str, task["classes"]))
    return ", ".join(f"{key} {value}" for key, value in task.items()) or "as it is"
