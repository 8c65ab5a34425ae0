"""Command lines in processes of their own: help, what is loaded for it, pipes that close, and what is printed where."""

import os
import resource
import subprocess
import sys

import pytest

from tests.tasks import REPOSITORY, SMALL, command

PYTHON = [sys.executable, str(REPOSITORY / "experiment.py")]


@pytest.mark.parametrize("words", [["help"], ["--help"], ["-h"]])
def test_help_tells_commands_and_examples(words, capsys):
    with pytest.raises(SystemExit) as stop:
        command(*words)
    assert not stop.value.code
    output = capsys.readouterr().out
    assert "python experiment.py with blundell" in output
    assert "print_config" in output


def test_a_new_process_prints_no_warning(in_tmp):
    words = [*PYTHON, "with", "blundell", *SMALL]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    done = subprocess.run([*words, "lr=-1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: lr=-1: must be a number above 0 and up to 100 (learning rate)\n"


@pytest.mark.parametrize("words", [["-m", "db"], ["-s", "sqlite://"], ["-t", "."]], ids=" ".join)
def test_an_option_without_its_package_ends_with_status_one(in_tmp, words):
    """With Python's own packages alone: those that the options need may be installed beside the requirements."""
    hide = "import sys; sys.modules.update(dict.fromkeys(['pymongo', 'sqlalchemy', 'tinydb', 'hashfs']))"
    start = f"{hide}; sys.path.insert(0, {str(REPOSITORY)!r}); import experiment; experiment.command_line(sys.argv)"
    line = [sys.executable, "-c", start, *words, "with", "blundell", *SMALL]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: --")
    assert len(done.stderr.splitlines()) == 1
    assert list(in_tmp.iterdir()) == []


WHEN_TORCH_IS_LOADED = """
import os, sys

class Finder:
    def find_spec(self, name, *rest):
        if name == "torch":
            sys.exit(os.environ.get("GOMP_SPINCOUNT"))

sys.meta_path.insert(0, Finder())
import experiment
experiment.command_line(["experiment.py", "with", "blundell", "dataset=digits8x8"])
"""


@pytest.mark.parametrize(("given", "used"), [(None, "2000"), ("7", "7")])
def test_waiting_threads_let_other_runs_have_their_cores(in_tmp, given, used):
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    environment |= {"PYTHONPATH": str(REPOSITORY)} | ({} if given is None else {"GOMP_SPINCOUNT": given})
    line = [sys.executable, "-c", WHEN_TORCH_IS_LOADED]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == f"{used}\n"


IS_TORCH_LOADED = """
import sys
import experiment
try:
    experiment.command_line(["experiment.py", *sys.argv[1:]])
except SystemExit:
    pass
print("torch" in sys.modules, file=sys.stderr)
"""
LIGHT = [["help"], ["--help"], ["help", "grid"], ["print_config", "with", "best"], ["print_named_configs"]]
LIGHT += [
    ["with", "lrr=1"],
    ["with", "lr=-1"],
    ["with", "blundel"],
    ["with", "blundell", "resume=abc"],
    ["-m", "a:b:c"],
]
LIGHT += [["grid", "with", "blundell", "grid={'lrr': [1]}"], ["figures", "with", "best"]]
LIGHT += [["demo"], ["demo", "with", "best"], ["demo", "with", "pretrained=3"]]
LIGHT += [["runs"], ["runs", "--json"], ["report"]]
LIGHT += [["regression", "seed=3"], ["bandit", "dataset=cifar10"], ["bandit", "sha256=a"], ["bandit", "lr=1"]]
LIGHT += [["prune"], ["prune", "with", "best"], ["prune", "with", "pretrained=3"], ["prune", "with", "share=2"]]


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_help_and_refusals_load_no_torch(in_tmp, words):
    line = [sys.executable, "-c", IS_TORCH_LOADED, *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == "False\n"


@pytest.mark.parametrize("words", [["help"], ["with", "lrr=1"]], ids=" ".join)
def test_help_and_refusals_are_quick(in_tmp, words):
    """The bound is generous: other work on the same cores makes them slower."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*PYTHON, *words], capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def environment_of(unbuffered):
    """The environment in which each line is printed at once, or many together."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONUNBUFFERED": "1"} if unbuffered else kept


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        ["print_config"],
        ["print_named_configs"],
        ["print_dependencies"],
        ["help"],
        pytest.param(["figures", "fast=True"], marks=pytest.mark.slow),
        ["runs", "-j"],
    ],
    ids=" ".join,
)
def test_the_first_line_can_be_read_and_the_pipe_closed(in_tmp, words, unbuffered):
    line = f"{sys.executable} {REPOSITORY / 'experiment.py'} {' '.join(words)} | head -1"
    done = subprocess.run(line, shell=True, env=environment_of(unbuffered), capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == "" or (words[0] == "figures" and done.stderr.startswith("error: "))


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        ["print_config"],
        ["print_named_configs"],
        ["help"],
        ["--help"],
        ["grid", "with", *SMALL, "grid={'seed': [1]}"],
        ["with", *SMALL],
    ],
    ids=" ".join,
)
def test_nothing_is_printed_where_nobody_reads(in_tmp, words, unbuffered):
    """The reader is gone before anything is written, so that every write fails."""
    reading, writing = os.pipe()
    os.close(reading)
    line, environment = [*PYTHON, *words], environment_of(unbuffered)
    done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode in (0, 141)
