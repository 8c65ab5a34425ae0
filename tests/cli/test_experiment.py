"""End to end: the real command line, in-process, and the lines of the README."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import experiment
from bbb import checkpoint, objective
from bbb.network import BayesianMLP
from tests.conftest import REPOSITORY

TINY = ["dataset=digits8x8", "num_epochs=1", "num_hidden=8", "num_test_samples=3", "num_threads=1"]
README_COMMANDS = re.findall(
    r"^(?:.*/)?python (experiment\.py(?! grid| reproduce| figures).*)$",  # those: test_cluster.py and others
    (REPOSITORY / "README.md").read_text(),
    re.MULTILINE,
)


def run(*words):
    experiment.command_line(["experiment.py", *words])


def refused(capsys, *words):
    """Run a command line that must be refused, and return the lines it printed."""
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert capsys.readouterr().err == ""
    assert isinstance(stop.value.code, str), "a message is exit status 1, printed on standard error"
    return stop.value.code.splitlines()


def test_blundell_leaves_a_complete_record(in_tmp, capsys):
    run("with", "blundell", *TINY)
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
        *("train.nll", "train.kl", "train.elbo", "train.accuracy", "validation.accuracy", "validation.nll"),
    }
    assert metrics["train.nll"]["steps"] == [1]
    assert {path.name for path in folder.iterdir()} == {
        *("run.json", "config.json", "metrics.json", "cout.txt"),
        *("log.txt", "weights.safetensors", "training.png"),
    }
    output = capsys.readouterr()
    assert "epoch 1/1" in (folder / "log.txt").read_text()
    assert (folder / "log.txt").read_text() in output.out
    assert "epoch 1/1" in (folder / "cout.txt").read_text()
    assert output.err == ""


def test_runs_are_numbered_and_the_last_is_published(in_tmp):
    experiment_folder = in_tmp / "results" / "twice"
    run("with", "experiment_name=results/twice", "seed=1", *TINY)
    first = {path.name: path.read_bytes() for path in (experiment_folder / "1").iterdir()}
    run("with", "experiment_name=twice", "seed=2", *TINY)
    assert {path.name: path.read_bytes() for path in (experiment_folder / "1").iterdir()} == first
    for name in ("log.txt", "weights.safetensors", "training.png"):
        assert (experiment_folder / name).read_bytes() == (experiment_folder / "2" / name).read_bytes()


def test_a_failed_run_is_not_published(in_tmp, capsys):
    run("with", "experiment_name=a", *TINY)
    kept = (in_tmp / "results" / "a" / "weights.safetensors").read_bytes()
    (line,) = refused(capsys, "with", "experiment_name=a", "optimizer=sgd", "lr=100", "prior_std=1e-6", *TINY)
    assert re.match(r"error: epoch 1, step \d+: the loss is .*; a smaller lr", line)
    assert (in_tmp / "results" / "a" / "weights.safetensors").read_bytes() == kept
    assert json.loads((in_tmp / "results" / "a" / "2" / "run.json").read_text())["status"] == "FAILED"


def test_pretrained_by_name(in_tmp):
    run("with", "experiment_name=source", *TINY)
    run("with", "experiment_name=next", "pretrained=source", *TINY)
    assert (in_tmp / "results" / "next" / "weights.safetensors").is_file()


FLOWED = ["estimator=weights", "num_flows=4", "flow=matrix_planar"]


@pytest.mark.parametrize("words", [["fraction=0.1"], FLOWED], ids=["gaussian", "flows"])
def test_transfer_records_its_source_and_what_is_left_of_it(in_tmp, words):
    tiny = [*TINY, "steps_per_epoch=1", *(words if words == FLOWED else [])]
    run("with", "domain_a", *tiny)
    run("with", "transfer", *tiny, *words)
    record = json.loads((in_tmp / "results" / "transfer" / "1" / "run.json").read_text())
    assert 0.0 <= record["result"]["source_error"] <= 100.0
    assert record["result"]["prior_inflation"] > 0.0
    weights = (in_tmp / "results" / "domain_a" / "1" / "weights.safetensors").resolve()
    assert record["meta"]["command"] == "main"
    info = json.loads((in_tmp / "results" / "transfer" / "1" / "info.json").read_text())
    assert info["source"] == {"weights": str(weights), "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}


def test_transfer_between_rotations_keeps_the_head(in_tmp):
    run("with", "domain_a", *TINY)
    run("with", "transfer", "digits=[0,1,2,3,4]", "rotation=30", *TINY, "steps_per_epoch=1", "prior_inflation=1")
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
    run("with", "domain_a", *TINY)
    capsys.readouterr()
    (printed,) = refused(capsys, "with", "transfer", *TINY, *words)
    assert re.match(line, printed)
    assert not (in_tmp / "results" / "transfer").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["with", "blundel"], "blundel: unknown named configuration; did you mean 'blundell'?"),
        (["blundell"], "blundell: is a named configuration, not a command; write: with blundell"),
        (["print_confg"], "print_confg: unknown command; did you mean 'print_config'?"),
        (["with"], "with: name a configuration"),
        (["help", "me"], "help: there is help for"),
        (["--nonsense"], "cannot make sense of: --nonsense"),
        (["with", "lr={'py/reduce': []}"], "lr={'py/reduce': []}: must be a number, a text, a list"),
        (["with", "experiment_name=b'x'"], "experiment_name=b'x': must be a number, a text, a list"),
        (["with", "num_hidden=8192", "num_layers=32", "num_flows=256", *TINY[:2]], "num_hidden=8192: training 2,"),
        (["with", "digits=[0,1]", "digits.x=1"], "digits.x: unknown key; did you mean 'digits'?"),
        (["with", "=3"], ": unknown key; there are"),
        (["with", "num_flow=3"], "num_flow: unknown key; did you mean 'num_flows'?"),
        (["with", "num_flows=abc"], "num_flows='abc': must be a whole number from 0"),
        (["with", "num_flows=-1"], "num_flows=-1: must be a whole number from 0"),
        (["with", "flow=radial"], "flow='radial': must be one of planar, matrix_planar"),
        (["with", "num_flows=2", "estimator=local"], "estimator='local': needs activations that are Gaussian"),
        (["with", "num_hidden=1.5"], "num_hidden=1.5: must be a whole number"),
        (["with", "num_hidden=true"], "num_hidden='true': must be a whole number"),
        (["with", "num_epochs=0"], "num_epochs=0: must be a whole number from 1"),
        (["with", "lr=-1"], "lr=-1: must be a number above 0"),
        (["with", "lr=nan"], "lr='nan': must be a number above 0"),
        (["with", "fraction=0"], "fraction=0: must be a number above 0"),
        (["with", "digits=[1,1]"], "digits=[1, 1]: must be a list of at least two different"),
        (["with", "prior=gausian"], "prior='gausian': must be one of gaussian, scale_mixture"),
        (["with", "prior=posterior"], "pretrained=None: prior=posterior needs the posterior of a finished run"),
        (["with", "prior_inflation=much"], "prior_inflation='much': must be a number from 1e-06"),
        (["with", "prior_inflation=0"], "prior_inflation=0: must be a number from 1e-06"),
        (["with", "prior_floor=-1"], "prior_floor=-1: must be a number from 0"),
        (["with", "head=old"], "head='old': must be one of fresh, keep, auto"),
        (["with", "rotation=up"], "rotation='up': must be a number from -360"),
        (["with", "steps_per_epoch=0"], "steps_per_epoch=0: must be a whole number from 1"),
        (["with", "transfer", *TINY], "pretrained='domain_a': there is no weights file, run folder or completed"),
        (["with", "experiment_name=../out"], "experiment_name='../out': must be a name below results/"),
        (["with", "pretrained=nope", *TINY], "pretrained='nope': there is no"),
        (["with", "device=cuda:99", *TINY], "device='cuda:99': is not there"),
        (["with", "data_dir=/proc/nowhere"], "dataset=mnist: cannot read or download it"),
        (["print_config", "with", "seed=x"], "seed='x': must be"),
        (["save_config", "with", "seed=x"], "seed='x': must be"),
        (["with", "blundell", *TINY, "-i", "3"], "--id, --queue: not for this experiment"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_bad_input_gets_one_line_and_leaves_nothing(in_tmp, capsys, words, line):
    (printed,) = refused(capsys, *words)
    assert printed.startswith(f"error: {line}")
    assert not (in_tmp / "results").exists()


def test_an_unwritable_results_folder_is_refused(in_tmp, capsys):
    (in_tmp / "results").write_text("in the way")
    (printed,) = refused(capsys, "with", "blundell", *TINY)
    assert "results cannot be written there" in printed


def test_a_file_named_like_a_configuration_does_not_win(in_tmp):
    (in_tmp / "blundell").write_text("not a configuration")
    run("with", "blundell", *TINY)
    config = json.loads((in_tmp / "results" / "blundell" / "1" / "config.json").read_text())
    assert config["prior"] == "scale_mixture"


def test_a_configuration_file_of_the_user_is_read(in_tmp):
    (in_tmp / "mine.yaml").write_text("experiment_name: mine\nlr: 0.01\n")
    run("with", "mine.yaml", *TINY)
    assert json.loads((in_tmp / "results" / "mine" / "1" / "config.json").read_text())["lr"] == 0.01


HOSTILE = {
    "a.json": '{"lr": {"py/reduce": [{"py/function": "builtins.print"}, {"py/tuple": ["executed"]}]}}',
    "a.yaml": "lr: !!python/object/apply:builtins.print [executed]",
    "b.yaml": "- lr",
    "c.yaml": "1: 2",
    "d.yaml": "lr: {a: 1}",
    "e.json": "{",
    "f.json": "[" * 100_000,
    "g.yaml": "\0",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_configuration_file_is_refused_and_not_executed(in_tmp, capsys, name):
    (in_tmp / name).write_text(HOSTILE[name])
    with pytest.raises(SystemExit) as stop:
        run("with", name, *TINY)
    assert re.match(
        rf"error: {name}: .*(cannot be read as a conf|must hold keys and values|must be a number)", stop.value.code
    )
    assert capsys.readouterr() == ("", "")
    assert not (in_tmp / "results").exists()


def test_print_config_explains_every_key(in_tmp, capsys):
    run("print_config", "with", "blundell", "lr=0.5")
    output = capsys.readouterr().out
    assert re.search(r"^\* lr = 0.5 +# learning rate$", output, re.MULTILINE)
    assert re.search(r"^  num_hidden = 400 +# units", output, re.MULTILINE)
    assert list(in_tmp.iterdir()) == []


@pytest.mark.parametrize("words", [["help"], ["--help"], ["-h"]])
def test_help_tells_commands_and_examples(words, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert not stop.value.code
    output = capsys.readouterr().out
    assert "python experiment.py with blundell" in output
    assert "print_config" in output


def test_unobserved_runs_leave_nothing(in_tmp):
    run("with", "blundell", *TINY, "--unobserved")
    assert not (in_tmp / "results").exists()


def assert_same_weights(*folders):
    ours, theirs = (load_file(folder / "weights.safetensors") for folder in folders)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def interrupt_after(monkeypatch, num_epochs):
    """Press Ctrl-C once that many epochs are saved."""
    write = experiment.log

    def log_and_interrupt(run, epoch):
        write(run, epoch)
        if epoch.number == num_epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "log", log_and_interrupt)


def test_an_interrupted_run_resumes_in_its_folder_and_ends_as_one_never_stopped(in_tmp, capsys, monkeypatch):
    words = ["with", "blundell", *TINY, "num_epochs=4"]
    run(*words, "experiment_name=whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(SystemExit) as stop:
            run(*words, "experiment_name=stopped")
    assert stop.value.code == 130
    assert "resume=True" in capsys.readouterr().err
    folder, whole = (in_tmp / "results" / name / "1" for name in ("stopped", "whole"))
    assert json.loads((folder / "run.json").read_text())["status"] == "INTERRUPTED"
    assert not (in_tmp / "results" / "stopped" / "weights.safetensors").exists()
    (line,) = refused(capsys, *words, "experiment_name=stopped", "resume=True", "temperature=0.5")
    assert "another configuration: temperature=0.5 (was 1.0)" in line
    run(*words, "experiment_name=stopped", "resume=True")
    assert [path.name for path in (in_tmp / "results" / "stopped").iterdir() if path.name.isdigit()] == ["1"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert_same_weights(folder, whole)
    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (folder, whole))
    for name in theirs:
        assert (ours[name]["steps"], ours[name]["values"]) == (theirs[name]["steps"], theirs[name]["values"])
    results = [json.loads((path / "run.json").read_text())["result"] for path in (folder, whole)]
    assert {**results[0], "seconds": 0} == {**results[1], "seconds": 0}
    assert len((folder / "log.txt").read_text().splitlines()) == 4


def test_a_run_that_another_process_ends_first_is_left_as_it_is(in_tmp, capsys, monkeypatch):
    words = ["with", "blundell", *TINY]
    run(*words)
    folder = in_tmp / "results" / "blundell" / "1"
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("bbb.runs.find_unfinished", lambda *_: folder)  # as it was when this process looked
    capsys.readouterr()
    (line,) = refused(capsys, *words, "resume=True")
    assert line.startswith("error: resume=True: another process has just ended the run in")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_mid_epoch_finishes_the_step_and_saves(in_tmp, capsys, monkeypatch, number):
    words = ["with", "blundell", *TINY, "num_epochs=3"]
    run(*words, "experiment_name=whole")
    measure, steps = objective.log_likelihood_loss, []

    def measure_and_signal(logits, labels):
        steps.append(len(steps))
        if len(steps) == 15:  # 1,198 images are 10 steps an epoch
            os.kill(os.getpid(), number)
        return measure(logits, labels)

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(objective, "log_likelihood_loss", measure_and_signal)
        with pytest.raises(SystemExit) as stop:
            run(*words, "experiment_name=stopped")
    assert (stop.value.code, len(steps)) == (128 + number, 15)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert "resume=True" in capsys.readouterr().err
    folder, whole = (in_tmp / "results" / name / "1" for name in ("stopped", "whole"))
    assert json.loads((folder / "run.json").read_text())["status"] == "INTERRUPTED"
    run(*words, "experiment_name=stopped", "resume=True")
    assert_same_weights(folder, whole)
    results = [json.loads((path / "run.json").read_text())["result"] for path in (folder, whole)]
    assert {**results[0], "seconds": 0} == {**results[1], "seconds": 0}


def test_a_run_stopped_while_its_prior_is_chosen_says_that_nothing_was_saved(in_tmp, capsys, monkeypatch):
    run("with", "domain_a", *TINY)
    monkeypatch.setattr("bbb.transfer.source_error", None)  # not reached
    measure = objective.log_likelihood_loss

    def measure_and_signal(logits, labels):
        os.kill(os.getpid(), signal.SIGTERM)
        return measure(logits, labels)

    monkeypatch.setattr(objective, "log_likelihood_loss", measure_and_signal)
    with pytest.raises(SystemExit) as stop:
        run("with", "transfer", "prior_inflation=auto", *TINY)
    assert stop.value.code == 143
    assert capsys.readouterr().err == "stopped; the same command starts again; nothing was saved yet\n"
    assert not (in_tmp / "results" / "transfer" / "1" / ".lock").exists()


def test_a_resumed_run_goes_on_with_the_source_it_was_started_with(in_tmp, capsys, monkeypatch):
    words = [*TINY, "num_epochs=2", "steps_per_epoch=1"]
    run("with", "domain_a", *words)
    run("with", "transfer", *words, "experiment_name=whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(SystemExit):
            run("with", "transfer", *words)
    run("with", "domain_a", *words, "seed=2")  # now domain_a means another run
    capsys.readouterr()
    source = in_tmp / "results" / "domain_a" / "1" / "weights.safetensors"
    source.rename(in_tmp / "elsewhere")
    (line,) = refused(capsys, "with", "transfer", *words, "resume=True")[-1:]
    assert re.match(
        r"error: resume=True: the run was started with pretrained='domain_a' when that meant .*/1/weig", line
    )
    (in_tmp / "elsewhere").rename(source)
    run("with", "transfer", *words, "resume=True")
    assert_same_weights(in_tmp / "results" / "transfer", in_tmp / "results" / "whole")


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"digits": [0, 1, 2, 3, 99]},
            r"tells what cannot be of the data it was trained on: digits=\[0, 1, 2, 3, 99\]",
        ),
        ({"digits": [0, 1]}, r"digits=\[0, 1\]"),
        ({"digits": {"a": 1}}, "digits={'a': 1}"),
        ({"dataset": "../../etc"}, "dataset='../../etc'"),
        ({"dataset": ["mnist"]}, r"dataset=\['mnist'\]"),
        ({"rotation": "x"}, "rotation='x'"),
    ],
)
def test_a_source_that_tells_nonsense_of_its_task_is_refused(in_tmp, capsys, generator, told, message):
    network = BayesianMLP.initial((64, 8, 8, 5), 0.02, generator)
    checkpoint.save_weights(in_tmp / "w", network, {"dataset": "digits8x8", "digits": [0, 1, 2, 3, 4], **told})
    (line,) = refused(capsys, "with", "transfer", *TINY, "pretrained=w")
    assert re.search(message, line)
    assert not (in_tmp / "results").exists()


def test_nothing_to_resume_is_refused(in_tmp, capsys):
    (line,) = refused(capsys, "with", "blundell", "resume=True", *TINY)
    assert line.startswith("error: resume=True: there is no unfinished run")


def test_a_new_process_prints_no_warning(in_tmp):
    command = [sys.executable, str(REPOSITORY / "experiment.py"), "with", "blundell", *TINY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    done = subprocess.run([*command, "lr=-1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: lr=-1: must be a number above 0 and up to 100 (learning rate)\n"


WHEN_TORCH_IS_LOADED = """
import os, sys

