"""Runs mapped over real worker processes, which fail, die, are killed and are interrupted."""

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from distributed import KilledWorker

from bbb import runs
from bbb.studies import cluster, worker
from bbb.studies.worker import RunError
from tests.tasks import REPOSITORY, job, wait_for

PYTHON = [sys.executable, str(REPOSITORY / "experiment.py")]
TASK = ["dataset=digits8x8", "num_hidden=64", "num_test_samples=3", "num_threads=1"]
# A command line that ends as the seed says: it completes, fails, dies on the first try, dies always. One that completes
# leaves a record, as a real run does: by that it is known where its worker dies before Dask tells of its end.
ENTRY = """
import ast, json, os, signal, sys
from pathlib import Path

def command_line(argv):
    config = {key: ast.literal_eval(value) for key, _, value in (word.partition("=") for word in argv[2:])}
    seed = config["seed"]
    tries = Path(f"seed={seed}")
    with open(tries, "a") as file:
        file.write("x")
    print(f"at work on seed={seed}")
    if seed == 2:
        sys.exit("error: no such luck")
    if seed == 4 or (seed == 3 and tries.read_text() == "x"):
        os.kill(os.getpid(), signal.SIGKILL)
    folder = Path("results", "default", str(seed))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "weights.safetensors").touch()
    (folder / "run.json").write_text(json.dumps({"status": "COMPLETED", "result": {}}))
"""


def test_what_fails_or_dies_is_tried_once_more_and_the_others_go_on(in_tmp, capfd):
    (in_tmp / "entry.py").write_text(ENTRY)
    jobs, ends = [job(seed=seed) for seed in range(1, 7)], []
    dependent = job(jobs[1], seed=7)
    failures = cluster.make_runs([*jobs, dependent], {}, in_tmp / "entry.py", on_end=lambda *end: ends.append(end))
    assert {each.job.config["seed"]: each.reason for each in failures} == {
        2: "no such luck",
        4: "its worker died",
        7: "what it starts from is missing: ",
    }
    assert sorted(each.config["seed"] for each, failure in ends if failure is None) == [1, 3, 5, 6]
    assert len(ends) == 7
    tries = {seed: (in_tmp / f"seed={seed}").read_text().count("x") for seed in range(1, 7)}
    assert tries == {1: 1, 2: 2, 3: 2, 4: 2, 5: 1, 6: 1}
    logs = {each.job.config["seed"]: each.log for each in failures}
    assert logs[2].read_text().count("at work on seed=2\nerror: no such luck") == 2
    assert set(logs[2].parent.iterdir()) == {logs[2], logs[4]}
    assert capfd.readouterr() == ("", "")


class Hand:
    """One hand-out of a run to Dask: whether the run begins, and what becomes of its future, one status after another.

    An error is the future's last status.
    """

    def __init__(self, *statuses, begins=True, error=None, is_recorded=False, output=""):
        self.statuses, self.error = [*statuses, *(["error"] if error else [])], error
        self.begins, self.is_recorded, self.output = begins, is_recorded, output
        self.status = "pending"

    def exception(self):
        return self.error


class Dask:
    """A stand-in for Dask's client and ``as_completed``: runs end in the order in which they were handed out."""

    loop = None

    def __init__(self, monkeypatch, *hands):
        self.hands, self.num_handed, self.ending = list(hands), 0, []
        monkeypatch.setattr("distributed.as_completed", lambda loop: self)
        monkeypatch.setattr(cluster, "_client", lambda scheduler, num_workers: contextlib.nullcontext(self))

    def submit(self, task, entry, config, log, pure):
        hand = self.hands.pop(0)
        self.num_handed += 1
        if hand.begins:
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a") as file:
                file.write(f"--- try {worker.num_tries(log) + 1} on a ---\n{hand.output}")
        if hand.is_recorded:
            folder = Path("results", "default", "1")
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps(config))
            (folder / runs.WEIGHTS).touch()
            (folder / "run.json").write_text(json.dumps({"status": "COMPLETED"}))
        if hand.is_recorded or hand.statuses[-1] == "finished":
            log.unlink(missing_ok=True)
        return hand

    def add(self, hand):
        self.ending.append(hand)

    def __iter__(self):
        while self.ending:
            hand = self.ending.pop(0)
            hand.status = hand.statuses.pop(0)
            yield hand


def death():
    return KilledWorker("task", "its worker", 0)


