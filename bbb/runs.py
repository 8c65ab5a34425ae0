"""The layout of ``results/``: a folder for each experiment, in it a numbered folder for each run.

Beside the run folders lie ``log.txt``, ``weights.safetensors`` and ``training.png`` of the last completed run. They are
links through ``latest``, a link to that run's folder, so that all three change in one move.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bbb.errors import InputError
from bbb.files import LOCK, link, write_aside
from bbb.settings import RESULTS

PUBLISHED = ("log.txt", "weights.safetensors", "training.png")
WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.pt"
_MAY_CHANGE = ("resume", "data_dir", "checkpoint_minutes")  # of a run that is resumed


class ResultsError(InputError):
    """A results folder that cannot be written, or a run that is not there."""


@dataclass(frozen=True)
class Run:
    """One recorded run: its folder, Sacred's status (``COMPLETED``, ``RUNNING``, ...), configuration and result."""

    folder: Path
    status: str
    config: dict[str, object]
    result: dict[str, float]


def experiment_folder(experiment_name: str, root: Path = Path(RESULTS)) -> Path:
    """Return the folder of an experiment.

    Raises:
        ResultsError: a link in the way leads out of ``results/``.
    """
    folder = root / experiment_name
    if not folder.resolve().is_relative_to(root.resolve()):
        raise ResultsError(f"experiment_name={experiment_name}: {folder} is a link that leads out of {root}/")
    return folder


def check_writable(folder: Path) -> None:
    """Try whether a run folder could be made, and leave nothing behind.

    Raises:
        ResultsError: it could not.
    """
    there = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    try:
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        raise ResultsError(
            f"{folder}: results cannot be written there ({error.strerror}); make it writable or choose another "
            "experiment_name"
        ) from None


def publish(run_folder: Path) -> None:
    """Make a completed run the one whose files are found in the experiment's folder, in one move.

    Where the file system knows no links, the files are copied instead, each in one move.
    """
    experiment = run_folder.parent
    try:
        link(Path(run_folder.name), experiment / "latest")
        for name in PUBLISHED:
            if not (experiment / name).is_symlink():
                link(Path("latest") / name, experiment / name)
    except OSError:
        for name in PUBLISHED:
            write_aside(experiment / name, (run_folder / name).read_bytes())


def find_weights(pretrained: str, root: Path = Path(RESULTS)) -> Path:
    """Find the weights that the key ``pretrained`` means.

    Args:
        pretrained: a weights file, a run folder, or the name of an experiment, whose last completed run is taken.
        root: the results folder.

    Raises:
        ResultsError: there are none.
    """
    name = pretrained.removeprefix(f"{RESULTS}/")
    for path in (Path(pretrained), Path(pretrained) / WEIGHTS, root / name / WEIGHTS):
        if path.is_file():
            return path.resolve()
    raise ResultsError(
        f"pretrained={pretrained!r}: there is no weights file, run folder or completed experiment of this name; "
        f"completed under {root}/: {', '.join(_completed(root)) or 'none'}; "
        "train one first, as in: python experiment.py with domain_a"
    )


def find_unfinished(experiment: Path, config: Mapping[str, object]) -> Path:
    """Find the last run of an experiment that was stopped, or is at work, with a configuration.

    Args:
        experiment: the experiment's folder.
        config: what the run was started with, but for where things are.

    Returns:
        The run's folder.

    Raises:
        ResultsError: there is none, or all had another configuration; the message tells in what the last one differs.
    """
    stopped = [run for run in find_runs(experiment) if run.folder.parent == experiment and _is_unfinished(run)]
    if not stopped:
        raise ResultsError(f"resume=True: there is no unfinished run in {experiment}; leave resume away to start one")
    wanted = _hashable(config)
    differing = {run.folder: _differing(wanted, _hashable(run.config)) for run in stopped}
    same = [folder for folder, keys in differing.items() if not keys]
    if same:
        return same[-1]
    run = stopped[-1]
    changes = ", ".join(f"{key}={config[key]!r} (was {run.config.get(key)!r})" for key in differing[run.folder])
    raise ResultsError(f"resume=True: {run.folder} was started with another configuration: {changes}")


def finish(run_folder: Path) -> None:
    """Remove what only a run that may yet be resumed needs: its checkpoint, then the claim on its folder."""
    (run_folder / CHECKPOINT).unlink(missing_ok=True)
    (run_folder / LOCK).unlink(missing_ok=True)


def find_runs(root: Path = Path(RESULTS), **config: object) -> list[Run]:
    """Read the runs recorded below ``root``, oldest first within an experiment.

    Args:
        root: the results folder, or one experiment's.
        config: keys and values that a run's configuration must have.
    """
    runs = [_read_run(path.parent) for path in sorted(root.rglob("run.json"), key=_order)]
    return [run for run in runs if run is not None and config.items() <= _hashable(run.config).items()]


def _completed(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob(WEIGHTS)):
        if not path.parent.name.isdigit() and path.parent.name != "latest":
            yield str(path.parent.relative_to(root))


def _order(path: Path) -> tuple[str, int]:
    number = path.parent.name
    return str(path.parent.parent), int(number) if number.isdigit() else -1


def _read_run(folder: Path) -> Run | None:
    """Read a run's record; None where it is being written at this moment or is damaged."""
    try:
        record = json.loads((folder / "run.json").read_text())
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(config, dict):
        return None
    return Run(folder, record.get("status", "UNKNOWN"), config, record.get("result") or {})


def _is_unfinished(run: Run) -> bool:
    return run.status != "COMPLETED" and (run.folder / CHECKPOINT).is_file()


def _differing(wanted: Mapping[str, object], config: Mapping[str, object]) -> list[str]:
    return [key for key in wanted if key not in _MAY_CHANGE and wanted[key] != config.get(key)]


def _hashable(config: Mapping[str, object]) -> dict[str, object]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
