"""What docs/guarantees.md promises, tried with real processes that are killed, starved and doubled.

``python -m pytest -m '' tests/cli/test_promises.py`` is the whole drill.
"""

import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import experiment
from bbb import data, runs
from bbb.networks import load_weights, save_weights
from bbb.runs import checkpoint, folders
from bbb.system import InputError
from tests import tasks
from tests.tasks import REPOSITORY, wait_for

TASK = ["dataset=digits8x8", "num_hidden=64", "num_test_samples=3", "num_threads=1", "checkpoint_minutes=0.001"]
RUN = [sys.executable, str(REPOSITORY / "experiment.py"), "with", "blundell", *TASK, "num_epochs=60"]
SHORT = [*RUN[:-1], "num_epochs=2"]
NUM_KILLS = 5  # in each of three tests, which can run side by side


def finish(process):
    """Wait for a process; returns its exit status and what it wrote on standard error."""
    error = process.communicate(timeout=300)[1]
    return process.returncode, error


def start(*words, command=RUN, **kwargs):
    kwargs = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, **kwargs}
    return subprocess.Popen([*command, *words], **kwargs)


def complete(*words, **kwargs):
    assert finish(start(*words, **kwargs)) == (0, "")


def ends_of(folder):
    """What two runs of one configuration must agree on to the last bit."""
    weights = {name: value.tolist() for name, value in load_file(folder / runs.WEIGHTS).items()}
    metrics = json.loads((folder / "metrics.json").read_text())
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "COMPLETED"
    assert not (folder / runs.CHECKPOINT).exists()
    log = [line.rpartition(" | ")[0] for line in (folder / "log.txt").read_text().splitlines()]
    scores = {**record["result"], "seconds": None}
    metrics["train.seconds"]["values"] = None
    return weights, {name: (metric["steps"], metric["values"]) for name, metric in metrics.items()}, scores, log


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """A run that nothing happened to: its end, and its seconds from its folder and from its first checkpoint on."""
    cwd = tmp_path_factory.mktemp("whole")
    process = start(cwd=cwd)
    folder = cwd / "results" / "blundell" / "1"
    begins = []
    for path in (folder, folder / runs.CHECKPOINT):
        wait_for(path.exists)
        begins.append(time.monotonic())
    assert finish(process) == (0, "")
    end = time.monotonic()
    return ends_of(folder), [end - begin for begin in begins]


