"""All runs under ``results/``, newest first, whatever state their files are in. Nothing here loads PyTorch."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bbb.runs import CHECKPOINT, FINDINGS, RESULTS, WEIGHTS, modernised
from bbb.studies.origin import Origin, origin
from bbb.studies.records import numbers, plain, read_dictionary

DAMAGED = "damaged"
_STATUS = {"COMPLETED": "completed", "RUNNING": "running", "INTERRUPTED": "stopped", "FAILED": "failed"}
_LOST = "lost"  # said to be running, but without a sign of life
_SILENCE = 120.0  # seconds without Sacred's heartbeat, which comes every ten
_OF_A_RUN = ("run.json", "config.json", "metrics.json", "log.txt", "cout.txt", WEIGHTS, CHECKPOINT, FINDINGS)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run as a list shows it.

    Attributes:
        folder: the run's folder.
        name: of its experiment.
        number: of the run.
        status: ``completed``, ``running``, ``stopped``, ``failed``, ``lost`` (it ended without saying so), ``damaged``,
            or what Sacred says in other cases.
        problem: for a damaged run, which file and why; for a failed one, its error; else None.
        origin: the named configuration, what differs and the command; None if the configuration cannot be read.
        config: the whole configuration; empty if it cannot be read.
        scores: the numbers of its result.
        seconds: of training and testing; None before the end.
        commit: of the code; None if it was not recorded.
        is_dirty: whether the code had changes that were not committed.
        started: when, in UTC, as ISO 8601; None if unknown.
        source: the folder of the run whose weights it started from, or another weights file; None without.
        can_resume: whether the same command with ``resume=True`` goes on with it.
    """

    folder: Path
    name: str
    number: int
    status: str
    problem: str | None = None
    origin: Origin | None = None
    config: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    commit: str | None = None
    is_dirty: bool = False
    started: str | None = None
    source: str | None = None
    can_resume: bool = False

    @property
    def id(self) -> str:
        """Name and number, as in ``blundell/3``."""
        return f"{self.name}/{self.number}"

    @property
    def command(self) -> str | None:
        """The command line that makes the run again, or goes on with it; None if its configuration cannot be read."""
        if self.origin is None or not self.can_resume:
            return self.origin.command if self.origin else None
        words = [] if " with " in self.origin.command else ["with"]
        return " ".join([self.origin.command, *words, "resume=True"])

    def as_dict(self) -> dict[str, Any]:
        """Return what a machine reads: plain values, with the folder as a text."""
        return {
            "run": self.id,
            "folder": str(self.folder),
            "status": self.status,
            "problem": self.problem,
            "named": self.origin.named if self.origin else None,
            "changes": plain(self.origin.changes) if self.origin else {},
            "scores": self.scores,
            "seconds": self.seconds,
            "started": self.started,
            "commit": self.commit,
            "dirty": self.is_dirty,
            "source": self.source,
            "command": self.command,
        }


def catalogue(named: Mapping[str, Mapping[str, Any]], root: Path = Path(RESULTS)) -> list[Entry]:
    """List all runs below a folder, newest first. A damaged or half-written one is listed as such.

    Args:
        named: the named configurations (see :func:`bbb.studies.named_configs`).
        root: the results.
    """
    folders = [*_run_folders(root)]
    places = {folder.resolve(): f"{folder.parent.relative_to(root)}/{folder.name}" for folder in folders}
    entries = [_read(folder, root, named, places) for folder in folders]
    return sorted(entries, key=lambda entry: (entry.started or "", entry.number, entry.name), reverse=True)


def _run_folders(root: Path) -> Iterator[Path]:
    """Find the numbered folders of runs; links, and folders that are not ours, are not followed."""
    for where, folders, _ in os.walk(root):
        here = Path(where)
        folders[:] = sorted(name for name in folders if not name.startswith(("_", ".")))
        for name in [name for name in folders if name.isdecimal() and name.isascii()]:
            folders.remove(name)
            folder = here / name
            if here != root and not folder.is_symlink() and any((folder / file).exists() for file in _OF_A_RUN):
                yield folder


