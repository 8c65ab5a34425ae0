"""Sources of images: torchvision's data sets, the embedded digits, and photographs, which show no digits.

Pixels stay one byte each until a batch needs floats.
"""

import contextlib
import hashlib
import io
import math
import os
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from bbb.data.npz import load_npz
from bbb.data.splits import DataError, Split

_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SMALL_MNIST = "mnist8x8"  # MNIST with as many pixels as digits8x8, and as many grey levels
_IDX_SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
_MD5 = {
    ("mnist", "train-images-idx3-ubyte"): "6bbc9ace898e44ae57da46a324031adb",
    ("mnist", "train-labels-idx1-ubyte"): "a25bea736e30d166cdddb491f175f624",
    ("mnist", "t10k-images-idx3-ubyte"): "2646ac647ad5339dbf082846283269ea",
    ("mnist", "t10k-labels-idx1-ubyte"): "27ae3e4e09519cfbb04c329615203637",
}
# Of torchvision's other sets: the class, and the arguments for the training set and for the test set.
_BY_PART: tuple[dict[str, Any], dict[str, Any]] = {"train": True}, {"train": False}
_BY_NAME: tuple[dict[str, Any], dict[str, Any]] = {"split": "train"}, {"split": "test"}
_OTHER_SETS: dict[str, tuple[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "qmnist": ("QMNIST", _BY_PART),
    "emnist": ("EMNIST", ({"split": "balanced", "train": True}, {"split": "balanced", "train": False})),
    "usps": ("USPS", _BY_PART),
    "cifar10": ("CIFAR10", _BY_PART),
    "cifar100": ("CIFAR100", _BY_PART),
    "svhn": ("SVHN", _BY_NAME),
    "stl10": ("STL10", _BY_NAME),
}


def data_root(data_dir: str | None) -> Path:
    """Resolve the folder of the data sets: the argument, else the variable ``BBB_DATA_DIR``, else ``data``."""
    return Path(data_dir or os.environ.get("BBB_DATA_DIR") or "data")


def load(name: str, data_dir: str | Path = "data") -> tuple[Split, Split]:
    """Load a data set; one of torchvision's is downloaded first if its files are missing.

    Args:
        name: ``digits8x8``, ``mnist8x8``, one of torchvision's sets such as ``mnist``, or a file ``NAME.npz`` with the
            arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test`` (see :func:`bbb.data.load_npz`).
        data_dir: folder that holds torchvision's layout; the others need none.

    Returns:
        The training set and the test set, as published. ``digits8x8`` has no published split; it is always split into
        the same 1,437 and 360 images.

    Raises:
        DataError: the files are missing and cannot be downloaded, or they are damaged, or do not hold what they should.
    """
    if name == "digits8x8":
        return _load_digits8x8()
    if name.endswith(".npz"):
        return load_npz(Path(name))
    if name in _IDX_SETS:
        return _load_idx(name, Path(data_dir))
    if name == SMALL_MNIST:
        train, test = (_small(split) for split in _load_idx("mnist", Path(data_dir)))
        return train, test
    if name in _OTHER_SETS:
        return _load_other(name, Path(data_dir))
    sets = ", ".join([*_IDX_SETS, SMALL_MNIST, *_OTHER_SETS])
    raise DataError(f"dataset={name}: must be digits8x8, {sets}, or a file NAME.npz")


def photographs(side: int) -> Tensor:
    """Cut scikit-learn's two sample photographs into grey square patches: images that are not digits.

    Args:
        side: side of a patch, in pixels.

    Returns:
        ``(N, side * side)``, uint8.
    """
    from sklearn.datasets import load_sample_images  # here, since it takes a second to import

    grey = (torch.tensor(photograph).float().mean(2) for photograph in load_sample_images().images)
    patches = (each.unfold(0, side, side).unfold(1, side, side).reshape(-1, side * side) for each in grey)
    return torch.cat([*patches]).round().to(torch.uint8)


def _load_digits8x8() -> tuple[Split, Split]:
    from sklearn.datasets import load_digits  # here, since it takes a second to import
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = (digits.data * (255.0 / 16.0)).round().astype("uint8")
    parts = train_test_split(pixels, digits.target, test_size=360, stratify=digits.target, random_state=0)
    train_x, test_x, train_y, test_y = (torch.from_numpy(part) for part in parts)
    return Split(train_x, train_y.long(), (1, 8, 8)), Split(test_x, test_y.long(), (1, 8, 8))


def _load_idx(name: str, data_dir: Path) -> tuple[Split, Split]:
    from torchvision import datasets  # here, since it takes seconds to import and the embedded digits do not need it

    folder = data_dir / _IDX_SETS[name] / "raw"
    missing = [file for file in _IDX_FILES if not (folder / file).is_file()]
    for file in set(_IDX_FILES) - set(missing):
        _check_file(name, folder / file)
    parts = [{"train": True, "download": bool(missing)}, {"train": False, "download": bool(missing)}]
    needed = f"put {', '.join(_IDX_FILES)} into {folder}"
    train, test = (_create(name, getattr(datasets, _IDX_SETS[name]), data_dir, part, needed) for part in parts)
    for file in missing:
        _check_file(name, folder / file)
    return _as_split(name, train.data, train.targets), _as_split(name, test.data, test.targets)


def _small(split: Split) -> Split:
    """Make images of 28 x 28 pixels 8 x 8: the means of blocks of 3 x 3, without 2 pixels on each side."""
    inner = split.images.view(-1, 28, 28)[:, 2:-2, 2:-2].float()
    blocks = inner.unflatten(1, (8, 3)).unflatten(3, (8, 3)).mean((2, 4))
    return Split(blocks.round().to(torch.uint8).flatten(1), split.labels, (1, 8, 8))


def _load_other(name: str, data_dir: Path) -> tuple[Split, Split]:
    from torchvision import datasets

    kind, parts = getattr(datasets, _OTHER_SETS[name][0]), _OTHER_SETS[name][1]
    needed = f"put its files into {data_dir}, laid out as torchvision does"
    splits = []
    for part in parts:
        images = _create(name, kind, data_dir, {**part, "download": False}, needed, or_download=True)
        labels = images.targets if hasattr(images, "targets") else images.labels
        splits.append(_as_split(name, images.data, labels))
    return splits[0], splits[1]


def _create(
    name: str, kind: Any, data_dir: Path, arguments: dict[str, Any], needed: str, or_download: bool = False
) -> Any:
    """Create one of torchvision's sets; reading it first, then downloading it, where that is asked for.

    Raises:
        DataError: it can neither be read nor downloaded.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints each attempt at each mirror
            try:
                return kind(str(data_dir), **arguments)
            except RuntimeError:
                if not or_download:
                    raise
                return kind(str(data_dir), **{**arguments, "download": True})
    except (URLError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).replace("\n", " ")
        raise DataError(
            f"dataset={name}: cannot read or download it; {needed} or name another data_dir, or run on the embedded "
            f"digits: python experiment.py with blundell dataset=digits8x8 (the reason was: {reason})"
        ) from error


def _as_split(name: str, images: Any, labels: Any) -> Split:
    """Flatten images, with their channels first.

    Raises:
        DataError: they are not bytes of one size.
    """
    pixels, targets = torch.as_tensor(images), torch.as_tensor(labels).long()
    if pixels.dtype != torch.uint8 or pixels.ndim not in (3, 4) or len(pixels) != len(targets):
        raise DataError(f"dataset={name}: holds no images of one size, one byte a pixel")
    if pixels.ndim == 3:
        pixels = pixels.unsqueeze(1)
    elif pixels.shape[3] in (1, 3) and pixels.shape[1] not in (1, 3):
        pixels = pixels.permute(0, 3, 1, 2)
    return Split(pixels.flatten(1).contiguous(), targets, tuple(pixels.shape[1:]))


def _check_file(name: str, path: Path) -> None:
    """Refuse an IDX file whose size is not what its header says, or whose checksum is not the published one."""
    size, published, damage = path.stat().st_size, _MD5.get((name, path.name)), None
    with open(path, "rb") as file:
        header = file.read(16)
        file.seek(0)
        checksum = hashlib.file_digest(file, "md5").hexdigest() if published else None
    rank = header[3] if len(header) > 3 else 0
    promised = 4 + 4 * rank + math.prod(int.from_bytes(header[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank))
    if header[:3] != b"\0\0\x08" or rank not in (1, 3):
        damage = "it does not start as an IDX file of bytes does"
    elif size != promised:
        damage = f"it has {size:,} bytes, its header promises {promised:,}"
    elif checksum != published:
        damage = "its md5 checksum is not the published one"
    if damage:
        raise DataError(f"{path}: damaged, {damage}; delete it and run again to download it, or replace it")
