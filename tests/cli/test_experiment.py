"""End to end: the real command line, in-process, and the lines of the documentation."""

import hashlib
import json
import os
import re
import shlex
import signal
import sys

import numpy as np
import pytest
import torch

import experiment
from bbb import data
from bbb.inference import Categorical
from bbb.networks import MLP, initial_network, save_weights
from tests.documentation import block_with, documented_commands
from tests.tasks import SMALL, assert_same_weights, command, interrupt_after, refused, seeded


def test_blundell_leaves_a_complete_record(in_tmp, capsys):
    command("with", "blundell", *SMALL)
    folder = in_tmp / "results" / "blundell" / "1"
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "COMPLETED"
    assert record["result"].keys() == {
        *("test_error", "test_nll", "test_brier", "test_ece", "test_error_mean_weights"),
        *("elbo", "kl", "num_epochs", "seconds"),
    }
    assert all(isinstance(value, (int, float)) for value in record["result"].values())
    config = json.loads((folder / "config.json").read_text())
    assert config["beta_type"] == "blundell"
    assert config["prior"] == "scale_mixture"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.keys() == {
        *("train.nll", "train.kl", "train.elbo", "train.accuracy", "train.seconds"),
        *("validation.accuracy", "validation.nll"),
    }
    assert metrics["train.nll"]["steps"] == [1]
    assert {path.name for path in folder.iterdir()} == {
        *("run.json", "config.json", "metrics.json", "cout.txt"),
        *("log.txt", "weights.safetensors", "training.png", "findings.json"),
    }
    output = capsys.readouterr()
    assert "epoch 1/1" in (folder / "log.txt").read_text()
    assert (folder / "log.txt").read_text() in output.out
    assert "epoch 1/1" in (folder / "cout.txt").read_text()
    assert output.err == ""


def test_runs_are_numbered_and_the_last_is_published(in_tmp):
    experiment_folder = in_tmp / "results" / "twice"
    command("with", "experiment_name=results/twice", "seed=1", *SMALL)
    first = {path.name: path.read_bytes() for path in (experiment_folder / "1").iterdir()}
    command("with", "experiment_name=twice", "seed=2", *SMALL)
    assert {path.name: path.read_bytes() for path in (experiment_folder / "1").iterdir()} == first
    for name in ("log.txt", "weights.safetensors", "training.png"):
        assert (experiment_folder / name).read_bytes() == (experiment_folder / "2" / name).read_bytes()


def test_a_failed_run_is_not_published(in_tmp, capsys):
    command("with", "experiment_name=a", *SMALL)
    kept = (in_tmp / "results" / "a" / "weights.safetensors").read_bytes()
    (line,) = refused(capsys, "with", "experiment_name=a", "optimizer=sgd", "lr=100", "prior_std=1e-6", *SMALL)
    assert re.match(r"error: epoch 1, step \d+: the loss is .*; a smaller lr", line)
    assert (in_tmp / "results" / "a" / "weights.safetensors").read_bytes() == kept
    assert json.loads((in_tmp / "results" / "a" / "2" / "run.json").read_text())["status"] == "FAILED"


def test_pretrained_by_name(in_tmp):
    command("with", "experiment_name=source", *SMALL)
    command("with", "experiment_name=next", "pretrained=source", *SMALL)
    assert (in_tmp / "results" / "next" / "weights.safetensors").is_file()


FLOWED = ["estimator=weights", "num_flows=4", "flow=matrix_planar"]


@pytest.mark.parametrize("words", [["fraction=0.1"], FLOWED], ids=["gaussian", "flows"])
def test_transfer_records_its_source_and_what_is_left_of_it(in_tmp, words):
    tiny = [*SMALL, "steps_per_epoch=1", *(words if words == FLOWED else [])]
    command("with", "domain_a", *tiny)
    command("with", "transfer", *tiny, *words)
    record = json.loads((in_tmp / "results" / "transfer" / "1" / "run.json").read_text())
    assert 0.0 <= record["result"]["source_error"] <= 100.0
    assert record["result"]["prior_inflation"] > 0.0
    weights = (in_tmp / "results" / "domain_a" / "1" / "weights.safetensors").resolve()
    assert record["meta"]["command"] == "main"
    info = json.loads((in_tmp / "results" / "transfer" / "1" / "info.json").read_text())
    assert info["source"] == {"weights": str(weights), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}


def test_transfer_between_rotations_keeps_the_head(in_tmp):
    command("with", "domain_a", *SMALL)
    command("with", "transfer", "digits=[0,1,2,3,4]", "rotation=30", *SMALL, "steps_per_epoch=1", "prior_inflation=1")
    assert (in_tmp / "results" / "transfer" / "weights.safetensors").is_file()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["num_hidden=9"],
            r"error: pretrained='domain_a': .* has layers of 64-8-8-5 units, .* asks for 64-9-9-5 units; ",
        ),
        (
            ["num_layers=1"],
            r"error: pretrained='domain_a': .* has layers of 64-8-8-5 units, .* asks for 64-8-5 units; ",
        ),
        (["head=keep", "digits=[5,6]"], r"error: pretrained='domain_a': .* asks for 64-8-8-2 units; .*head=fresh"),
    ],
)
def test_transfer_from_another_layout_is_refused(in_tmp, capsys, words, line):
    command("with", "domain_a", *SMALL)
    capsys.readouterr()
    (printed,) = refused(capsys, "with", "transfer", *SMALL, *words)
    assert re.match(line, printed)
    assert not (in_tmp / "results" / "transfer").exists()


