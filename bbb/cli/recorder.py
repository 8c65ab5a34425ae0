"""Sacred's record of a run, in the folder that the run has locked."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sacred.observers import FileStorageObserver
from sacred.serializer import flatten

from bbb.runs import RESULTS, OpenRun, open_run
from bbb.system import InputError, StorageError, write_aside, writing


class Recorder(FileStorageObserver):
    """Sacred's record of a run; the folder is opened by the run itself.

    What Sacred reports before the run has a folder is kept in memory, so a refused run leaves no files. Each file is
    written in one atomic step. If writing fails during a run, the next heartbeat tries again; ``problem`` is the error
    of the last attempt. The folder stays open and locked until Sacred has reported how the run ended. So the end is
    recorded before the checkpoint is removed or another process takes over.
    """

    def __init__(self) -> None:
        super().__init__(RESULTS, priority=math.inf)  # type: ignore[arg-type]  # before any server that may be slow
        self._reset()

    def _reset(self) -> None:
        self.problem: StorageError | None = None
        self.dir = None
        self._has_begun = False  # the record; Sacred's heartbeat comes from a thread of its own, at any moment
        self._run: OpenRun | None = None
        self._closing = ExitStack()
        self._start: dict[str, Any] = {}
        self._metrics: dict[str, dict[str, list[Any]]] = {}

    def open(self, experiment_name: str) -> OpenRun:
        """Open the folder of the run that Sacred has started, until it has ended.

        Raises:
            bbb.runs.ResultsError: a link in the path leads out of the results folder.
        """
        self._run = self._closing.enter_context(open_run(experiment_name))
        self.basedir, self.source_dir = str(self._run.experiment), Path(RESULTS) / "_sources"
        return self._run

    @property
    def run_folder(self) -> Path | None:
        """The folder that holds the record; None before the record is started."""
        return Path(self.dir) if self.dir is not None else None

    def record(self, info: Mapping[str, Any]) -> None:
        """Start the record in the run's folder, which is made if it is new.

        Args:
            info: what the run read; it is there before the first checkpoint, since resuming needs it.

        Raises:
            bbb.system.StorageError: it cannot be written; a new folder is removed.
        """
        if self._run is None:
            raise RuntimeError("the run has not been opened")
        folder = self._run.make()
        try:
            with writing(folder):
                super().started_event(**self._start)
                if info:
                    self.save_json(info, "info.json")
            self._has_begun = True
        except InputError:
            self.dir = None
            self._run.discard()
            raise

    def started_event(self, **start: Any) -> None:  # type: ignore[override]  # Sacred names all arguments
        """Keep in memory what the record will start with."""
        self._reset()
        self._start = start

    def log_metrics(self, metrics_by_name: dict[str, dict[str, list[Any]]], info: dict[str, Any]) -> None:
        """Take new measurements, to be written with the heartbeat."""
        for name, new in metrics_by_name.items():
            kept = self._metrics.setdefault(name, {"values": [], "steps": [], "timestamps": []})
            kept["values"] += new["values"]
            kept["steps"] += new["steps"]
            kept["timestamps"] += [time.isoformat() for time in new["timestamps"]]

    def heartbeat_event(self, *args: Any, **kwargs: Any) -> None:
        """Write what has been measured and printed, and the record."""
        if not self._has_begun:
            return
        with self._noting_problems():
            if self._metrics:
                self.save_json(self._metrics, "metrics.json")
            super().heartbeat_event(*args, **kwargs)

    def artifact_event(self, name: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """List a file that the run has made; it is copied if it does not lie in the run's folder."""
        if not self._has_begun:
            return
        if Path(filename).resolve().parent != self._folder().resolve():
            with writing(self._folder() / name):
                super().artifact_event(name, filename)
        elif self.run_entry is not None:
            self.run_entry["artifacts"].append(name)  # written with the result

    def completed_event(self, *args: Any, **kwargs: Any) -> None:
        """Record the result, and only then remove the checkpoint."""
        self._end(super().completed_event, *args, is_complete=True, **kwargs)

    def interrupted_event(self, *args: Any, **kwargs: Any) -> None:
        """Record that the run was interrupted."""
        self._end(super().interrupted_event, *args, **kwargs)

    def failed_event(self, *args: Any, **kwargs: Any) -> None:
        """Record that the run failed."""
        self._end(super().failed_event, *args, **kwargs)

    def save_json(self, obj: Any, filename: str) -> None:
        """Write a JSON file in one atomic step."""
        write_aside(self._folder() / filename, json.dumps(flatten(obj), sort_keys=True, indent=2).encode())

    def save_cout(self) -> None:
        """Append what was printed."""
        with writing(self._folder() / "cout.txt"):
            super().save_cout()

    def find_or_save(self, filename: str, store_dir: Path) -> Path:
        """Keep a source file under its name and checksum."""
        path = Path(filename)
        content = path.read_bytes()
        kept = store_dir / f"{path.stem}_{hashlib.md5(content).hexdigest()}{path.suffix}"
        if not kept.exists():
            store_dir.mkdir(parents=True, exist_ok=True)
            write_aside(kept, content)
        return kept

    def _folder(self) -> Path:
        if self.dir is None:
            raise RuntimeError("the record has not been started")
        return Path(self.dir)

    def _make_run_dir(self, _id: str | None) -> None:
        self.dir = str(self._run.folder) if self._run is not None else None

    def _end(self, write: Callable[..., None], *args: Any, is_complete: bool = False, **kwargs: Any) -> None:
        """Record how a run ended, then release its folder."""
        with self._closing:
            if not self._has_begun or self._run is None:
                return
            with self._noting_problems():
                write(*args, **kwargs)
                if is_complete:
                    self._run.complete()

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
            self.problem = None
        except StorageError as problem:
            self.problem = problem
