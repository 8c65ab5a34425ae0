"""The command sequence: tasks one after the other, tested on all."""

import json
import shlex

import pytest
import torch

import bbb
from bbb.distributions import Laplace
from bbb.networks import load_weights, read_about
from bbb.runs import WEIGHTS, find_runs
from bbb.studies import Retests
from tests.documentation import documented_commands
from tests.tasks import command, refused

SMALL = ["dataset=digits8x8", "num_epochs=1", "num_hidden=8", "num_test_samples=3", "num_threads=1"]
TWO = "tasks=[{'classes': [0, 1]}, {'classes': [2, 3]}]"
DOCUMENTED = [shlex.split(line)[2:] for line in documented_commands("experiment.py sequence")]


@pytest.mark.slow
@pytest.mark.parametrize("words", DOCUMENTED, ids=" ".join)
def test_every_documented_command_writes_its_files(in_tmp, words):
    words = ["seeds=[1,2]" if word.startswith("seeds=") else word for word in words]  # more take long
    command(*words, *SMALL)
    (path,) = (in_tmp / "results").glob("*/sequence.json")
    record = json.loads(path.read_text())
    assert {len(seed["accuracy"]) for seed in record["seeds"].values()} == {len(record["tasks"])}
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_they_are_documented():
    assert {"split_mnist", "permuted_mnist", "rotated_mnist"} <= {word for words in DOCUMENTED for word in words}


def test_a_sequence_is_made_of_runs_kept_heads_and_a_matrix_and_never_made_twice(in_tmp, capsys):
    words = ["sequence", "with", TWO, "prior=posterior", "head=fresh", "experiment_name=two", *SMALL]
    command(*words)
    first = capsys.readouterr().out
    assert "2 runs: 0 completed before, 2 to do" in first
    assert "| after task | 0/1 | 2/3 |" in first
    record = json.loads((in_tmp / "results/two/sequence.json").read_text())
    (seed,) = record["seeds"].values()
    assert seed["runs"] == ["results/two/task1/1", "results/two/task2/1"]
    matrix = seed["accuracy"]
    runs = {run.folder.parent.name: run for run in find_runs()}
    for i, task in enumerate(("task1", "task2")):  # each task right after its training, as its own run was tested
        assert matrix[i][i] == pytest.approx(100.0 - runs[task].result["test_error"])
    assert matrix[0][1] is None
    assert len(read_about(in_tmp / "results/two/task2/1" / WEIGHTS)["heads"]) == 1
    before = (in_tmp / "results/two/sequence.json").read_bytes()
    command(*words)
    assert "2 runs: 2 completed before, 0 to do" in capsys.readouterr().out
    assert (in_tmp / "results/two/sequence.json").read_bytes() == before
    assert len(find_runs()) == 2


def test_tasks_alone_are_tested_on_the_same_images_as_those_of_the_sequence(in_tmp, capsys):
    """Of the first task from the second on: on held-out images with validation=True, else as its run was tested."""
    words = ["sequence", "with", TWO, "prior=posterior", "head=fresh", "experiment_name=two", "alone=True", *SMALL]
    found = {}
    for on in (False, True):
        command(*words, f"validation={on}")
        record = json.loads((in_tmp / "results/two/sequence.json").read_text())
        assert record["tested_on"] == ("held-out images" if on else "test set")
        (found[on],) = record["seeds"]["1"]["alone"]
        assert "forward_transfer" in record["seeds"]["1"]["measures"]
    runs = {run.folder.parent.name: run for run in find_runs()}
    assert found[False] == pytest.approx(100.0 - runs["alone2"].result["test_error"])
    assert found[True] != found[False]


def test_one_training_on_all_tasks_is_tested_on_each_among_its_own_classes(in_tmp):
    words = ["sequence", "with", TWO, "prior=posterior", "head=fresh", "experiment_name=two", "joint=True", *SMALL]
    command(*words, "num_epochs=4", "lr=0.01")
    (seed,) = json.loads((in_tmp / "results/two/sequence.json").read_text())["seeds"].values()
    (run,) = (run for run in find_runs() if run.folder.parent.name == "joint")
    assert len(seed["joint"]) == 2
    assert seed["measures"]["joint"] == pytest.approx(sum(seed["joint"]) / 2)
    assert seed["measures"]["joint"] >= 100.0 - run.result["test_error"]  # which pair an image is of is known
    assert min(seed["joint"]) > 60.0


