"""Users' own data: arrays in a NumPy file, checked before anything starts."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bbb.data.splits import DataError, Split

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def load_npz(path: Path) -> tuple[Split, Split]:
    """Read a data set from a file that ``numpy.savez`` wrote. Reading it never executes code from it.

    ``x_train`` and ``x_test`` are bytes (images, 0..255) or floats, ``(N, P)``, ``(N, height, width)`` or
    ``(N, channels, height, width)``. ``y_train`` and ``y_test`` are classes 0..C-1 as whole numbers ``(N,)``, or floats
    ``(N,)`` or ``(N, C)`` for regression.

    Args:
        path: the file.

    Returns:
        The training set and the test set.

    Raises:
        DataError: the file cannot be read, an array is missing, or the arrays do not fit together.
    """
    try:
        with open(path, "rb") as opened:  # NumPy leaves a file open that it opens and cannot read
            file = np.load(opened, allow_pickle=False)
            held = file.files if isinstance(file, np.lib.npyio.NpzFile) else []
            missing = [name for name in ARRAYS if name not in held]
            if missing:
                raise DataError(f"dataset={path}: has no {missing[0]}; must hold {', '.join(ARRAYS)}")
            arrays = {name: np.asarray(file[name]) for name in ARRAYS}  # a member that is no array is bytes
    except FileNotFoundError:
        raise DataError(f"dataset={path}: there is no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:  # objects are a ValueError
        if isinstance(error, DataError):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"dataset={path}: cannot be read as plain NumPy arrays ({reason:.200})") from None
    train, test = (_split(path, part, arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test"))
    _check_alike(path, train, test)
    return train, test


def _split(path: Path, part: str, x: NDArray[np.generic], y: NDArray[np.generic]) -> Split:
    """Check and convert the arrays of one part."""
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise DataError(
            f"dataset={path}: x_{part} has shape {x.shape}; must be (N, P), (N, height, width) or "
            "(N, channels, height, width), and not empty"
        )
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise DataError(f"dataset={path}: x_{part} holds {x.dtype}; must be uint8 (images, 0..255) or floats")
    if y.ndim not in (1, 2) or len(y) != len(x) or 0 in y.shape:
        raise DataError(f"dataset={path}: y_{part} has shape {y.shape} for {len(x)} examples; must be (N,) or (N, C)")
    is_class = np.issubdtype(y.dtype, np.integer)
    if not is_class and not np.issubdtype(y.dtype, np.floating):
        raise DataError(f"dataset={path}: y_{part} holds {y.dtype}; must be whole numbers (classes) or floats")
    x = x if x.dtype == np.uint8 else _converted(x, np.float32)
    y = _converted(y, np.int64 if is_class else np.float32)
    if is_class and (y.ndim != 1 or y.min() < 0):
        raise DataError(f"dataset={path}: y_{part} must be (N,) classes, counted from 0")
    for name, values in ((f"x_{part}", x), (f"y_{part}", y)):
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            raise DataError(f"dataset={path}: {name} holds values that are not finite")
    shape = x.shape[1:] if x.ndim != 3 else (1, *x.shape[1:])
    images = torch.from_numpy(np.ascontiguousarray(x.reshape(len(x), -1)))
    labels = torch.from_numpy(np.ascontiguousarray(y))
    return Split(images, labels, shape)


def _converted(values: NDArray[np.generic], dtype: type[np.generic]) -> NDArray[np.generic]:
    """Convert to a type that PyTorch knows, from any byte order; what does not fit becomes infinite or negative."""
    with np.errstate(over="ignore"):
        return values.astype(dtype)


def _check_alike(path: Path, train: Split, test: Split) -> None:
    """Refuse parts that differ in what one example is."""
    for what, ours, theirs in (
        ("inputs of shape", train.input_shape, test.input_shape),
        ("inputs of type", train.images.dtype, test.images.dtype),
        ("labels of type", train.labels.dtype, test.labels.dtype),
        ("labels of shape", tuple(train.labels.shape[1:]), tuple(test.labels.shape[1:])),
    ):
        if ours != theirs:
            raise DataError(f"dataset={path}: x_train and x_test differ: {what} {ours} and {theirs}")
    if train.has_classes:
        present = train.labels.unique()  # in order
        highest, gaps = int(present[-1]), (present != torch.arange(len(present))).nonzero()
        if len(gaps):
            raise DataError(f"dataset={path}: y_train has no example of class {int(gaps[0])}; count classes from 0")
        if highest == 0:
            raise DataError(f"dataset={path}: y_train holds a single class; there must be at least two")
        if int(test.labels.max()) > highest:
            raise DataError(f"dataset={path}: y_test holds class {int(test.labels.max())}, which y_train does not")
