"""The machine a run is on: device, threads and allocator."""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

import torch

from bbb.system.errors import InputError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


class DeviceError(InputError):
    """A device that does not exist, or has too little memory."""


def find_device(name: str) -> torch.device:
    """Resolve the key ``device``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    If ``torchrun`` started several processes on a machine, each takes the GPU with its local rank.

    Raises:
        DeviceError: the device does not exist.
    """
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    own = f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    if name == "auto":
        return torch.device(own if num_gpus else "cpu")
    device = torch.device(own if name == "cuda" else name)
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        devices = ", ".join(["cpu", *(f"cuda:{i}" for i in range(num_gpus))])
        raise DeviceError(f"device={name!r}: is not there; this machine has {devices} (or write device=auto)")
    return device


def memory(device: torch.device) -> int:
    """Return the total memory of a device in bytes."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Turn a failed allocation of memory into one line.

    Raises:
        DeviceError: there was not enough.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # PyTorch raises a RuntimeError, a plain one on the CPU
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise DeviceError(
                "the memory is full; make num_hidden, num_layers, num_flows, num_samples or batch_size smaller"
            ) from None
        raise


def num_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_up(num_threads: int | None, precision: str = "float32") -> None:
    """Set PyTorch's CPU threads, if a number is given, and keep freed memory for the next step.

    With precision ``tf32``, a GPU multiplies matrices with 10 bits of mantissa in place of 23.

    A training step on the CPU allocates and frees a dozen vectors of a few megabytes. By default glibc returns such
    blocks to the system at once. Every step then faults all their pages in again, which takes a quarter of its time.

    Numbers below 1e-38 become zero. Adam's averages of gradients that have died out get there, and processors are slow
    with them: a deterministic step takes more than twice its time.
    """
    torch.set_flush_denormal(True)  # before the first parallel work, since threads inherit it
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # missing in musl
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 1 << 25)
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
