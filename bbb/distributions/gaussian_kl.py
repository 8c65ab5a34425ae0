r"""The KL of two Gaussians and its gradient, on flat vectors that are there already.

With precision :math:`\pi` and mean m of the prior, variances V of the posterior,

.. math:: \partial_\mu KL = \pi (\mu - m), \qquad \partial_{\log\sigma} KL = \pi V - 1.

:meth:`Gaussian.kl_divergence` is the plain version.
"""

import torch
from torch import Tensor

from bbb.distributions.gaussian import Gaussian


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
        """Evaluate the KL, a scalar or ``(R,)``, in nats.

        Args:
            variance: of the posterior, for each weight.
        """
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
        """Add ``weight`` times the gradient at the mean, after :meth:`value`."""
        if isinstance(weight, Tensor):
            grad.addcmul_(self._shift, self._shift_rate * weight)
        else:  # without a pass over memory for the products
            grad.addcmul_(self._shift, self._shift_rate, value=weight)
