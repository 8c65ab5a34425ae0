r"""The gradient of a step with local reparameterisation, by hand where the weights are.

The weights are not drawn, so all that a step does with them are few passes over flat vectors: the variances
:math:`V = \exp(2 \log\sigma)` before the network runs, and after its backward pass the KL's gradient in place. With
:math:`\partial_M` and :math:`\partial_V` of the negative log-likelihood, c the weight of the KL and a Gaussian prior
:math:`N(m, \pi^{-1})`, such as ARD has one, the gradients of the parameters are

.. math::
    \partial_\mu = \partial_M + c \, \pi \, (\mu - m), \qquad
    \partial_{\log\sigma} = V \, (2 \, \partial_V + c \, \pi) - c.
"""

import torch
from torch import Tensor

from bbb.distributions import Gaussian, NoiseSource, closed_kl, exp_of_product, kl_divergence
from bbb.inference.gradient import GradientEstimator, Terms
from bbb.networks import LayerGradients, Pass, run_local


class LocalGradient(GradientEstimator):
    """Runs a network with local reparameterisation, and stores the gradient at its posterior's parameters.

    Args:
        network: the network, whose posterior is Gaussian.
        likelihood: p(y | outputs).
        prior: p(w).
        num_samples: S.
        precision: of the products.

    Raises:
        ValueError: the posterior is not Gaussian.
    """

    def prepare(self) -> None:
        network, prior = self.network, self.prior
        posterior = network.posterior
        if not isinstance(posterior, Gaussian):
            raise ValueError("estimator='local': needs a Gaussian posterior, without flows; use estimator=weights")
        self.posterior = posterior
        mean = posterior.mean.detach()
        self._variance, self._grad_mean, self._log_std_rate = (torch.empty_like(mean) for _ in range(3))
        self._mean_layers, self._variance_layers, *gradients = (
            network.layers(values.unsqueeze(0))
            for values in (mean, self._variance, self._grad_mean, self._log_std_rate)
        )
        self._gradients = LayerGradients(gradients[0]), LayerGradients(gradients[1])
        self._kl = closed_kl(posterior, prior)

    def __call__(
        self, x: Tensor, y: Tensor, noise: NoiseSource, nll_weight: float, kl_weight: float | Tensor, with_kl: bool
    ) -> Terms:
        with self.in_precision(x):
            network_pass, kl = self.forward(x, noise, with_kl)
        nll, score = self.run_back(network_pass, y, nll_weight / self.num_samples)
        if kl.requires_grad:
            kl.backward(torch.ones_like(kl) * kl_weight)
        self.store(kl_weight if with_kl else 0.0)
        return Terms(nll.mean(0), kl.detach(), score / self.num_samples)

    def forward(self, x: Tensor, noise: NoiseSource, with_kl: bool) -> tuple[Pass, Tensor]:
        """Run the network on a minibatch.

        Args:
            x: inputs ``(B, P)``, or ``(R, B, P)``.
            noise: its source.
            with_kl: False returns zero in place of the KL.

        Returns:
            The pass, and the KL, a scalar or ``(R,)``, in nats.
        """
        with torch.no_grad():
            exp_of_product(self.posterior.log_std.detach(), 2.0, out=self._variance)
            kl = self._variance.new_zeros(self._variance.shape[:-1])
            if with_kl and self._kl is not None:  # while the variances are in the processor's cache
                kl = self._kl.value(self._variance)
        layers = self._mean_layers, self._variance_layers
        network_pass = run_local(self.network.architecture, *layers, x, self.num_samples, noise, self._gradients)
        if with_kl and self._kl is None:
            kl = kl_divergence(self.posterior, self.prior, noise=noise)
        return network_pass, kl

    @torch.no_grad()
    def store(self, kl_weight: float | Tensor) -> None:
        """Store the gradient in the posterior's parameters, after the backward pass from the outputs (and the KL).

        Args:
            kl_weight: c, what the KL was multiplied by; 0 where it was left out.
        """
        posterior, grad_mean, grad_log_std = self.posterior, self._grad_mean, self._log_std_rate
        if self._kl is None:
            grad_log_std.mul_(self._variance)
            if posterior.mean.grad is not None and posterior.log_std.grad is not None:  # from the KL
                grad_mean.add_(posterior.mean.grad)
                grad_log_std.add_(posterior.log_std.grad)
        elif not isinstance(kl_weight, Tensor) and kl_weight == 0.0:
            grad_log_std.mul_(self._variance)
        else:
            self._kl.add_gradient_of_mean(grad_mean, kl_weight)
            if isinstance(kl_weight, Tensor):
                grad_log_std.add_(self._kl.precision * kl_weight)
            else:  # without a pass over memory for the products
                grad_log_std.add_(self._kl.precision, alpha=kl_weight)
            minus_weight = torch.zeros_like(self._variance[..., :1]).sub_(kl_weight)
            torch.addcmul(minus_weight, grad_log_std, self._variance, out=grad_log_std)
        posterior.mean.grad, posterior.log_std.grad = grad_mean, grad_log_std
