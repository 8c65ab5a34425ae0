"""Users' own data: arrays in a NumPy file, checked before anything starts."""

import zipfile
from pathlib import Path

import numpy as np
import torch

from bbb.data.arrays import as_split, check_alike
from bbb.data.splits import DataError, Split

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MOST_AXES = 4  # examples, channels, height, width


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
    where = f"dataset={path}: "
    for name in ("x_train", "x_test"):
        if arrays[name].ndim > MOST_AXES:
            raise DataError(
                f"{where}{name} has shape {arrays[name].shape}; must be (N, P), (N, height, width) or "
                "(N, channels, height, width)"
            )
    train, test = (
        as_split(arrays[x], arrays[y], f"{where}{x}", f"{where}{y}")
        for x, y in (("x_train", "y_train"), ("x_test", "y_test"))
    )
    check_alike(train, test, f"{where}x_train and x_test")
    if train.has_classes:
        _check_classes(path, train, test)
    return train, test


def _check_classes(path: Path, train: Split, test: Split) -> None:
    """Refuse classes without an example to train on."""
    present = train.labels.unique()  # in order
    highest, gaps = int(present[-1]), (present != torch.arange(len(present))).nonzero()
    if len(gaps):
        raise DataError(f"dataset={path}: y_train has no example of class {int(gaps[0])}; count classes from 0")
    if highest == 0:
        raise DataError(f"dataset={path}: y_train holds a single class; there must be at least two")
    if int(test.labels.max()) > highest:
        raise DataError(f"dataset={path}: y_test holds class {int(test.labels.max())}, which y_train does not")
