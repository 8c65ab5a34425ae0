r"""The log-density of a prior at some weights, and its gradient without a graph, in few passes over flat vectors.

The prior pulls each weight w to its mean with a precision. Of a Gaussian this is :math:`\pi`; of a scale mixture
:math:`r / \sigma_1^2 + (1 - r) / \sigma_2^2`, with r the probability of the wide component.

The plain version is :meth:`WeightDistribution.log_prob`.
"""

import torch
from torch import Tensor

from bbb.distributions.gaussian import LOG_2PI, Gaussian, total
from bbb.distributions.scale_mixture import ScaleMixture, log_prob_and_wide


class LogPrior:
    """log p(w) and its gradient, for weights of a single network.

    Args:
        prior: p, fixed.
        like: weights ``(D,)``, whose type and place all weights have.
    """

    def __init__(self, prior: Gaussian | ScaleMixture, like: Tensor) -> None:
        self.prior = prior
        self._memory = torch.empty_like(like, requires_grad=False)
        self._products = torch.empty_like(self._memory[: len(like) // 2 + 1])
        if isinstance(prior, Gaussian):
            self._precision = torch.exp(-2.0 * prior.log_std.detach())
            self._constant = total(prior.log_std.detach(), len(like)) + 0.5 * len(like) * LOG_2PI

    def subtract_gradient(self, w: Tensor, grad: Tensor, weight: float | Tensor) -> Tensor:
        """Add ``weight`` times the gradient of -log p(w) to ``grad``.

        Args:
            w: weights ``(D,)``.
            grad: of the shape of w.
            weight: of -log p in the cost.

        Returns:
            log p(w), a scalar in nats.
        """
        if isinstance(self.prior, Gaussian):
            return self._gaussian(self.prior, w, grad, weight)
        return self._mixture(self.prior, w, grad, weight)

    def _gaussian(self, prior: Gaussian, w: Tensor, grad: Tensor, weight: float | Tensor) -> Tensor:
        shift = torch.sub(w, prior.mean.detach(), out=self._memory)
        add_product(grad, shift, self._precision, weight)
        if self._precision.ndim == 0:
            return -0.5 * torch.linalg.vecdot(shift, shift) * self._precision - self._constant
        return -0.5 * shift.square_().dot(self._precision) - self._constant

    def _mixture(self, prior: ScaleMixture, w: Tensor, grad: Tensor, weight: float | Tensor) -> Tensor:
        log_p, wide = log_prob_and_wide(w, prior.pi, prior.std1, prior.std2, (self._memory, self._products))
        precision1, precision2 = prior.std1**-2, prior.std2**-2
        if isinstance(weight, Tensor):
            grad.addcmul_(w, weight * precision2).addcmul_(wide.mul_(w), weight * (precision1 - precision2))
        else:  # without a pass over memory for the products
            grad.add_(w, alpha=weight * precision2).addcmul_(wide, w, value=weight * (precision1 - precision2))
        return log_p


def add_product(grad: Tensor, shift: Tensor, rate: Tensor, weight: float | Tensor) -> None:
    """Add ``weight * rate * shift`` to ``grad``."""
    if isinstance(weight, Tensor):
        grad.addcmul_(shift, rate * weight)
    else:  # without a pass over memory for the products
        grad.addcmul_(shift, rate, value=weight)
