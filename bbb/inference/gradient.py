"""The contract of all ways to estimate a minibatch's gradient, and the plainest: autograd does everything."""

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bbb.distributions import NoiseSource, WeightDistribution, draw_with_kl
from bbb.inference.choices import Precision
from bbb.inference.likelihood import Likelihood
from bbb.networks import BayesianNetwork, Pass, forward_drawn


@dataclass(frozen=True)
class Terms:
    """What a minibatch's cost consists of, without a graph.

    Attributes:
        nll: the minibatch's negative log-likelihood, a mean over draws; a scalar, or ``(R,)``, in nats.
        kl: KL(q || p), likewise; 0 where it was left out.
        score: the minibatch's total score, a mean over draws, likewise.
    """

    nll: Tensor
    kl: Tensor
    score: Tensor


class GradientEstimator(ABC):
    """Estimates the gradient of a minibatch's cost from S draws.

    Args:
        network: holds the posterior, of one network or of R replicas.
        likelihood: p(y | outputs).
        prior: p(w).
        num_samples: S.
        precision: of the products.
    """

    def __init__(
        self,
        network: BayesianNetwork,
        likelihood: Likelihood,
        prior: WeightDistribution,
        num_samples: int,
        precision: Precision = "float32",
    ) -> None:
        self.network, self.likelihood, self.prior = network, likelihood, prior
        self.num_samples, self.precision, self.dtype = num_samples, precision, network.posterior.dtype
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Check posterior and prior, and allocate what all minibatches share."""

    @abstractmethod
    def __call__(
        self, x: Tensor, y: Tensor, noise: NoiseSource, nll_weight: float, kl_weight: float | Tensor, with_kl: bool
    ) -> Terms:
        """Store the gradient of ``nll_weight`` times the mean NLL plus ``kl_weight`` times the KL.

        All parameters have no gradient when it is called.

        Args:
            x: inputs ``(B, P)``, or ``(R, B, P)``.
            y: labels ``(B, ...)``, or ``(R, B, ...)``.
            noise: its source.
            nll_weight: of the NLL.
            kl_weight: of the KL; a scalar tensor where a GPU reads it from its memory.
            with_kl: False leaves the KL out.
        """

    def in_precision(self, x: Tensor) -> contextlib.AbstractContextManager[object]:
        """Let the products of a forward pass run in the chosen precision."""
        if self.precision != "bfloat16":
            return contextlib.nullcontext()
        return torch.autocast(x.device.type, torch.bfloat16)

    def run_back(self, network_pass: Pass, y: Tensor, nll_weight: float) -> tuple[Tensor, Tensor]:
        """Take ``nll_weight`` times the gradient of each draw's NLL back through the network.

        Returns:
            The NLL of each draw, ``(S, ...)``, and the total score, a sum over draws.
        """
        outputs = network_pass.outputs.to(self.dtype)
        nll, grad = self.likelihood.nll_with_gradient(outputs, y, nll_weight)
        network_pass.backward(grad)
        return nll, self.likelihood.total_score(outputs, y).sum(0)


class ByAutograd(GradientEstimator):
    """All draws at once, and their gradient by autograd: for any posterior and any prior."""

    def prepare(self) -> None:
        """Minibatches share nothing."""

    def __call__(
        self, x: Tensor, y: Tensor, noise: NoiseSource, nll_weight: float, kl_weight: float | Tensor, with_kl: bool
    ) -> Terms:
        network, posterior = self.network, self.network.posterior
        kl = torch.zeros(posterior.shape[:-1], dtype=posterior.dtype, device=posterior.device)
        if with_kl:
            w, kl = draw_with_kl(posterior, self.prior, self.num_samples, noise)
        else:
            w, _ = posterior.rsample_and_log_prob(self.num_samples, noise)
        with self.in_precision(x):
            outputs = forward_drawn(network.architecture, network.layers(w), x)
        nll = self.likelihood.nll(outputs.to(self.dtype), y).mean(0)
        score = self.likelihood.total_score(outputs.detach(), y).sum(0)
        (nll * nll_weight + kl * kl_weight).sum().backward()
        return Terms(nll.detach(), kl.detach(), score / self.num_samples)
