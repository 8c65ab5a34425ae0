"""The density of the true posterior, up to its evidence, at many weight vectors at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bbb.data import Split
from bbb.distributions import WeightDistribution
from bbb.inference.likelihood import Likelihood
from bbb.networks import BayesianNetwork, forward_drawn


@dataclass(frozen=True)
class Densities:
    """What a :class:`LogJoint` tells of C weight vectors.

    Attributes:
        log_likelihood: log p(y | x, w) of all examples, ``(C,)``, in nats.
        log_prior: log p(w), ``(C,)``, in nats.
        likelihood_slope: the gradient of the log-likelihood in the weights, ``(C, D)``.
        prior_slope: that of the log-prior, ``(C, D)``.
    """

    log_likelihood: Tensor
    log_prior: Tensor
    likelihood_slope: Tensor
    prior_slope: Tensor

    def log_density(self, power: float) -> Tensor:
        """Evaluate log p(w) + power * log p(y | x, w), ``(C,)``; a power of 0 is the prior, 1 the posterior."""
        return self.log_prior + power * self.log_likelihood

    def slope(self, power: float) -> Tensor:
        """Evaluate the gradient of :meth:`log_density` in the weights, ``(C, D)``."""
        return torch.add(self.prior_slope, self.likelihood_slope, alpha=power)

    def where(self, chosen: Tensor, other: "Densities") -> "Densities":
        """Take those of some vectors from here, and the rest from elsewhere.

        Args:
            chosen: which come from here, ``(C,)``, of bools.
            other: where the rest comes from.
        """
        rows = chosen.unsqueeze(1)
        return Densities(
            torch.where(chosen, self.log_likelihood, other.log_likelihood),
            torch.where(chosen, self.log_prior, other.log_prior),
            torch.where(rows, self.likelihood_slope, other.likelihood_slope),
            torch.where(rows, self.prior_slope, other.prior_slope),
        )


class LogJoint:
    r"""Evaluate :math:`\log p(y | x, w)` and :math:`\log p(w)`, with their gradients, for many weight vectors at once.

    Their sum is the log-density of the posterior but for the log-evidence. All examples count in each evaluation.

    Args:
        network: the network and what normalises its inputs; its posterior is not used.
        likelihood: p(y | outputs), with nothing to learn.
        prior: p(w); its type of numbers is that of all results.
        data: the N examples.
    """

    def __init__(
        self, network: BayesianNetwork, likelihood: Likelihood, prior: WeightDistribution, data: Split
    ) -> None:
        self.network, self.likelihood, self.prior = network, likelihood, prior
        self.x = network.normalization(data.images).to(prior.dtype)
        self.y = data.labels.to(prior.dtype) if data.labels.is_floating_point() else data.labels

    def outputs(self, w: Tensor, x: Tensor | None = None) -> Tensor:
        """Run the network under weights ``(C, D)``.

        Args:
            w: the weights.
            x: normalised inputs ``(B, P)``; by default those of the examples.

        Returns:
            ``(C, B, outputs)``.
        """
        return forward_drawn(self.network.architecture, self.network.layers(w), self.x if x is None else x)

    def log_likelihood(self, w: Tensor) -> Tensor:
        """Evaluate log p(y | x, w) of weights ``(C, D)``: ``(C,)``, in nats."""
        return -self.likelihood.nll(self.outputs(w), self.y)

    def __call__(self, w: Tensor) -> Densities:
        """Evaluate both densities and their gradients at weights ``(C, D)``."""
        with torch.enable_grad():
            w = w.detach().requires_grad_(True)
            log_likelihood, log_prior = self.log_likelihood(w), self.prior.log_prob(w)
            (likelihood_slope,) = torch.autograd.grad(log_likelihood.sum(), w)
            (prior_slope,) = torch.autograd.grad(log_prior.sum(), w)
        return Densities(log_likelihood.detach(), log_prior.detach(), likelihood_slope, prior_slope)
