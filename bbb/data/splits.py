"""Examples as tensors in memory, and operations on a whole set: select classes, hold out, subsample, make minibatches.

A source larger than memory belongs here. Anything that yields pieces with the shape of :class:`Split` can feed
:func:`batches`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb.data.transforms import rotate_images
from bbb.system import InputError


class DataError(InputError):
    """The data set is missing or damaged, or does not hold what was requested."""


@dataclass(frozen=True)
class Split:
    """Examples in memory.

    Attributes:
        images: inputs, flattened ``(N, P)``: uint8 in 0..255, or float32.
        labels: classes ``(N,)`` as int64 in 0..C-1; for regression numbers ``(N,)`` or ``(N, C)`` as float32.
        input_shape: of one example, such as ``(1, 28, 28)``; by default ``(P,)``.
    """

    images: Tensor
    labels: Tensor
    input_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.input_shape:
            object.__setattr__(self, "input_shape", tuple(self.images.shape[1:]))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        return Split(self.images[index], self.labels[index], self.input_shape)

    @property
    def has_classes(self) -> bool:
        """Whether the labels are classes, not numbers."""
        return not self.labels.is_floating_point()

    def to(self, device: torch.device) -> "Split":
        """Move the whole split to a device."""
        return Split(self.images.to(device), self.labels.to(device), self.input_shape)


def select(split: Split, classes: Sequence[int] | None) -> Split:
    """Keep some classes, relabelled 0..C-1 in the order given; None keeps all as they are.

    Raises:
        DataError: the labels are numbers, or a class has no example.
    """
    if classes is None:
        return split
    if not split.has_classes:
        raise DataError(f"classes={list(classes)}: the labels of this data set are numbers; use classes=None")
    highest = int(split.labels.max())
    missing = [label for label in classes if label > highest or not (split.labels == label).any()]
    if missing:
        raise DataError(f"classes={list(classes)}: this data set has no example of class {missing[0]}")
    relabelled = torch.full((highest + 1,), -1)
    relabelled[list(classes)] = torch.arange(len(classes))
    labels = relabelled[split.labels]
    keep = labels >= 0
    images = split.images if keep.all() else split.images[keep]
    return Split(images, labels[keep], split.input_shape)


def rotate(split: Split, degrees: float) -> Split:
    """Turn every image of a split counter-clockwise by an angle in degrees (see :func:`rotate_images`).

    Raises:
        DataError: the inputs are not square images.
    """
    if degrees == 0.0:
        return split
    channels, *sides = split.input_shape if len(split.input_shape) == 3 else (1, *split.input_shape)
    if len(sides) != 2 or sides[0] != sides[1]:
        raise DataError(f"rotation={degrees}: only square images can be turned; inputs have shape {split.input_shape}")
    return Split(rotate_images(split.images, degrees, channels), split.labels, split.input_shape)


def permute(split: Split, seed: int | None) -> Split:
    """Put the numbers of every example into another order, the same for all; None leaves them as they are.

    Permuted pixels are as hard a task as the images to a network without a notion of neighbours, and a new one
    (Goodfellow et al. 2014, arXiv 1312.6211).

    Args:
        split: the examples.
        seed: of the order.
    """
    if seed is None:
        return split
    order = torch.randperm(split.images.shape[1], generator=torch.Generator().manual_seed(seed))
    return Split(split.images[:, order], split.labels, split.input_shape)


def set_aside(split: Split, num: int, generator: torch.Generator) -> tuple[Split, Split]:
    """Take a random coreset out of a split: few examples that stand for a task later (Nguyen et al. 2018).

    Args:
        split: the examples.
        num: of the coreset.
        generator: source of the choice, on the CPU.

    Returns:
        The coreset, and all other examples.

    Raises:
        DataError: nothing would be left.
    """
    if num >= len(split):
        raise DataError(f"coreset={num}: leaves none of {len(split)} examples to train on; use fewer")
    return _parted(split, num, generator)


def unite(splits: Sequence[Split], offsets: Sequence[int]) -> Split:
    """Make one split of the examples of several.

    Args:
        splits: inputs of one shape and type, with classes.
        offsets: added to the classes of each.

    Raises:
        DataError: the inputs differ, or the labels are numbers.
    """
    first = splits[0]
    for number, split in enumerate(splits, start=1):
        if split.input_shape != first.input_shape or split.images.dtype != first.images.dtype:
            raise DataError(
                f"union: {number}: has inputs of shape {split.input_shape} as {split.images.dtype}, the first task "
                f"has {first.input_shape} as {first.images.dtype}; they must be alike"
            )
        if not split.has_classes:
            raise DataError(f"union: {number}: has numbers for labels; only classes can be united")
    labels = [split.labels + offset for split, offset in zip(splits, offsets, strict=True)]
    return Split(torch.cat([split.images for split in splits]), torch.cat(labels), first.input_shape)


def check_shift(split: Split, pixels: int) -> None:
    """Refuse to move images by more than they have pixels, and examples that are not images.

    Raises:
        DataError: the examples are no images, or too small for moves by that many pixels.
    """
    if pixels == 0:
        return
    if len(split.input_shape) < 2:
        raise DataError(f"input_shift={pixels}: only images can be moved; inputs have shape {split.input_shape}")
    if pixels >= min(split.input_shape[-2:]):
        raise DataError(f"input_shift={pixels}: images of {split.input_shape} would be empty; use fewer pixels")


def subsample(split: Split, fraction: float, generator: torch.Generator) -> Split:
    """Keep a random share of each class, rounded, and at least one image of each; of numbers, a share of all.

    Args:
        split: the images to draw from.
        fraction: share in (0, 1]; 1 keeps everything as it is.
        generator: source of the choice, on the CPU.
    """
    if fraction == 1.0:
        return split
    if not split.has_classes:
        order = torch.randperm(len(split), generator=generator)
        return split[order[: max(1, round(fraction * len(split)))].sort().values]
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
        The training images and the held-out images; None in place of an empty validation set.

    Raises:
        DataError: nothing would be left to train on.
    """
    num_held_out = round(fraction * len(split))
    if num_held_out == 0:
        return split, None
    if num_held_out >= len(split):
        raise DataError(f"validation_fraction={fraction}: leaves none of {len(split)} images to train on")
    held_out, rest = _parted(split, num_held_out, generator)
    return rest, held_out


