"""Where each layer's weights lie in the flat vector: layer by layer, the kernel row by row, then the bias."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bbb.networks.layers import Convolution, Layer, LayerWeights


def layer_dims(layers: Sequence[Layer]) -> list[int]:
    """Count the weights of each layer, biases included."""
    return [layer.dim for layer in layers]


def num_weights(layers: Sequence[Layer]) -> int:
    """Count the weights and biases of a network with these layers."""
    return sum(layer_dims(layers))


def kernel_mask(layers: Sequence[Layer]) -> Tensor:
    """Tell which weights of the flat vector belong to kernels, ``(D,)`` of bool; the others are biases."""
    masks = []
    for layer in layers:
        num_kernel = math.prod(layer.shape)
        masks.append(torch.arange(layer.dim) < num_kernel)
    return torch.cat(masks)


def units_left(layers: Sequence[Layer]) -> tuple[Tensor, int]:
    """Number the hidden units, and tell which of them each weight leaves.

    The units are the inputs of all layers but the first: of a dense layer its inputs, of a convolution its input
    channels.

    Returns:
        The unit of each weight, ``(D,)`` of int32, and U, the number of units; U is also the unit of weights that leave
        none: those of the first layer, and biases.
    """
    num_units, parts = 0, [torch.full((layers[0].dim,), -1, dtype=torch.int32)]
    for layer in layers[1:]:
        num_out, num_in = layer.shape[:2]
        groups = layer.groups if isinstance(layer, Convolution) else 1
        first = num_units + torch.arange(num_out) * groups // num_out * num_in  # of each output's group
        of_kernel = (first.unsqueeze(1) + torch.arange(num_in)).to(torch.int32)
        parts.append(of_kernel.repeat_interleave(math.prod(layer.shape[2:]), 1).flatten())
        parts.append(torch.full((num_out * layer.has_bias,), -1, dtype=torch.int32))
        num_units += groups * num_in
    unit = torch.cat(parts)
    return torch.where(unit < 0, num_units, unit), num_units


def unflatten(w: Tensor, layers: Sequence[Layer]) -> list[LayerWeights]:
    """View flat weights ``(S, D)``, or ``(S, R, D)``, as layers, without a copy.

    Args:
        w: the weights.
        layers: of the network.

    Returns:
        For each layer its kernel ``(S, out, *rest)`` and its bias ``(S, out)``, None where it has none; ``(S, R, ...)``
        for R replicas.
    """
    sizes = []
    for layer in layers:
        sizes += [math.prod(layer.shape), layer.shape[0]] if layer.has_bias else [math.prod(layer.shape)]
    parts = iter(w.split(sizes, dim=-1))
    return [(next(parts).unflatten(-1, layer.shape), next(parts) if layer.has_bias else None) for layer in layers]
