"""Data sets as tensors in memory: one byte a pixel until a batch needs floats.

A source larger than memory would enter here: whatever yields :class:`Split`-shaped pieces can feed :func:`batches`.
"""

import contextlib
import hashlib
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from bbb.errors import InputError

NUM_CLASSES = 10
ROTATED_AT_ONCE = 5_000  # images; bounds memory
PIXEL_SCALE = 126.0  # Blundell et al. 2015, section 5.1: "preprocess the pixels by dividing values by 126"

_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_TORCHVISION_NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
_MD5 = {
    ("mnist", "train-images-idx3-ubyte"): "6bbc9ace898e44ae57da46a324031adb",
    ("mnist", "train-labels-idx1-ubyte"): "a25bea736e30d166cdddb491f175f624",
    ("mnist", "t10k-images-idx3-ubyte"): "2646ac647ad5339dbf082846283269ea",
    ("mnist", "t10k-labels-idx1-ubyte"): "27ae3e4e09519cfbb04c329615203637",
}


class DataError(InputError):
    """The data set is not there, is damaged, or does not hold what was asked of it."""


@dataclass(frozen=True)
class Split:
    """Images ``(N, P)`` as uint8 in 0..255, flattened, and labels ``(N,)`` as int64 in 0..C-1."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "Split":
        """Move the whole split to a device."""
        return Split(self.images.to(device), self.labels.to(device))


def data_root(data_dir: str | None) -> Path:
    """Resolve where data sets lie: the argument, else the variable ``BBB_DATA_DIR``, else ``data``."""
    return Path(data_dir or os.environ.get("BBB_DATA_DIR") or "data")


def load(name: str, data_dir: Path) -> tuple[Split, Split]:
    """Load a data set, downloading it where it is not there and there is internet.

    Args:
        name: ``mnist``, ``fashion_mnist``, ``kmnist`` or ``digits8x8``.
        data_dir: folder that holds torchvision's layout; ``digits8x8`` needs none.

    Returns:
        The training set and the test set, with the publishers' split. ``digits8x8``, which has none, is split once
        and for all into 1,437 and 360 images.

    Raises:
        DataError: the files are not there and cannot be downloaded, or are damaged.
    """
    return _load_digits8x8() if name == "digits8x8" else _load_torchvision(name, Path(data_dir))


def select(split: Split, digits: Sequence[int]) -> Split:
    """Keep the classes ``digits``, relabelled 0..C-1 in the order given."""
    relabelled = torch.full((NUM_CLASSES,), -1)
    relabelled[list(digits)] = torch.arange(len(digits))
    labels = relabelled[split.labels]
    keep = labels >= 0
    return Split(split.images, labels) if keep.all() else Split(split.images[keep], labels[keep])


def rotate(split: Split, degrees: float) -> Split:
    """Turn every image about its centre, counter-clockwise, with bilinear interpolation and empty corners.

    Args:
        split: square images.
        degrees: the angle.
    """
    if degrees == 0.0:
        return split
    from torchvision.transforms import InterpolationMode, functional  # here, since it takes seconds to import

    side = math.isqrt(split.images.shape[1])
    images = split.images.view(-1, 1, side, side)
    turned = [functional.rotate(part, degrees, InterpolationMode.BILINEAR) for part in images.split(ROTATED_AT_ONCE)]
    return Split(torch.cat(turned).flatten(1), split.labels)


def photographs(side: int) -> Tensor:
    """Cut two photographs, which come with scikit-learn, into grey square patches: images that are no digits.

    Args:
        side: of a patch, in pixels.

    Returns:
        ``(N, side * side)``, uint8.
    """
    from sklearn.datasets import load_sample_images  # here, since it takes a second to import

    grey = (torch.tensor(photograph).float().mean(2) for photograph in load_sample_images().images)
    patches = (each.unfold(0, side, side).unfold(1, side, side).reshape(-1, side * side) for each in grey)
    return torch.cat([*patches]).round().to(torch.uint8)


def subsample(split: Split, fraction: float, generator: torch.Generator) -> Split:
    """Keep a random share of each class, rounded, and at least one image of each.

    Args:
        split: what to draw from.
        fraction: share in (0, 1]; 1 keeps everything as it is.
        generator: source of the choice, on the CPU.
    """
    if fraction == 1.0:
        return split
    kept = []
    for label in split.labels.unique():
        members = (split.labels == label).nonzero().squeeze(1)
        order = torch.randperm(len(members), generator=generator)
        kept.append(members[order[: max(1, round(fraction * len(members)))]])
    return split[torch.cat(kept).sort().values]


def hold_out(split: Split, fraction: float, generator: torch.Generator) -> tuple[Split, Split | None]:
    """Hold a random share out for validation.

    Args:
        split: the training set.
        fraction: share in [0, 1) to hold out, rounded to whole images.
        generator: source of the choice, on the CPU.

    Returns:
        What is left for training and what is held out; None in place of an empty validation set.

    Raises:
        DataError: nothing would be left to train on.
    """
    num_held_out = round(fraction * len(split))
    if num_held_out == 0:
        return split, None
    if num_held_out >= len(split):
        raise DataError(f"validation_fraction={fraction}: leaves none of {len(split)} images to train on")
    order = torch.randperm(len(split), generator=generator)
    return split[order[num_held_out:]], split[order[:num_held_out]]


def to_float(images: Tensor) -> Tensor:
    """Scale pixels from 0..255 to 0..2.02 as Blundell et al. 2015 do: the one place where pixels are scaled."""
    return images * (1.0 / PIXEL_SCALE)


def num_batches(split: Split, batch_size: int) -> int:
    """Count the minibatches of an epoch, the last of which may be smaller."""
    return math.ceil(len(split) / batch_size)


def batches(
    split: Split, batch_size: int, generator: torch.Generator | Sequence[torch.Generator], first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate once over the split in random order, or in R orders at once.

    Args:
        split: the data, on any device.
        batch_size: B, images a minibatch; the last one has what is left.
        generator: source of the order, on the CPU; R of them for R orders.
        first: number of minibatches to leave out, which a resumed training has seen.

    Yields:
        Inputs ``(B, P)`` scaled by :func:`to_float`, and labels ``(B,)``; ``(R, B, P)`` and ``(R, B)`` for R orders.
    """
    if isinstance(generator, torch.Generator):
        order = torch.randperm(len(split), generator=generator)
    else:
        order = torch.stack([torch.randperm(len(split), generator=each) for each in generator])
    for index in order.to(split.labels.device).split(batch_size, dim=-1)[first:]:
        yield to_float(split.images[index]), split.labels[index]


def drop_pixels(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set a random share of the inputs to zero and scale up the rest, as dropout does (Srivastava et al. 2014).

    Sixteen random bits decide each pixel: four pixels a drawn integer, many times faster than a Bernoulli draw each.

    Args:
        x: inputs ``(B, P)``.
        share: probability of dropping a pixel, in [0, 1), honoured to 2^-16.
        generator: source of the mask, on the device of x.
    """
    if share == 0.0:
        return x
    bits = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64, device=x.device)
    bits.random_(-(2**63), None, generator=generator)
    keep = bits.view(torch.int16)[: x.numel()].view_as(x) >= round(share * 2**16) - 2**15
    return (x * keep).mul_(1.0 / (1.0 - share))


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
    return tuple(Split(part.data.flatten(1), part.targets.long()) for part in (train, test))


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
