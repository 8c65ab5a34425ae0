"""Make many runs at once, in the processes of a Dask cluster: a local one, or one that is already running.

A worker's process makes each run by the project's own command line. So the run leaves the same record as any other, and
it ends when its worker dies. A run that failed, or whose worker died, is made once more, from its last checkpoint.
"""

import contextlib
import logging
import multiprocessing.resource_tracker
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbb.runs import Run
from bbb.studies.grid import Job, find_completed, log_of
from bbb.studies.worker import TRIES, last_error, num_tries
from bbb.system import InputError, num_cores

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

# No web pages. Their server still takes a port: any free one, since Dask warns if it is in use, as by a second grid.
NO_DASHBOARD = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
INNOCENT = 10  # times that a run may be lost with a worker that died before the run began


class ClusterError(InputError):
    """A scheduler that cannot be used."""


@dataclass(frozen=True)
class Failure:
    """A run that was not completed: the reason, and the log with more."""

    job: Job
    reason: str
    log: Path | None


def make_runs(
    todo: Sequence[Job],
    completed: Mapping[Job, Run],
    entry: Path,
    scheduler: str | None = None,
    on_end: Callable[[Job, Failure | None], None] = lambda job, failure: None,
) -> list[Failure]:
    """Make runs, each after its source is completed.

    Args:
        todo: the runs to make; the source of each is among them or completed.
        completed: earlier runs, from which some of them start.
        entry: the Python file whose ``command_line`` makes a run.
        scheduler: the address of a Dask scheduler, whose workers must see this folder under the same path; None for
            processes of this machine, as many as it has cores for.
        on_end: called when a run is completed or given up.

    Returns:
        The runs that were not completed.

    Raises:
        ClusterError: Dask is not installed, no scheduler answers, or its workers have several threads.
        KeyboardInterrupt: Ctrl-C; the runs in progress were stopped too.
    """
    if not todo:
        return []
    if find_spec("distributed") is None:
        raise ClusterError("many runs at once need Dask, which is not installed; run: pip install distributed")
    num_workers, num_threads = _shape(todo, scheduler)
    waiting = [job for job in todo if job.source is not None and job.source not in completed]
    failures: list[Failure] = []
    with _removing_empty_folders({log_of(job).parent for job in todo}), _client(scheduler, num_workers) as client:
        queue = _Queue(client, entry, num_threads)
        for job in todo:
            if job not in waiting:
                queue.add(job.placed(completed.get(job.source) if job.source else None), job)
        for placed, job, failure in queue:
            failures += [failure] if failure else []
            on_end(job, failure)
            released = [waiter for waiter in waiting if waiter.source is job]
            source = find_completed([placed]).get(placed) if released else None
            if source is not None:
                for waiter in released:
                    queue.add(waiter.placed(source), waiter)
                continue
            for waiter in _behind(job, waiting):
                words = " ".join(waiter.source.words) if waiter.source is not None else ""
                failures.append(Failure(waiter, f"what it starts from is missing: {words}", None))
                on_end(waiter, failures[-1])
    return failures


def _behind(job: Job, waiting: Sequence[Job]) -> Iterator[Job]:
    """Yield the runs that start from a run, and those that start from them."""
    for waiter in waiting:
        if waiter.source is job:
            yield waiter
            yield from _behind(waiter, waiting)


