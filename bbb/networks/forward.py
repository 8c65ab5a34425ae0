"""Running an architecture: under drawn weights, or with noise on its activations."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from bbb.distributions import NoiseSource, normal
from bbb.networks.architecture import Architecture
from bbb.networks.layout import Layer


def forward_drawn(architecture: Architecture, layers: Sequence[Layer], x: Tensor) -> Tensor:
    """Run a network under S sets of weights at once.

    Args:
        architecture: the network.
        layers: kernels ``(S, out, in)`` and biases ``(S, out)`` of each layer; for R replicas ``(S, R, out, in)`` and
            ``(S, R, out)``.
        x: inputs ``(B, P)``, shared by all draws; ``(R, B, P)`` for replicas, each of which has its own.

    Returns:
        Outputs ``(S, B, C)``, or ``(S, R, B, C)``.
    """
    draws = layers[0][1].shape[:-1]
    if draws == (1,):  # a plain product is faster than a batched one of batch size 1

        def apply_single(i: int, h: Tensor) -> Tensor:
            kernel, bias = layers[i]
            return F.linear(h, kernel.squeeze(0), bias.squeeze(0))

        return architecture.forward(apply_single, x).unsqueeze(0)

    def apply(i: int, h: Tensor) -> Tensor:
        kernel, bias = layers[i]
        return torch.baddbmm(bias.flatten(0, -2).unsqueeze(1), h, kernel.flatten(0, -3).transpose(1, 2))

    h = x.expand(*draws, *x.shape[-2:]).flatten(0, -3)
    return architecture.forward(apply, h).unflatten(0, draws)


def forward_local(
    architecture: Architecture,
    mean: Sequence[Layer],
    log_std: Sequence[Layer],
    x: Tensor,
    num_samples: int,
    noise: NoiseSource,
) -> Tensor:
    r"""Run a network with the local reparameterisation: noise on activations in place of weights.

    Under a factorised Gaussian posterior an activation is Gaussian given its inputs, with mean :math:`\mu x` and
    variance :math:`\sigma^2 x^2`. Drawing it separately for each example keeps the expected gradient and
    lowers its variance (Kingma, Salimans and Welling 2015, section 2.3, arXiv 1506.02557).

    Args:
        architecture: the network.
        mean: the posterior's means as layers with S = 1, of a single network or of R replicas.
        log_std: the logarithms of its standard deviations, likewise.
        x: inputs ``(B, P)``, or ``(R, B, P)``.
        num_samples: S, draws of the activations for each input.
        noise: source of the noise.

    Returns:
        Outputs ``(S, B, C)``, or ``(S, R, B, C)``.
    """

    def apply(i: int, h: Tensor) -> Tensor:
        (m_kernel, m_bias), (s_kernel, s_bias) = mean[i], log_std[i]
        centre = _linear(h, m_kernel.squeeze(0), m_bias.squeeze(0))
        variance = _linear(h * h, torch.exp(2.0 * s_kernel.squeeze(0)), torch.exp(2.0 * s_bias.squeeze(0)))
        epsilon = normal((num_samples, *m_bias.shape[1:-1], *centre.shape[-2:]), x, noise)
        return torch.addcmul(centre, variance.sqrt(), epsilon)

    return architecture.forward(apply, x)


def _linear(h: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Apply a layer ``(out, in)`` to ``(..., B, in)``, or R layers to ``(..., R, B, in)``."""
    if kernel.ndim == 2:
        return F.linear(h, kernel, bias)
    return torch.matmul(h, kernel.transpose(-1, -2)) + bias.unsqueeze(-2)
