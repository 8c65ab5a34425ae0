import pytest
import torch

from bbb import data
from bbb.data import DataError, Split
from tests.tasks import seeded


def split_of(labels):
    labels = torch.tensor(labels)
    return Split(torch.arange(len(labels), dtype=torch.uint8).unsqueeze(1), labels)


def test_select_relabels_in_the_order_given():
    chosen = data.select(split_of([5, 0, 7, 5, 9]), (7, 5))
    assert chosen.labels.tolist() == [1, 0, 1]
    assert chosen.images.squeeze(1).tolist() == [0, 2, 3]


def test_subsample_cuts_each_class_alike():
    split = split_of([0] * 100 + [1] * 30 + [2] * 3)
    part = data.subsample(split, 0.1, seeded(1))
    assert part.labels.bincount().tolist() == [10, 3, 1]
    assert len(part.images.unique()) == len(part)
    assert data.subsample(split, 1.0, seeded(2)) is split


def test_hold_out_parts_are_disjoint_and_complete():
    split = split_of([0] * 60)
    train, validation = data.hold_out(split, 1 / 6, seeded(1))
    assert (len(train), len(validation)) == (50, 10)
    assert torch.cat([train.images, validation.images]).flatten().sort().values.tolist() == list(range(60))


def test_nothing_held_out():
    split = split_of([0, 1])
    assert data.hold_out(split, 0.0, seeded()) == (split, None)


def test_holding_everything_out_is_refused():
    with pytest.raises(DataError, match=r"validation_fraction=0.9: leaves none of 4 images"):
        data.hold_out(split_of([0, 1, 0, 1]), 0.9, seeded())


def test_batches_visit_every_image_once_in_an_order_of_the_generator(toy_split):
    def visit(seed):
        return list(data.batches(toy_split, 10, seeded(seed)))

    batches = visit(1)
    assert [len(labels) for _, labels in batches] == [10] * 6 + [4]
    assert data.num_batches(toy_split, 10) == 7
    seen = torch.cat([x for x, _ in batches])
    assert torch.equal(seen.sort(dim=0).values, toy_split.images.sort(dim=0).values)
    again, other = visit(1), visit(2)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, again, strict=True))
    assert not torch.equal(batches[0][0], other[0][0])


def test_rotation_turns_counter_clockwise_and_is_undone():
    images = torch.zeros(2, 5, 5, dtype=torch.uint8)
    images[:, 0, 2] = 200  # top, centre
    split = Split(images.flatten(1), torch.tensor([3, 4]), (1, 5, 5))
    turned = data.rotate(split, 90.0)
    assert turned.images.view(2, 5, 5)[:, 2, 0].tolist() == [200, 200]  # left, centre
    assert torch.equal(turned.labels, split.labels)
    assert torch.equal(data.rotate(turned, -90.0).images, split.images)
    assert data.rotate(split, 0.0) is split
