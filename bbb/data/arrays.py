"""Arrays that users bring, in whatever library's form, as tensors and splits; what cannot be used is refused."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bbb.data.splits import DataError, Split

INPUTS = "uint8 (images, 0..255) or floats"
LABELS = "whole numbers (classes) or floats"
_KNOWN = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")  # to NumPy and PyTorch


def as_tensor(values: Any, name: str, allowed: str) -> Tensor:
    """Read an array, a list or a tensor, of any byte order; a whole number beyond int64 becomes negative.

    Args:
        values: what a user gave.
        name: what the user calls it.
        allowed: what it may hold, in words.

    Raises:
        DataError: it holds anything but numbers.
    """
    if isinstance(values, Tensor):
        if values.is_complex():
            raise DataError(f"{name} holds {_short(values.dtype)}; must be {allowed}")
        return values.detach()
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(f"{name} has rows of different lengths; must be {allowed}, in one array") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} holds {array.dtype}; must be {allowed}")
    wide = np.dtype(np.float64 if array.dtype.kind == "f" else np.int64)
    native = array.dtype.newbyteorder("=") if array.dtype.name in _KNOWN else wide
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.require(array.astype(native, copy=False), requirements=["C", "W"]))


def as_split(x: Any, y: Any, name_x: str = "x", name_y: str = "y") -> Split:
    """Check inputs and labels, and put them into the form of training.

    Args:
        x: bytes (images, 0..255) or floats ``(N, ...)``; images without channels ``(N, height, width)`` get one.
        y: classes as whole numbers ``(N,)``, or floats ``(N,)`` or ``(N, C)``.
        name_x: what the user calls the inputs.
        name_y: what the user calls the labels.

    Raises:
        DataError: they hold something else, do not fit together, or are not finite.
    """
    inputs, labels = as_tensor(x, name_x, INPUTS), as_tensor(y, name_y, LABELS)
    if inputs.ndim < 2 or 0 in inputs.shape:
        raise DataError(
            f"{name_x} has shape {tuple(inputs.shape)}; must be (N, P), (N, height, width) or "
            "(N, channels, height, width), and not empty"
        )
    if inputs.dtype != torch.uint8 and not inputs.is_floating_point():
        raise DataError(f"{name_x} holds {_short(inputs.dtype)}; must be {INPUTS}")
    if labels.ndim not in (1, 2) or len(labels) != len(inputs) or 0 in labels.shape:
        shape = tuple(labels.shape)
        raise DataError(f"{name_y} has shape {shape} for {len(inputs)} examples; must be (N,) or (N, C)")
    if labels.dtype == torch.bool:
        raise DataError(f"{name_y} holds bool; must be {LABELS}")
    inputs = inputs.float() if inputs.is_floating_point() else inputs
    labels = labels.float() if labels.is_floating_point() else labels.long()
    if not labels.is_floating_point() and (labels.ndim != 1 or labels.min() < 0):
        raise DataError(f"{name_y} must be (N,) classes, counted from 0")
    for name, values in ((name_x, inputs), (name_y, labels)):
        if not values.isfinite().all():
            raise DataError(f"{name} holds values that are not finite")
    shape = tuple(inputs.shape[1:]) if inputs.ndim != 3 else (1, *inputs.shape[1:])
    return Split(inputs.flatten(1).contiguous(), labels, shape)


def check_alike(first: Split, second: Split, names: str) -> None:
    """Refuse two splits that differ in what one example is.

    Args:
        first: one of them.
        second: the other.
        names: what the user calls the two.

    Raises:
        DataError: they differ.
    """
    for what, ours, theirs in (
        ("inputs of shape", first.input_shape, second.input_shape),
        ("inputs of type", first.images.dtype, second.images.dtype),
        ("labels of type", first.labels.dtype, second.labels.dtype),
        ("labels of shape", tuple(first.labels.shape[1:]), tuple(second.labels.shape[1:])),
    ):
        if ours != theirs:
            raise DataError(f"{names} differ: {what} {ours} and {theirs}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
