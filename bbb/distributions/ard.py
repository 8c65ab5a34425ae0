"""Automatic relevance determination: each weight has a prior of its own, whose width follows the posterior."""

import math
from typing import NoReturn

import torch
from torch import Tensor

from bbb.distributions.base import WeightDistribution
from bbb.distributions.gaussian import Gaussian
from bbb.distributions.noise import NoiseSource


class ARD(WeightDistribution):
    r"""A zero-mean Gaussian for each weight, with the variance that suits the posterior best, up to a limit.

    .. math:: p(w_d) = N(0, \gamma_d^2), \qquad \gamma_d^2 = \min(\mu_d^2 + \sigma_d^2, \gamma_{max}^2)

    This :math:`\gamma_d` minimises KL(q || p) for the posterior :math:`N(\mu_d, \sigma_d^2)`. So the ELBO is a lower
    bound on the largest evidence that any such variances give (empirical Bayes; MacKay 1995). Below the limit the KL of
    a weight is

    .. math:: \tfrac12 \log(1 + \mu_d^2 / \sigma_d^2).

    It depends on the signal-to-noise ratio alone, so a weight that the data do not need costs nothing once its mean has
    gone to zero. See Kharitonov et al. 2018 (arXiv 1811.00596). Without the limit nothing would hold the standard
    deviation of such a weight.

    The variances are functions of the posterior and no state. So this prior has no density of its own, and cannot be
    drawn from.

    Args:
        dim: D, the number of weights.
        max_std: the limit, a standard deviation.
        device: where the prior lives.

    Raises:
        ValueError: the limit is not above zero.
    """

    max_variance: Tensor

    def __init__(self, dim: int, max_std: float, device: torch.device | None = None) -> None:
        super().__init__(dim)
        if not max_std > 0.0:
            raise ValueError(f"max_std={max_std}: must be above 0")
        self.register_buffer("max_variance", torch.full((), max_std**2, device=device), persistent=False)

    def kl_divergence(self, posterior: WeightDistribution) -> Tensor:
        """Evaluate KL(posterior || the prior that suits it), differentiably.

        Args:
            posterior: q, a Gaussian.

        Returns:
            A scalar, or ``(R,)``, in nats.

        Raises:
            ValueError: the posterior is not Gaussian.
        """
        if not isinstance(posterior, Gaussian):
            raise ValueError(f"posterior={type(posterior).__name__}: an ARD prior needs a Gaussian posterior")
        second = posterior.mean.square() + torch.exp(2.0 * posterior.log_std)
        ratio = second / self.max_variance
        # the logarithm of the prior's variance, and the second moment over that variance
        log_variance = ratio.clamp(max=1.0).log() + self.max_variance.log()
        each = 0.5 * (log_variance + ratio.clamp(min=1.0) - 1.0) - posterior.log_std
        return each.expand(posterior.shape).sum(-1)

    def fitted_to(self, posterior: Gaussian) -> Gaussian:
        """Return the prior that suits a posterior: a Gaussian, without gradients."""
        with torch.no_grad():
            second = posterior.mean.square() + torch.exp(2.0 * posterior.log_std)
            log_std = 0.5 * second.clamp(max=float(self.max_variance)).log()
        return Gaussian(torch.zeros_like(log_std), log_std, self.dim).requires_grad_(False)

    @property
    def centre(self) -> Tensor:
        return torch.zeros_like(self.max_variance).expand(self.dim)

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> NoReturn:
        raise ValueError("an ARD prior depends on the posterior and cannot be drawn from; use fitted_to(posterior)")

    def log_prob(self, w: Tensor) -> NoReturn:
        raise ValueError("an ARD prior depends on the posterior and has no density; use fitted_to(posterior)")

    def __repr__(self) -> str:
        return f"ARD(dim={self.dim}, max_std={math.sqrt(self.max_variance):g})"
