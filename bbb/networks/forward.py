"""Running an architecture under drawn weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bbb.networks.architecture import Architecture
from bbb.networks.chain import drawn_chain, is_chain
from bbb.networks.gradients import LayerGradients, Pass, first_draw, no_view, pass_by_autograd
from bbb.networks.layers import Layer, LayerWeights


def forward_drawn(architecture: Architecture, weights: Sequence[LayerWeights], x: Tensor) -> Tensor:
    """Run a network under S sets of weights at once.

    Args:
        architecture: the network.
        weights: kernels ``(S, out, *rest)`` and biases ``(S, out)`` of each layer; for R replicas with the axes
            ``(S, R, ...)``.
        x: inputs ``(B, P)``, shared by all draws; ``(R, B, P)`` for replicas, each of which has its own.

    Returns:
        Outputs ``(S, B, C)``, or ``(S, R, B, C)``.
    """
    layers = architecture.layers
    draws = weights[0][0].shape[: -len(layers[0].shape)]
    if draws == (1,):  # a plain product is faster than a batched one of batch size 1

        def apply_single(i: int, h: Tensor) -> Tensor:
            return layers[i].apply(h, *first_draw(weights[i]))

        return architecture.forward(apply_single, x).unsqueeze(0)
    num_draws = len(draws)

    def apply(i: int, h: Tensor) -> Tensor:
        kernel, bias = weights[i]
        flat_bias = None if bias is None else bias.flatten(0, num_draws - 1)
        return layers[i].apply_batched(h, kernel.flatten(0, num_draws - 1), flat_bias)

    h = x.expand(*draws, *x.shape[-2:]).flatten(0, -3)
    return architecture.forward(apply, h).unflatten(0, draws)


def run_drawn(
    architecture: Architecture, weights: Sequence[LayerWeights], x: Tensor, gradients: LayerGradients
) -> Pass:
    """Run a single network under one draw of its weights, to train it.

    Args:
        architecture: the network.
        weights: kernels ``(out, *rest)`` and biases ``(out,)`` of each layer.
        x: inputs ``(B, P)``.
        gradients: where the backward pass leaves those of the weights.
    """
    if is_chain(architecture, x):
        return drawn_chain(weights, x, gradients.layers)

    def apply(i: int, h: Tensor) -> Tensor:
        return _DrawnLayer.apply((architecture.layers[i], i, gradients), gradients.anchor, h, *weights[i])

    gradients.begin()
    return pass_by_autograd(architecture.forward(apply, x).unsqueeze(0), gradients)


class _DrawnLayer(torch.autograd.Function):
    """A layer under weights whose gradients go to a :class:`LayerGradients`."""

    @staticmethod
    def forward(
        ctx: Any, how: tuple[Layer, int, LayerGradients], anchor: Tensor, h: Tensor, kernel: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.how = how
        if torch.is_autocast_enabled(h.device.type):
            low = torch.get_autocast_dtype(h.device.type)
            h, kernel, bias = h.to(low), kernel.to(low), None if bias is None else bias.to(low)
        ctx.save_for_backward(h, kernel, bias)
        return no_view(how[0].apply(h, kernel, bias))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (layer, number, gradients), (h, kernel, bias) = ctx.how, ctx.saved_tensors
        target = gradients.target(number)
        grad_h = layer.gradients(h, kernel, bias, grad, target, ctx.needs_input_grad[2])
        gradients.write(number, target)
        return None, None, grad_h, None, None