@pytest.mark.parametrize(
    ("hands", "reason"),
    [
        ([Hand("finished")], None),
        ([Hand(error=death(), begins=False)] * 9 + [Hand("finished")], None),
        ([Hand(error=death(), begins=False)] * cluster.INNOCENT, "its worker died"),
        ([Hand(error=death())] * 2, "its worker died"),
        ([Hand(error=death()), Hand("finished")], None),
        ([Hand(error=RunError("bad"))] * 2, "bad"),
        ([Hand(error=OSError("no folder"), begins=False)] * 2, "no folder"),
        # A run that was lost with a worker before it began still has both its tries.
        ([Hand(error=death(), begins=False), Hand(error=RunError("bad")), Hand("finished")], None),
        ([Hand(error=death(), begins=False), *[Hand(error=RunError("bad"))] * 2], "bad"),
        ([Hand(error=death()), Hand(error=RunError("bad"))], "bad"),
        # Its worker died after the run had ended and before Dask told; Dask asks for the run again by itself.
        ([Hand("lost", is_recorded=True)], None),
        ([Hand("lost", "finished")], None),
        ([Hand("lost", "lost", error=death()), Hand("finished")], None),
        ([Hand(error=death(), is_recorded=True)], None),
        # Its worker died after the run had failed and before Dask told.
        ([Hand(error=RunError("bad")), Hand(error=death(), output="a\nerror: bad\n")], "bad"),
        ([Hand(error=death(), output="error: bad\n"), Hand(error=death(), output="error\n")], "its worker died"),
        ([Hand("cancelled")], "the scheduler is gone"),
    ],
)
def test_a_run_is_tried_twice_however_often_others_take_its_worker_along(in_tmp, monkeypatch, hands, reason):
    dask = Dask(monkeypatch, *map(copy.deepcopy, hands))
    failures = cluster.make_runs([job()], {}, in_tmp / "entry.py")
    assert [failure.reason for failure in failures] == [reason] * (reason is not None)
    assert dask.num_handed == len(hands)
    logs = [failure.log for failure in failures if failure.log is not None]
    folder = Path("results", "default", "_logs")
    assert folder.exists() == bool(logs), "empty, it is removed"
    assert not logs or [*folder.iterdir()] == logs


def test_two_grids_at_once_do_not_disturb_each_other(capfd):
    with cluster._client(None, 1) as first, cluster._client(None, 1) as second:
        assert len(first.nthreads()) == len(second.nthreads()) == 1
    assert capfd.readouterr() == ("", "")


def test_a_run_that_is_completed_is_not_made_again(in_tmp):
    config = job(num_epochs=1, num_hidden=8, num_test_samples=2).config
    for _ in range(2):
        worker.work(REPOSITORY / "experiment.py", config, in_tmp / "log.txt")
    assert len(runs.find_runs(in_tmp / "results")) == 1
    assert not (in_tmp / "log.txt").exists()


