import struct

import numpy as np
import pytest
import torch

from bbb import data
from bbb.data import DataError
from bbb.data import sources as data_sources


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


def test_small_mnist_is_the_mean_of_blocks_inside_a_border(monkeypatch):
    blocks = torch.arange(64, dtype=torch.uint8).view(8, 8)
    image = torch.full((28, 28), 255, dtype=torch.uint8)
    image[2:-2, 2:-2] = blocks.repeat_interleave(3, 0).repeat_interleave(3, 1)
    image[2, 2] = 9  # of a block of zeros: 9 / 9
    split = data.Split(image.view(1, -1), torch.tensor([7]), (1, 28, 28))
    monkeypatch.setattr(data_sources, "_load_idx", lambda name, folder: (split, split))
    train, test = data.load("mnist8x8")
    assert train.images.tolist() == test.images.tolist() == [[1, *range(1, 64)]]
    assert train.input_shape == data.load("digits8x8")[0].input_shape
    assert train.labels.tolist() == [7]


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


class FakeSet:
    """What one of torchvision's sets offers: labels as ``targets`` or ``labels``, read from a folder or downloaded."""

    images, labels, called, has_labels = np.zeros((4, 2, 3, 3), np.uint8), [0, 1, 2, 1], [], False
    missing, offline = False, False

    def __init__(self, root, download, **arguments):
        self.called.append((root, download, arguments))
        print("attempt at a mirror")
        if self.missing and not download:
            raise RuntimeError("Dataset not found or corrupted.\nUse download=True")
        if self.offline and download:
            raise RuntimeError("Error downloading:\nno route")
        self.data = self.images
        setattr(self, "labels" if self.has_labels else "targets", self.labels)


@pytest.fixture
def fake(monkeypatch):
    """Put a set in the place of one of torchvision's."""
    from torchvision import datasets

    def put(name, **attributes):
        kind = type("Fake", (FakeSet,), {"called": [], **attributes})
        monkeypatch.setattr(datasets, name, kind)
        return kind

    return put


PIXELS = np.random.default_rng(1).integers(0, 256, (4, 5, 6, 3)).astype(np.uint8)
OTHERS = {  # the class, the arguments of both parts, the layout of its pixels, and the shape of one example
    "cifar10": ("CIFAR10", "train", PIXELS, (3, 5, 6)),
    "cifar100": ("CIFAR100", "train", PIXELS, (3, 5, 6)),
    "svhn": ("SVHN", "split", PIXELS.transpose(0, 3, 1, 2), (3, 5, 6)),
    "stl10": ("STL10", "split", PIXELS.transpose(0, 3, 1, 2), (3, 5, 6)),
    "usps": ("USPS", "train", PIXELS[..., 0], (1, 5, 6)),
    "qmnist": ("QMNIST", "train", torch.from_numpy(PIXELS[..., 0]), (1, 5, 6)),
    "emnist": ("EMNIST", "train", torch.from_numpy(PIXELS[..., 0]), (1, 5, 6)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_torchvisions_other_sets_are_read_with_their_channels_first(fake, tmp_path, name):
    kind, key, images, shape = OTHERS[name]
    made = fake(kind, images=images, has_labels=key == "split")
    train, test = data.load(name, tmp_path)
    assert [(root, download) for root, download, _ in made.called] == [(str(tmp_path), False)] * 2
    parts = [arguments[key] for _, _, arguments in made.called]
    assert parts == ([True, False] if key == "train" else ["train", "test"])
    expected = torch.from_numpy(PIXELS if shape[0] == 3 else PIXELS[..., :1]).permute(0, 3, 1, 2)
    for part in (train, test):
        assert part.input_shape == shape
        assert part.images.dtype == torch.uint8
        assert torch.equal(part.images.unflatten(1, shape), expected)
        assert (part.labels.tolist(), part.labels.dtype) == ([0, 1, 2, 1], torch.int64)


def test_a_set_that_is_not_there_is_downloaded_without_a_word(fake, tmp_path, capsys):
    made = fake("CIFAR10", images=PIXELS, missing=True)
    train, _ = data.load("cifar10", tmp_path)
    assert len(train) == 4
    assert [download for _, download, _ in made.called] == [False, True, False, True]
    assert capsys.readouterr() == ("", "")


def test_a_set_that_cannot_be_downloaded_is_refused_in_one_line(fake, tmp_path):
    fake("CIFAR10", missing=True, offline=True)
    with pytest.raises(DataError) as error:
        data.load("cifar10", tmp_path)
    message = str(error.value)
    assert len(message.splitlines()) == 1
    for part in ("dataset=cifar10: cannot read or download it", str(tmp_path), "dataset=digits8x8", "no route"):
        assert part in message


@pytest.mark.parametrize(
    "images", [PIXELS / 255.0, PIXELS[0, 0], PIXELS[:3]], ids=["floats", "no images", "too few of them"]
)
def test_a_set_that_holds_no_bytes_of_one_size_is_refused(fake, tmp_path, images):
    fake("CIFAR10", images=images)
    with pytest.raises(DataError) as error:
        data.load("cifar10", tmp_path)
    assert str(error.value) == "dataset=cifar10: holds no images of one size, one byte a pixel"


def test_every_other_set_is_one_of_torchvisions():
    from torchvision import datasets

    assert {kind for kind, _ in data_sources._OTHER_SETS.values()} == {kind for kind, *_ in OTHERS.values()}
    assert all(hasattr(datasets, kind) for kind, *_ in OTHERS.values())


def test_an_unknown_set_is_refused_with_those_that_are_known(tmp_path):
    with pytest.raises(DataError) as error:
        data.load("imagenet", tmp_path)
    message = str(error.value)
    assert message.startswith("dataset=imagenet: must be digits8x8, mnist, fashion_mnist, kmnist, mnist8x8, ")
    assert message.endswith(", or a file NAME.npz")


def test_sets_of_images_say_their_shape(fake_fashion):
    assert data.load("fashion_mnist", fake_fashion)[0].input_shape == (1, 28, 28)
    assert data.load("digits8x8")[1].input_shape == (1, 8, 8)
