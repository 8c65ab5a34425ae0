r"""The gradient of a step with drawn weights, by hand where the weights are, one draw after another.

Each draw is written to the same flat vector, which stays in the processor's cache while the network runs. With
:math:`g_s` the gradient of the cost at the draw :math:`w_s = \mu + \sigma\epsilon_s`, the gradients of the parameters
are (Blundell et al. 2015, section 3.2, arXiv 1505.05424; log sigma in place of their rho)

.. math:: \partial_\mu = \sum_s g_s, \qquad \partial_{\log\sigma} = \sum_s \sigma\epsilon_s \, g_s.

The KL with weight c adds, under a Gaussian prior :math:`N(m, \pi^{-1})`, :math:`c \, \pi (\mu - m)` and
:math:`c \, (\pi\sigma^2 - 1)`. Under a mixture it is estimated from the same draws: it adds
:math:`-\tfrac{c}{S} \partial_w \log p(w_s)` to each :math:`g_s`, and -c at log sigma.

Flows f on the deviation, :math:`w = \mu + f(\sigma\epsilon)`, carry :math:`g_s` back to the deviation and to their own
parameters (:mod:`bbb.distributions.drawn_flows`).
"""

import torch
from torch import Tensor

from bbb.distributions import (
    ARD,
    ClosedKL,
    DrawnKL,
    FlowedGaussian,
    Gaussian,
    NoiseSource,
    Places,
    ScaleMixture,
    closed_kl,
    drawn_flows,
    exp_of_product,
    normal,
)
from bbb.inference.gradient import GradientEstimator, Terms
from bbb.networks import LayerGradients, first_draw, run_drawn


class DrawnGradient(GradientEstimator):
    """Runs a network under one draw of its weights after another, and sums the gradients.

    Args:
        network: a single network, whose posterior is Gaussian with a mean and a log_std for each weight, or such a
            Gaussian with flows on it.
        likelihood: p(y | outputs).
        prior: p(w): a Gaussian, or a scale mixture; without flows also ARD.
        num_samples: S.
        precision: of the products.

    Raises:
        ValueError: posterior or prior are of another kind.
    """

    def prepare(self) -> None:
        network, prior = self.network, self.prior
        posterior = network.posterior
        base = posterior.base if isinstance(posterior, FlowedGaussian) else posterior
        if not (isinstance(base, Gaussian) and isinstance(prior, Gaussian | ScaleMixture | ARD)):
            raise ValueError(f"posterior={posterior}, prior={prior}: use ByAutograd")
        self.base = base
        self._closed = closed_kl(base, prior) if base is posterior else None
        self._drawn = None
        if self._closed is None:
            if isinstance(prior, ARD):
                raise ValueError("prior=ARD: needs a Gaussian posterior, without flows")
            self._drawn = DrawnKL(base, prior)
        self._std, self._w, self._grad_mean, self._grad_log_std = (
            torch.empty_like(base.mean, requires_grad=False) for _ in range(4)
        )
        # A single draw needs no std once the deviation is known, and its gradient is that of the mean.
        self._deviation = self._std if self.num_samples == 1 else torch.empty_like(self._std)
        self._grad_w = self._grad_mean if self.num_samples == 1 else torch.empty_like(self._grad_mean)
        self._flows, self._grad_log_scale = None, self._grad_log_std
        if isinstance(posterior, FlowedGaussian):
            if self.num_samples > 1:
                self._grad_log_scale = torch.empty_like(self._grad_log_std)
            places = self._deviation, self._w, self._grad_w, self._grad_log_scale
            self._flows = drawn_flows(posterior, Places(base.mean.detach(), *places))
        self._variance = torch.empty_like(self._std if self._closed is not None else self._std[:0])
        self._layers = [*map(first_draw, network.layers(self._w.unsqueeze(0)))]
        self._gradients = LayerGradients(network.layers(self._grad_w.unsqueeze(0)))

    def __call__(
        self, x: Tensor, y: Tensor, noise: NoiseSource, nll_weight: float, kl_weight: float | Tensor, with_kl: bool
    ) -> Terms:
        base, share = self.base, 1.0 / self.num_samples
        with torch.no_grad():
            exp_of_product(base.log_std.detach(), 1.0, out=self._std)
            kl = self._std.new_zeros(())
            if with_kl and self._closed is not None:
                kl = self._closed.value(torch.square(self._std, out=self._variance))
            elif with_kl and self._drawn is not None:
                self._drawn.begin()
        nll, score = torch.zeros_like(kl), torch.zeros_like(kl)
        for s in range(self.num_samples):
            epsilon = normal((1, base.dim), self._w, noise)[0]
            log_det = self._draw(epsilon)
            nll_of_draw, score_of_draw = self._run(x, y, nll_weight * share)
            nll, score = nll + nll_of_draw * share, score + score_of_draw * share
            if with_kl and self._drawn is not None:
                kl = kl + self._drawn.add_draw(self._w, epsilon, self._grad_w, kl_weight * share) * share
            if self._flows is not None:
                self._flows.backward(-kl_weight * share if with_kl else 0.0, is_first=s == 0)
                kl = kl - log_det * share if with_kl else kl
            self._add_draw(kl_weight if with_kl else 0.0, is_first=s == 0)
        if with_kl and self._closed is not None:
            self._add_closed_kl(self._closed, kl_weight)
        base.mean.grad, base.log_std.grad = self._grad_mean, self._grad_log_std
        return Terms(nll, kl, score)

    def _draw(self, epsilon: Tensor) -> Tensor | float:
        """Write drawn weights to their place; return the log-determinant of the flows."""
        torch.mul(self._std, epsilon, out=self._deviation)
        if self._flows is not None:
            return self._flows.forward()
        torch.add(self.base.mean.detach(), self._deviation, out=self._w)
        return 0.0

    def _run(self, x: Tensor, y: Tensor, nll_weight: float) -> tuple[Tensor, Tensor]:
        """Take the gradient of the NLL at the drawn weights; return the NLL and the score."""
        with self.in_precision(x):
            network_pass = run_drawn(self.network.architecture, self._layers, x, self._gradients)
        nll, score = self.run_back(network_pass, y, nll_weight)
        return nll[0], score

    @torch.no_grad()
    def _add_draw(self, kl_weight: float | Tensor, is_first: bool) -> None:
        """Carry the gradients at a draw and at its deviation on to mean and log_std.

        The first draw brings what log_std has of the KL whatever is drawn, minus its weight.
        """
        if not is_first:
            self._grad_mean.add_(self._grad_w)
            if self._flows is None:
                self._grad_log_std.addcmul_(self._grad_w, self._deviation)
            else:
                self._grad_log_std.add_(self._grad_log_scale)
            return
        minus_weight = torch.zeros_like(self._std[:1]).sub_(kl_weight)
        if self._grad_w is not self._grad_mean:
            self._grad_mean.copy_(self._grad_w)
        if self._flows is None:
            torch.addcmul(minus_weight, self._grad_w, self._deviation, out=self._grad_log_std)
        else:
            torch.add(self._grad_log_scale, minus_weight, out=self._grad_log_std)

    @torch.no_grad()
    def _add_closed_kl(self, closed: ClosedKL, weight: float | Tensor) -> None:
        """Add what a KL with a closed form has beside the constant."""
        closed.add_gradient_of_mean(self._grad_mean, weight)
        self._grad_log_std.addcmul_(self._variance, closed.precision * weight)