def test_unobserved_runs_leave_nothing(in_tmp):
    command("with", "blundell", *SMALL, "--unobserved")
    assert not (in_tmp / "results").exists()


def test_an_interrupted_run_resumes_in_its_folder_and_ends_as_one_never_stopped(in_tmp, capsys, monkeypatch):
    words = ["with", "blundell", *SMALL, "num_epochs=4"]
    command(*words, "experiment_name=whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(SystemExit) as stop:
            command(*words, "experiment_name=stopped")
    assert stop.value.code == 130
    assert "resume=True" in capsys.readouterr().err
    folder, whole = (in_tmp / "results" / name / "1" for name in ("stopped", "whole"))
    assert json.loads((folder / "run.json").read_text())["status"] == "INTERRUPTED"
    assert not (in_tmp / "results" / "stopped" / "weights.safetensors").exists()
    (line,) = refused(capsys, *words, "experiment_name=stopped", "resume=True", "temperature=0.5")
    assert "another configuration: temperature=0.5 (was 1.0)" in line
    command(*words, "experiment_name=stopped", "resume=True")
    assert [path.name for path in (in_tmp / "results" / "stopped").iterdir() if path.name.isdigit()] == ["1"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert_same_weights(folder, whole)
    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (folder, whole))
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name]["steps"] == theirs[name]["steps"]
        assert ours[name]["values"] == theirs[name]["values"] or name == "train.seconds"
    results = [json.loads((path / "run.json").read_text())["result"] for path in (folder, whole)]
    assert {**results[0], "seconds": 0} == {**results[1], "seconds": 0}
    assert len((folder / "log.txt").read_text().splitlines()) == 4


def test_a_run_that_another_process_ends_first_is_left_as_it_is(in_tmp, capsys, monkeypatch):
    words = ["with", "blundell", *SMALL]
    command(*words)
    folder = in_tmp / "results" / "blundell" / "1"
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("bbb.runs.folders.find_unfinished", lambda *_: folder)  # as it was when this process looked
    capsys.readouterr()
    (line,) = refused(capsys, *words, "resume=True")
    assert line.startswith("error: resume=True: another process has just ended the run in")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_mid_epoch_finishes_the_step_and_saves(in_tmp, capsys, monkeypatch, number):
    words = ["with", "blundell", *SMALL, "num_epochs=3"]
    command(*words, "experiment_name=whole")
    measure, steps = Categorical.nll_with_gradient, []

    def measure_and_signal(*arguments):
        steps.append(len(steps))
        if len(steps) == 15:  # 1,198 images are 10 steps an epoch
            os.kill(os.getpid(), number)
        return measure(*arguments)

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(Categorical, "nll_with_gradient", measure_and_signal)
        with pytest.raises(SystemExit) as stop:
            command(*words, "experiment_name=stopped")
    assert (stop.value.code, len(steps)) == (128 + number, 15)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert "resume=True" in capsys.readouterr().err
    folder, whole = (in_tmp / "results" / name / "1" for name in ("stopped", "whole"))
    assert json.loads((folder / "run.json").read_text())["status"] == "INTERRUPTED"
    command(*words, "experiment_name=stopped", "resume=True")
    assert_same_weights(folder, whole)
    results = [json.loads((path / "run.json").read_text())["result"] for path in (folder, whole)]
    assert {**results[0], "seconds": 0} == {**results[1], "seconds": 0}


