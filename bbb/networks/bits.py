"""Which weights a pruned posterior keeps, as one bit for each weight."""

import math

import torch
from torch import Tensor

BITS = 8  # of a byte


def pack(kept: Tensor) -> Tensor:
    """Pack a mask ``(D,)`` into bytes, the first weight in the lowest bit; the last byte is filled with zeros."""
    padded = torch.zeros(math.ceil(len(kept) / BITS) * BITS, dtype=torch.uint8)
    padded[: len(kept)] = kept.cpu()
    return (padded.view(-1, BITS) << _places()).sum(1).to(torch.uint8)


def unpack(packed: Tensor, dim: int) -> Tensor | None:
    """Unpack the mask ``(D,)``; None if the bytes are not those of a mask of this length."""
    if packed.dtype != torch.uint8 or packed.shape != (math.ceil(dim / BITS),):
        return None
    bits = (packed.unsqueeze(1) >> _places()).bitwise_and(1).flatten().bool()
    return None if bits[dim:].any() else bits[:dim].clone()


def _places() -> Tensor:
    return torch.arange(BITS, dtype=torch.uint8)
