"""The machine a run is on: device, threads and allocator."""

import ctypes
import sys

import torch

from bbb.errors import InputError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


class DeviceError(InputError):
    """A device that is not there."""


def find_device(name: str) -> torch.device:
    """Resolve the key ``device``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        DeviceError: the device is not there.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if num_gpus else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        there = ", ".join(["cpu", *(f"cuda:{i}" for i in range(num_gpus))])
        raise DeviceError(f"device={name!r}: is not there; this machine has {there} (or write device=auto)")
    return device


def set_up(num_threads: int | None) -> None:
    """Set PyTorch's CPU threads, where a number is given, and keep freed memory for the next step.

    A training step on the CPU takes and gives back a dozen vectors of a few megabytes. By default glibc returns such
    blocks to the system at once, and every step faults all their pages in again, for a quarter of its time.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # missing in musl
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 1 << 25)
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
