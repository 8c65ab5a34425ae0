"""A Bayesian neural network: an architecture, and the distribution over its weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bbb.distributions import FlowedGaussian, FlowName, Gaussian, WeightDistribution, identity_flow
from bbb.networks.architecture import Architecture
from bbb.networks.layout import Layer, layer_dims, num_weights, unflatten


class BayesianNetwork(nn.Module):
    """An architecture with a distribution over its weights, and nothing else.

    Weights are drawn as flat vectors ``(S, D)``, viewed as layers, and passed to a pure forward function, so S
    draws are one batched matrix product. No layer stores a KL between calls.

    Args:
        architecture: the network.
        posterior: distribution over its weights.

    Raises:
        ValueError: the posterior and the architecture have different numbers of weights.
    """

    def __init__(self, architecture: Architecture, posterior: WeightDistribution) -> None:
        super().__init__()
        self.architecture = architecture
        wanted = num_weights(architecture.shapes)
        if posterior.dim != wanted:
            raise ValueError(f"posterior: has {posterior.dim} weights, the network of {architecture} has {wanted}")
        self.posterior = posterior

    def layers(self, w: Tensor) -> list[Layer]:
        """View weights ``(S, D)`` as layers: pairs of ``(S, out, *rest)`` and ``(S, out)``."""
        return unflatten(w, self.architecture.shapes)

    def centre_layers(self) -> list[Layer]:
        """View the posterior's centre (its mean, if it has no flows) as layers of a single draw, S = 1."""
        return self.layers(self.posterior.centre.unsqueeze(0))

    def split_head(self) -> tuple[WeightDistribution, WeightDistribution]:
        """Copy the posteriors of the hidden layers and of the head, which is the last layer."""
        return self.posterior.split(num_hidden_weights(self.architecture))

    @property
    def num_replicas(self) -> int | None:
        """R, if the posterior stands for R independent networks; None for a single one."""
        return self.posterior.shape[0] if len(self.posterior.shape) > 1 else None

    def replicas(self) -> list["BayesianNetwork"]:
        """Copy the R networks that this one stands for; a single network is returned as it is."""
        if not isinstance(self.posterior, Gaussian) or self.num_replicas is None:
            return [self]
        return [BayesianNetwork(self.architecture, posterior) for posterior in self.posterior.replicas()]

    @classmethod
    def stacked(cls, networks: Sequence["BayesianNetwork"]) -> "BayesianNetwork":
        """Stack R networks with Gaussian posteriors into one, which trains them as one batched model.

        Raises:
            ValueError: a posterior is not Gaussian.
        """
        posteriors = [network.posterior for network in networks if isinstance(network.posterior, Gaussian)]
        if len(posteriors) != len(networks):
            raise ValueError("networks: replicas must have Gaussian posteriors, without flows")
        return cls(networks[0].architecture, Gaussian.stacked(posteriors))


def initial_network(
    architecture: Architecture,
    init_std: float,
    generator: torch.Generator,
    num_flows: int = 0,
    flow: FlowName = "planar",
) -> BayesianNetwork:
    """Create a network to train, with a Gaussian posterior, or with flows on it for each layer.

    Means start as a ReLU network's weights do, N(0, 2 / fan_in) (He et al. 2015, arXiv 1502.01852); biases at 0.

    Args:
        architecture: the network.
        init_std: standard deviation of every weight's posterior.
        generator: source of the initial means, and of the flows' directions.
        num_flows: K planar maps on the posterior of each layer; they start as the identity.
        flow: ``planar`` or ``matrix_planar``.

    Raises:
        ValueError: unknown flow.
    """
    shapes, parts = architecture.shapes, []
    for shape in shapes:
        kernel = torch.randn(math.prod(shape), generator=generator, device=generator.device)
        parts += [kernel * math.sqrt(2.0 / math.prod(shape[1:])), kernel.new_zeros(shape[0])]
    mean = torch.cat(parts)
    base = Gaussian(mean, torch.full_like(mean, math.log(init_std)))
    if num_flows == 0:
        return BayesianNetwork(architecture, base)
    flows = [identity_flow(flow, shape, num_flows, init_std, generator) for shape in shapes]
    return BayesianNetwork(architecture, FlowedGaussian(base, flows, layer_dims(shapes)))


def num_hidden_weights(architecture: Architecture) -> int:
    """Count the weights before the head, which is the last layer."""
    return sum(layer_dims(architecture.shapes)[:-1])
