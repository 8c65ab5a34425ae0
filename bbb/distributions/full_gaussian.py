"""The Gaussian with a full covariance: it knows how weights hang together, and is for small networks."""

import copy
import math
from typing import Self

import torch
from torch import Tensor, nn

from bbb.distributions.base import WeightDistribution
from bbb.distributions.gaussian import LOG_2PI, Gaussian, total
from bbb.distributions.noise import NoiseSource, normal


class FullGaussian(WeightDistribution):
    r"""A Gaussian with any covariance, :math:`N(\mu, L L^T)`, with a triangular L.

    .. math:: L = \mathrm{diag}(s) \, (I + N / \sqrt{D}), \qquad N_{ij} = 0 \text{ for } i \le j

    So a step of an optimiser changes correlations as much as it changes log s, however many weights there are.

    It has D (D + 3) / 2 parameters, and stores D^2, so it is for networks of a few thousand weights. Beside the
    factorised Gaussian it tells what correlations are worth, and beside flows what another shape is worth.

    Args:
        mean: ``(D,)``.
        log_diagonal: log s, the natural logarithm of the diagonal of L, ``(D,)``.
        lower: N below its diagonal, ``(D, D)``; what lies elsewhere does not count.
    """

    def __init__(self, mean: Tensor, log_diagonal: Tensor, lower: Tensor) -> None:
        super().__init__(len(mean))
        self.mean, self.log_diagonal, self.lower = (nn.Parameter(part) for part in (mean, log_diagonal, lower))

    @classmethod
    def of(cls, gaussian: Gaussian) -> Self:
        """Copy a factorised Gaussian, to train its correlations."""
        mean, log_std = (part.detach().expand(gaussian.shape).clone() for part in (gaussian.mean, gaussian.log_std))
        return cls(mean, log_std, mean.new_zeros(len(mean), len(mean)))

    @property
    def cholesky(self) -> Tensor:
        """L, ``(D, D)``."""
        scale = self.log_diagonal.exp()
        return torch.diag(scale) + self.lower.tril(-1) * (scale.unsqueeze(1) / math.sqrt(self.dim))

    @property
    def variance(self) -> Tensor:
        """The variance of each weight, ``(D,)``."""
        return self.cholesky.square().sum(1)

    @property
    def centre(self) -> Tensor:
        return self.mean

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        epsilon = normal((num_samples, self.dim), self.mean, noise)
        return self.mean + epsilon @ self.cholesky.T, self._log_prob_of_noise(epsilon)

    def log_prob(self, w: Tensor) -> Tensor:
        deviation = (w - self.mean).T
        return self._log_prob_of_noise(torch.linalg.solve_triangular(self.cholesky, deviation, upper=False).T)

    def kl_divergence(self, prior: Gaussian) -> Tensor:
        r"""Evaluate KL(self || prior) in closed form, a scalar, in nats.

        .. math:: \sum_d \log\frac{\sigma_p}{L_{dd}} + \frac{(L L^T)_{dd} + (\mu_q - \mu_p)^2}{2\sigma_p^2} - \frac12
        """
        precision = torch.exp(-2.0 * prior.log_std.detach())
        quadratic = ((self.variance + (self.mean - prior.mean.detach()).square()) * precision).sum()
        log_ratio = total(prior.log_std.detach(), self.dim) - self.log_diagonal.sum()
        return log_ratio + 0.5 * (quadratic - self.dim)

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> Self:
        prior = self.frozen()
        covariance = inflation * prior.cholesky @ prior.cholesky.T
        covariance.diagonal().add_(floor**2)
        cholesky = torch.linalg.cholesky(covariance)
        scale = cholesky.diagonal()
        prior.lower.copy_(cholesky.tril(-1) * (math.sqrt(self.dim) / scale.unsqueeze(1)))
        prior.log_diagonal.copy_(scale.log())
        return prior

    def narrowed(self, max_std: float) -> Self:
        """Copy the distribution with standard deviations of at most ``max_std``, and the same correlations."""
        narrow = copy.deepcopy(self)
        with torch.no_grad():
            narrow.log_diagonal.add_((max_std / narrow.variance.sqrt()).clamp(max=1.0).log())
        return narrow

    def _log_prob_of_noise(self, epsilon: Tensor) -> Tensor:
        return -0.5 * torch.linalg.vecdot(epsilon, epsilon) - self.log_diagonal.sum() - 0.5 * self.dim * LOG_2PI