def _read(folder: Path, root: Path, named: Mapping[str, Mapping[str, Any]], places: Mapping[Path, str]) -> Entry:
    problems: list[str] = []
    record: dict[str, Any] = {}
    config: dict[str, Any] = {}
    try:
        record = read_dictionary(folder / "run.json")
    except ValueError as error:
        problems.append(str(error))
    try:
        config = modernised(read_dictionary(folder / "config.json"))
    except ValueError as error:
        problems.append(str(error))
    scores = numbers(record.get("result"))
    status = _status(record)
    if not problems and status == "completed" and not scores:
        problems.append("run.json holds no result")
    problem = "; ".join(problems) if problems else _error_of(record)
    commit, is_dirty = _commit(record)
    return Entry(
        folder=folder,
        name=str(folder.parent.relative_to(root)),
        number=int(folder.name),
        status=DAMAGED if problems else status,
        problem=problem,
        origin=origin(config, named) if config else None,
        config=config,
        scores={name: value for name, value in scores.items() if name != "seconds"},
        seconds=scores.get("seconds"),
        commit=commit,
        is_dirty=is_dirty,
        started=_started(folder, record),
        source=_source(folder, places),
        can_resume=not problems and status not in ("completed", "running") and (folder / CHECKPOINT).is_file(),
    )


def _status(record: Mapping[str, Any]) -> str:
    status = str(record.get("status", "unknown"))[:40]
    if status == "RUNNING":
        heartbeat = _time(record.get("heartbeat")) or _time(record.get("start_time"))
        if heartbeat is not None and time.time() - heartbeat.timestamp() > _SILENCE:
            return _LOST
    return _STATUS.get(status, status.lower())


def _error_of(record: Mapping[str, Any]) -> str | None:
    """The last line of the traceback that Sacred keeps of a failed run."""
    trace = record.get("fail_trace")
    lines = [line.strip() for line in trace if isinstance(line, str)] if isinstance(trace, list) else []
    return lines[-1].splitlines()[0][:300] if lines and lines[-1] else None


def _commit(record: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The commit in Sacred's record, and whether the code had other changes."""
    experiment = record.get("experiment")
    repositories = experiment.get("repositories") if isinstance(experiment, dict) else None
    for repository in repositories if isinstance(repositories, list) else ():
        if isinstance(repository, dict) and isinstance(repository.get("commit"), str):
            return repository["commit"][:40], repository.get("dirty") is True
    return None, False


def _started(folder: Path, record: Mapping[str, Any]) -> str | None:
    """When a run started; of a damaged one, when its folder changed."""
    start = _time(record.get("start_time"))
    if start is None:
        try:
            start = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        except OSError:
            return None
    return start.isoformat(timespec="seconds")


def _time(text: object) -> datetime | None:
    """Read a time as Sacred writes it, in UTC without saying so."""
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    except ValueError:
        return None


def _source(folder: Path, places: Mapping[Path, str]) -> str | None:
    """The run whose weights a run started from; a weights file of no such run is named by its path."""
    try:
        source = read_dictionary(folder / "info.json").get("source")
    except ValueError:
        return None
    weights = source.get("weights") if isinstance(source, dict) else None
    if not isinstance(weights, str) or not weights:
        return None
    where = Path(weights).parent
    if where in places:
        return places[where]
    moved = [place for place in places.values() if _ends_with(where.parts, place.split("/"))]
    return max(moved, key=len, default=weights)


def _ends_with(parts: Sequence[str], end: Sequence[str]) -> bool:
    """Tell whether a path ends with ``results/NAME/NUMBER``: the results may have been moved since."""
    return list(parts[-len(end) - 1 :]) == [RESULTS, *end]
