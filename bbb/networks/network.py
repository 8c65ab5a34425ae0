"""A Bayesian neural network: an architecture, and the distribution over its weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bbb.data import Normalization
from bbb.distributions import (
    Dropout,
    FlowedGaussian,
    FlowName,
    Gaussian,
    Laplace,
    Point,
    PosteriorName,
    WeightDistribution,
    identity_flow,
)
from bbb.networks.architecture import Architecture
from bbb.networks.layers import Layer, LayerWeights
from bbb.networks.layout import layer_dims, num_weights, unflatten, units_left


class BayesianNetwork(nn.Module):
    """An architecture with a distribution over its weights.

    Weights are drawn as flat vectors ``(S, D)``, viewed as layers, and passed to a pure forward function, so S
    draws are one batched matrix product. No layer stores a KL between calls.

    Args:
        architecture: the network.
        posterior: distribution over its weights.
        normalization: what turns raw inputs into those of the network; by default that of pixels.

    Attributes:
        fixed: the layers that are not Bayesian, which are trained without prior and posterior; None if there are none.

    Raises:
        ValueError: the posterior and the architecture have different numbers of weights.
    """

    def __init__(
        self, architecture: Architecture, posterior: WeightDistribution, normalization: Normalization | None = None
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.normalization = normalization if normalization is not None else Normalization()
        self.fixed = architecture.fixed
        wanted = num_weights(architecture.layers)
        if posterior.dim != wanted:
            raise ValueError(f"posterior: has {posterior.dim} weights, the network of {architecture} has {wanted}")
        self.posterior = posterior

    def with_posterior(self, posterior: WeightDistribution) -> "BayesianNetwork":
        """Give the same network another posterior."""
        return BayesianNetwork(self.architecture, posterior, self.normalization)

    def layers(self, w: Tensor) -> list[LayerWeights]:
        """View weights ``(S, D)`` as layers: pairs of ``(S, out, *rest)`` and ``(S, out)``, None without a bias."""
        return unflatten(w, self.architecture.layers)

    def centre_layers(self) -> list[LayerWeights]:
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
        if not isinstance(self.posterior, Gaussian | Point) or self.num_replicas is None:
            return [self]
        return [self.with_posterior(posterior) for posterior in self.posterior.replicas()]

    @classmethod
    def stacked(cls, networks: Sequence["BayesianNetwork"]) -> "BayesianNetwork":
        """Stack R networks with Gaussian posteriors, or R points, into one, which trains them as one batched model.

        Raises:
            ValueError: the posteriors are of another kind, or there are layers that are not Bayesian.
        """
        gaussians = [network.posterior for network in networks if isinstance(network.posterior, Gaussian)]
        points = [network.posterior for network in networks if type(network.posterior) is Point]
        if len(networks) not in (len(gaussians), len(points)):
            raise ValueError("networks: replicas must have Gaussian posteriors, without flows, or be points")
        if any(network.fixed is not None for network in networks):
            raise ValueError("networks: replicas would share the layers that are not Bayesian; train them one by one")
        return networks[0].with_posterior(Gaussian.stacked(gaussians) if gaussians else Point.stacked(points))


def initial_network(
    architecture: Architecture,
    init_std: float,
    generator: torch.Generator,
    num_flows: int = 0,
    flow: FlowName = "planar",
    normalization: Normalization | None = None,
    posterior: PosteriorName = "gaussian",
    dropout: float = 0.5,
) -> BayesianNetwork:
    """Create a network to train: with a Gaussian posterior, with flows on it for each layer, or with a point.

    Means start as a ReLU network's weights do, N(0, 2 / fan_in) (He et al. 2015, arXiv 1502.01852); biases at 0.

    Args:
        architecture: the network.
        init_std: standard deviation of every weight's posterior.
        generator: source of the initial means, and of the flows' directions.
        num_flows: K planar maps on the posterior of each layer; they start as the identity.
        flow: ``planar`` or ``matrix_planar``.
        normalization: what turns raw inputs into those of the network; by default that of pixels.
        posterior: ``gaussian``, ``point``, ``dropout`` or ``laplace``; only the first has ``init_std`` and flows.
        dropout: share of the hidden units that dropout drops.

    Raises:
        ValueError: unknown flow.
    """
    layers, parts = architecture.layers, []
    for layer in layers:
        kernel = torch.randn(math.prod(layer.shape), generator=generator, device=generator.device)
        parts += [kernel * math.sqrt(2.0 / layer.fan_in), kernel.new_zeros(layer.shape[0] * layer.has_bias)]
    mean = torch.cat(parts)
    if posterior == "point":
        return BayesianNetwork(architecture, Point(mean), normalization)
    if posterior == "laplace":
        return BayesianNetwork(architecture, Laplace(mean), normalization)
    if posterior == "dropout":
        return BayesianNetwork(architecture, Dropout(mean, dropout, *_units(layers, mean)), normalization)
    base = Gaussian(mean, torch.full_like(mean, math.log(init_std)))
    if num_flows == 0:
        return BayesianNetwork(architecture, base, normalization)
    flows = [identity_flow(flow, layer.shape, num_flows, init_std, generator, layer.has_bias) for layer in layers]
    return BayesianNetwork(architecture, FlowedGaussian(base, flows, layer_dims(layers)), normalization)


def _units(layers: Sequence[Layer], like: Tensor) -> tuple[Tensor, int]:
    unit, num_units = units_left(layers)
    return unit.to(like.device), num_units


def num_hidden_weights(architecture: Architecture) -> int:
    """Count the weights before the head, which is the last layer."""
    return sum(layer_dims(architecture.layers)[:-1])
