"""Where a configuration comes from, and the command line that makes it again."""

import shlex

import pytest

from bbb.runs import modernised
from bbb.studies import named_configs, origin
from tests.tasks import CONFIGS, DEFAULT, command

NAMED = named_configs(CONFIGS)


def config_of(name, **changes):
    return {**NAMED[name], **changes}


@pytest.mark.parametrize("name", NAMED)
def test_a_named_configuration_is_found_and_nothing_differs(name):
    made = origin(config_of(name), NAMED)
    assert (made.named, made.changes) == (name, {})
    assert made.command == f"python experiment.py{f' with {name}' * (name != 'default')}"


def test_what_differs_least_is_found_whatever_the_run_is_called():
    made = origin(config_of("blundell", experiment_name="best", num_flows=16, seed=2), NAMED)
    assert (made.named, made.changes) == ("blundell", {"num_flows": 16, "seed": 2})
    assert made.command == "python experiment.py with blundell experiment_name=best num_flows=16 seed=2"


def test_of_two_that_are_as_near_the_one_of_the_same_name_is_taken():
    named = {"default": DEFAULT, "a": {**DEFAULT, "experiment_name": "a", "lr": 1.0}}
    named["b"] = {**named["a"], "experiment_name": "b"}
    assert origin({**named["b"], "seed": 5}, named).named == "b"
    assert origin({**named["b"], "experiment_name": "a", "seed": 5}, named).named == "a"


def test_keys_that_compute_nothing_are_in_the_command_and_not_in_the_differences():
    made = origin(config_of("best", num_threads=1, device="cpu"), NAMED)
    assert made.changes == {}
    assert {"num_threads=1", "device=cpu"} <= {*made.command.split()}


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": [0, 1, 2], "fraction": 0.1, "pretrained": None},
        {"dataset": "a b;$(c).npz", "pretrained": "it's"},
        {"pretrained": "1"},
        {"pretrained": "None"},
        {"pretrained": "null", "data_dir": "true"},
        {"deterministic": ["0", "conv1"], "prior_inflation": "auto", "learn_noise": True},
        {"lr": 1e-05},
    ],
    ids=str,
)
def test_the_command_is_read_back_as_the_same_configuration(in_tmp, capsys, changes):
    """By the shell, by Sacred and by us: ``print_config`` prints what a run would get."""
    config = config_of("default", **changes)
    words = shlex.split(origin(config, NAMED).command)
    assert words[:2] == ["python", "experiment.py"]
    from bbb.runs import read_value

    read = dict(word.split("=", 1) for word in words[3:])
    assert {key: read_value(key, text) for key, text in read.items()} == {
        key: value for key, value in changes.items() if value != DEFAULT[key]
    }


def test_the_command_makes_the_run(in_tmp, capsys):
    made = origin(config_of("blundell", experiment_name="x/y", classes=[3, 1], dataset="digits8x8"), NAMED)
    command("print_config", *shlex.split(made.command)[2:])
    printed = capsys.readouterr().out
    assert "* classes = [3, 1]" in printed
    assert "* experiment_name = x/y" in printed


def test_old_and_damaged_configurations_have_an_origin():
    old = {key: value for key, value in config_of("blundell").items() if key not in ("network", "deterministic")}
    assert origin(modernised(old), NAMED).changes == {}
    assert origin({"seed": {"a": [1]}, "???": None}, NAMED).changes == {"seed": {"a": [1]}, "???": None}


def test_a_file_that_is_no_configuration_is_left_out(tmp_path):
    (tmp_path / "default.yaml").write_text("a: 1\nexperiment_name: default\n")
    (tmp_path / "good.yaml").write_text("a: 2\n")
    (tmp_path / "bad.yaml").write_text("[")
    assert [*named_configs(tmp_path)] == ["default", "good"]
