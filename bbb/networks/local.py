r"""Running an architecture with noise on its activations: the local reparameterisation.

A layer and its noise are one node of the autograd graph. Let its outputs be :math:`a = M h + s \circ \epsilon`, where
:math:`s^2 = V (h \circ h)`, and let g be the gradient at a. Then the gradients are

.. math::
    \partial_M = g h^T, \qquad
    2 \, \partial_V = r (h \circ h)^T, \quad r = g \circ \epsilon / s, \qquad
    \partial_h = M^T g + h \circ (V^T r).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bbb.distributions import NoiseSource, normal
from bbb.networks.architecture import Architecture
from bbb.networks.layers import Layer, LayerWeights

LEAST_VARIANCE = 1e-30  # of an activation: inputs of zeros have none, where the square root has no gradient


class LayerGradients:
    """Where the backward pass of :func:`forward_local` leaves its gradients, in place of handing them to autograd.

    Autograd would copy each of them twice on its way to the flat vector of all weights.

    Args:
        mean: gradients at the means, as layers with S = 1.
        log_std_rate: twice the gradients at the variances V, likewise; times V they are those at log_std.
    """

    def __init__(self, mean: Sequence[LayerWeights], log_std_rate: Sequence[LayerWeights]) -> None:
        self.mean, self.log_std_rate = [*map(_first, mean)], [*map(_first, log_std_rate)]
        # Autograd runs a node only where a gradient is needed, and the weights themselves ask for none.
        self.anchor = torch.zeros((), device=self.mean[0][0].device, requires_grad=True)
        self._is_written = [False] * len(self.mean)

    def begin(self) -> None:
        """Forget the last backward pass."""
        self._is_written = [False] * len(self.mean)

    def write(self, i: int, mean: LayerWeights, log_std_rate: LayerWeights) -> None:
        """Add the gradients of a layer that has run once more."""
        for target, value in zip((*self.mean[i], *self.log_std_rate[i]), (*mean, *log_std_rate), strict=True):
            if target is not None and value is not None and target is not value:
                target.add_(value)
        self._is_written[i] = True

    def targets(self, i: int) -> tuple[LayerWeights, LayerWeights]:
        """Return where to compute the gradients of layer i: in place, or aside where it has run before."""
        mean, log_std_rate = self.mean[i], self.log_std_rate[i]
        return (_empty_like(mean), _empty_like(log_std_rate)) if self._is_written[i] else (mean, log_std_rate)

    def end(self) -> None:
        """Write zeros for layers that have not run."""
        for i, is_written in enumerate(self._is_written):
            if not is_written:
                for target in (*self.mean[i], *self.log_std_rate[i]):
                    if target is not None:
                        target.zero_()


def forward_local(
    architecture: Architecture,
    mean: Sequence[LayerWeights],
    variance: Sequence[LayerWeights],
    x: Tensor,
    num_samples: int,
    noise: NoiseSource,
    gradients: LayerGradients | None = None,
) -> Tensor:
    r"""Run a network with the local reparameterisation: noise on activations in place of weights.

    Under a factorised Gaussian posterior an activation is Gaussian given its inputs, with mean :math:`\mu x` and
    variance :math:`\sigma^2 x^2`. Drawing it for each example on its own leaves the expected gradient as it is and
    lowers its variance (Kingma, Salimans and Welling 2015, section 2.3, arXiv 1506.02557). Those of a convolution share
    weights, which their noise here does not: their variances are exact, their correlations within an image are not
    drawn (as in Molchanov et al. 2017, arXiv 1701.05369, section 4.1).

    Args:
        architecture: the network.
        mean: the posterior's means as layers with S = 1, of a single network or of R replicas.
        variance: its variances, likewise.
        x: inputs ``(B, P)``, or ``(R, B, P)``.
        num_samples: S, draws of the activations for each input.
        noise: its source.
        gradients: where the backward pass leaves the gradients; None hands them to autograd.

    Returns:
        Outputs ``(S, B, C)``, or ``(S, R, B, C)``.
    """
    layers = architecture.layers
    num_replica_axes = mean[0][0].ndim - 1 - len(layers[0].shape)
    anchor = gradients.anchor if gradients is not None else None

    def apply(i: int, h: Tensor) -> Tensor:
        own_axes = layers[i].num_axes + 1 + num_replica_axes
        how = layers[i], i, num_samples, own_axes, noise, gradients
        return _NoisyLayer.apply(how, anchor, h, *_first(mean[i]), *_first(variance[i]))

    return architecture.forward(apply, architecture.expand(x, num_samples))


def num_activations(architecture: Architecture) -> int:
    """Count the outputs of all layers with weights for one example: the numbers that :func:`forward_local` draws."""
    num = 0

    def apply(i: int, h: Tensor) -> Tensor:
        nonlocal num
        layer = architecture.layers[i]
        outputs = layer.apply(h, h.new_zeros(layer.shape), None)
        num += outputs.numel()
        return outputs

    with torch.no_grad():
        architecture.forward(apply, architecture.expand(torch.zeros(1, architecture.num_inputs), 1))
    return num


class _NoisyLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        how: tuple[Layer, int, int, int, NoiseSource, LayerGradients | None],
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
        return centre.addcmul_(std, epsilon) if centre.shape == epsilon.shape else torch.addcmul(centre, std, epsilon)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, square, std, epsilon, mean, mean_bias, variance, variance_bias = ctx.saved_tensors
        layer, number, gradients = ctx.how
        if gradients is not None:
            for_mean, for_rate = gradients.targets(number)
        else:
            for_mean, for_rate = _empty_like((mean, mean_bias)), _empty_like((variance, variance_bias))
        with_input = ctx.needs_input_grad[2]
        rate = _sum_to(grad * epsilon, std).div_(std)
        grad_square = layer.gradients(square, variance, variance_bias, rate, for_rate, with_input)
        grad_h = layer.gradients(h, mean, mean_bias, _sum_to(grad, std), for_mean, with_input)
        if with_input:
            grad_h.addcmul_(h, grad_square)
        if gradients is not None:
            gradients.write(number, for_mean, for_rate)
            return None, None, grad_h, None, None, None, None
        return None, None, grad_h, *for_mean, *(None if value is None else value.mul_(0.5) for value in for_rate)


def _sum_to(x: Tensor, like: Tensor) -> Tensor:
    """Sum over draws that shared their inputs; a single draw is a view."""
    return x.view_as(like) if x.numel() == like.numel() else x.sum_to_size(like.shape)


def _first(weights: LayerWeights) -> LayerWeights:
    kernel, bias = weights
    return kernel.squeeze(0), None if bias is None else bias.squeeze(0)


def _empty_like(weights: LayerWeights) -> LayerWeights:
    kernel, bias = weights
    return torch.empty_like(kernel), None if bias is None else torch.empty_like(bias)
