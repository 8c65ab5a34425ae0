r"""The MLP without autograd: dense layers in a row, with a ReLU after each but the last.

An MLP's products take so little time that what autograd does around them counts: a node for each layer and each ReLU
costs as much as the passes over the weights. The formulas are those of :mod:`bbb.networks.forward` and
:mod:`bbb.networks.local`, whose node for each layer is the plain version. A ReLU passes the gradient on where its
output is positive.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bbb.distributions import NoiseSource, normal
from bbb.networks.architecture import Architecture
from bbb.networks.gradients import Pass
from bbb.networks.layers import LEAST_VARIANCE, LayerWeights
from bbb.networks.mlp import MLP


def is_chain(architecture: Architecture, x: Tensor) -> bool:
    """Tell whether an architecture can run as a chain, on inputs ``(B, P)`` of a single network.

    A subclass may have a forward pass of its own. Products of lower precision are left to the nodes of each layer.
    """
    return type(architecture) is MLP and x.ndim == 2 and not torch.is_autocast_enabled(x.device.type)


def drawn_chain(weights: Sequence[LayerWeights], x: Tensor, gradients: Sequence[LayerWeights]) -> Pass:
    """Run an MLP under one draw of its weights.

    Args:
        weights: of each layer, ``(out, in)`` and ``(out,)``.
        x: inputs ``(B, P)``.
        gradients: where those of the weights are written, of their shapes.
    """
    inputs, outputs = [], x
    for i, (kernel, bias) in enumerate(weights):
        if i > 0:
            outputs.relu_()
        inputs.append(outputs)
        outputs = F.linear(outputs, kernel, bias)

    def backward(grad: Tensor) -> None:
        grad = grad[0]
        for i in reversed(range(len(weights))):
            _leave(gradients[i], grad, inputs[i])
            if i > 0:
                grad = _through_relu(grad @ weights[i][0], inputs[i])

    return Pass(outputs.unsqueeze(0), backward)


def noisy_chain(
    mean: Sequence[LayerWeights],
    variance: Sequence[LayerWeights],
    x: Tensor,
    noise: NoiseSource,
    gradients: tuple[Sequence[LayerWeights], Sequence[LayerWeights]],
) -> Pass:
    """Run an MLP with the local reparameterisation, one draw of the activations for each input.

    Args:
        mean: of each layer's weights, ``(out, in)`` and ``(out,)``.
        variance: likewise.
        x: inputs ``(B, P)``.
        noise: its source.
        gradients: where those at the means are written, and twice those at the variances.
    """
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

    def backward(grad: Tensor) -> None:
        grad, (for_mean, for_rate) = grad[0], gradients
        for i in reversed(range(len(saved))):
            h, square, std, epsilon = saved[i]
            rate = (grad * epsilon).div_(std)
            _leave(for_rate[i], rate, square)
            _leave(for_mean[i], grad, h)
            if i > 0:
                grad = _through_relu((grad @ mean[i][0]).addcmul_(h, rate @ variance[i][0]), h)

    return Pass(outputs.unsqueeze(0), backward)


def _leave(target: LayerWeights, grad: Tensor, inputs: Tensor) -> None:
    """Write a layer's gradients where they are wanted."""
    kernel, bias = target
    torch.mm(grad.t(), inputs, out=kernel)
    if bias is not None:
        torch.sum(grad, 0, out=bias)


def _through_relu(grad: Tensor, outputs: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.default(grad, outputs, 0.0)
