r"""The KL of a Gaussian posterior and its gradient without a graph, in few passes over flat vectors.

Under a Gaussian prior with precision :math:`\pi` and mean m, and with the posterior's variances V,

.. math:: \partial_\mu KL = \pi (\mu - m), \qquad \partial_{\log\sigma} KL = \pi V - 1.

Else the KL is estimated from drawn weights w. The prior pulls each of them to its mean with a precision: :math:`\pi`,
or, of a scale mixture, :math:`r / \sigma_1^2 + (1 - r) / \sigma_2^2`, with r the probability of the wide component.

An ARD prior has the mean zero and the precision :math:`\max(1 / (\mu^2 + V), \gamma_{max}^{-2})`, and the same
gradients: its precision is best for the posterior, so that a small change of it does not change the KL.

The plain versions are :meth:`Gaussian.kl_divergence`, :meth:`ARD.kl_divergence` and
:func:`bbb.distributions.kl.kl_divergence`.
"""

from typing import Protocol

import torch
from torch import Tensor

from bbb.distributions.ard import ARD
from bbb.distributions.base import WeightDistribution
from bbb.distributions.gaussian import LOG_2PI, Gaussian, total
from bbb.distributions.scale_mixture import ScaleMixture, log_prob_and_wide


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
        _add_product(grad, self.posterior.mean.detach(), self.precision, weight)


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
        # (mean - m) times the root of the precision where weights have their own, so that it is squared at once
        self._shift_rate = self.precision if self._has_one_std else self.precision.sqrt()
        self._is_centred = self._has_one_std and not prior.mean.any()
        self._shift = mean if self._is_centred else torch.empty_like(mean)

    def value(self, variance: Tensor) -> Tensor:
        posterior, shift = self.posterior, self._shift
        if not self._is_centred:
            torch.sub(posterior.mean, self.prior.mean, out=shift)
        if self._has_one_std:
            quadratic = (variance.sum(-1) + torch.linalg.vecdot(shift, shift)) * self.precision
        else:
            shift.mul_(self._shift_rate)
            quadratic = torch.linalg.vecdot(variance, self.precision) + torch.linalg.vecdot(shift, shift)
        return self._log_std_sum - posterior.log_std.sum(-1) + 0.5 * (quadratic - posterior.dim)

    def add_gradient_of_mean(self, grad: Tensor, weight: float | Tensor) -> None:
        _add_product(grad, self._shift, self._shift_rate, weight)


class DrawnKL:
    """KL(posterior || prior) of a Gaussian, possibly with flows on it, estimated from draws.

    Args:
        base: the posterior, or what its flows are on: with a mean and a log_std for each weight, of a single network.
        prior: p, fixed.
    """

    def __init__(self, base: Gaussian, prior: Gaussian | ScaleMixture) -> None:
        self.base, self.prior = base, prior
        self._memory = torch.empty_like(base.mean, requires_grad=False)
        self._products = torch.empty_like(self._memory[: base.dim // 2 + 1])
        self._of_noise = torch.zeros_like(self._memory[0])
        if isinstance(prior, Gaussian):
            self._precision = torch.exp(-2.0 * prior.log_std.detach())
            self._of_prior = total(prior.log_std.detach(), base.dim) + 0.5 * base.dim * LOG_2PI

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
        if isinstance(self.prior, Gaussian):
            log_p = self._gaussian(self.prior, w, grad, weight)
        else:
            log_p = self._mixture(self.prior, w, grad, weight)
        return -0.5 * torch.linalg.vecdot(epsilon, epsilon) - self._of_noise - log_p

    def _gaussian(self, prior: Gaussian, w: Tensor, grad: Tensor, weight: float | Tensor) -> Tensor:
        shift = torch.sub(w, prior.mean.detach(), out=self._memory)
        _add_product(grad, shift, self._precision, weight)
        if self._precision.ndim == 0:
            return -0.5 * torch.linalg.vecdot(shift, shift) * self._precision - self._of_prior
        return -0.5 * shift.square_().dot(self._precision) - self._of_prior

    def _mixture(self, prior: ScaleMixture, w: Tensor, grad: Tensor, weight: float | Tensor) -> Tensor:
        log_p, wide = log_prob_and_wide(w, prior.pi, prior.std1, prior.std2, (self._memory, self._products))
        precision1, precision2 = prior.std1**-2, prior.std2**-2
        if isinstance(weight, Tensor):
            grad.addcmul_(w, weight * precision2).addcmul_(wide.mul_(w), weight * (precision1 - precision2))
        else:  # without a pass over memory for the products
            grad.add_(w, alpha=weight * precision2).addcmul_(wide, w, value=weight * (precision1 - precision2))
        return log_p


def _add_product(grad: Tensor, shift: Tensor, rate: Tensor, weight: float | Tensor) -> None:
    """Add ``weight * rate * shift`` to ``grad``."""
    if isinstance(weight, Tensor):
        grad.addcmul_(shift, rate * weight)
    else:  # without a pass over memory for the products
        grad.addcmul_(shift, rate, value=weight)
