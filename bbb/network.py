"""A multilayer perceptron whose weights are arguments.

The network holds the posterior over its weights and nothing else. Weights are drawn as flat vectors ``(S, D)``, viewed
as layers, and passed to a pure forward function, so that S draws are one batched matrix product and no KL hides in a
layer between calls. Layout of the flat vector, layer by layer: weight ``(out, in)`` row by row, then bias ``(out,)``.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bbb.flows import Flow, PlanarFlow
from bbb.matrix_flows import MatrixPlanarFlow
from bbb.noise import NoiseSource, normal
from bbb.weights import FlowedGaussian, Gaussian, WeightDistribution

Layer = tuple[Tensor, Tensor]
FLOWS = {"planar": PlanarFlow, "matrix_planar": MatrixPlanarFlow}


class BayesianMLP(nn.Module):
    """An MLP with ReLU units and a distribution over its weights.

    Args:
        sizes: units of each layer from input to output, such as ``(784, 400, 400, 10)``.
        posterior: distribution over the ``num_weights(sizes)`` weights.

    Raises:
        ValueError: the posterior has another number of weights than the layers.
    """

    def __init__(self, sizes: Sequence[int], posterior: WeightDistribution) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        if posterior.dim != num_weights(self.sizes):
            raise ValueError(
                f"sizes={self.sizes}: {num_weights(self.sizes)} weights, the posterior has {posterior.dim}"
            )
        self.posterior = posterior

    @classmethod
    def initial(
        cls,
        sizes: Sequence[int],
        init_std: float,
        generator: torch.Generator,
        num_flows: int = 0,
        flow: str = "planar",
    ) -> "BayesianMLP":
        """Create a network with a Gaussian posterior, or a flow of one for each layer, ready to be trained.

        Means start as a ReLU network's weights do, N(0, 2 / fan_in) (He et al. 2015, arXiv 1502.01852); biases at 0.

        Args:
            sizes: units of each layer from input to output.
            init_std: standard deviation of every weight's posterior.
            generator: source of the initial means, and of the flows' directions.
            num_flows: K planar maps on the posterior of each layer; they start as the identity.
            flow: ``planar`` or ``matrix_planar`` (see :mod:`bbb.flows`).
        """
        parts = []
        for fan_in, fan_out in pairwise(sizes):
            weight = torch.randn(fan_out * fan_in, generator=generator, device=generator.device)
            parts += [weight * math.sqrt(2.0 / fan_in), weight.new_zeros(fan_out)]
        mean = torch.cat(parts)
        base = Gaussian(mean, torch.full_like(mean, math.log(init_std)))
        if num_flows == 0:
            return cls(sizes, base)
        flows = [_identity_flow(flow, shape, num_flows, init_std, generator) for shape in pairwise(sizes)]
        return cls(sizes, FlowedGaussian(base, flows, layer_dims(sizes)))

    def layers(self, w: Tensor) -> list[Layer]:
        """View weights ``(S, D)`` as layers: pairs of ``(S, out, in)`` and ``(S, out)``."""
        return unflatten(w, self.sizes)

    def mean_layers(self) -> list[Layer]:
        """View the posterior's mean (its centre, under flows) as layers of a single draw, S = 1."""
        return self.layers(self.posterior.mean.unsqueeze(0))

    @property
    def num_replicas(self) -> int | None:
        """R, where the posterior stands for R independent networks; None for a single one."""
        return self.posterior.shape[0] if len(self.posterior.shape) > 1 else None

    def replicas(self) -> list["BayesianMLP"]:
        """Copy the R networks that this one stands for, or give the one that it is."""
        if self.num_replicas is None:
            return [self]
        return [BayesianMLP(self.sizes, posterior) for posterior in self.posterior.replicas()]

    @classmethod
    def stacked(cls, networks: Sequence["BayesianMLP"]) -> "BayesianMLP":
        """Make one network of R with Gaussian posteriors, which trains them as one batched model."""
        return cls(networks[0].sizes, Gaussian.stacked([network.posterior for network in networks]))


def num_weights(sizes: Sequence[int]) -> int:
    """Count the weights and biases of an MLP with these layer sizes."""
    return sum(layer_dims(sizes))


def layer_dims(sizes: Sequence[int]) -> list[int]:
    """Count the weights and biases of each layer."""
    return [(fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes)]


