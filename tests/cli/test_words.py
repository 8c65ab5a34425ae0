"""Words of the command line: what is wrong is refused in one line, before anything starts."""

import json
import re

import pytest

from tests.tasks import SMALL, command, refused


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
        (
            ["with", "num_hidden=8192", "num_layers=32", "num_flows=256", *SMALL[:2]],
            "num_hidden=8192: training 2,",
        ),
        (["with", "digits=[0,1]", "digits.x=1"], "digits.x: unknown key; did you mean 'digits'?"),
        (["with", "=3"], ": unknown key; there are"),
        (["with", "num_flow=3"], "num_flow: unknown key; did you mean 'num_flows'?"),
        (["with", "num_flows=abc"], "num_flows='abc': must be a whole number from 0"),
        (["with", "num_flows=-1"], "num_flows=-1: must be a whole number from 0"),
        (["with", "flow=radial"], "flow='radial': must be one of planar, matrix_planar"),
        (["with", "num_flows=2", "prior=ard"], "prior='ard': follows the means and variances of a Gaussian posterior"),
        (["with", "num_flows=2", "estimator=local"], "estimator='local': needs activations that are Gaussian"),
        (["with", "num_hidden=1.5"], "num_hidden=1.5: must be a whole number"),
        (["with", "num_hidden=true"], "num_hidden=True: must be a whole number"),
        (["with", "num_epochs=0"], "num_epochs=0: must be a whole number from 1"),
        (["with", "lr=-1"], "lr=-1: must be a number above 0"),
        (["with", "lr=nan"], "lr='nan': must be a number above 0"),
        (["with", "fraction=0"], "fraction=0: must be a number above 0"),
        (["with", "digits=[1,1]"], "classes=[1, 1]: must be a list of at least two different"),
        (["with", "prior=gausian"], "prior='gausian': must be one of gaussian, scale_mixture, ard"),
        (["with", "prior=posterior"], "pretrained=None: prior=posterior needs the posterior of a finished run"),
        (["with", "prior_inflation=much"], "prior_inflation='much': must be a number from 1e-06"),
        (["with", "prior_inflation=0"], "prior_inflation=0: must be a number from 1e-06"),
        (["with", "prior_floor=-1"], "prior_floor=-1: must be a number from 0"),
        (["with", "head=old"], "head='old': must be one of fresh, keep, auto"),
        *(
            (
                ["with", f"deterministic={typed}"],
                f"deterministic={read}: must be a list of names of layers, perhaps empty; on the command line write "
                f'deterministic="{meant}"',
            )
            for typed, read, meant in (
                ("[conv1]", "'[conv1]'", "['conv1']"),
                ("[conv1, block.conv2]", "'[conv1, block.conv2]'", "['conv1', 'block.conv2']"),
                ("conv1", "'conv1'", "['conv1']"),
                ("[0]", "[0]", "['0']"),
            )
        ),
        (["with", "rotation=up"], "rotation='up': must be a number from -360"),
        (["with", "steps_per_epoch=0"], "steps_per_epoch=0: must be a whole number from 1"),
        (["with", "transfer", *SMALL], "pretrained='domain_a': there is no weights file, run folder or completed"),
        (["with", "experiment_name=../out"], "experiment_name='../out': must be a name below results/"),
        (["with", "pretrained=nope", *SMALL], "pretrained='nope': there is no"),
        (["with", "device=cuda:99", *SMALL], "device='cuda:99': is not there"),
        (["with", "data_dir=/proc/nowhere"], "dataset=mnist: cannot read or download it"),
        (["print_config", "with", "seed=x"], "seed='x': must be"),
        (["save_config", "with", "seed=x"], "seed='x': must be"),
        (["with", "blundell", *SMALL, "-i", "3"], "--id, --queue: not for this experiment"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_bad_input_gets_one_line_and_leaves_nothing(in_tmp, capsys, words, line):
    (printed,) = refused(capsys, *words)
    assert printed.startswith(f"error: {line}")
    assert not (in_tmp / "results").exists()


def test_an_unwritable_results_folder_is_refused(in_tmp, capsys):
    (in_tmp / "results").write_text("in the way")
    (printed,) = refused(capsys, "with", "blundell", *SMALL)
    assert "results cannot be written there" in printed


def test_a_file_named_like_a_configuration_does_not_win(in_tmp):
    (in_tmp / "blundell").write_text("not a configuration")
    command("with", "blundell", *SMALL)
    config = json.loads((in_tmp / "results" / "blundell" / "1" / "config.json").read_text())
    assert config["prior"] == "scale_mixture"


def test_a_configuration_file_of_the_user_is_read(in_tmp):
    (in_tmp / "mine.yaml").write_text("experiment_name: mine\nlr: 0.01\n")
    command("with", "mine.yaml", *SMALL)
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
        command("with", name, *SMALL)
    assert re.match(
        rf"error: {name}: .*(cannot be read as a conf|must hold keys and values|must be a number)", stop.value.code
    )
    assert capsys.readouterr() == ("", "")
    assert not (in_tmp / "results").exists()


NULLABLE = ("data_dir", "classes", "permutation", "union", "pretrained", "split_seed", "num_threads")


@pytest.mark.parametrize("key", [*NULLABLE, "digits"])
def test_null_on_the_command_line_is_that_of_the_files(in_tmp, capsys, key):
    command("print_config", "with", f"{key}=null", "tensorboard=true", "learn_noise=false")
    lines = capsys.readouterr().out.splitlines()
    values = dict(line.strip("* ").split("#")[0].rstrip().split(" = ") for line in lines if " = " in line)
    assert values["classes" if key == "digits" else key] == "None"
    assert (values["tensorboard"], values["learn_noise"]) == ("True", "False")
