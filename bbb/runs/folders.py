"""The layout of ``results/``: a folder for each experiment, in it a numbered folder for each run.

Beside the run folders lie ``log.txt``, ``weights.safetensors`` and ``training.png`` of the last completed run. They are
links through ``latest``, a link to that run's folder, so that all three change at once.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from bbb.runs.contents import checksums, own_files, record_files
from bbb.runs.key_types import RESULTS
from bbb.runs.plain import modernised
from bbb.system import LOCK, InputError, link, lock, remove_leftovers, write_aside, writing

WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.pt"
FINDINGS = "findings.json"
RESUMABLE = "with resume=True goes on from the last checkpoint"  # what the command of a stopped run does
PUBLISHED = ("log.txt", WEIGHTS, "training.png")
_MAY_CHANGE = ("data_dir", "checkpoint_minutes", "tensorboard")  # when a run is resumed


class ResultsError(InputError):
    """A results folder that cannot be written, or a run that does not exist."""


@dataclass(frozen=True)
class Run:
    """One recorded run: its folder, Sacred's status (``COMPLETED``, ``RUNNING``, ...), configuration and result."""

    folder: Path
    status: str
    config: dict[str, Any]
    result: dict[str, Any]

    @property
    def info(self) -> dict[str, Any]:
        """What it read: records of its weights and of the user's own files; empty if damaged or not there."""
        try:
            info = json.loads((self.folder / "info.json").read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return info if isinstance(info, dict) else {}


class OpenRun:
    """The folder of a run in progress, locked by this process; made by :func:`open_run`.

    Attributes:
        experiment: the folder of the experiment.
        folder: the run's folder; None before :meth:`make`.
        is_resumed: whether the folder belongs to an unfinished run, with its checkpoint.
    """

    def __init__(self, experiment: Path) -> None:
        self.experiment, self.is_resumed = experiment, False
        self.folder: Path | None = None
        self._claim: FileLock | None = None

    def resume(self, config: Mapping[str, Any]) -> None:
        """Lock the folder of the last unfinished run with a configuration.

        Raises:
            ResultsError: there is none (see :func:`find_unfinished`), or another process has just ended it.
            bbb.system.BusyError: another process is working on it.
        """
        folder = find_unfinished(self.experiment, config)
        self._claim = lock(folder)
        if not (folder / CHECKPOINT).exists():
            finish(folder)
            raise ResultsError(f"resume=True: another process has just ended the run in {folder}")
        remove_leftovers(folder)
        self.folder, self.is_resumed = folder, True

    def make(self) -> Path:
        """Return the run's folder: the one of the resumed run, else a new one with the next number.

        Raises:
            ResultsError: results cannot be written there.
            bbb.system.StorageError: it cannot be made.
        """
        if self.folder is None:
            check_writable(self.experiment)
            with writing(self.experiment):
                self.experiment.mkdir(parents=True, exist_ok=True)
                self.folder = _next_folder(self.experiment)
            self._claim = lock(self.folder)
        return self.folder

    def complete(self) -> None:
        """Remove the checkpoint and the lock file, once the result is recorded."""
        if self.folder is not None:
            finish(self.folder)

    def discard(self) -> None:
        """Remove a new folder whose record could not be started."""
        if self.folder is not None and not self.is_resumed:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def close(self) -> None:
        """Release the lock; without a checkpoint, remove the lock file too, as nothing can be resumed."""
        if self.folder is not None and not (self.folder / CHECKPOINT).exists():
            finish(self.folder)
        if self._claim is not None:
            self._claim.release()


@contextmanager
def open_run(experiment_name: str) -> Iterator[OpenRun]:
    """Open the folder of a run of an experiment, for this process alone, until the context ends.

    Nothing is written before :meth:`OpenRun.make` or :meth:`OpenRun.resume`.

    Raises:
        ResultsError: a link in the path leads out of ``results/``.
    """
    run = OpenRun(experiment_folder(experiment_name))
    try:
        yield run
    finally:
        run.close()


def experiment_folder(experiment_name: str) -> Path:
    """Return the folder of an experiment.

    Raises:
        ResultsError: a link in the path leads out of ``results/``.
    """
    root = Path(RESULTS)
    folder = root / experiment_name
    if not folder.resolve().is_relative_to(root.resolve()):
        raise ResultsError(f"experiment_name={experiment_name}: {folder} is a link that leads out of {root}/")
    return folder


def check_writable(folder: Path) -> None:
    """Check that a run folder can be made, and leave nothing behind.

    Raises:
        ResultsError: it cannot be made.
    """
    existing = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    try:
        with tempfile.TemporaryDirectory(dir=existing):
            pass
    except OSError as error:
        raise ResultsError(
            f"{folder}: results cannot be written there ({error.strerror}); make it writable or choose another "
            "experiment_name"
        ) from None


def publish(run_folder: Path) -> None:
    """Show the files of a completed run in the experiment's folder, in one atomic step.

    On a file system without links, the files are copied instead, each in one atomic step.
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


def find_weights(pretrained: str) -> Path:
    """Find the weights that the key ``pretrained`` names.

    Args:
        pretrained: a weights file, a run folder, or the name of an experiment, whose last completed run is taken.

    Raises:
        ResultsError: there are none.
    """
    root, name = Path(RESULTS), pretrained.removeprefix(f"{RESULTS}/")
    for path in (Path(pretrained), Path(pretrained) / WEIGHTS, root / name / WEIGHTS):
        if path.is_file():
            return path.resolve()
    raise ResultsError(
        f"pretrained={pretrained!r}: there is no weights file, run folder or completed experiment of this name; "
        f"completed under {root}/: {', '.join(_completed(root)) or 'none'}; "
        "train one first, as in: python experiment.py with domain_a"
    )


def find_unfinished(experiment: Path, config: Mapping[str, Any]) -> Path:
    """Find the last run with a configuration that was stopped or is in progress, in an experiment.

    Args:
        experiment: the experiment's folder.
        config: the configuration of the run; ``data_dir``, ``checkpoint_minutes`` and ``tensorboard`` may differ.

    Returns:
        The run's folder.

    Raises:
        ResultsError: there is none, or all had another configuration, or other files of the user's own; the message
            says how the last one differs.
    """
    stopped = [run for run in find_runs(experiment) if run.folder.parent == experiment and _is_unfinished(run)]
    if not stopped:
        raise ResultsError(f"resume=True: there is no unfinished run in {experiment}; leave resume away to start one")
    wanted = _hashable(config)
    differing = {run.folder: _differing(wanted, _hashable(run.config)) for run in stopped}
    same = [run for run in stopped if not differing[run.folder]]
    if same:
        return _unchanged(same, config)[-1].folder
    run = stopped[-1]
    changes = ", ".join(f"{key}={config[key]!r} (was {run.config.get(key)!r})" for key in differing[run.folder])
    raise ResultsError(f"resume=True: {run.folder} was started with another configuration: {changes}")


def finish(run_folder: Path) -> None:
    """Remove what only resuming needs: the checkpoint, then the lock file of the folder."""
    (run_folder / CHECKPOINT).unlink(missing_ok=True)
    (run_folder / LOCK).unlink(missing_ok=True)


def find_runs(folder: Path = Path(RESULTS), **config: Any) -> list[Run]:
    """Read the runs recorded below a folder, oldest first within an experiment.

    Args:
        folder: all results, or one experiment's.
        config: keys and values that a run's configuration must have.
    """
    runs = [_read_run(path.parent) for path in sorted(folder.rglob("run.json"), key=_order)]
    return [run for run in runs if run is not None and config.items() <= _hashable(run.config).items()]


def _completed(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob(WEIGHTS)):
        if not path.parent.name.isdigit() and path.parent.name != "latest":
            yield str(path.parent.relative_to(root))


def _order(path: Path) -> tuple[str, int]:
    number = path.parent.name
    return str(path.parent.parent), int(number) if number.isdigit() else -1


def _read_run(folder: Path) -> Run | None:
    """Read a run's record; None if it is being written at this moment or is damaged."""
    try:
        record = json.loads((folder / "run.json").read_text())
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(config, dict):
        return None
    return Run(folder, record.get("status", "UNKNOWN"), modernised(config), record.get("result") or {})


def _next_folder(experiment: Path) -> Path:
    """Make the folder with the number after the largest one; other processes may be doing the same."""
    number = max((int(path.name) for path in experiment.iterdir() if path.name.isdigit()), default=0)
    while True:
        number += 1
        try:
            (experiment / str(number)).mkdir()
        except FileExistsError:
            continue
        return experiment / str(number)


def _is_unfinished(run: Run) -> bool:
    return run.status != "COMPLETED" and (run.folder / CHECKPOINT).is_file()


def _unchanged(stopped: list[Run], config: Mapping[str, Any]) -> list[Run]:
    """Keep the runs that were started with the files of today.

    Raises:
        ResultsError: there are none.
    """
    files, today = own_files(config), checksums(record_files(config))
    started = [checksums(run.info.get("files")) for run in stopped]
    changed = [[key for key in files if key not in today or old.get(key) != today[key]] for old in started]
    unchanged = [run for run, keys in zip(stopped, changed, strict=True) if not keys]
    if not unchanged:
        key = changed[-1][0]
        raise ResultsError(
            f"resume=True: {stopped[-1].folder} was started with {key}={config[key]} when {files[key]} had another "
            "content; put the old file back, or leave resume away to start anew"
        )
    return unchanged


def _differing(wanted: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    return [key for key in wanted if key not in _MAY_CHANGE and wanted[key] != config.get(key)]


def _hashable(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
