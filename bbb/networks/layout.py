"""Where each layer's weights lie in the flat vector: layer by layer, the kernel row by row, then the bias."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bbb.networks.layers import Layer, LayerWeights


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
