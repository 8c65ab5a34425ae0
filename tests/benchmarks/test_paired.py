"""The paired timing itself, on toy contenders."""

import json
import math
import os
import time
from functools import partial
from importlib import import_module

import pytest

from tests.benchmarks.contenders import CLASSES, CONTENDERS, FLOORS, IMAGE, ordinary, ours
from tests.benchmarks.paired import Contender, Rules, compare
from tests.benchmarks.report import chosen_by, table, write_json

QUICK = Rules(pairs=1, turns=3, seconds=0.05, threads=1)


NAP = partial(partial, time.sleep, 0.01)  # takes as long whatever else this machine does
LONG_NAP = partial(partial, time.sleep, 0.02)


def test_twice_the_work_takes_twice_the_time():
    row = compare("double", Contender(LONG_NAP, 1), Contender(NAP, 1), QUICK)
    assert row.ratio == pytest.approx(2.0, rel=0.3)
    assert row.low <= row.ratio <= row.high
    assert row.floor_ms == pytest.approx(10.0, rel=0.5)
    assert row.memory > 50


@pytest.mark.slow
def test_contenders_that_fail_give_a_line_each_and_the_others_go_on(capsys, tmp_path):
    floors = {"nap": Contender(NAP, 1)}
    contenders = {"missing": partial(import_module, "peer"), "dead": partial(partial, os._exit, 3), "well": NAP}
    rows = table({name: Contender(make, 10, "nap") for name, make in contenders.items()}, floors, QUICK)
    lines = capsys.readouterr().out.splitlines()[2:]
    assert lines[0] == "| missing: ModuleNotFoundError: No module named 'peer' |"
    assert lines[1] == "| dead: its process ended with code 3 |"
    assert lines[2].startswith("| well | 1.")
    write_json(tmp_path / "rows.json", {"cores": 2}, rows=rows)
    assert [("error" in row) for row in json.loads((tmp_path / "rows.json").read_text())["rows"]] == [True, True, False]


def test_contenders_are_chosen_by_parts_of_their_names():
    assert list(chosen_by({"One": 1, "two": 2}, ["one"])) == ["One"]
    assert list(chosen_by({"One": 1, "two": 2}, None)) == ["One", "two"]


def test_each_contender_has_a_floor():
    assert {contender.floor for contender in CONTENDERS.values()} == set(FLOORS)


@pytest.mark.parametrize("kind", ["mlp", "lenet"])
def test_the_floor_has_the_layers_of_this_projects_network(kind):
    kernels = [tuple(p.shape) for p in ordinary(kind).parameters() if p.ndim > 1]
    assert kernels == [tuple(shape) for shape in ours(kind).shapes]
    assert ours(kind).num_inputs == math.prod(IMAGE)
    assert kernels[-1][0] == CLASSES