class Finder:
    def find_spec(self, name, *rest):
        if name == "torch":
            sys.exit(os.environ.get("GOMP_SPINCOUNT"))

sys.meta_path.insert(0, Finder())
import experiment
"""


@pytest.mark.parametrize(("given", "used"), [(None, "2000"), ("7", "7")])
def test_waiting_threads_let_other_runs_have_their_cores(given, used):
    environment = {key: value for key, value in os.environ.items() if key != "GOMP_SPINCOUNT"}
    environment |= {} if given is None else {"GOMP_SPINCOUNT": given}
    command = [sys.executable, "-c", WHEN_TORCH_IS_LOADED]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stderr == f"{used}\n"


@pytest.mark.parametrize("command", dict.fromkeys(README_COMMANDS))
def test_every_command_of_the_readme_runs(in_tmp, command):
    words = command.split("#")[0].split()[1:]
    if "transfer" in words:
        run("with", "domain_a", *TINY)
    run(*words, *([] if "with" in words else ["with"]), *TINY)


def test_the_readme_has_commands():
    assert len(README_COMMANDS) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in experiment.NAMED if name != "transfer_naive"])  # shows what fails
def test_named_configurations_learn_the_embedded_digits(in_tmp, name):
    """At their full length; logistic regression has an error of about 3 % on these 360 images."""
    if name == "transfer":
        run("with", "domain_a", "dataset=digits8x8")
    run("with", name, "dataset=digits8x8", "experiment_name=digits")
    result = json.loads((in_tmp / "results" / "digits" / "1" / "run.json").read_text())["result"]
    assert result["test_error"] < 4.0
    assert result["test_nll"] < 0.2
