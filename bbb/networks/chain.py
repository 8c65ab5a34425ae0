r"""The MLP as a single node of the autograd graph: dense layers in a row, with a ReLU after each but the last.

An MLP's products take so little time that what autograd does around them counts: a node for each layer and each ReLU
costs as much as the passes over the weights. The formulas are those of :mod:`bbb.networks.forward` and
:mod:`bbb.networks.local`, whose node for each layer is the plain version. A ReLU passes the gradient on where its
output is positive.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bbb.distributions import NoiseSource, normal
from bbb.networks.architecture import Architecture
from bbb.networks.gradients import LayerGradients
from bbb.networks.layers import LEAST_VARIANCE, LayerWeights
from bbb.networks.mlp import MLP


def is_chain(architecture: Architecture, x: Tensor) -> bool:
    """Tell whether an architecture can run as one node, on inputs ``(B, P)`` of a single network.

    A subclass may have a forward pass of its own. Products of lower precision are left to the nodes of each layer.
    """
    return type(architecture) is MLP and x.ndim == 2 and not torch.is_autocast_enabled(x.device.type)


class DrawnChain(torch.autograd.Function):
    """An MLP under one draw of its weights."""

    @staticmethod
    def forward(
        ctx: Any, gradients: LayerGradients, anchor: Tensor, x: Tensor, weights: Sequence[LayerWeights]
    ) -> Tensor:
        inputs, outputs = [], x
        for i, (kernel, bias) in enumerate(weights):
            if i > 0:
                outputs.relu_()
            inputs.append(outputs)
            outputs = F.linear(outputs, kernel, bias)
        ctx.parts = gradients, weights, inputs
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        gradients, weights, inputs = ctx.parts
        for i in reversed(range(len(weights))):
            _leave(gradients, i, grad, inputs[i])
            if i > 0:
                grad = _through_relu(grad @ weights[i][0], inputs[i])
        return None, None, None, None


class NoisyChain(torch.autograd.Function):
    """An MLP with the local reparameterisation, one draw of the activations for each input."""

    @staticmethod
    def forward(
        ctx: Any,
        gradients: tuple[LayerGradients, LayerGradients],
        anchor: Tensor,
        x: Tensor,
        mean: Sequence[LayerWeights],
        variance: Sequence[LayerWeights],
        noise: NoiseSource,
    ) -> Tensor:
        saved, outputs = [], x
        for i, (of_mean, of_variance) in enumerate(zip(mean, variance, strict=True)):
            if i > 0:
                outputs.relu_()
            h, square = outputs, outputs * outputs
            outputs = F.linear(h, *of_mean)
            std = F.linear(square, *of_variance).clamp_(min=LEAST_VARIANCE).sqrt_()
            epsilon = normal(outputs.shape, outputs, noise)
            outputs.addcmul_(std, epsilon)
            saved.append((h, square, std, epsilon))
        ctx.parts = gradients, mean, variance, saved
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        (for_mean, for_rate), mean, variance, saved = ctx.parts
        for i in reversed(range(len(saved))):
            h, square, std, epsilon = saved[i]
            rate = (grad * epsilon).div_(std)
            _leave(for_rate, i, rate, square)
            _leave(for_mean, i, grad, h)
            if i > 0:
                grad = _through_relu((grad @ mean[i][0]).addcmul_(h, rate @ variance[i][0]), h)
        return None, None, None, None, None, None


def _leave(gradients: LayerGradients, i: int, grad: Tensor, inputs: Tensor) -> None:
    """Leave the gradients of layer i where they are wanted."""
    target = kernel, bias = gradients.target(i)
    torch.mm(grad.t(), inputs, out=kernel)
    if bias is not None:
        torch.sum(grad, 0, out=bias)
    gradients.write(i, target)


def _through_relu(grad: Tensor, outputs: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.default(grad, outputs, 0.0)
