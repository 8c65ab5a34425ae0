"""Sources of images: torchvision's data sets, the embedded digits, and photographs, which show no digits.

Pixels stay one byte each until a batch needs floats.
"""

import contextlib
import hashlib
import io
import math
import os
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from bbb.data.splits import DataError, Split

_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_TORCHVISION_NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
_MD5 = {
    ("mnist", "train-images-idx3-ubyte"): "6bbc9ace898e44ae57da46a324031adb",
    ("mnist", "train-labels-idx1-ubyte"): "a25bea736e30d166cdddb491f175f624",
    ("mnist", "t10k-images-idx3-ubyte"): "2646ac647ad5339dbf082846283269ea",
    ("mnist", "t10k-labels-idx1-ubyte"): "27ae3e4e09519cfbb04c329615203637",
}


def data_root(data_dir: str | None) -> Path:
    """Resolve the folder of the data sets: the argument, else the variable ``BBB_DATA_DIR``, else ``data``."""
    return Path(data_dir or os.environ.get("BBB_DATA_DIR") or "data")


def load(name: str, data_dir: Path) -> tuple[Split, Split]:
    """Load a data set; download it first if its files are missing.

    Args:
        name: ``mnist``, ``fashion_mnist``, ``kmnist`` or ``digits8x8``.
        data_dir: folder that holds torchvision's layout; ``digits8x8`` needs none.

    Returns:
        The training set and the test set, as published. ``digits8x8`` has no published split; it is always split into
        the same 1,437 and 360 images.

    Raises:
        DataError: the files are missing and cannot be downloaded, or they are damaged.
    """
    return _load_digits8x8() if name == "digits8x8" else _load_torchvision(name, Path(data_dir))


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
    return Split(train_x, train_y.long()), Split(test_x, test_y.long())


def _load_torchvision(name: str, data_dir: Path) -> tuple[Split, Split]:
    from torchvision import datasets  # here, since it takes seconds to import and the embedded digits do not need it

    folder = data_dir / _TORCHVISION_NAMES[name] / "raw"
    missing = [file for file in _IDX_FILES if not (folder / file).is_file()]
    for file in set(_IDX_FILES) - set(missing):
        _check_file(name, folder / file)
    dataset = getattr(datasets, _TORCHVISION_NAMES[name])
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints each attempt at each mirror
            train, test = (dataset(str(data_dir), train=part, download=bool(missing)) for part in (True, False))
    except (URLError, OSError, RuntimeError) as error:
        reason = str(error).replace("\n", " ")
        raise DataError(
            f"dataset={name}: cannot read or download it; put {', '.join(_IDX_FILES)} into {folder} or name another "
            "data_dir, or run on the embedded digits: python experiment.py with blundell dataset=digits8x8 "
            f"(the reason was: {reason})"
        ) from error
    for file in missing:
        _check_file(name, folder / file)
    return Split(train.data.flatten(1), train.targets.long()), Split(test.data.flatten(1), test.targets.long())


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