def num_flow_parameters(sizes: Sequence[int], flow: str) -> int:
    """Count the parameters of one planar map on each layer: u, w and b.

    Args:
        sizes: units of each layer.
        flow: ``planar`` or ``matrix_planar``.
    """
    if flow == "planar":
        return sum(2 * dim + 1 for dim in layer_dims(sizes))
    return sum(2 * (fan_in + 1 + fan_out) + 1 for fan_in, fan_out in pairwise(sizes))


def unflatten(w: Tensor, sizes: Sequence[int]) -> list[Layer]:
    """View flat weights ``(S, D)``, or ``(S, R, D)``, as layers, without a copy.

    Returns:
        For each layer its weight ``(S, out, in)`` and bias ``(S, out)``; ``(S, R, out, in)`` and ``(S, R, out)``.
    """
    shapes = list(pairwise(sizes))
    parts = iter(w.split([n for fan_in, fan_out in shapes for n in (fan_in * fan_out, fan_out)], dim=-1))
    return [(next(parts).unflatten(-1, (fan_out, fan_in)), next(parts)) for fan_in, fan_out in shapes]


def mlp(layers: Sequence[Layer], x: Tensor) -> Tensor:
    """Run the MLP under S sets of weights at once.

    Args:
        layers: weights ``(S, out, in)`` and biases ``(S, out)`` of each layer; for R replicas ``(S, R, out, in)`` and
            ``(S, R, out)``.
        x: inputs ``(B, in)``, shared by all draws; ``(R, B, in)`` for replicas, each of which has its own.

    Returns:
        Logits ``(S, B, C)``, or ``(S, R, B, C)``.
    """
    draws = layers[0][0].shape[:-2]
    if draws == (1,):  # a plain product is faster than a batched one of batch size 1
        h = x
        for i, (weight, bias) in enumerate(layers):
            h = F.linear(h if i == 0 else h.relu_(), weight.squeeze(0), bias.squeeze(0))
        return h.unsqueeze(0)
    h = x.expand(*draws, *x.shape[-2:]).flatten(0, -3)
    for i, (weight, bias) in enumerate(layers):
        weight, bias = weight.flatten(0, -3), bias.flatten(0, -2)
        h = torch.baddbmm(bias.unsqueeze(1), h if i == 0 else h.relu_(), weight.transpose(1, 2))
    return h.unflatten(0, draws)


def local_mlp(
    mean: Sequence[Layer], log_std: Sequence[Layer], x: Tensor, num_samples: int, generator: NoiseSource
) -> Tensor:
    r"""Run the MLP with the local reparameterisation: noise on activations in place of weights.

    Under a factorised Gaussian posterior an activation is Gaussian given its inputs, with mean :math:`\mu x` and
    variance :math:`\sigma^2 x^2`. Drawing it for each example on its own leaves the expected gradient as it is and
    lowers its variance (Kingma, Salimans and Welling 2015, section 2.3, arXiv 1506.02557).

    Args:
        mean: the posterior's means as layers with S = 1, of a single network or of R replicas.
        log_std: the logarithms of its standard deviations, likewise.
        x: inputs ``(B, in)``, or ``(R, B, in)``.
        num_samples: S, draws of the activations for each input.
        generator: source of the noise.

    Returns:
        Logits ``(S, B, C)``, or ``(S, R, B, C)``.
    """
    h = x
    for i, ((m_weight, m_bias), (s_weight, s_bias)) in enumerate(zip(mean, log_std, strict=True)):
        h = h if i == 0 else h.relu()
        centre = _linear(h, m_weight.squeeze(0), m_bias.squeeze(0))
        variance = _linear(h * h, torch.exp(2.0 * s_weight.squeeze(0)), torch.exp(2.0 * s_bias.squeeze(0)))
        noise = normal((num_samples, *m_bias.shape[1:-1], *centre.shape[-2:]), x, generator)
        h = torch.addcmul(centre, variance.sqrt(), noise)
    return h


def _linear(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a layer ``(out, in)`` to ``(..., B, in)``, or R layers to ``(..., R, B, in)``."""
    if weight.ndim == 2:
        return F.linear(h, weight, bias)
    return torch.matmul(h, weight.transpose(-1, -2)) + bias.unsqueeze(-2)


def _identity_flow(kind: str, shape: tuple[int, int], num_flows: int, std: float, generator: torch.Generator) -> Flow:
    fan_in, fan_out = shape
    if kind == "planar":
        return PlanarFlow.identity((fan_in + 1) * fan_out, num_flows, std, generator)
    if kind == "matrix_planar":
        return MatrixPlanarFlow.identity((fan_out, fan_in), num_flows, std, generator)
    raise ValueError(f"flow={kind}: must be one of {', '.join(FLOWS)}")
