"""An observer that cannot harm a run: it is tried before training, and if it fails later the run goes on."""

import copy
import logging
import re
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from sacred.observers import MongoObserver, RunObserver, S3Observer

from bbb.system import InputError

PATIENCE = 60.0  # seconds to wait for a server that has not answered the last event yet


class Guarded(RunObserver):
    """Passes on to an observer what Sacred reports of a run, from :meth:`begin` on.

    What the observer does not take is kept, and the next event tries again. What is missing when the run has ended is
    said in one line. If an observer has no place for metrics, they go into its ``info``.

    Args:
        name: what users call it.
        make: makes the observer.
        priority: Sacred tells the observers of the highest priority first.

    Attributes:
        folder: the run's folder, once there is one; it is in the observer's ``info``.
    """

    def __init__(self, name: str, make: Callable[[], RunObserver], priority: float) -> None:
        self.name, self.priority = name, priority  # type: ignore[assignment]  # Sacred declares an integer, and negates it
        self.folder: Path | None = None
        self._make = make
        self._observer: RunObserver | None = None
        self._turn = threading.Lock()  # Sacred's heartbeat comes from a thread of its own
        self._problem = ""  # the first since the observer took everything
        self._start: dict[str, Any] = {}
        self._info: dict[str, Any] = {}
        self._since: int | None = None  # the first epoch whose metrics may be missing
        self._metrics: list[dict[str, dict[str, Any]]] = []
        self._files: list[tuple[str, dict[str, Any]]] = []
        self._beat: dict[str, Any] = {}
        self._end: tuple[str, dict[str, Any]] | None = None

    def begin(self) -> None:
        """Make the observer, and let it start its record.

        Raises:
            bbb.system.InputError: it cannot.
        """
        observer = None
        try:
            observer = self._make()
            observer.started_event(**self._start)
        except Exception as error:  # whatever a driver, or an observer of the user's own, raises
            logging.getLogger("bbb").debug("%s", self.name, exc_info=True)
            with suppress(Exception):  # it may not even be able to end
                (observer or RunObserver()).join()
            raise InputError(
                f"{self.name}: cannot keep a record of this run ({_reason(error)}); mend it, or leave it away"
            ) from None
        self._observer = observer

    def started_event(self, **start: Any) -> None:  # type: ignore[override]  # Sacred names all arguments
        """Keep in memory what the record will start with."""
        self._start = {**start, "ex_info": copy.deepcopy(start["ex_info"])}  # other observers change it

    def log_metrics(self, metrics_by_name: dict[str, dict[str, Any]], info: dict[str, Any]) -> None:
        """Take new measurements, to be passed on with the heartbeat."""
        if metrics_by_name:
            self._metrics.append(dict(metrics_by_name))

    def heartbeat_event(self, **beat: Any) -> None:  # type: ignore[override]  # as above
        """Pass on what has been measured and printed."""
        self._beat = beat
        self._try(self._pass_on)

    def artifact_event(self, **file: Any) -> None:  # type: ignore[override]  # as above
        """Pass on a file that the run has made."""
        self._take_file("artifact_event", file)

    def resource_event(self, **file: Any) -> None:  # type: ignore[override]  # as above
        """Pass on a file that the run has read."""
        self._take_file("resource_event", file)

    def completed_event(self, **end: Any) -> None:  # type: ignore[override]  # as above
        """Pass on the result."""
        self._end = "completed_event", end
        self._try(self._pass_on)

    def interrupted_event(self, **end: Any) -> None:  # type: ignore[override]  # as above
        """Pass on that the run was interrupted."""
        self._end = "interrupted_event", end
        self._try(self._pass_on)

    def failed_event(self, **end: Any) -> None:  # type: ignore[override]  # as above
        """Pass on that the run failed."""
        self._end = "failed_event", end
        self._try(self._pass_on)

    def join(self) -> None:
        """Wait for the observer after the end, and say in one line what it did not take."""
        if self._observer is None:
            return
        self._try(lambda observer: observer.join())
        self._observer = None  # and the files and connections that it holds
        if missing := self._missing():
            place = f"; {self.folder} has everything" if self.folder is not None else ""
            line = f"warning: {self.name}: failed during the run ({self._problem}); its record misses {missing}{place}"
            print(line, file=sys.stderr)

    def _take_file(self, event: str, file: dict[str, Any]) -> None:
        self._files.append((event, file))
        if not self._problem:  # else it waits for the next heartbeat: looking for a lost server takes seconds
            self._try(self._pass_on)

    def _try(self, act: Callable[[RunObserver], None]) -> None:
        if self._observer is None:
            return
        if not self._turn.acquire(timeout=PATIENCE):
            self._problem = self._problem or f"no answer for {PATIENCE:.0f} seconds"
            return
        try:
            act(self._observer)
        except Exception as error:  # whatever a driver raises; the run goes on
            logging.getLogger("bbb").debug("%s", self.name, exc_info=True)
            self._problem = self._problem or _reason(error)
        finally:
            self._turn.release()

    def _pass_on(self, observer: RunObserver) -> None:
        """Let the observer take what it has not taken yet, in the order in which Sacred reports it."""
        if isinstance(observer, MongoObserver):
            observer.runs.database.command("ping")  # its own attempts to save take a minute, and are not all reported
        while self._metrics:
            self._pass_on_metrics(observer, self._metrics[0])
            del self._metrics[0]
        while self._files:
            event, file = self._files[0]
            getattr(observer, event)(**file)
            del self._files[0]
        if self._beat:
            beat = self._beat
            if isinstance(observer, S3Observer):
                observer.cout_write_cursor = 0  # it replaces the file each time, by what it has not written yet
            self._info |= {key: value for key, value in beat["info"].items() if key != "metrics"}
            self._info |= {"folder": str(self.folder)} if self.folder is not None else {}
            observer.heartbeat_event(**{**beat, "info": self._info})
            self._beat = {} if self._beat is beat else self._beat
        if self._end is not None:
            event, end = self._end
            getattr(observer, event)(**end)
            self._end = None
        self._since, self._problem = None, ""

    def _pass_on_metrics(self, observer: RunObserver, metrics: dict[str, dict[str, Any]]) -> None:
        """Pass on one metric at a time, so that none is passed on twice if the next fails."""
        if self._since is None:
            self._since = min(metric["steps"][0] for metric in metrics.values())
        while metrics:
            name = next(iter(metrics))
            if type(observer).log_metrics is not RunObserver.log_metrics:
                observer.log_metrics(metrics_by_name={name: metrics[name]}, info=self._info)
            else:
                kept = self._info.setdefault("metrics", {}).setdefault(name, {"steps": [], "values": []})
                for part, values in kept.items():
                    values += metrics[name][part]
            del metrics[name]

    def _missing(self) -> str:
        waiting = [metric["steps"][0] for metrics in self._metrics for metric in metrics.values()]
        since = [self._since] if self._since is not None else waiting
        parts = [f"the metrics from epoch {min(since)} on"] if since else []
        parts += [str(file.get("name", file["filename"])) for _, file in self._files]
        parts += ["the result and how it ended"] if self._end is not None else []
        return ", ".join(parts)


def without_password(text: str) -> str:
    """Replace the password in an address by stars."""
    return re.sub(r"(?i)(password=)[^&\s]*", r"\1***", re.sub(r"(://[^/@:\s]*):[^/\s]*@", r"\1:***@", text))


def _reason(error: Exception) -> str:
    """Shorten what an error says to one line."""
    lines = without_password(str(error)).strip().splitlines() or [type(error).__name__]
    return f"{' '.join(lines[0].split()):.200}"
