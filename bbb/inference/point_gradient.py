r"""The gradient of an ordinary network, by hand where the weights are: the posterior is a point, or dropout.

The network runs once under the mean :math:`\mu`, in place, with dropout on its units for each example. With g the
gradient of the negative log-likelihood, the cost's gradient is

.. math:: \partial_\mu = g - c \, \partial_\mu \log p(\mu),

which is that of MAP. Under a Gaussian prior :math:`N(m, \pi^{-1})` the second term is :math:`c \, \pi (\mu - m)`,
weight decay.
"""

import torch
from torch import Tensor

from bbb.distributions import Dropout, Gaussian, LogPrior, NoiseSource, Point, ScaleMixture
from bbb.inference.gradient import GradientEstimator, Terms
from bbb.networks import LayerGradients, Pass, first_draw, run_drawn, run_dropped


class PointGradient(GradientEstimator):
    """Runs a network under the mean of its posterior.

    Args:
        network: a single network, whose posterior is a point, with dropout or without.
        likelihood: p(y | outputs).
        prior: p(w): a Gaussian, or a scale mixture.
        num_samples: 1.
        precision: of the products.

    Raises:
        ValueError: posterior or prior are of another kind, or there is more than one draw.
    """

    def prepare(self) -> None:
        network, prior = self.network, self.prior
        posterior = network.posterior
        if not isinstance(posterior, Point) or network.num_replicas is not None:
            raise ValueError(f"posterior={posterior}: must be the point of a single network")
        if not isinstance(prior, Gaussian | ScaleMixture):
            raise ValueError(f"prior={prior}: must be a Gaussian or a scale mixture")
        if self.num_samples != 1:
            raise ValueError(f"num_samples={self.num_samples}: a point is drawn once")
        self.posterior = posterior
        self._mean = posterior.mean.detach()
        self._grad = torch.empty_like(self._mean)
        self._layers = [*map(first_draw, network.layers(self._mean.unsqueeze(0)))]
        self._gradients = LayerGradients(network.layers(self._grad.unsqueeze(0)))
        self._log_prior = LogPrior(prior, self._mean)

    def __call__(
        self, x: Tensor, y: Tensor, noise: NoiseSource, nll_weight: float, kl_weight: float | Tensor, with_kl: bool
    ) -> Terms:
        """Store the gradient; -log p of the mean stands in place of the KL."""
        with self.in_precision(x):
            network_pass = self._run(x, noise)
        nll, score = self.run_back(network_pass, y, nll_weight)
        minus_log_prior = self._grad.new_zeros(())
        if with_kl:
            minus_log_prior = -self._log_prior.subtract_gradient(self._mean, self._grad, kl_weight)
        self.posterior.mean.grad = self._grad
        return Terms(nll[0], minus_log_prior, score)

    def _run(self, x: Tensor, noise: NoiseSource) -> Pass:
        how = self.network.architecture, self._layers, x
        if isinstance(self.posterior, Dropout):
            return run_dropped(*how, self.posterior.share, noise, self._gradients)
        return run_drawn(*how, self._gradients)
