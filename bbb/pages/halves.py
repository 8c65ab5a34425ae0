"""Numbers in half precision, as a page holds them."""

import base64

import torch
from torch import Tensor

from bbb.networks import BayesianNetwork

LARGEST = 3e4  # in absolute value; half precision ends at 65504


def as_text(values: Tensor) -> str:
    """Write numbers as half-precision floats, lowest byte first, in base64."""
    return base64.b64encode(values.detach().cpu().numpy().astype("<f2").tobytes()).decode()


def rounded_weights(network: BayesianNetwork, w: Tensor) -> Tensor:
    """Round weights to half precision, such that the errors in each output's sum nearly cancel.

    Each weight of a row takes on the rounding error of the one before it. Neighbouring inputs are alike: so the outputs
    change less than with every weight rounded to the nearest number. That halves the largest error of LeNet's
    probabilities.

    Args:
        network: whose weights they are.
        w: ``(S, D)``.

    Returns:
        ``(S, D)``, float32.
    """
    parts = []
    for kernel, bias in network.layers(w.float()):
        rows = kernel.flatten(2)
        found, carried = torch.empty_like(rows), torch.zeros_like(rows[..., 0])
        for i in range(rows.shape[-1]):
            wanted = rows[..., i] + carried
            found[..., i] = wanted.half()
            carried = wanted - found[..., i]
        parts += [found.flatten(1), *([bias.half().float()] if bias is not None else [])]
    return torch.cat(parts, dim=1)
