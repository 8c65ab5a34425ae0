"""Several processes that train one posterior together: data parallel, through torch.distributed.

All processes hold the same posterior. Each trains on its own part of every minibatch under its own draw of the weights.
Their gradients are averaged, so the likelihood of a minibatch counts once, and so does the KL. The random streams are
equal in all processes, and each process uses its share of them. So the saved state of one process serves all.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bbb.system.errors import InputError

T = TypeVar("T")
TIMEOUT = timedelta(minutes=10)  # longer than the first process validates, tests or saves while the others wait


class LostError(InputError):
    """Another process of the run has ended too early."""


class Group:
    """The processes of a run.

    Args:
        rank: the number of this process; only process 0 keeps a record.
        size: the number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their means over all processes, the same bits everywhere.

        Raises:
            LostError: another process is gone.
        """
        if self.size == 1:
            return
        joint = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _noticing_losses():
            dist.all_reduce(joint)
        parts = joint.div_(self.size).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Tell whether a flag is set in any process.

        Raises:
            LostError: another process is gone.
        """
        if self.size == 1:
            return flag
        flags = torch.tensor(float(flag), device=_device())
        with _noticing_losses():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def from_first(self, value: T) -> T:
        """Send the first process's value to all processes.

        Raises:
            LostError: another process is gone.
        """
        if self.size == 1:
            return value
        values = [value]
        with _noticing_losses():
            dist.broadcast_object_list(values, device=_device())
        return values[0]


ALONE = Group()


@contextmanager
def joined(device: torch.device) -> Iterator[Group]:
    """Join the processes that ``torchrun`` started, if it did.

    Args:
        device: where this process computes; decides between NCCL and Gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _noticing_losses():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Group(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


@contextmanager
def _noticing_losses() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # and its kinds DistBackendError and DistNetworkError
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise LostError(
            "another process of this run has ended, so this one does too; the same command with resume=True goes on "
            f"from the last checkpoint (the reason was: {str(error).splitlines()[0]:.100})"
        ) from None


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
