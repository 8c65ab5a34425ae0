"""The state of a training on disk: tensors and plain data, with a checksum; reading it never executes code."""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bbb.system import InputError, write_aside

STATE_FORMAT = "bbb-state-6"
_INSTEAD = "start again without resume=True, or put a sound copy in its place"


class StateError(InputError):
    """A checkpoint that is damaged or of another version."""


def save_state(path: Path, state: Mapping[str, object]) -> None:
    """Write the state of a training to a temporary file, then rename it.

    Args:
        path: the file to make or replace.
        state: tensors, numbers, strings, lists and dictionaries.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    content = buffer.getvalue()
    write_aside(path, f"{STATE_FORMAT} {hashlib.sha256(content).hexdigest()}\n".encode() + content)


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what :func:`save_state` wrote; refuses anything that could execute code.

    Raises:
        StateError: the file cannot be read, is damaged or is of another version.
    """
    try:
        head, _, content = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror})") from None
    version, _, checksum = head.partition(b" ")
    if version != STATE_FORMAT.encode():
        raise StateError(f"{path}: damaged, or a checkpoint of another version (wanted {STATE_FORMAT}); {_INSTEAD}")
    if checksum != hashlib.sha256(content).hexdigest().encode():
        raise StateError(f"{path}: damaged, its checksum is not that of its content; {_INSTEAD}")
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError):  # a checksum can be forged
        raise StateError(f"{path}: not a checkpoint, it holds what is not plain data; {_INSTEAD}") from None
