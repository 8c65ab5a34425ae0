"""Data parallel training: real processes, on the CPU, with Gloo."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from bbb.distributions import NoiseTable, scale_mixture_prior
from bbb.inference import Step
from bbb.system import ALONE, joined
from tests.tasks import CPU, PLAN, REPOSITORY, THREE_CLASSES, network, seeded, wait_for


class SameNoise(NoiseTable):
    """A table whose windows are at the same place in all processes."""

    def __init__(self, generator, num_uses, window, group):
        super().__init__(generator, num_uses, window)


def gradients(split, group, table=None):
    trained = network(1)
    prior = scale_mixture_prior(trained.posterior.dim, 0.5, 1.0, 0.1)
    parameters = list(trained.posterior.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    step = Step(trained, THREE_CLASSES, prior, PLAN, [seeded(2)], split, optimizer, group)
    if table is not None:
        step.tables = [table(seeded(2), 16, trained.posterior.dim, group)]
    cost, measured = step.gradient(split.images, split.labels, 0.3)
    return [p.grad for p in parameters], cost, measured


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def work(rank, size, port, folder, split, table):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    with joined(CPU) as group:
        torch.save(gradients(split, group, table), folder / f"{rank}.pt")


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_averaged_gradient_is_that_of_a_single_process_with_the_same_noise(size, toy_split, tmp_path):
    mp.spawn(work, (size, free_port(), tmp_path, toy_split, SameNoise), nprocs=size)
    expected = gradients(toy_split, ALONE)
    for rank in range(size):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_each_process_has_noise_of_its_own_and_all_have_the_same_gradient(toy_split, tmp_path):
    mp.spawn(work, (2, free_port(), tmp_path, toy_split, None), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = gradients(toy_split, ALONE)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first[0], second[0], strict=True))
    assert not torch.allclose(first[0][0], alone[0][0])
    assert torch.allclose(first[1], alone[1], rtol=0.1)  # the cost, which differs by its noise alone


ARGUMENTS = ["with", "blundell", "dataset=digits8x8", "num_hidden=16", "num_test_samples=5", "num_threads=1"]


def torchrun(folder, *changes):
    """Start two processes of an experiment; the launcher itself may print what it likes to standard error."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(REPOSITORY / "experiment.py"), *ARGUMENTS, *changes]
    environment = {key: value for key, value in os.environ.items() if key != "BBB_DATA_DIR"} | {"OMP_NUM_THREADS": "1"}
    with open(folder / "log", "w") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)


def process_of_rank(rank, launcher):
    """Find the process that the launcher gave a rank."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            parent = re.search(r"PPid:\t(\d+)", Path(f"/proc/{pid}/status").read_text())[1]
        except OSError:
            continue
        if f"RANK={rank}".encode() in environment and int(parent) == launcher.pid:
            return int(pid)
    return None


@pytest.mark.slow
def test_two_processes_train_record_once_stop_together_and_resume(tmp_path):
    run = torchrun(tmp_path, "num_epochs=4000", "experiment_name=two")
    record = tmp_path / "results" / "two" / "1"
    wait_for(lambda: (record / "log.txt").is_file() and len((record / "log.txt").read_text().splitlines()) > 2)
    os.kill(process_of_rank(1, run), signal.SIGINT)  # the other process learns of it
    run.wait(60)
    assert "stopped; the same command with resume=True goes on" in (tmp_path / "log").read_text()
    num_done = len((record / "log.txt").read_text().splitlines())
    # The same configuration but for its length cannot be resumed; so it is stopped once more, and by its first process.
    run = torchrun(tmp_path, "num_epochs=4000", "experiment_name=two", "resume=True")
    wait_for(lambda: len((record / "log.txt").read_text().splitlines()) > num_done + 2)
    os.kill(process_of_rank(0, run), signal.SIGTERM)
    run.wait(60)
    assert (record / "checkpoint.pt").is_file()
    assert [path.name for path in (tmp_path / "results" / "two").iterdir()] == ["1"]


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_run_with_a_line(lost, tmp_path):
    run = torchrun(tmp_path, "num_epochs=4000", "experiment_name=lost")
    record = tmp_path / "results" / "lost" / "1"
    wait_for(lambda: (record / "log.txt").is_file() and len((record / "log.txt").read_text().splitlines()) > 2)
    os.kill(process_of_rank(lost, run), signal.SIGKILL)
    assert run.wait(60) != 0
    assert "error: another process of this run has ended" in (tmp_path / "log").read_text()
    assert (record / "checkpoint.pt").is_file()


@pytest.mark.slow
def test_the_result_is_that_of_the_first_process_and_bad_input_is_told_once(tmp_path):
    assert torchrun(tmp_path, "num_epochs=2", "experiment_name=done").wait(90) == 0
    text = (tmp_path / "log").read_text()
    assert text.count("epoch 2/2") == text.count("test set: error ") == 1
    assert (tmp_path / "results" / "done" / "weights.safetensors").is_file()
    assert torchrun(tmp_path, "lr=-1").wait(90) != 0
    assert (tmp_path / "log").read_text().count("error: lr=-1") == 1
