"""Running an architecture: under drawn weights, or with noise on its activations."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bbb.distributions import NoiseSource, normal
from bbb.networks.architecture import Architecture
from bbb.networks.layers import LayerWeights

LEAST_VARIANCE = 1e-30  # of an activation


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
            kernel, bias = weights[i]
            return layers[i].apply(h, kernel.squeeze(0), None if bias is None else bias.squeeze(0))

        return architecture.forward(apply_single, x).unsqueeze(0)
    num_draws = len(draws)

    def apply(i: int, h: Tensor) -> Tensor:
        kernel, bias = weights[i]
        flat_bias = None if bias is None else bias.flatten(0, num_draws - 1)
        return layers[i].apply_batched(h, kernel.flatten(0, num_draws - 1), flat_bias)

    h = x.expand(*draws, *x.shape[-2:]).flatten(0, -3)
    return architecture.forward(apply, h).unflatten(0, draws)


def forward_local(
    architecture: Architecture,
    mean: Sequence[LayerWeights],
    log_std: Sequence[LayerWeights],
    x: Tensor,
    num_samples: int,
    noise: NoiseSource,
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
        log_std: the logarithms of its standard deviations, likewise.
        x: inputs ``(B, P)``, or ``(R, B, P)``.
        num_samples: S, draws of the activations for each input.
        noise: its source.

    Returns:
        Outputs ``(S, B, C)``, or ``(S, R, B, C)``.
    """
    layers = architecture.layers
    num_replica_axes = mean[0][0].ndim - 1 - len(layers[0].shape)

    def apply(i: int, h: Tensor) -> Tensor:
        layer, (m_kernel, m_bias), (s_kernel, s_bias) = layers[i], mean[i], log_std[i]
        m_bias = None if m_bias is None else m_bias.squeeze(0)
        variances = None if s_bias is None else torch.exp(2.0 * s_bias.squeeze(0))
        centre = layer.apply(h, m_kernel.squeeze(0), m_bias)
        variance = layer.apply(h * h, torch.exp(2.0 * s_kernel.squeeze(0)), variances)
        if not layer.has_bias:  # inputs of zeros have no variance then, where the square root has no gradient
            variance = variance.clamp(min=LEAST_VARIANCE)
        own = centre.shape[centre.ndim - 1 - layer.num_axes - num_replica_axes :]
        epsilon = normal((num_samples, *own), x, noise)
        return torch.addcmul(centre, variance.sqrt(), epsilon)

    return architecture.forward(apply, architecture.expand(x, num_samples))
