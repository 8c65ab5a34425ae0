r"""The gradient of a step with local reparameterisation, by hand where the weights are.

The weights are not drawn, so all that a step does with them are few passes over flat vectors: the variances
:math:`V = \exp(2 \log\sigma)` before the network runs, and after its backward pass the KL's gradient in place. With
:math:`\partial_M` and :math:`\partial_V` of the negative log-likelihood, c the weight of the KL and a Gaussian prior
:math:`N(m, \pi^{-1})`, the gradients of the parameters are

.. math::
    \partial_\mu = \partial_M + c \, \pi \, (\mu - m), \qquad
    \partial_{\log\sigma} = V \, (2 \, \partial_V + c \, \pi) - c.
"""

import torch
from torch import Tensor

from bbb.distributions import Gaussian, NoiseSource, WeightDistribution, kl_divergence
from bbb.networks import BayesianNetwork, LayerGradients, forward_local


class LocalGradient:
    """Runs a network with local reparameterisation, and stores the gradient at its posterior's parameters.

    Args:
        network: the network, whose posterior is Gaussian.
        prior: p(w).

    Raises:
        ValueError: the posterior is not Gaussian.
    """

    def __init__(self, network: BayesianNetwork, prior: WeightDistribution) -> None:
        posterior = network.posterior
        if not isinstance(posterior, Gaussian):
            raise ValueError("estimator='local': needs a Gaussian posterior, without flows; use estimator=weights")
        self.network, self.posterior, self.prior = network, posterior, prior
        mean = posterior.mean.detach()
        self._variance, self._grad_mean, self._log_std_rate = (torch.empty_like(mean) for _ in range(3))
        self._mean_layers, self._variance_layers, *gradients = (
            network.layers(values.unsqueeze(0))
            for values in (mean, self._variance, self._grad_mean, self._log_std_rate)
        )
        self._gradients = LayerGradients(*gradients)
        if isinstance(prior, Gaussian):
            self._precision = torch.exp(-2.0 * prior.log_std.detach())
            self._has_one_std = prior.log_std.ndim == 0
            log_std = prior.log_std.detach()
            self._log_std_sum = posterior.dim * log_std if self._has_one_std else log_std.sum(-1)
            # (mean - m) times the root of the precision where weights have their own, so that it is squared at once
            self._shift_rate = self._precision if self._has_one_std else self._precision.sqrt()
            self._is_centred = self._has_one_std and not prior.mean.any()
            self._shift = mean if self._is_centred else torch.empty_like(mean)

    def forward(self, x: Tensor, num_samples: int, noise: NoiseSource, with_kl: bool) -> tuple[Tensor, Tensor]:
        """Run the network on a minibatch.

        Args:
            x: inputs ``(B, P)``, or ``(R, B, P)``.
            num_samples: S.
            noise: its source.
            with_kl: False returns zero in place of the KL.

        Returns:
            Outputs ``(S, B, C)``, or ``(S, R, B, C)``, and the KL, a scalar or ``(R,)``, in nats.
        """
        with torch.no_grad():
            torch.exp(self.posterior.log_std, out=self._variance).square_()
            kl = self._variance.new_zeros(self._variance.shape[:-1])
            if with_kl and isinstance(self.prior, Gaussian):  # while the variances are in the processor's cache
                kl = self._kl(self.prior)
        self._gradients.begin()
        layers = self._mean_layers, self._variance_layers
        outputs = forward_local(self.network.architecture, *layers, x, num_samples, noise, self._gradients)
        if with_kl and not isinstance(self.prior, Gaussian):
            kl = kl_divergence(self.posterior, self.prior, noise=noise)
        return outputs, kl

    @torch.no_grad()
    def store(self, kl_weight: float | Tensor) -> None:
        """Store the gradient in the posterior's parameters, after the backward pass from the outputs (and the KL).

        Args:
            kl_weight: c, what the KL was multiplied by; 0 where it was left out.
        """
        self._gradients.end()
        posterior, grad_mean, grad_log_std = self.posterior, self._grad_mean, self._log_std_rate
        if not isinstance(self.prior, Gaussian):
            grad_log_std.mul_(self._variance)
            if posterior.mean.grad is not None and posterior.log_std.grad is not None:  # from the KL
                grad_mean.add_(posterior.mean.grad)
                grad_log_std.add_(posterior.log_std.grad)
        elif not isinstance(kl_weight, Tensor) and kl_weight == 0.0:
            grad_log_std.mul_(self._variance)
        elif isinstance(kl_weight, Tensor):
            grad_mean.addcmul_(self._shift, self._shift_rate * kl_weight)
            grad_log_std.add_(self._precision * kl_weight).mul_(self._variance).sub_(kl_weight)
        else:  # without a pass over memory for the products
            grad_mean.addcmul_(self._shift, self._shift_rate, value=kl_weight)
            grad_log_std.add_(self._precision, alpha=kl_weight).mul_(self._variance).sub_(kl_weight)
        posterior.mean.grad, posterior.log_std.grad = grad_mean, grad_log_std

    def _kl(self, prior: Gaussian) -> Tensor:
        """As :meth:`Gaussian.kl_divergence`, with the variances that are there already."""
        posterior, variance, shift = self.posterior, self._variance, self._shift
        if not self._is_centred:
            torch.sub(posterior.mean, prior.mean, out=shift)
        if self._has_one_std:
            quadratic = (variance.sum(-1) + torch.linalg.vecdot(shift, shift)) * self._precision
        else:
            shift.mul_(self._shift_rate)
            quadratic = torch.linalg.vecdot(variance, self._precision) + torch.linalg.vecdot(shift, shift)
        return self._log_std_sum - posterior.log_std.sum(-1) + 0.5 * (quadratic - posterior.dim)
