"""The images behind the example buttons of a page, and what they tell about how a drawing is to be made like them."""

import base64
from typing import Any

import torch
from torch import Tensor

from bbb.data import Split

OF_DIGITS = ("mnist", "qmnist", "usps", "svhn", "digits8x8")
PER_CLASS = 2  # images
MOST_CLASSES = 10
LOOKED_AT = 1_000  # images that the size of what is drawn is measured on
INK = 0.25  # of white: what counts as drawn
LENGTH = 2.0  # of the strokes of a digit, in sides of the box that it fills
STROKES = (0.1, 0.18)  # least and greatest width of a stroke, in sides of the box


class Examples:
    """Images of a test set, in grey levels, and the size of what they show.

    Args:
        test: images of ``side * side`` pixels with classes.
        side: of an image, in pixels.
        dataset: the name of their data set.

    Attributes:
        raw_range: what is black and what is white, in the units of the data set; None if all is of one grey.
    """

    def __init__(self, test: Split, side: int, dataset: str) -> None:
        self.side, self.dataset = side, dataset
        raw = test.images.float()
        low, high = (0.0, 255.0) if test.images.dtype == torch.uint8 else (raw.min().item(), raw.max().item())
        self.raw_range = (low, high) if high > low else None
        self._grey = (raw - low) / max(high - low, 1e-12)
        self._labels = test.labels

    def record(self) -> dict[str, Any]:
        """Collect what the page needs: images and their labels, and where a drawing is to lie in one."""
        chosen, box = self._chosen(), self._box()
        ink = self._grey[:LOOKED_AT].sum(1).mean().item()
        thinnest, thickest = (share * box for share in STROKES)
        pixels = (255.0 * self._grey[chosen]).round().to(torch.uint8)
        return {
            "dataset": self.dataset,
            "noun": "digit" if self.dataset in OF_DIGITS else "image",
            "images": [base64.b64encode(image.numpy().tobytes()).decode() for image in pixels],
            "labels": [str(label) for label in self._labels[chosen].tolist()],
            "box": box,
            "stroke": min(thickest, max(thinnest, ink / (LENGTH * box))),
            "centre": self._centre(),
        }

    def _chosen(self) -> Tensor:
        """Choose the first images of some classes, in turns: one of each, then the next of each."""
        classes = self._labels.unique()[:MOST_CLASSES]
        found = [(self._labels == label).nonzero().flatten()[:PER_CLASS] for label in classes]
        turns = [indices[turn] for turn in range(PER_CLASS) for indices in found if turn < len(indices)]
        return torch.stack(turns)

    def _box(self) -> float:
        """Measure the longer side of what the images show, in pixels: the median over some of them."""
        ink = self._grey[:LOOKED_AT].view(-1, self.side, self.side) > INK
        sides = [_extent(ink.any(axis)) for axis in (1, 2)]
        return max(2.0, torch.maximum(*sides).float().median().item())

    def _centre(self) -> list[float]:
        """Measure where the mass of what the images show lies: the mean over some of them, x and y in pixels."""
        grey = self._grey[:LOOKED_AT].view(-1, self.side, self.side)
        places = torch.arange(self.side) + 0.5
        masses = grey.sum((1, 2)).clamp(min=1e-12)
        return [((grey.sum(axis) * places).sum(1) / masses).mean().item() for axis in (1, 2)]


def _extent(marked: Tensor) -> Tensor:
    """Count the pixels from the first marked one to the last ``(N,)``; 0 where none is."""
    num = marked.shape[1]
    first, last = marked.int().argmax(1), num - 1 - marked.flip(1).int().argmax(1)
    return torch.where(marked.any(1), last - first + 1, 0)
