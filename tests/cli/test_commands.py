"""What the commands print; their runs are those of test_cluster.py and test_reproduction.py."""

import re

import pytest

import experiment
from bbb.runs import load_file
from tests.tasks import DEFAULT, command

CHANGES = [
    {},
    {"cuda_graph": True},
    {"seed": 2, "classes": [1, 0], "rotation": 0, "data_dir": "here", "num_threads": 3},
]


def starred(words, capsys):
    """The keys that print_config marks, and all that it prints."""
    command("print_config", "with", *words)
    lines = re.findall(r"^([* ]) (\w+) = ", capsys.readouterr().out, re.MULTILINE)
    return {key for mark, key in lines if mark == "*"}, [key for _, key in lines]


def test_print_config_explains_every_key(in_tmp, capsys):
    command("print_config", "with", "blundell", "lr=0.5")
    output = capsys.readouterr().out
    assert re.search(r"^\* lr = 0.5 +# learning rate$", output, re.MULTILINE)
    assert re.search(r"^  num_hidden = 400 +# units", output, re.MULTILINE)
    assert list(in_tmp.iterdir()) == []


@pytest.mark.parametrize("changes", CHANGES, ids=["alone", "cuda_graph", "changed"])
@pytest.mark.parametrize("name", experiment.NAMED)
def test_print_config_stars_what_differs_from_the_default_and_nothing_else(capsys, name, changes):
    config = {**DEFAULT, **load_file(experiment.NAMED[name]), **changes}
    differing = {key for key in DEFAULT if config[key] != DEFAULT[key]}
    assert starred([name, *(f"{key}={value}" for key, value in changes.items())], capsys) == (differing, [*DEFAULT])


def test_print_config_stars_nothing_of_the_default(capsys):
    command("print_config")
    output = capsys.readouterr().out
    assert len(re.findall(r"^  \w+ = ", output, re.MULTILINE)) == len(DEFAULT)
    assert "*" not in {line[0] for line in output.splitlines()}
    assert starred(["lr=0.001", "temperature=1", "resume=True"], capsys)[0] == set()
