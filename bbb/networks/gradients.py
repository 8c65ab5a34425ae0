"""Gradients of the weights that a backward pass writes where they are wanted, in place of handing them to autograd."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bbb.networks.layers import LayerWeights


class Pass(NamedTuple):
    """A network's forward pass on a minibatch, which can be run backward once.

    Attributes:
        outputs: ``(S, B, C)``, or ``(S, R, B, C)``, without a graph.
        backward: takes the gradient at the outputs, and leaves those of the weights where they are wanted.
    """

    outputs: Tensor
    backward: Callable[[Tensor], None]


class LayerGradients:
    """Where the backward pass of a network leaves the gradients of its weights.

    The layers are views of a flat vector. Autograd would copy each gradient twice on its way there.

    Args:
        layers: the views, with S = 1.

    Attributes:
        anchor: what a node of the graph takes as one more input. Autograd runs a node only where a gradient is needed,
            and the weights themselves ask for none.
    """

    def __init__(self, layers: Sequence[LayerWeights]) -> None:
        self.layers = [*map(first_draw, layers)]
        self.anchor = torch.zeros((), device=self.layers[0][0].device, requires_grad=True)
        self._is_written = [False] * len(self.layers)

    def begin(self) -> None:
        """Forget the last backward pass."""
        self._is_written = [False] * len(self.layers)

    def target(self, i: int) -> LayerWeights:
        """Return where to compute the gradients of layer i: in place, or aside where it has run before."""
        return empty_like(self.layers[i]) if self._is_written[i] else self.layers[i]

    def write(self, i: int, values: LayerWeights) -> None:
        """Take the gradients of layer i that are in its target now."""
        if self._is_written[i]:
            for target, value in zip(self.layers[i], values, strict=True):
                if target is not None and value is not None:
                    target.add_(value)
        self._is_written[i] = True

    def end(self) -> None:
        """Write zeros for layers that have not run."""
        for targets, is_written in zip(self.layers, self._is_written, strict=True):
            if not is_written:
                for target in targets:
                    if target is not None:
                        target.zero_()


def pass_by_autograd(outputs: Tensor, *gradients: LayerGradients) -> Pass:
    """Make a pass of outputs with a graph, whose nodes leave the gradients of the weights aside."""

    def backward(grad: Tensor) -> None:
        outputs.backward(grad.to(outputs.dtype))
        for each in gradients:
            each.end()

    return Pass(outputs.detach(), backward)


def first_draw(weights: LayerWeights) -> LayerWeights:
    """View the weights of a layer's only draw, without their axis S."""
    kernel, bias = weights
    return kernel.squeeze(0), None if bias is None else bias.squeeze(0)


def empty_like(weights: LayerWeights) -> LayerWeights:
    """Allocate memory for the weights of a layer."""
    kernel, bias = weights
    return torch.empty_like(kernel), None if bias is None else torch.empty_like(bias)


def no_view(outputs: Tensor) -> Tensor:
    """Return a tensor that is no view of another, in the same memory.

    Autograd lets nobody write in place to a view that was made inside a node, as ``ReLU(inplace=True)`` does.
    """
    if not outputs._is_view():
        return outputs
    storage, offset = outputs.untyped_storage(), outputs.storage_offset()
    return outputs.new_empty(0).set_(storage, offset, outputs.shape, outputs.stride())