def _parted(split: Split, num: int, generator: torch.Generator) -> tuple[Split, Split]:
    """Draw some examples at random: these, and all others."""
    order = torch.randperm(len(split), generator=generator)
    return split[order[:num]], split[order[num:]]


def num_batches(split: Split, batch_size: int) -> int:
    """Count the minibatches of an epoch, the last of which may be smaller."""
    return math.ceil(len(split) / batch_size)


def batches(
    split: Split, batch_size: int, generator: torch.Generator | Sequence[torch.Generator], first: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate once over the split in random order, or in R orders at once.

    Args:
        split: the data, on any device.
        batch_size: B, images per minibatch; the last minibatch has the remaining ones.
        generator: source of the order, on the CPU; R of them for R orders.
        first: number of minibatches to skip, because a resumed training has used them already.

    Yields:
        Raw inputs ``(B, P)`` and labels ``(B,)``; ``(R, B, P)`` and ``(R, B)`` for R orders.
    """
    if isinstance(generator, torch.Generator):
        order = torch.randperm(len(split), generator=generator)
    else:
        order = torch.stack([torch.randperm(len(split), generator=each) for each in generator])
    for index in order.to(split.labels.device).split(batch_size, dim=-1)[first:]:
        yield _rows(split.images, index), _rows(split.labels, index)


def _rows(values: Tensor, index: Tensor) -> Tensor:
    """Take rows ``(B, ...)`` or ``(R, B, ...)``: whole rows are copied many times as fast as single numbers."""
    return values.index_select(0, index.flatten()).unflatten(0, index.shape)
