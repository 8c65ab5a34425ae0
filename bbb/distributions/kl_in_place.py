r"""The KL of a Gaussian posterior and its gradient without a graph, in few passes over flat vectors.

Under a Gaussian prior with precision :math:`\pi` and mean m, and with the posterior's variances V,

.. math:: \partial_\mu KL = \pi (\mu - m), \qquad \partial_{\log\sigma} KL = \pi V - 1.

Else the KL is estimated from drawn weights, with :class:`bbb.distributions.log_prior.LogPrior`.

An ARD prior has the mean zero and the precision :math:`\max(1 / (\mu^2 + V), \gamma_{max}^{-2})`, and the same
gradients: its precision is best for the posterior, so that a small change of it does not change the KL.

The plain versions are :meth:`Gaussian.kl_divergence`, :meth:`ARD.kl_divergence` and
:func:`bbb.distributions.kl.kl_divergence`.
"""

from typing import Protocol

import torch
from torch import Tensor, linalg

from bbb.distributions.ard import ARD
from bbb.distributions.base import WeightDistribution
from bbb.distributions.gaussian import LOG_2PI, Gaussian
from bbb.distributions.log_prior import LogPrior, add_product
from bbb.distributions.scale_mixture import ScaleMixture


class ClosedKL(Protocol):
    """The KL of a Gaussian posterior under a prior with a closed form.

    Attributes:
        precision: of the prior, for each weight or for all; after :meth:`value`, that of this posterior.
    """

    precision: Tensor

    def value(self, variance: Tensor) -> Tensor:
        """Evaluate the KL, a scalar or ``(R,)``, in nats.

        Args:
            variance: of the posterior, for each weight.
        """

    def add_gradient_of_mean(self, grad: Tensor, weight: float | Tensor) -> None:
        """Add ``weight`` times the gradient at the mean, after :meth:`value`."""


def closed_kl(posterior: Gaussian, prior: WeightDistribution) -> ClosedKL | None:
    """Make the KL of a posterior, with a mean and a log_std for each weight; None where there is no closed form."""
    if isinstance(prior, ARD):
        return ArdKL(posterior, prior)
    return GaussianKL(posterior, prior) if isinstance(prior, Gaussian) else None


def has_closed_kl(prior: WeightDistribution) -> bool:
    """Tell whether the KL of a Gaussian posterior has a closed form, so that it needs no draws."""
    return isinstance(prior, Gaussian | ARD)


class ArdKL:
    """KL(posterior || prior) under an ARD prior, in few passes over memory and without a graph.

    Args:
        posterior: q, with a mean and a log_std for each weight.
        prior: p.
    """

    def __init__(self, posterior: Gaussian, prior: ARD) -> None:
        self.posterior, self._max_variance = posterior, float(prior.max_variance)
        self.precision = torch.empty_like(posterior.mean, requires_grad=False)
        self._memory = torch.empty_like(self.precision)

    def value(self, variance: Tensor) -> Tensor:
        mean, precision, memory = self.posterior.mean.detach(), self.precision, self._memory
        torch.addcmul(variance, mean, mean, out=memory)  # the second moment
        excess = (memory / self._max_variance - 1.0).clamp_(min=0.0).sum(-1)
        memory.clamp_(max=self._max_variance)
        torch.reciprocal(memory, out=precision)
        return 0.5 * (memory.log_().sum(-1) + excess) - self.posterior.log_std.detach().sum(-1)

    def add_gradient_of_mean(self, grad: Tensor, weight: float | Tensor) -> None:
        add_product(grad, self.posterior.mean.detach(), self.precision, weight)


class GaussianKL:
    """KL(posterior || prior) of two Gaussians, in few passes over memory and without a graph.

    Args:
        posterior: q, with a mean and a log_std for each weight.
        prior: p, fixed.
    """

    def __init__(self, posterior: Gaussian, prior: Gaussian) -> None:
        self.posterior, self.prior = posterior, prior
        mean, log_std = posterior.mean.detach(), prior.log_std.detach()
        self.precision = torch.exp(-2.0 * log_std)
        self._has_one_std = log_std.ndim == 0
        self._log_std_sum = posterior.dim * log_std if self._has_one_std else log_std.sum(-1)
        # The shift, mean - m, is multiplied by the root of the precision, so that its square is that of the KL.
        self._root = self.precision.sqrt()
        self._minus_root_m = -self._root * prior.mean.detach()
        self._is_centred = self._has_one_std and not prior.mean.any()
        self._shift = mean if self._is_centred else torch.empty_like(mean)

    def value(self, variance: Tensor) -> Tensor:
        posterior, shift = self.posterior, self._shift
        spread = variance.sum(-1) * self.precision if self._has_one_std else linalg.vecdot(variance, self.precision)
        if self._is_centred:
            square = linalg.vecdot(shift, shift) * self.precision
        else:
            torch.addcmul(self._minus_root_m, self._root, posterior.mean.detach(), out=shift)
            square = linalg.vecdot(shift, shift)
        return self._log_std_sum - posterior.log_std.detach().sum(-1) + 0.5 * (spread + square - posterior.dim)

    def add_gradient_of_mean(self, grad: Tensor, weight: float | Tensor) -> None:
        add_product(grad, self._shift, self.precision if self._is_centred else self._root, weight)


class DrawnKL:
    """KL(posterior || prior) of a Gaussian, possibly with flows on it, estimated from draws.

    Args:
        base: the posterior, or what its flows are on: with a mean and a log_std for each weight, of a single network.
        prior: p, fixed.
    """

    def __init__(self, base: Gaussian, prior: Gaussian | ScaleMixture) -> None:
        self.base = base
        self._log_prior = LogPrior(prior, base.mean)
        self._of_noise = torch.zeros_like(base.mean[0], requires_grad=False)

    def begin(self) -> None:
        """Compute what all draws share."""
        self._of_noise = self.base.log_std.detach().sum() + 0.5 * self.base.dim * LOG_2PI

    def add_draw(self, w: Tensor, epsilon: Tensor, grad: Tensor, weight: float | Tensor) -> Tensor:
        """Add ``weight`` times the gradient of -log p(w) to ``grad``.

        Args:
            w: drawn weights ``(D,)``.
            epsilon: the standard normal noise they are made of.
            grad: of the shape of w.
            weight: of the KL of this draw.

        Returns:
            log q - log p, a scalar in nats; without the log-determinant of flows.
        """
        log_p = self._log_prior.subtract_gradient(w, grad, weight)
        return -0.5 * linalg.vecdot(epsilon, epsilon) - self._of_noise - log_p