def test_a_third_try_is_refused_whatever_the_scheduler_says(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("--- try 1 on a ---\n--- try 2 on b ---\n")
    with pytest.raises(RunError, match="died 2 times"):
        worker.work(tmp_path / "entry.py", {}, log)


@pytest.mark.parametrize(
    ("output", "error"),
    [
        (None, None),
        ("", None),
        ("--- try 1 on a ---\nepoch 1\n", None),
        ("--- try 1 on a ---\nepoch 1\nerror: bad\n", "bad"),
        ("--- try 1 on a ---\nerror: of before\nepoch 1\nerror: bad\nerror: worse\n", "bad\nerror: worse"),
        ("--- try 1 on a ---\nerror: bad\n--- try 2 on a ---\n", None),
        ("--- try 1 on a ---\n143\n", None),
    ],
)
def test_the_error_of_the_last_try_is_read_from_its_log(tmp_path, output, error):
    log = tmp_path / "log.txt"
    if output is not None:
        log.write_text(output)
    assert worker.last_error(log) == error


def test_threads_and_workers_share_the_cores(monkeypatch):
    monkeypatch.setattr(cluster, "num_cores", lambda: 8)
    jobs = [job(seed=seed) for seed in range(20)]
    assert cluster._shape(jobs, None) == (8, 1)
    assert cluster._shape(jobs[:3], None) == (3, 2)
    assert cluster._shape([job(num_threads=4)] * 20, None) == (2, 4)
    assert cluster._shape([job(num_threads=16)] * 20, None) == (1, 8)
    assert cluster._shape(jobs, "tcp://somewhere:8786") == (0, 1)
    first = job(seed=1)
    second = job(first, seed=2)
    assert cluster._shape([first, second, job(second, seed=3)], None) == (1, 8)  # a chain, one after the other


def start(*words, **kwargs):
    """Start a command in a session of its own, in which a terminal's Ctrl-C would reach every process."""
    return subprocess.Popen(
        [*PYTHON, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **kwargs,
    )


@pytest.fixture
def scheduler(in_tmp):
    """A scheduler and two workers on loopback, as a user starts them, in another folder than the experiment's."""
    elsewhere = in_tmp / "elsewhere"
    elsewhere.mkdir()
    options = {"stderr": subprocess.DEVNULL, "cwd": elsewhere}
    python, loopback = [sys.executable, "-m"], ["--no-dashboard", "--host", "127.0.0.1"]
    there = ["distributed.cli.dask_scheduler", *loopback, "--port", "0", "--scheduler-file", "s.json"]
    processes = [subprocess.Popen([*python, *there], **options)]
    wait_for((elsewhere / "s.json").exists)
    address = wait_for(lambda: json.loads((elsewhere / "s.json").read_text() or "{}").get("address"))
    worker = ["distributed.cli.dask_worker", *loopback, address, "--nthreads", "1", "--no-nanny"]
    processes += [subprocess.Popen([*python, *worker], **options) for _ in range(2)]
    yield address, processes[1:]
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_worker_of_a_cluster_is_killed_in_mid_run_and_all_runs_finish(in_tmp, scheduler):
    address, workers = scheduler
    lists = "grid={'seed': [1, 2, 3, 4]}"
    process = start("grid", "with", "blundell", *TASK, "num_epochs=60", lists, f"scheduler={address}")
    folder = in_tmp / "results" / "blundell"
    wait_for(lambda: len([*folder.glob("*/checkpoint.pt")]) == 2)
    workers[0].kill()
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert sorted(run.config["seed"] for run in runs.find_runs(folder) if run.folder.name != "latest") == [1, 2, 3, 4]
    assert all(run.status == "COMPLETED" for run in runs.find_runs(folder))
    assert "| 4 |" in (folder / "grid.md").read_text()
    assert out.count(": completed\n") == 4


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_no_process_and_starting_again_continues(in_tmp, number):
    words = ["grid", "with", "blundell", *TASK, "num_epochs=150", "grid={'seed': [1, 2, 3]}"]
    process = start(*words)
    folder = in_tmp / "results" / "blundell"
    at_work = min(3, cluster.num_cores())  # else one may be killed before there is anything to go on from
    wait_for(lambda: len([*folder.glob("*/checkpoint.pt")]) == at_work)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == "stopped; the same command goes on from there\n"
    wait_for(lambda: not alive(process.pid), 5)
    begun = [path.parent.name for path in folder.glob("*/checkpoint.pt")]
    again = start(*words)
    out, err = again.communicate(timeout=300)
    assert (again.returncode, err) == (0, "")
    assert out.startswith("3 runs: 0 completed before, 3 to do\n")
    for name in begun:
        assert json.loads((folder / name / "run.json").read_text())["status"] == "COMPLETED"
    assert len([path for path in folder.iterdir() if path.name.isdigit()]) == 3
    out, _ = start(*words).communicate(timeout=60)
    assert out.startswith("3 runs: 3 completed before, 0 to do\n")


def alive(session):
    """Tell whether a process of a session is there and is no zombie."""
    listed = subprocess.run(["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True, check=False)
    return [line for line in listed.stdout.split() if not line.startswith("Z")]


@pytest.mark.slow
def test_a_failing_run_is_tried_twice_and_told_with_its_log(in_tmp):
    words = ["optimizer=sgd", "prior=gaussian", "prior_std=0.000001", "num_epochs=1", "grid={'lr': [1.0e-9, 100.0]}"]
    process = start("grid", "with", "blundell", *TASK, *words)
    _, err = process.communicate(timeout=120)
    first, second = err.splitlines()
    assert process.returncode == 1
    assert first == "error: 1 of 2 runs missing; the same command tries them again"
    assert second.startswith("error: lr=100.0: epoch 1, step ")
    log = in_tmp / second.partition("; see ")[2]
    assert log.read_text().count("--- try ") == 2
    assert "| 1e-09 | 1 |" in (in_tmp / "results" / "blundell" / "grid.md").read_text()


@pytest.mark.slow
def test_a_scheduler_that_cannot_be_used_is_refused(in_tmp):
    process = start("grid", "with", "blundell", *TASK, "grid={'seed': [1]}", "scheduler=tcp://127.0.0.1:9")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("error: scheduler='tcp://127.0.0.1:9': no Dask scheduler answers there")
    assert len(err.splitlines()) == 1
