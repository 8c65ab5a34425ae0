"""The data of a run: one task, several at once, and what is set aside."""

import json

import pytest
import torch

from bbb import runs
from bbb.networks import load_weights
from bbb.runs import SettingsError
from bbb.system import InputError
from tests.tasks import CPU, run, settings

PAIRS = [{"classes": [0, 1]}, {"classes": [4, 3]}]
TURNED = [{"rotation": 0.0}, {"rotation": 90.0}]


def load(**changes):
    return runs.load_task(settings(**changes), CPU)


def parts_of(task):
    return task.train, task.validation, task.test


@pytest.mark.parametrize(("union", "head", "offset"), [(PAIRS, "fresh", 2), (TURNED, "keep", 0)])
def test_a_union_is_what_its_tasks_are_one_by_one(union, head, offset):
    first, second = (load(**task) for task in union)
    for all_of_it, one, other in zip(*map(parts_of, (load(union=union, head=head), first, second)), strict=True):
        assert torch.equal(all_of_it.images, torch.cat([one.images, other.images]))
        assert torch.equal(all_of_it.labels, torch.cat([one.labels, other.labels + offset]))


def test_a_coreset_is_left_out_of_one_task_and_is_all_that_a_union_trains_on():
    whole, rest = load(), load(coreset=30)
    coreset = load(coreset=30, union=[{}, {"rotation": 90.0}], head="keep")
    assert len(rest.train) == len(whole.train) - 30
    assert len(coreset.train) == 60
    both = torch.cat([rest.train.images, coreset.train.images[:30]])
    assert torch.equal(both.sort(0).values, whole.train.images.sort(0).values)
    assert torch.equal(rest.test.images, whole.test.images)
    assert torch.equal(rest.validation.images, whole.validation.images)


def test_tasks_with_heads_of_their_own_have_outputs_of_their_own():
    assert runs.assemble(settings(union=PAIRS, head="fresh"), CPU).architecture.num_outputs == 4
    assert runs.assemble(settings(union=TURNED, head="keep"), CPU).architecture.num_outputs == 10
    with pytest.raises(InputError, match="union: has tasks of 2, 10 classes; use head=fresh, or other tasks"):
        load(union=[{"classes": [0, 1]}, {}], head="keep")


def test_the_weights_of_a_union_tell_it_and_no_single_data_set(in_tmp):
    run(in_tmp, union=PAIRS, head="fresh", num_epochs=1)
    about = load_weights(in_tmp / "weights.safetensors")[1]
    assert json.loads(json.dumps(about["union"])) == PAIRS
    assert "dataset" not in about


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"union": []}, r"union=\[\]: must be a list of tasks"),
        ({"union": [1]}, r"union=\[1\]: must be a list of tasks"),
        ({"union": [{"lr": 1.0}]}, "union: 1: lr: must be one of dataset, classes, rotation, permutation"),
        ({"union": [{}, {"rotation": "a"}]}, "union: 2: rotation='a': must be a number from -360"),
        ({"union": TURNED, "pretrained": "x"}, "head='auto': cannot tell whether a union has new classes"),
        ({"union": TURNED, "likelihood": "gaussian"}, "union: is of classes, which likelihood=gaussian does not have"),
        ({"coreset": -1}, "coreset=-1: must be a whole number from 0"),
        ({"posterior": "laplace", "prior": "ard"}, "posterior='laplace': adds the curvature of the likelihood to"),
        ({"posterior": "laplace", "num_replicas": 2}, "posterior='laplace': trains one network"),
        (
            {"posterior": "laplace", "estimator": "local"},
            "posterior='laplace': has no variances, which estimator=local",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(changes, line):
    with pytest.raises(SettingsError, match=line):
        settings(**changes)
