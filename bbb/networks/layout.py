"""Where each layer's weights lie in the flat vector: layer by layer, the kernel row by row, then the bias."""

import math
from collections.abc import Sequence

from torch import Tensor

Shape = tuple[int, ...]
Layer = tuple[Tensor, Tensor]


def layer_dims(shapes: Sequence[Shape]) -> list[int]:
    """Count the weights of each layer, biases included.

    Args:
        shapes: ``(out, *rest)`` of each layer's kernel; a layer has a bias for each of its ``out`` outputs.
    """
    return [math.prod(shape) + shape[0] for shape in shapes]


def num_weights(shapes: Sequence[Shape]) -> int:
    """Count the weights and biases of a network with kernels of these shapes."""
    return sum(layer_dims(shapes))


def unflatten(w: Tensor, shapes: Sequence[Shape]) -> list[Layer]:
    """View flat weights ``(S, D)``, or ``(S, R, D)``, as layers, without a copy.

    Args:
        w: the weights.
        shapes: ``(out, *rest)`` of each layer's kernel.

    Returns:
        For each layer its kernel ``(S, out, *rest)`` and bias ``(S, out)``; ``(S, R, ...)`` for R replicas.
    """
    parts = iter(w.split([num for shape in shapes for num in (math.prod(shape), shape[0])], dim=-1))
    return [(next(parts).unflatten(-1, shape), next(parts)) for shape in shapes]
