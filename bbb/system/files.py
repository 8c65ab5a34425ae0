"""Atomic writing of files, and locks on folders."""

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
    """Another process has locked the folder."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an error of the operating system while writing a file into one line.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); make room or make it writable"
        ) from None


def write_aside(path: Path, content: bytes) -> None:
    """Write a file to a temporary name on the disk, then rename it: others see the old file or the new one.

    Raises:
        StorageError: it cannot be written; the old file is unchanged.
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
    """Make or replace a symbolic link, in one atomic step.

    Raises:
        OSError: it cannot be made, for example on a file system without links.
    """
    aside = _aside(path)
    try:
        aside.symlink_to(target)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that a killed process left in :func:`write_aside`, from a locked folder."""
    for path in folder.iterdir():
        if _ASIDE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def lock(folder: Path) -> FileLock:
    """Lock a folder for this process, until the lock is released or the process ends in any way.

    Raises:
        BusyError: another process has locked it.
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
