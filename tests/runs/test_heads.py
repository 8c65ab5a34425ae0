"""A run with a fresh head keeps the heads of the tasks before."""

import torch

import bbb
from bbb.data import load, permute, select
from bbb.networks import load_weights
from tests.tasks import run

THREE = {"classes": [0, 1, 2], "num_epochs": 1}
LATER = {"prior": "posterior", "num_epochs": 1}


def chain(folder, **changes):
    """Three tasks, each after the one before: the weights files."""
    tasks = ({**THREE}, {**LATER, "classes": [3, 4]}, {**LATER, "classes": [5, 6]})
    paths = []
    for number, task in enumerate(tasks, start=1):
        (folder / str(number)).mkdir()
        source = {"pretrained": str(paths[-1])} if paths else {}
        run(folder / str(number), **{**task, **changes, **source})
        paths.append(folder / str(number) / "weights.safetensors")
    return paths


def test_each_head_stays_as_its_task_left_it(in_tmp):
    paths = chain(in_tmp)
    last = load_weights(paths[-1])[0]
    for number, classes in ((0, (0, 1, 2)), (1, (3, 4)), (2, (5, 6)), (None, (5, 6))):
        posterior = bbb.load(paths[-1], head=number)
        assert posterior.classes == classes
        trained = load_weights(paths[2 if number is None else number])[0].split_head()[1]
        hidden, head = posterior.network.split_head()
        assert torch.equal(head.mean, trained.mean)
        assert torch.equal(head.log_std, trained.log_std)
        assert torch.equal(hidden.mean, last.split_head()[0].mean)


def test_a_head_that_is_kept_is_the_only_one(in_tmp):
    paths = chain(in_tmp, classes=[0, 1], head="keep")
    assert [len(load_weights(path)[1]["kept_heads"]) for path in paths] == [0, 0, 0]


def test_a_point_trained_in_a_row_may_have_a_fresh_head_each_time(in_tmp):
    paths = chain(in_tmp, posterior="point", prior="gaussian", head="fresh")
    assert [bbb.load(paths[-1], head=number).classes for number in range(3)] == [(0, 1, 2), (3, 4), (5, 6)]
    first = load_weights(paths[0])[0]
    assert torch.equal(load_weights(paths[-1], head=0)[0].split_head()[1].mean, first.split_head()[1].mean)


def test_weights_to_start_at_keep_their_head_by_default(in_tmp):
    paths = chain(in_tmp, posterior="point", prior="gaussian", classes=[0, 1])
    assert load_weights(paths[-1])[1]["kept_heads"] == ()


def test_a_permutation_is_one_order_for_all_images(in_tmp):
    train, test = load("digits8x8")
    orders = []
    for split in (train, test):
        numbered = type(split)(torch.arange(64).expand(3, 64), split.labels[:3], split.input_shape)
        rows = permute(numbered, 5).images
        assert (rows == rows[0]).all()
        assert rows[0].sort().values.tolist() == [*range(64)]
        assert torch.equal(permute(split, 5).images, split.images[:, rows[0]])
        orders.append(rows[0].tolist())
    assert orders[0] == orders[1] != [*range(64)]
    assert permute(train, None) is train
    other = permute(numbered, 6).images[0].tolist()
    assert other != orders[0]


def test_a_permuted_task_is_tested_with_its_own_permutation_when_it_is_the_source(in_tmp):
    """Its own error, but for the draws; that without the permutation is far away."""
    (in_tmp / "1").mkdir()
    (in_tmp / "2").mkdir()
    common = {"num_hidden": 32, "posterior": "gaussian", "init_std": 0.001, "beta_type": "none", "num_epochs": 10}
    first = run(in_tmp / "1", permutation=3, **common)
    later = {**common, "lr": 1e-9, "num_epochs": 1, "prior": "posterior", "head": "keep", "num_test_samples": 1}
    second = run(in_tmp / "2", permutation=4, pretrained=str(in_tmp / "1" / "weights.safetensors"), **later)
    assert abs(second.source_error - first.test_error) < 2.0
    assert second.test_error > 50.0
    posterior = bbb.load(in_tmp / "1" / "weights.safetensors")
    _, test = load("digits8x8")
    score = posterior.score(permute(select(test, None), 3).images, test.labels, num_samples=20)
    assert abs(score["error"] - first.test_error) < 2.0
