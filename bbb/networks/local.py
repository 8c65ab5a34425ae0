r"""Running an architecture with noise on its activations: the local reparameterisation.

A layer and its noise are one node of the autograd graph. Let its outputs be :math:`a = M h + s \circ \epsilon`, where
:math:`s^2 = V (h \circ h)`, and let g be the gradient at a. Then the gradients are

.. math::
    \partial_M = g h^T, \qquad
    2 \, \partial_V = r (h \circ h)^T, \quad r = g \circ \epsilon / s, \qquad
    \partial_h = M^T g + h \circ (V^T r).

The kernel of a convolution is drawn, :math:`w = M + \sqrt V \circ \epsilon`. With :math:`g_w` the gradient at w,
:math:`\partial_M = g_w` and :math:`2 \, \partial_V = g_w \circ \epsilon / \sqrt V`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bbb.distributions import NoiseSource, normal
from bbb.networks.architecture import Architecture
from bbb.networks.chain import is_chain, noisy_chain
from bbb.networks.gradients import LayerGradients, Pass, empty_like, first_draw, no_view, pass_by_autograd
from bbb.networks.layers import LEAST_VARIANCE, Layer, LayerWeights


def forward_local(
    architecture: Architecture,
    mean: Sequence[LayerWeights],
    variance: Sequence[LayerWeights],
    x: Tensor,
    num_samples: int,
    noise: NoiseSource,
    gradients: tuple[LayerGradients, LayerGradients] | None = None,
) -> Tensor:
    r"""Run a network with the local reparameterisation: noise on activations in place of weights.

    Under a factorised Gaussian posterior an activation is Gaussian given its inputs, with mean :math:`\mu x` and
    variance :math:`\sigma^2 x^2`. Drawing it for each example on its own leaves the expected gradient as it is and
    lowers its variance (Kingma, Salimans and Welling 2015, section 2.3, arXiv 1506.02557).

    The outputs of a convolution share their weights, so their noise is correlated within an image. Noise of its own for
    each of them would train for another distribution than the one that predicts. A convolution has few weights: one
    draw of its kernel for the whole minibatch is exact, costs less, and its gradient is quiet enough. A dense layer
    that runs on several vectors of an example has noise of its own for each of them.

    Args:
        architecture: the network.
        mean: the posterior's means as layers with S = 1, of a single network or of R replicas.
        variance: its variances, likewise.
        x: inputs ``(B, P)``, or ``(R, B, P)``.
        num_samples: S, draws of the activations for each input.
        noise: its source.
        gradients: where the backward pass leaves the gradients at the means, and twice those at the variances; None
            hands them to autograd.

    Returns:
        Outputs ``(S, B, C)``, or ``(S, R, B, C)``.
    """
    layers = architecture.layers
    num_replica_axes = mean[0][0].ndim - 1 - len(layers[0].shape)
    anchor = gradients[0].anchor if gradients is not None else None

    def apply(i: int, h: Tensor) -> Tensor:
        own_axes = layers[i].num_axes + 1 + num_replica_axes
        how = layers[i], i, num_samples, own_axes, noise, gradients
        node = _DrawnKernel if layers[i].shares_weights else _NoisyLayer
        return node.apply(how, anchor, h, *first_draw(mean[i]), *first_draw(variance[i]))

    return architecture.forward(apply, architecture.expand(x, num_samples))


def run_local(
    architecture: Architecture,
    mean: Sequence[LayerWeights],
    variance: Sequence[LayerWeights],
    x: Tensor,
    num_samples: int,
    noise: NoiseSource,
    gradients: tuple[LayerGradients, LayerGradients],
) -> Pass:
    """Do what :func:`forward_local` does, to train a network.

    The backward pass leaves the gradients at the means, and twice those at the variances.
    """
    if num_samples == 1 and is_chain(architecture, x):
        of_mean, of_variance = ([*map(first_draw, weights)] for weights in (mean, variance))
        return noisy_chain(of_mean, of_variance, x, noise, (gradients[0].layers, gradients[1].layers))
    for each in gradients:
        each.begin()
    outputs = forward_local(architecture, mean, variance, x, num_samples, noise, gradients)
    return pass_by_autograd(outputs, *gradients)


def num_activations(architecture: Architecture) -> int:
    """Count the outputs of all layers with weights for one example."""
    return sum(run.num_outputs for run in runs(architecture))


def num_local_noise(architecture: Architecture, num_examples: int) -> int:
    """Count the numbers that :func:`forward_local` draws for each of its S draws."""
    return sum(
        run.layer.dim if run.layer.shares_weights else num_examples * run.num_outputs for run in runs(architecture)
    )


class LayerRun(NamedTuple):
    """A layer at work on one example: its number, itself, the shape of its inputs and the number of its outputs."""

    number: int
    layer: Layer
    inputs: torch.Size
    num_outputs: int


def runs(architecture: Architecture) -> list[LayerRun]:
    """List the layers in the order in which they run."""
    runs = []

    def apply(i: int, h: Tensor) -> Tensor:
        layer = architecture.layers[i]
        outputs = layer.apply(h, h.new_zeros(layer.shape), None)
        runs.append(LayerRun(i, layer, h.shape, outputs.numel()))
        return outputs

    with torch.no_grad():
        architecture.forward(apply, architecture.expand(torch.zeros(1, architecture.num_inputs), 1))
    return runs


How = tuple[Layer, int, int, int, NoiseSource, tuple[LayerGradients, LayerGradients] | None]


class _NoisyLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        how: How,
        anchor: Tensor | None,
        h: Tensor,
        mean: Tensor,
        mean_bias: Tensor | None,
        variance: Tensor,
        variance_bias: Tensor | None,
    ) -> Tensor:
        layer, number, num_samples, own_axes, noise, gradients = how
        ctx.how = layer, number, gradients
        if torch.is_autocast_enabled(h.device.type):
            low = torch.get_autocast_dtype(h.device.type)
            h, mean, variance = h.to(low), mean.to(low), variance.to(low)
            mean_bias, variance_bias = (None if b is None else b.to(low) for b in (mean_bias, variance_bias))
        square = h * h
        centre = layer.apply(h, mean, mean_bias)
        std = layer.apply(square, variance, variance_bias).clamp_(min=LEAST_VARIANCE).sqrt_()
        epsilon = normal((num_samples, *centre.shape[centre.ndim - own_axes :]), centre, noise)
        ctx.save_for_backward(h, square, std, epsilon, mean, mean_bias, variance, variance_bias)
        return no_view(
            centre.addcmul_(std, epsilon) if centre.shape == epsilon.shape else torch.addcmul(centre, std, epsilon)
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, square, std, epsilon, mean, mean_bias, variance, variance_bias = ctx.saved_tensors
        layer, number, gradients = ctx.how
        for_mean, for_rate = _targets(gradients, number, (mean, mean_bias))
        with_input = ctx.needs_input_grad[2]
        rate = _sum_to(grad * epsilon, std).div_(std)
        grad_square = layer.gradients(square, variance, variance_bias, rate, for_rate, with_input)
        grad_h = layer.gradients(h, mean, mean_bias, _sum_to(grad, std), for_mean, with_input)
        if with_input:
            grad_h.addcmul_(h, grad_square)
        return None, None, grad_h, *_handed_on(gradients, number, for_mean, for_rate)


class _DrawnKernel(torch.autograd.Function):
    """A convolution under S draws of its weights."""

    @staticmethod
    def forward(
        ctx: Any,
        how: How,
        anchor: Tensor | None,
        h: Tensor,
        mean: Tensor,
        mean_bias: Tensor | None,
        variance: Tensor,
        variance_bias: Tensor | None,
    ) -> Tensor:
        layer, number, num_samples, own_axes, noise, gradients = how
        ctx.how = layer, number, gradients
        kernel, rate = _draw(mean, variance, num_samples, noise)
        bias, bias_rate = None, None
        if mean_bias is not None and variance_bias is not None:
            bias, bias_rate = _draw(mean_bias, variance_bias, num_samples, noise)
        if torch.is_autocast_enabled(h.device.type):
            low = torch.get_autocast_dtype(h.device.type)
            h, kernel, bias = h.to(low), kernel.to(low), None if bias is None else bias.to(low)
        own = h.shape[h.ndim - own_axes :]  # ([R], B, *in)
        h = h.expand(num_samples, *own)
        ctx.shape = h.shape
        # The S draws of R replicas are S R sets of weights; a single one has no axis.
        h, kernel = h.flatten(0, -2 - layer.num_axes), kernel.flatten(0, -1 - len(layer.shape))
        bias = None if bias is None else bias.flatten(0, -2)
        if len(kernel) == 1:
            h, kernel, bias = h[0], kernel[0], None if bias is None else bias[0]
        ctx.save_for_backward(h, kernel, bias, rate, bias_rate)
        outputs = layer.apply(h, kernel, bias)
        return no_view(outputs.view(*ctx.shape[: -layer.num_axes], *outputs.shape[-layer.num_axes :]))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, kernel, bias, rate, bias_rate = ctx.saved_tensors
        layer, number, gradients = ctx.how
        found = (
            torch.empty_like(kernel, dtype=rate.dtype),
            None if bias is None else torch.empty_like(bias, dtype=rate.dtype),
        )
        grad_h = layer.gradients(
            h,
            kernel,
            bias,
            grad.reshape(*h.shape[: -layer.num_axes], *grad.shape[-layer.num_axes :]),
            found,
            ctx.needs_input_grad[2],
        )
        like = rate[0], None if bias_rate is None else bias_rate[0]
        for_mean, for_rate = _targets(gradients, number, like)
        for at, each_rate, value in zip((0, 1), (rate, bias_rate), found, strict=True):
            if value is not None:
                value = value.view_as(each_rate)
                torch.sum(value, 0, out=for_mean[at])
                torch.sum(value * each_rate, 0, out=for_rate[at])
        if grad_h is not None:
            grad_h = grad_h.view(ctx.shape)
        return None, None, grad_h, *_handed_on(gradients, number, for_mean, for_rate)


def _draw(mean: Tensor, variance: Tensor, num_samples: int, noise: NoiseSource) -> tuple[Tensor, Tensor]:
    """Draw weights ``(S, ...)``; return them, and twice their derivative by the variance."""
    epsilon, std = normal((num_samples, *mean.shape), mean, noise), variance.clamp(min=LEAST_VARIANCE).sqrt_()
    return torch.addcmul(mean, std, epsilon), epsilon / std


def _targets(
    gradients: tuple[LayerGradients, LayerGradients] | None, number: int, like: LayerWeights
) -> tuple[LayerWeights, LayerWeights]:
    """Return where the gradients at the means and the rates at the variances are computed."""
    if gradients is None:
        return empty_like(like), empty_like(like)
    return gradients[0].target(number), gradients[1].target(number)


def _handed_on(
    gradients: tuple[LayerGradients, LayerGradients] | None, number: int, for_mean: LayerWeights, for_rate: LayerWeights
) -> tuple[Tensor | None, ...]:
    """Return what a node gives to autograd for the means and the variances: nothing, where it has left it aside."""
    if gradients is None:
        return *for_mean, *(None if value is None else value.mul_(0.5) for value in for_rate)
    gradients[0].write(number, for_mean)
    gradients[1].write(number, for_rate)
    return None, None, None, None


def _sum_to(x: Tensor, like: Tensor) -> Tensor:
    """Sum over draws that shared their inputs; a single draw is a view."""
    return x.view_as(like) if x.numel() == like.numel() else x.sum_to_size(like.shape)
