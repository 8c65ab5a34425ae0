import struct

import numpy as np
import pytest
import torch

from bbb import data
from bbb.data import DataError, Split


def write_idx(path, array):
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def fake_fashion(tmp_path):
    """Eight random images in torchvision's layout, as Fashion-MNIST (whose raw checksums are not published)."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, num in {"train": 8, "t10k": 4}.items():
        write_idx(raw / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (num, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", rng.integers(0, 10, num))
    return tmp_path


def split_of(labels):
    labels = torch.tensor(labels)
    return Split(torch.arange(len(labels), dtype=torch.uint8).unsqueeze(1), labels)


def test_embedded_digits_need_no_folder(in_tmp):
    train, test = data.load("digits8x8", in_tmp / "nowhere")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape == (1437, 64)
    assert train.images.dtype == torch.uint8
    assert train.images.max() == 255
    assert set(train.labels.tolist()) == set(test.labels.tolist()) == set(range(10))
    together = torch.cat([train.images, test.images])
    assert len(together.unique(dim=0)) == len(together), "an image is in both parts"
    assert list(in_tmp.iterdir()) == []


def test_torchvision_layout_is_read(fake_fashion):
    train, test = data.load("fashion_mnist", fake_fashion)
    assert train.images.shape == (8, 784)
    assert test.labels.shape == (4,)
    assert train.labels.dtype == torch.int64


@pytest.mark.parametrize("damage", ["truncated", "longer", "other header", "empty"])
def test_damaged_files_are_refused(fake_fashion, damage):
    path = fake_fashion / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    content = path.read_bytes()
    changed = {"truncated": content[:-1], "longer": content + b"x", "other header": b"\x1f" + content[1:], "empty": b""}
    path.write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte: damaged, it .*; delete it and run again"):
        data.load("fashion_mnist", fake_fashion)


def test_mnist_is_checked_by_checksum(fake_fashion):
    (fake_fashion / "FashionMNIST").rename(fake_fashion / "MNIST")
    with pytest.raises(DataError, match="md5 checksum is not the published one"):
        data.load("mnist", fake_fashion)


def test_missing_files_tell_what_to_do(in_tmp, monkeypatch):
    from torchvision import datasets

    def no_internet(self):
        raise RuntimeError("Error downloading:\nno route")

    monkeypatch.setattr(datasets.MNIST, "download", no_internet)
    with pytest.raises(DataError) as error:
        data.load("mnist", in_tmp / "data")
    message = str(error.value)
    assert "\n" not in message
    for part in ("dataset=mnist", "t10k-labels-idx1-ubyte", "data/MNIST/raw", "dataset=digits8x8", "no route"):
        assert part in message


@pytest.mark.parametrize(
    ("argument", "variable", "expected"), [("a", "b", "a"), (None, "b", "b"), (None, "", "data"), (None, None, "data")]
)
def test_data_root(monkeypatch, argument, variable, expected):
    monkeypatch.delenv("BBB_DATA_DIR", raising=False)
    if variable is not None:
        monkeypatch.setenv("BBB_DATA_DIR", variable)
    assert str(data.data_root(argument)) == expected


def test_select_relabels_in_the_order_given():
    chosen = data.select(split_of([5, 0, 7, 5, 9]), (7, 5))
    assert chosen.labels.tolist() == [1, 0, 1]
    assert chosen.images.squeeze(1).tolist() == [0, 2, 3]


def test_subsample_cuts_each_class_alike(generator):
    split = split_of([0] * 100 + [1] * 30 + [2] * 3)
    part = data.subsample(split, 0.1, generator)
    assert part.labels.bincount().tolist() == [10, 3, 1]
    assert len(part.images.unique()) == len(part)
    assert data.subsample(split, 1.0, generator) is split


def test_hold_out_parts_are_disjoint_and_complete(generator):
    split = split_of([0] * 60)
    train, validation = data.hold_out(split, 1 / 6, generator)
    assert (len(train), len(validation)) == (50, 10)
    assert torch.cat([train.images, validation.images]).flatten().sort().values.tolist() == list(range(60))


def test_nothing_held_out():
    split = split_of([0, 1])
    assert data.hold_out(split, 0.0, torch.Generator()) == (split, None)


def test_holding_everything_out_is_refused():
    with pytest.raises(DataError, match=r"validation_fraction=0.9: leaves none of 4 images"):
        data.hold_out(split_of([0, 1, 0, 1]), 0.9, torch.Generator())


def test_batches_visit_every_image_once_in_an_order_of_the_generator(toy_split):
    def visit(seed):
        return list(data.batches(toy_split, 10, torch.Generator().manual_seed(seed)))

    batches = visit(1)
    assert [len(labels) for _, labels in batches] == [10] * 6 + [4]
    assert data.num_batches(toy_split, 10) == 7
    seen = torch.cat([x for x, _ in batches])
    assert torch.equal(seen.sort(dim=0).values, data.to_float(toy_split.images).sort(dim=0).values)
    again, other = visit(1), visit(2)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, again, strict=True))
    assert not torch.equal(batches[0][0], other[0][0])


def test_pixels_are_scaled_as_in_the_paper():
    scaled = data.to_float(torch.tensor([0, 126, 255], dtype=torch.uint8))
    torch.testing.assert_close(scaled, torch.tensor([0.0, 1.0, 255 / 126]))


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_dropped_pixels_are_the_right_share_and_keep_the_mean(share, generator):
    x = torch.ones(1000, 785)
    dropped = data.drop_pixels(x, share, generator)
    num = x.numel()
    standard_error = (share * (1 - share) / num) ** 0.5
    assert abs((dropped == 0).float().mean().item() - share) < 5 * standard_error
    torch.testing.assert_close(dropped.max(), torch.tensor(1 / (1 - share)))
    assert not torch.equal(dropped, data.drop_pixels(x, share, generator))


def test_no_pixels_are_dropped_at_share_zero(generator):
    x = torch.ones(2, 3)
    assert data.drop_pixels(x, 0.0, generator) is x


def test_real_mnist_is_whole(mnist_dir):
    train, test = data.load("mnist", mnist_dir)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_rotation_turns_counter_clockwise_and_is_undone(generator):
    images = torch.zeros(2, 5, 5, dtype=torch.uint8)
    images[:, 0, 2] = 200  # top, centre
    split = data.Split(images.flatten(1), torch.tensor([3, 4]))
    turned = data.rotate(split, 90.0)
    assert turned.images.view(2, 5, 5)[:, 2, 0].tolist() == [200, 200]  # left, centre
    assert torch.equal(turned.labels, split.labels)
    assert torch.equal(data.rotate(turned, -90.0).images, split.images)
    assert data.rotate(split, 0.0) is split
