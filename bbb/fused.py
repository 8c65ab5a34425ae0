r"""Drawing weights together with their KL: the gradient of Bayes by Backprop in as few passes over memory as it takes.

What the draw, the prior's density and autograd compute one after the other is here one node of the graph. Where the
gradient of the negative log-likelihood, :math:`\partial_w L`, arrives at the weights :math:`w = \mu + \sigma\epsilon`,
the way on to the parameters is (Blundell et al. 2015, section 3.2, arXiv 1505.05424; log sigma in place of their rho)

.. math::
    \partial_\mu = \partial_w L - \partial_w \log p(w), \qquad
    \partial_{\log\sigma} = \sigma\epsilon \, \partial_\mu - 1,

since log q at the drawn weights depends on log sigma alone, as its noise is held fixed, and at rate -1.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from bbb.mixture import ScaleMixture, log_prob_and_wide, precision_times
from bbb.noise import NoiseSource, normal
from bbb.weights import Gaussian, WeightDistribution, deviate, log_prob_of_noise, over_draws, total


def can_draw(posterior: WeightDistribution, prior: WeightDistribution) -> bool:
    """Tell whether :func:`draw` knows this pair of distributions: a Gaussian posterior, a Gaussian or mixture prior."""
    is_full = isinstance(posterior, Gaussian) and posterior.mean.shape == posterior.log_std.shape == posterior.shape
    return is_full and isinstance(prior, Gaussian | ScaleMixture)


def draw(
    posterior: Gaussian, prior: Gaussian | ScaleMixture, num_samples: int, generator: NoiseSource
) -> tuple[Tensor, Tensor]:
    """Draw weights, with the KL of the posterior from the prior.

    Args:
        posterior: q, with a mean and a log_std for each weight.
        prior: p.
        num_samples: S.
        generator: source of the noise.

    Returns:
        Weights ``(S, D)`` or ``(S, R, D)`` and the KL, a scalar or ``(R,)``, in nats: the closed form under a Gaussian
        prior, else the mean of log q - log p over the draws.
    """
    noise = normal((num_samples, *posterior.shape), posterior.mean, generator)
    if isinstance(prior, Gaussian):
        return _AgainstGaussian.apply(posterior.mean, posterior.log_std, noise, prior.mean, prior.log_std)
    return _AgainstMixture.apply(posterior.mean, posterior.log_std, noise, prior.pi, prior.std1, prior.std2)


class _AgainstMixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, mean: Tensor, log_std: Tensor, noise: Tensor, pi: float, std1: float, std2: float
    ) -> tuple[Tensor, Tensor]:
        deviation = deviate(log_std.exp(), noise)
        w = mean + deviation
        log_p, wide = log_prob_and_wide(w, pi, std1, std2)
        ctx.save_for_backward(deviation, w, wide)
        ctx.precisions = std1**-2, std2**-2
        return w, (log_prob_of_noise(noise, log_std) - log_p).mean(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, grad_w: Tensor, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        deviation, w, wide = ctx.saved_tensors
        pull = precision_times(grad_kl.unsqueeze(-1) / len(w), wide, *ctx.precisions)
        grads = over_draws(torch.addcmul(grad_w, pull, w, out=pull), deviation, -grad_kl)
        return *grads, None, None, None, None


class _AgainstGaussian(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, mean: Tensor, log_std: Tensor, noise: Tensor, p_mean: Tensor, p_log_std: Tensor
    ) -> tuple[Tensor, Tensor]:
        std, p_precision = log_std.exp(), torch.exp(-2.0 * p_log_std)
        ratio = std.square().mul_(p_precision)
        deviation = deviate(std, noise)
        shift = mean - p_mean
        pull = shift * p_precision
        quadratic = ratio.sum(-1) + torch.linalg.vecdot(shift, pull)
        ctx.save_for_backward(deviation, pull, ratio)
        return mean + deviation, total(p_log_std, mean.shape[-1]) - log_std.sum(-1) + 0.5 * (quadratic - mean.shape[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, grad_w: Tensor, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        deviation, pull, ratio = ctx.saved_tensors
        grad_mean, grad_log_std = over_draws(grad_w, deviation, -grad_kl)
        grad_kl = grad_kl.unsqueeze(-1)
        return torch.addcmul(grad_mean, pull, grad_kl), grad_log_std.addcmul_(ratio, grad_kl), None, None, None