class _Queue:
    """Runs that were submitted to Dask; iterates over them as they end, with the failure if one is given up.

    Each is given twice: with ``pretrained`` set to its source's folder, and as it was wanted.
    """

    def __init__(self, client: "Client", entry: Path, num_threads: int) -> None:
        from distributed import as_completed

        self.client, self.entry, self.num_threads = client, entry, num_threads
        self.ending = as_completed(loop=client.loop)
        self.jobs: dict[Future[None], tuple[Job, Job]] = {}
        self.deaths: Counter[Job] = Counter()
        self.errors: Counter[Job] = Counter()

    def add(self, placed: Job, job: Job) -> None:
        """Submit a run to Dask; ``placed`` is the job with ``pretrained`` set to its source's folder."""
        log = log_of(placed)
        if self.deaths[job] == self.errors[job] == 0:  # an existing log is from an earlier grid
            log.unlink(missing_ok=True)
        config = dict(placed.config)
        if config["num_threads"] is None:
            config["num_threads"] = self.num_threads
        task = _task(self.entry.parent, Path.cwd())
        future = self.client.submit(task, self.entry, config, log, pure=False)
        self.jobs[future] = placed, job
        self.ending.add(future)

    def __iter__(self) -> Iterator[tuple[Job, Job, Failure | None]]:
        for future in self.ending:
            placed, job = self.jobs.pop(future)
            if future.status == "finished" or placed in find_completed([placed]):  # its worker died after completing it
                yield placed, job, None
            elif future.status == "lost":  # the same, but no record is visible yet; Dask repeats the run
                self.jobs[future] = placed, job
                self.ending.add(future)
            elif future.status == "error" and self._may_try_again(placed, job, future.exception()):
                self.add(placed, job)
            else:
                log = log_of(placed)
                reason = _reason(future.exception(), log) if future.status == "error" else "the scheduler is gone"
                yield placed, job, Failure(job, reason, log if log.exists() else None)

    def _may_try_again(self, placed: Job, job: Job, error: BaseException) -> bool:
        """Tell whether a run may begin once more.

        A run may begin :data:`TRIES` times, and may fail before it begins as many times. If a worker dies, the runs
        that wait for it are lost too. They had not begun, so they are submitted again, :data:`INNOCENT` times at most.
        """
        counts, limit = (self.deaths, INNOCENT) if _is_death(error) else (self.errors, TRIES)
        counts[job] += 1
        return num_tries(log_of(placed)) < TRIES and counts[job] < limit


@contextlib.contextmanager
def _removing_empty_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Remove folders of logs in the end, except those with the log of a run that failed or was stopped."""
    try:
        yield
    finally:
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _is_death(error: BaseException) -> bool:
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)


def _reason(error: BaseException, log: Path) -> str:
    return last_error(log) or "its worker died" if _is_death(error) else str(error)


def _task(repository: Path, folder: Path) -> Callable[..., None]:
    """Wrap :func:`bbb.studies.worker.work` for workers that do not know this code or folder.

    Dask sends a local function by value, so a worker needs nothing installed to read it.
    """

    def task(*args: Any) -> None:
        import os
        import sys

        if str(repository) not in sys.path:
            sys.path.insert(0, str(repository))
        os.chdir(folder)
        from bbb.studies.worker import work

        work(*args)

    return task


def _shape(todo: Sequence[Job], scheduler: str | None) -> tuple[int, int]:
    """Return how many workers this machine has cores for, and how many threads each may use."""
    if scheduler is not None:
        return 0, 1
    threads = max(job.config["num_threads"] or 1 for job in todo)
    sources = {job.source for job in todo}
    num_ends = sum(job not in sources for job in todo)  # of a chain of runs one can be made at a time
    num_workers = max(1, min(num_ends, num_cores() // threads))
    return num_workers, num_cores() // num_workers


@contextlib.contextmanager
def _client(scheduler: str | None, num_workers: int) -> Iterator["Client"]:
    """Connect to a scheduler, or start a local one with workers, which always end with this context."""
    from distributed import Client, LocalCluster  # here, since it takes a second to import

    for handler in logging.getLogger("distributed").handlers:  # some of its loggers have levels of their own
        handler.setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        with _uninterrupted():  # the workers inherit this: Ctrl-C reaches only this process, which stops them
            if scheduler is None:
                scratch = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
                cluster = LocalCluster(
                    n_workers=num_workers,
                    threads_per_worker=1,
                    memory_limit=0,
                    silence_logs=logging.CRITICAL,
                    scheduler_kwargs={"allowed_failures": 0, **NO_DASHBOARD},
                    local_directory=scratch,
                )
                stack.callback(_stop, cluster)
            try:
                client = Client(scheduler or cluster, timeout=10, set_as_default=False)
            except (OSError, ValueError) as error:
                raise ClusterError(f"scheduler={scheduler!r}: no Dask scheduler answers there ({error})") from None
            stack.callback(client.close)
        for address, threads in client.nthreads().items():
            if threads != 1:
                raise ClusterError(
                    f"scheduler={scheduler!r}: {address} has {threads} threads, and runs would share its output; start "
                    "workers as in: dask worker ADDRESS --nthreads 1 --nworkers N"
                )
        yield client


def _stop(cluster: "LocalCluster") -> None:
    """Stop workers at once; a run may be killed at any instant and continues from its last checkpoint."""
    for nanny in cluster.workers.values():
        nanny.close_gracefully()  # else it would start another worker
        if nanny.pid is not None:
            os.kill(nanny.pid, signal.SIGKILL)
    cluster.close()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Block Ctrl-C in this context, and in the processes started in it for as long as they live."""
    multiprocessing.resource_tracker.ensure_running()  # when it starts, it would unblock Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
