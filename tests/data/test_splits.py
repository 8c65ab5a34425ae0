import math

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


def test_a_coreset_and_the_rest_are_disjoint_and_complete():
    split = split_of([0, 1] * 10)
    coreset, rest = data.set_aside(split, 6, seeded(1))
    assert (len(coreset), len(rest)) == (6, 14)
    assert torch.equal(torch.cat([coreset.images, rest.images]).sort(0).values, split.images)
    other = data.set_aside(split, 6, seeded(2))[0]
    assert not torch.equal(other.images, coreset.images)
    with pytest.raises(DataError, match="coreset=20: leaves none of 20 examples to train on; use fewer"):
        data.set_aside(split, 20, seeded(1))


def test_a_union_has_the_examples_of_all_with_the_classes_of_each():
    first, second = split_of([0, 1]), split_of([1, 0, 1])
    assert data.unite([first, second], [0, 0]).labels.tolist() == [0, 1, 1, 0, 1]
    united = data.unite([first, second], [0, 2])
    assert united.labels.tolist() == [0, 1, 3, 2, 3]
    assert united.images.squeeze(1).tolist() == [0, 1, 0, 1, 2]
    wide = Split(torch.zeros(2, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    numbers = Split(first.images, torch.tensor([0.5, 1.0]))
    for other, line in ((wide, "union: 2: has inputs of shape"), (numbers, "union: 2: has numbers for labels")):
        with pytest.raises(DataError, match=line):
            data.unite([first, other], [0, 0])


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


def numbers(num=10):
    inputs = torch.arange(num * 2.0).view(num, 2)
    return Split(inputs, inputs.sum(1))


def test_the_shape_of_one_example_goes_along():
    images = torch.arange(4 * 12, dtype=torch.uint8).view(4, 12)
    split = Split(images, torch.tensor([0, 1, 0, 1]), (3, 2, 2))
    parts = [split[1:], split[torch.tensor([0, 2])], split.to(torch.device("cpu")), data.select(split, (1,))]
    parts += [data.subsample(split, 0.5, seeded(1)), *data.hold_out(split, 0.5, seeded(1)), data.rotate(split, 90.0)]
    assert {part.input_shape for part in parts} == {(3, 2, 2)}
    assert Split(images, split.labels).input_shape == (12,)


def test_no_classes_are_all_of_them():
    split = split_of([5, 0, 7])
    assert data.select(split, None) is split
    assert data.select(numbers(), None).labels.is_floating_point()


def test_classes_of_numbers_are_refused():
    split = numbers()
    assert (split.has_classes, split_of([0]).has_classes) == (False, True)
    with pytest.raises(DataError, match=r"classes=\[0, 1\]: the labels of this data set are numbers; use classes=None"):
        data.select(split, (0, 1))


@pytest.mark.parametrize(("classes", "absent"), [((0, 3), 3), ((0, 9), 9), ((10**9,), 10**9), ((7, 6, 9), 6)])
def test_classes_without_examples_are_refused(classes, absent):
    with pytest.raises(DataError) as error:
        data.select(split_of([0, 5, 7]), classes)
    assert str(error.value) == f"classes={list(classes)}: this data set has no example of class {absent}"


def test_a_share_of_numbers_is_one_of_all_examples():
    split = numbers(10)
    part = data.subsample(split, 0.3, seeded(1))
    assert len(part) == 3
    assert torch.equal(part.labels, part.images.sum(1))
    assert not torch.equal(part.labels, data.subsample(split, 0.3, seeded(2)).labels)
    assert len(data.subsample(split, 0.001, seeded(1))) == 1


def test_batches_of_numbers_are_raw_and_keep_inputs_and_labels_together():
    split = numbers(7)
    seen = [*data.batches(split, 3, seeded(1))]
    assert all(torch.equal(x.sum(1), y) for x, y in seen)
    assert torch.equal(torch.cat([y for _, y in seen]).sort().values, split.labels)
    images = Split(torch.zeros(3, 2, dtype=torch.uint8), torch.arange(3))
    assert next(data.batches(images, 3, seeded(1)))[0].dtype == torch.uint8


def test_every_channel_is_turned_alike():
    images = torch.zeros(2, 3, 5, 5, dtype=torch.uint8)
    images[:, :, 0, 2] = torch.tensor([10, 20, 30], dtype=torch.uint8)  # top, centre
    turned = data.rotate(Split(images.flatten(1), torch.tensor([0, 1]), (3, 5, 5)), 90.0)
    assert turned.images.view(2, 3, 5, 5)[:, :, 2, 0].tolist() == [[10, 20, 30]] * 2  # left, centre
    assert turned.images.sum() == images.sum()
    for channel in range(3):
        alone = data.rotate_images(images[:, channel].flatten(1), 30.0)
        together = data.rotate_images(images.flatten(1), 30.0, 3)
        assert torch.equal(together.view(2, 3, 25)[:, channel], alone)


def test_images_without_channels_are_turned():
    images = torch.zeros(1, 25, dtype=torch.uint8)
    images[0, 2] = 7
    assert data.rotate(Split(images, torch.tensor([0]), (5, 5)), 90.0).images.view(5, 5)[2, 0] == 7


@pytest.mark.parametrize("shape", [(12,), (1, 3, 4), (3, 4), (1, 1, 3, 4)])
def test_what_is_no_square_image_is_not_turned(shape):
    split = Split(torch.zeros(2, 12), torch.zeros(2).long(), shape)
    with pytest.raises(DataError) as error:
        data.rotate(split, 30.0)
    assert str(error.value) == f"rotation=30.0: only square images can be turned; inputs have shape {shape}"
    assert data.rotate(split, 0.0) is split


@pytest.mark.parametrize(
    ("shape", "pixels", "message"),
    [
        ((5,), 1, "input_shift=1: only images can be moved; inputs have shape (5,)"),
        ((3, 8, 4), 4, "input_shift=4: images of (3, 8, 4) would be empty; use fewer pixels"),
    ],
)
def test_moves_that_leave_nothing_are_refused(shape, pixels, message):
    split = Split(torch.zeros(2, math.prod(shape)), torch.zeros(2, dtype=torch.int64), shape)
    data.check_shift(split, 0)
    with pytest.raises(data.DataError) as error:
        data.check_shift(split, pixels)
    assert str(error.value) == message
