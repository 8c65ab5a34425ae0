import struct

import numpy as np
import pytest
import torch

from bbb import data
from bbb.data import DataError


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


def test_real_mnist_is_whole(mnist_dir):
    train, test = data.load("mnist", mnist_dir)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
