"""Users' own arrays: what is read, and what is refused in one line before anything starts."""

import pickle
import zipfile

import numpy as np
import pytest
import torch

from bbb import data
from bbb.data import DataError

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 2, 3, 4)).astype(np.uint8)
CLASSES = np.array([0, 1, 2, 0, 1, 2])
NUMBERS = np.linspace(-1.0, 1.0, 6)


def arrays(x=BYTES, y=CLASSES, **changes):
    """Six examples to train on, and the last four of them to test."""
    return {"x_train": x, "y_train": y, "x_test": x[2:], "y_test": y[2:], **changes}


def write(tmp_path, content):
    path = tmp_path / "mine.npz"
    np.savez(path, **content)
    return path


GOOD = {
    "bytes with channels": (BYTES, CLASSES, (2, 3, 4), torch.uint8, torch.int64),
    "grey bytes": (BYTES[:, 0], CLASSES, (1, 3, 4), torch.uint8, torch.int64),
    "flat bytes": (BYTES[:, 0, 0], CLASSES.astype(np.uint8), (4,), torch.uint8, torch.int64),
    "float64 images": (BYTES / 255.0, CLASSES.astype(np.int16), (2, 3, 4), torch.float32, torch.int64),
    "float16 vectors": (BYTES[:, 0, 0].astype(np.float16), CLASSES, (4,), torch.float32, torch.int64),
    "other order in memory": (np.asfortranarray(BYTES), CLASSES[::-1], (2, 3, 4), torch.uint8, torch.int64),
    "numbers": (BYTES, NUMBERS, (2, 3, 4), torch.uint8, torch.float32),
    "several numbers": (BYTES / 7.0, np.outer(NUMBERS, [1.0, 2.0]), (2, 3, 4), torch.float32, torch.float32),
    "large ends": (BYTES.astype(">f4"), CLASSES.astype(">i4"), (2, 3, 4), torch.float32, torch.int64),
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_files_are_read_as_they_are(tmp_path, kind):
    x, y, input_shape, x_dtype, y_dtype = GOOD[kind]
    path = write(tmp_path, arrays(x, y))
    for first, split in zip((0, 2), data.load(str(path)), strict=True):
        assert split.input_shape == input_shape
        assert (split.images.dtype, split.labels.dtype) == (x_dtype, y_dtype)
        assert split.has_classes == (y_dtype == torch.int64)
        expected_x, expected_y = x[first:].reshape(6 - first, -1).tolist(), y[first:].tolist()
        torch.testing.assert_close(split.images.double(), torch.tensor(expected_x, dtype=torch.float64))
        torch.testing.assert_close(split.labels.double(), torch.tensor(expected_y, dtype=torch.float64))


def without(name):
    return {key: value for key, value in arrays().items() if key != name}


def with_one(value):
    x = BYTES / 255.0
    x[3, 1, 2, 3] = value
    return x


OBJECTS = np.array([{}] * 6, dtype=object)
BAD = {
    "no x_train": (without("x_train"), "has no x_train; must hold x_train, y_train, x_test, y_test"),
    "no y_test": (without("y_test"), "has no y_test; must hold"),
    "objects as labels": (arrays(y=OBJECTS), "cannot be read as plain NumPy arrays (Object arrays cannot be loaded"),
    "a scalar": (arrays(x_train=np.float32(3)), "x_train has shape (); must be (N, P), (N, height, width) or"),
    "one axis": (arrays(x_train=NUMBERS), "x_train has shape (6,); must be (N, P)"),
    "five axes": (arrays(x_test=BYTES[None]), "x_test has shape (1, 6, 2, 3, 4); must be (N, P)"),
    "no examples": (arrays(x_train=BYTES[:0], y_train=CLASSES[:0]), "x_train has shape (0, 2, 3, 4); must be"),
    "no pixels": (arrays(x_train=BYTES[..., :0]), "x_train has shape (6, 2, 3, 0); must be"),
    "whole numbers as inputs": (arrays(BYTES.astype(np.int64)), "x_train holds int64; must be uint8"),
    "complex inputs": (arrays(BYTES.astype(complex)), "x_train holds complex128; must be uint8"),
    "strings": (arrays(BYTES.astype(str)), "x_train holds <U3; must be uint8"),
    "too few labels": (arrays(y_train=CLASSES[:5]), "y_train has shape (5,) for 6 examples; must be (N,) or (N, C)"),
    "labels with three axes": (arrays(y_train=BYTES[:, 0] / 2.0), "y_train has shape (6, 3, 4) for 6 examples"),
    "labels without numbers": (arrays(y_train=np.zeros((6, 0))), "y_train has shape (6, 0) for 6 examples"),
    "a single label": (arrays(y_train=np.int64(3)), "y_train has shape () for 6 examples"),
    "labels that are strings": (arrays(y=CLASSES.astype(str)), "y_train holds <U21; must be whole numbers (classes)"),
    "labels that are true or false": (arrays(y=CLASSES > 0), "y_train holds bool; must be whole numbers (classes)"),
    "one-hot classes": (arrays(y=np.eye(3, dtype=int)[CLASSES]), "y_train must be (N,) classes, counted from 0"),
    "negative classes": (arrays(y=CLASSES - 1), "y_train must be (N,) classes, counted from 0"),
    "nan in x_train": (arrays(with_one(np.nan)), "x_train holds values that are not finite"),
    "infinity in x_test": (arrays(BYTES / 255.0, x_test=with_one(np.inf)[2:]), "x_test holds values that are not"),
    "nan in y_test": (arrays(y=NUMBERS, y_test=NUMBERS[2:] * np.nan), "y_test holds values that are not finite"),
    "other sizes": (arrays(x_test=BYTES[2:, :, :2]), "inputs of shape (2, 3, 4) and (2, 2, 4)"),
    "other inputs": (arrays(x_test=BYTES[2:] / 255.0), "inputs of type torch.uint8 and torch.float32"),
    "other labels": (arrays(y_test=NUMBERS[2:]), "labels of type torch.int64 and torch.float32"),
    "other numbers": (arrays(y=np.ones((6, 2)), y_test=np.ones((4, 3))), "labels of shape (2,) and (3,)"),
    "a class without example": (arrays(y=CLASSES * 2), "y_train has no example of class 1; count classes from 0"),
    "classes from 1": (arrays(y=CLASSES + 1), "y_train has no example of class 0; count classes from 0"),
    "a single class": (arrays(y=CLASSES * 0), "y_train holds a single class; there must be at least two"),
    "a class to test alone": (arrays(y_test=CLASSES[2:] + 1), "y_test holds class 3, which y_train does not"),
    "a class beyond any memory": (arrays(y=CLASSES * 10**12), "y_train has no example of class 1"),
    "a number beyond float32": (arrays(y=NUMBERS * 1e300), "y_train holds values that are not finite"),
    "a class beyond int64": (arrays(y=CLASSES.astype(np.uint64) * 2**63), "y_train"),
}


def refusal(path):
    with pytest.raises(DataError) as error:
        data.load(str(path))
    message = str(error.value)
    assert message.startswith(f"dataset={path}: ")
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize("kind", BAD)
def test_arrays_that_do_not_fit_are_refused_in_one_line(tmp_path, kind):
    content, words = BAD[kind]
    assert words in refusal(write(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path):
    assert refusal(tmp_path / "nope.npz").endswith("there is no such file")


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "a folder", "changed", "pickle"])
def test_a_damaged_file_is_refused(tmp_path, damage):
    path = write(tmp_path, arrays())
    content = bytearray(path.read_bytes())
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    elif damage == "pickle":
        path.write_bytes(pickle.dumps(arrays()))
    else:
        content[200] ^= 255
        path.write_bytes({"empty": b"", "truncated": content[:-40], "text": b"x,y\n", "changed": content}[damage])
    assert "cannot be read as plain NumPy arrays (" in refusal(path)


def test_a_file_of_a_single_array_is_refused(tmp_path):
    with open(tmp_path / "mine.npz", "wb") as file:
        np.save(file, BYTES)
    assert "has no x_train; must hold x_train, y_train, x_test, y_test" in refusal(tmp_path / "mine.npz")


class Trap:
    def __reduce__(self):
        return exec, ("raise SystemExit('run')",)


@pytest.mark.parametrize("as_objects", [True, False])
def test_no_code_of_the_file_is_run(tmp_path, as_objects):
    path = tmp_path / "trap.npz"
    if as_objects:
        np.savez(path, **arrays(y_train=np.array([Trap()] * 6, dtype=object)))
    else:
        np.savez(path, **without("x_train"))
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("x_train", pickle.dumps(Trap()))
    refusal(path)
