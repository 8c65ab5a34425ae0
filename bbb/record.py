"""Sacred's record of a run. The only room that knows Sacred; nothing in the other rooms needs it."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sacred.observers import FileStorageObserver
from sacred.serializer import flatten

from bbb import files, runs
from bbb.errors import InputError, refusing_bad_input
from bbb.files import StorageError


class Recorder(FileStorageObserver):
    """Sacred's record of a run in a folder of its own, or in the folder of the run that is resumed.

    It writes each file in one move and claims the folder. What cannot be written while a run is at work is tried again
    with the next heartbeat; ``problem`` is what stood in the way of the last attempt.

    Args:
        experiment: the folder in which runs are numbered.
        unfinished: the folder of the run to resume, or None for a new one.
        sources: the folder in which the code is kept, each version once.

    Raises:
        bbb.files.BusyError: another process is at work on the run to resume.
        bbb.runs.ResultsError: another process has ended it.
    """

    def __init__(self, experiment: Path, unfinished: Path | None, sources: Path) -> None:
        super().__init__(experiment, source_dir=sources)
        self.unfinished, self.claim, self.problem = unfinished, None, None
        self.metrics: dict[str, dict[str, list]] = {}
        if unfinished is not None:
            self.claim = files.lock(unfinished)
            if not (unfinished / runs.CHECKPOINT).exists():
                runs.finish(unfinished)
                self.release()
                raise runs.ResultsError(f"resume=True: another process has just ended the run in {unfinished}")

    def release(self) -> None:
        """Give up the claim on the run's folder, if there is one."""
        if self.claim is not None:
            self.claim.release()

    def started_event(self, *args: object, **kwargs: object) -> str:
        """Start the record; where that fails, remove the folder that was just made."""
        with refusing_bad_input():
            try:
                with files.writing(Path(self.basedir)):
                    return super().started_event(*args, **kwargs)
            except InputError:
                if self.dir is not None and self.unfinished is None:
                    shutil.rmtree(self.dir, ignore_errors=True)
                self.dir = None
                raise

    def log_metrics(self, metrics_by_name: dict[str, dict[str, list]], info: dict) -> None:
        """Take new measurements, to be written with the heartbeat."""
        for name, new in metrics_by_name.items():
            kept = self.metrics.setdefault(name, {"values": [], "steps": [], "timestamps": []})
            kept["values"] += new["values"]
            kept["steps"] += new["steps"]
            kept["timestamps"] += [time.isoformat() for time in new["timestamps"]]

    def heartbeat_event(self, *args: object, **kwargs: object) -> None:
        """Write what has been measured and printed, and the record."""
        with self._noting_problems():
            if self.metrics:
                self.save_json(self.metrics, "metrics.json")
            super().heartbeat_event(*args, **kwargs)

    def completed_event(self, *args: object, **kwargs: object) -> None:
        """Record the result, and only then remove the checkpoint."""
        with self._noting_problems():
            super().completed_event(*args, **kwargs)
            runs.finish(Path(self.dir))
        self.release()

    def interrupted_event(self, *args: object, **kwargs: object) -> None:
        """Record that the run was interrupted."""
        self._end(super().interrupted_event, *args, **kwargs)

    def failed_event(self, *args: object, **kwargs: object) -> None:
        """Record that the run failed."""
        self._end(super().failed_event, *args, **kwargs)

    def save_json(self, obj: object, filename: str) -> None:
        """Write a JSON file in one move."""
        files.write_aside(Path(self.dir) / filename, json.dumps(flatten(obj), sort_keys=True, indent=2).encode())

    def save_cout(self) -> None:
        """Append what was printed."""
        with files.writing(Path(self.dir) / "cout.txt"):
            super().save_cout()

    def find_or_save(self, filename: str, store_dir: Path) -> Path:
        """Keep a source file under its name and checksum."""
        path = Path(filename)
        content = path.read_bytes()
        kept = store_dir / f"{path.stem}_{hashlib.md5(content).hexdigest()}{path.suffix}"
        if not kept.exists():
            store_dir.mkdir(parents=True, exist_ok=True)
            files.write_aside(kept, content)
        return kept

    def _make_run_dir(self, _id: str | None) -> None:
        if self.unfinished is None:
            super()._make_run_dir(_id)
            self.claim = files.lock(Path(self.dir))
        else:
            self.dir = str(self.unfinished)
            files.remove_leftovers(self.unfinished)

    def _end(self, write: Callable[..., None], *args: object, **kwargs: object) -> None:
        """Record how a run ended that was not completed; without a checkpoint there is nothing to be resumed."""
        if self.dir is None:
            return
        with self._noting_problems():
            write(*args, **kwargs)
        if not (Path(self.dir) / runs.CHECKPOINT).exists():
            runs.finish(Path(self.dir))
        self.release()

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
            self.problem = None
        except StorageError as problem:
            self.problem = problem
