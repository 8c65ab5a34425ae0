"""Files that are whole or not there, and folders that one process has to itself."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bbb.system.errors import InputError

LOCK = ".lock"
_ASIDE = re.compile(r"\..+\.[0-9a-f]{8}")


class StorageError(InputError):
    """A file cannot be written: the disk is full, a quota is used up, or the folder is not writable."""


class BusyError(InputError):
    """Another process has the folder."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is written into one line.

    Raises:
        StorageError: anything of the operating system's.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); make room or make it writable"
        ) from None


def write_aside(path: Path, content: bytes) -> None:
    """Write a file under another name, to the disk, and move it into place: others see the old file or the new one.

    Raises:
        StorageError: it cannot be written; the old file is as it was.
    """
    aside = _aside(path)
    with writing(path):
        try:
            with open(aside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def link(target: Path, path: Path) -> None:
    """Make or replace a symbolic link, in one move.

    Raises:
        OSError: it cannot be made, as where the file system knows no links.
    """
    aside = _aside(path)
    try:
        aside.symlink_to(target)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what :func:`write_aside` left in a folder of one's own when its process was killed."""
    for path in folder.iterdir():
        if _ASIDE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def lock(folder: Path) -> FileLock:
    """Claim a folder for this process, until the lock is released or the process ends, however it ends.

    Raises:
        BusyError: another process has it.
        StorageError: the folder cannot be written.
    """
    claim = FileLock(folder / LOCK)
    with writing(folder / LOCK):
        try:
            claim.acquire(blocking=False)
        except Timeout:
            raise BusyError(f"{folder}: another process is at work on this run; wait for it or stop it") from None
    return claim


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