def test_coresets_are_trained_on_once_more_before_the_tests(in_tmp):
    turned = "tasks=[{'rotation': 0}, {'rotation': 90}]"
    words = ["sequence", "with", turned, "prior=posterior", "head=keep", "experiment_name=two", *SMALL]
    command(*words, "coreset=50", "num_epochs=10", "num_hidden=50", "temperature=0.1", "lr=0.01")
    (seed,) = json.loads((in_tmp / "results/two/sequence.json").read_text())["seeds"].values()
    by_name = {run.folder.parent.name: run for run in find_runs()}
    assert sorted(by_name) == ["coreset1", "coreset2", "task1", "task2"]
    assert seed["accuracy"][0][0] == pytest.approx(100.0 - by_name["coreset1"].result["test_error"])
    assert seed["accuracy"][0][0] > 60.0  # what has learnt nothing may score alike by chance
    assert seed["accuracy"][0][0] != pytest.approx(100.0 - by_name["task1"].result["test_error"])
    plain = Retests(in_tmp, False).matrix([by_name["task1"], by_name["task2"]])[-1]
    assert seed["measures"]["before_coresets"] == pytest.approx(sum(plain) / 2)
    assert seed["measures"]["before_coresets"] != pytest.approx(seed["measures"]["average"])


def test_elastic_weight_consolidation_is_a_sequence_of_points_with_their_curvature(in_tmp):
    words = ["sequence", "with", TWO, "prior=posterior", "posterior=laplace", "head=fresh", "experiment_name=two"]
    command(*words, *SMALL)
    (seed,) = json.loads((in_tmp / "results/two/sequence.json").read_text())["seeds"].values()
    assert len(seed["accuracy"]) == 2
    posterior = load_weights(in_tmp / "results/two/task2/1" / WEIGHTS)[0].posterior
    assert isinstance(posterior, Laplace)
    torch.testing.assert_close(bbb.load("results/two/task2").as_prior().distribution.mean, posterior.mean)
    first = load_weights(in_tmp / "results/two/task1/1" / WEIGHTS)[0].split_head()[0]
    second = load_weights(in_tmp / "results/two/task2/1" / WEIGHTS)[0].split_head()[0]
    assert (second.precision >= first.precision * (1 - 1e-5)).all()  # what was known stays known


def test_lost_weights_of_an_earlier_task_are_made_again_with_the_same_result(in_tmp, capsys):
    words = ["sequence", "with", TWO, "prior=posterior", "head=fresh", "experiment_name=two", *SMALL]
    command(*words)
    path = in_tmp / "results/two/sequence.json"
    first = json.loads(path.read_text())["seeds"]["1"]["accuracy"]
    (in_tmp / "results/two/task1/1" / WEIGHTS).unlink()
    command(*words)
    assert json.loads(path.read_text())["seeds"]["1"]["accuracy"] == first


def test_changed_weights_of_an_earlier_task_are_refused_and_nothing_is_lost(in_tmp, capsys):
    words = ["sequence", "with", TWO, "prior=posterior", "head=fresh", "experiment_name=two", *SMALL]
    command(*words)
    command("with", "experiment_name=other", "classes=[0,1]", *SMALL, "seed=5")
    weights = in_tmp / "results/two/task1/1" / WEIGHTS
    weights.write_bytes((in_tmp / "results/other/1" / WEIGHTS).read_bytes())
    before = sorted(in_tmp.rglob("*"))
    capsys.readouterr()
    (line,) = refused(capsys, *words)
    assert "task1/1/weights.safetensors: has changed since" in line
    assert "task2/1 started from it" in line
    assert sorted(in_tmp.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["sequence"], "tasks: missing; name a sequence"),
        (["sequence", "with", "split_mnits"], "split_mnits: unknown"),
        (["with", "split_mnist"], "split_mnist: is a sequence of tasks; write: python experiment.py sequence with"),
        (["with", TWO], "tasks: are of the command sequence"),
        (["sequence", "with", TWO, "num_hidden=-1"], "num_hidden=-1: must be"),
        (
            ["sequence", "with", "tasks=[{'classes': [0, 1]}, {'num_hidden': 9}]", *SMALL, "prior=posterior"],
            "tasks: 2: has",
        ),
        (["sequence", "with", TWO, "seeds=[1.5]"], "seeds=[1.5]: must be a list of different whole numbers"),
        (["sequence", "with", "tasks=[1, 2]"], "tasks=[1, 2]: must be a list of keys with values"),
    ],
    ids=lambda part: " ".join(part)[:70] if isinstance(part, list) else "",
)
def test_what_will_not_do_gets_one_line_and_leaves_nothing(in_tmp, capsys, words, line):
    (printed,) = refused(capsys, *words)
    assert printed.startswith(f"error: {line}")
    assert list(in_tmp.iterdir()) == []