@pytest.fixture(scope="module")
def whole(timed):
    return timed[0]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The files of a run that was killed after its first checkpoint."""
    cwd = tmp_path_factory.mktemp("stopped")
    process = start(cwd=cwd)
    folder = cwd / "results" / "blundell" / "1"
    wait_for((folder / runs.CHECKPOINT).exists)
    process.kill()
    process.communicate()
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_run_killed_at_any_instant_and_resumed_ends_as_one_never_killed(in_tmp, timed, seed):
    """Every other kill comes after the first checkpoint, and one right after it: that run is left to resume."""
    whole, seconds = timed
    instants, killed, resumed = random.Random(seed), 0, 0
    while killed < NUM_KILLS:
        folder = in_tmp / "results" / f"killed{killed}" / "1"
        name = f"experiment_name={folder.parent.name}"
        shutil.rmtree(folder.parent, ignore_errors=True)
        process = start(name)
        late = killed % 2
        wait_for((folder / runs.CHECKPOINT if late else folder).exists)
        instant = instants.uniform(0.0, seconds[late])
        time.sleep(0.0 if killed == 1 else instant)
        process.kill()
        if finish(process)[0] == 0:
            continue  # it had ended before
        killed += 1
        status, error = finish(start(name, "resume=True"))
        if status == 0:
            resumed += 1
        elif (folder / "run.json").exists() and json.loads((folder / "run.json").read_text())["status"] == "COMPLETED":
            assert "there is no unfinished run" in error
            folders.finish(folder)  # nothing is lost, but that was left to do
        else:  # killed before there was anything to resume
            assert error.startswith("error: resume=True: there is no unfinished run in")
            complete(name)
            folder = folder.with_name("2") if folder.exists() else folder
        assert ends_of(folder) == whole
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        assert (folder.parent / runs.WEIGHTS).read_bytes() == (folder / runs.WEIGHTS).read_bytes()
    assert resumed


@pytest.mark.slow
def test_runs_of_one_name_started_at_the_same_instant_all_complete(in_tmp):
    processes = [start(f"seed={seed}", command=SHORT) for seed in range(3)]
    assert [finish(process) for process in processes] == [(0, "")] * 3
    experiment_folder = in_tmp / "results" / "blundell"
    folders = [experiment_folder / str(number) for number in (1, 2, 3)]
    assert sorted(json.loads((folder / "config.json").read_text())["seed"] for folder in folders) == [0, 1, 2]
    assert len({str(ends_of(folder)) for folder in folders}) == 3
    latest = experiment_folder / "latest"
    for name in runs.PUBLISHED:
        assert (experiment_folder / name).read_bytes() == (latest / name).read_bytes()


@pytest.mark.slow
def test_two_processes_that_resume_one_run_do_not_both_write(in_tmp, whole):
    folder = in_tmp / "results" / "blundell" / "1"
    process = start()
    wait_for((folder / runs.CHECKPOINT).exists)
    process.send_signal(signal.SIGSTOP)  # at work, however slow
    (line,) = finish(start("resume=True"))[1].splitlines()
    assert re.match(r"error: .*/1: another process is at work on this run", line)
    process.kill()
    process.communicate()
    ends = sorted(finish(process) for process in [start("resume=True"), start("resume=True")])
    assert ends[0] == (0, "")
    assert ends[1][0] == 1
    assert re.match(r"error: .*(another process|there is no unfinished run).*\n$", ends[1][1])
    assert ends_of(folder) == whole


@pytest.mark.slow
@pytest.mark.parametrize("quota", [40, 1_000, 5_000, 20_000, 60_000, 150_000])
def test_a_full_disk_ends_a_run_in_one_line_and_leaves_other_runs_alone(in_tmp, quota):
    """A quota on the size of a file stands for the disk: every larger write fails, at the byte where it is full."""
    complete(command=SHORT)
    experiment_folder = in_tmp / "results" / "blundell"
    kept = {path: path.read_bytes() for path in experiment_folder.rglob("*") if path.is_file()}

    def starve():
        resource.setrlimit(resource.RLIMIT_FSIZE, (quota, quota))

    status, error = finish(start("seed=2", command=SHORT, preexec_fn=starve))
    assert status == 1
    (line,) = error.splitlines()
    assert re.match(r"error: .*(cannot be written|results cannot be written there).*File too large", line)
    assert {path: path.read_bytes() for path in kept} == kept
    stopped = (experiment_folder / "2" / runs.CHECKPOINT).exists()
    complete("seed=2", *(["resume=True"] if stopped else []), command=SHORT)
    ends_of((experiment_folder / "latest").resolve())


def damages(content, number):
    """Damaged copies of a file: bytes changed, and ends cut off, all over it."""
    places = sorted({round(i * (len(content) - 1) / (number - 1)) for i in range(number)})
    for place in places:
        for flip in (0x01, 0xFF):
            changed = bytearray(content)
            changed[place] ^= flip
            yield bytes(changed)
        yield content[:place]


@pytest.mark.parametrize("num_flows", [0, 2])
def test_damaged_weights_are_refused_or_still_say_the_same(tmp_path, num_flows):
    path = tmp_path / runs.WEIGHTS
    network = tasks.network(0, num_flows)
    save_weights(path, network, {"dataset": "mnist", "digits": [0, 1, 2]})
    sound, about = network.posterior.state_dict(), load_weights(path)[1]
    for content in damages(path.read_bytes(), 60):
        path.write_bytes(content)
        try:
            loaded, told = load_weights(path)
        except InputError as error:
            assert str(path) in str(error)  # noqa: PT017 (most are refused, a changed blank may be read)
            continue
        assert told == about
        assert all(torch.equal(value, sound[name]) for name, value in loaded.posterior.state_dict().items())


def test_damaged_checkpoints_are_refused(tmp_path):
    path = tmp_path / runs.CHECKPOINT
    checkpoint.save_state(path, {"done": [1, 2, 3], "posterior": torch.randn(500)})
    for content in damages(path.read_bytes(), 60):
        path.write_bytes(content)
        with pytest.raises(InputError, match=runs.CHECKPOINT):
            checkpoint.load_state(path, torch.device("cpu"))


@pytest.mark.parametrize("name", ["run.json", "config.json", runs.CHECKPOINT])
def test_a_stopped_run_with_a_damaged_file_is_refused_or_resumed_to_the_same_end(in_tmp, whole, stopped, capsys, name):
    folder = in_tmp / "results" / "blundell" / "1"
    for content in damages(stopped[name], 4):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file, kept in {**stopped, name: content}.items():
            (folder / file).write_bytes(kept)
        try:
            experiment.command_line(["experiment.py", *RUN[2:], "resume=True"])
        except SystemExit as stop:
            assert re.fullmatch(r"error: .*", stop.code)  # noqa: PT017 (it may as well be read)
            assert {**stopped, name: content} == {
                path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"
            }
        else:
            assert ends_of(folder) == whole
        assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_damaged_mnist_files_are_refused(tmp_path, mnist_dir):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(mnist_dir / "MNIST" / "raw", raw, ignore=shutil.ignore_patterns("*.gz"))
    for path in sorted(raw.glob("*-ubyte")):
        content = path.read_bytes()
        for damaged in damages(content, 5):
            path.write_bytes(damaged)
            with pytest.raises(InputError, match=f"{path.name}: damaged"):
                data.load("mnist", tmp_path)
        path.write_bytes(content)