def test_a_run_stopped_while_its_prior_is_chosen_says_that_nothing_was_saved(in_tmp, capsys, monkeypatch):
    command("with", "domain_a", *SMALL)
    monkeypatch.setattr("bbb.runs.pipeline.source_error", None)  # not reached
    measure = Categorical.nll_with_gradient

    def measure_and_signal(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return measure(*arguments)

    monkeypatch.setattr(Categorical, "nll_with_gradient", measure_and_signal)
    with pytest.raises(SystemExit) as stop:
        command("with", "transfer", "prior_inflation=auto", *SMALL)
    assert stop.value.code == 143
    assert capsys.readouterr().err == "stopped; the same command starts again; nothing was saved yet\n"
    assert not (in_tmp / "results" / "transfer" / "1" / ".lock").exists()


def test_a_resumed_run_goes_on_with_the_source_it_was_started_with(in_tmp, capsys, monkeypatch):
    words = [*SMALL, "num_epochs=2", "steps_per_epoch=1"]
    command("with", "domain_a", *words)
    command("with", "transfer", *words, "experiment_name=whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(SystemExit):
            command("with", "transfer", *words)
    command("with", "domain_a", *words, "seed=2")  # now domain_a means another run
    capsys.readouterr()
    source = in_tmp / "results" / "domain_a" / "1" / "weights.safetensors"
    source.rename(in_tmp / "elsewhere")
    (line,) = refused(capsys, "with", "transfer", *words, "resume=True")[-1:]
    assert re.match(
        r"error: resume=True: the run was started with pretrained='domain_a' when that meant .*/1/weig", line
    )
    (in_tmp / "elsewhere").rename(source)
    command("with", "transfer", *words, "resume=True")
    assert_same_weights(in_tmp / "results" / "transfer", in_tmp / "results" / "whole")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"digits": [0, 1, 2, 3, -9]},
            r"tells what cannot be of the data it was trained on: classes=\[0, 1, 2, 3, -9\]",
        ),
        ({"digits": [0, 1]}, r"classes=\[0, 1\]"),
        ({"digits": {"a": 1}}, "classes={'a': 1}"),
        ({"classes": [0, 1, 2, 3, 99]}, r"classes=\[0, 1, 2, 3, 99\]: this data set has no example of class 99"),
        ({"classes": None}, "its network has 5 outputs, its dataset=digits8x8 has other labels"),
        ({"dataset": "../../etc"}, "dataset='../../etc'"),
        ({"dataset": ["mnist"]}, r"dataset=\['mnist'\]"),
        ({"rotation": "x"}, "rotation='x'"),
    ],
)
def test_a_source_that_tells_nonsense_of_its_task_is_refused(in_tmp, capsys, told, message):
    network = initial_network(MLP((64, 8, 8, 5)), 0.02, seeded(0))
    save_weights(in_tmp / "w", network, {"dataset": "digits8x8", "digits": [0, 1, 2, 3, 4], **told})
    (line,) = refused(capsys, "with", "transfer", *SMALL, "pretrained=w")
    assert re.search(message, line)
    assert not (in_tmp / "results").exists()


def test_nothing_to_resume_is_refused(in_tmp, capsys):
    (line,) = refused(capsys, "with", "blundell", "resume=True", *SMALL)
    assert line.startswith("error: resume=True: there is no unfinished run")


TESTED_ELSEWHERE = "grid|sequence|reproduce|figures|runs|report|demo|prune|regression|yardstick|bandit"
DOCUMENTED = [
    shlex.split(line)[2:]
    for line in documented_commands("experiment.py")
    if not re.search(rf"experiment\.py ({TESTED_ELSEWHERE})\b", line)
]


@pytest.mark.parametrize("words", DOCUMENTED, ids=" ".join)
def test_every_documented_command_runs(in_tmp, words, monkeypatch):
    if any(word.startswith("transfer") for word in words):
        command("with", "domain_a", *SMALL)
    (in_tmp / "my_net.py").write_text(block_with("def make("))
    if any(word.endswith(".npz") for word in words):
        exec(block_with("np.savez("), {})  # the pages' own
    if any(word.endswith("trained.safetensors") for word in words):
        monkeypatch.syspath_prepend(in_tmp)
        exec(block_with("save_file("), {})
        monkeypatch.delitem(sys.modules, "my_net")
    if {"network=lenet", "lenet"} & {*words}:  # the embedded digits are too small for it
        images = torch.randint(256, (40, 16, 16), dtype=torch.uint8, generator=seeded(0)).numpy()
        arrays = dict.fromkeys(("x_train", "x_test"), images) | dict.fromkeys(("y_train", "y_test"), np.arange(40) % 10)
        np.savez(in_tmp / "large.npz", **arrays)
        words = [*words, "dataset=large.npz"]
    datasets = [word for word in words if re.fullmatch(r"dataset=.*\.npz", word)]  # not SMALL's
    command(*words, *([] if "with" in words else ["with"]), *SMALL, *datasets)


def test_there_are_documented_commands():
    assert len(DOCUMENTED) >= 3


def save_digits_of_twice_the_size(path):
    """The embedded digits with each pixel four times, 16 x 16 in all."""
    arrays = {}
    for part, split in zip(("train", "test"), data.load("digits8x8"), strict=True):
        images = split.images.view(-1, 8, 8).repeat_interleave(2, 1).repeat_interleave(2, 2)
        arrays |= {f"x_{part}": images.unsqueeze(1).numpy(), f"y_{part}": split.labels.numpy()}
    np.savez(path, **arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in experiment.NAMED if name != "transfer_naive"])  # shows what fails
def test_named_configurations_learn_the_embedded_digits(in_tmp, name):
    """At their full length; logistic regression has an error of about 3 % on these 360 images."""
    words = ["dataset=digits8x8"]
    if name == "transfer":
        command("with", "domain_a", *words)
    if name == "lenet":  # takes no images as small as these
        save_digits_of_twice_the_size(in_tmp / "digits.npz")
        words = ["dataset=digits.npz", "steps_per_epoch=60"]
    command("with", name, *words, "experiment_name=digits")
    result = json.loads((in_tmp / "results" / "digits" / "1" / "run.json").read_text())["result"]
    assert result["test_error"] < 4.0
    assert result["test_nll"] < 0.2
