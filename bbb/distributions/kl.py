r"""KL(q || p) between distributions over weights, alone or together with a draw of the weights.

For a Gaussian posterior with a Gaussian or a mixture prior, the draw, the prior's density and their gradient are one
node of the autograd graph, which takes few passes over memory. Let :math:`\partial_w L` be the gradient of the negative
log-likelihood at the weights :math:`w = \mu + \sigma\epsilon`. Then the gradients of the parameters are (Blundell et
al. 2015, section 3.2, arXiv 1505.05424; log sigma in place of their rho)

.. math::
    \partial_\mu = \partial_w L - \partial_w \log p(w), \qquad
    \partial_{\log\sigma} = \sigma\epsilon \, \partial_\mu - 1,

since with the noise held fixed, log q at the drawn weights depends on log sigma alone, with derivative -1.
"""

from typing import Any

import torch
from torch import Tensor

from bbb.distributions.ard import ARD
from bbb.distributions.base import WeightDistribution
from bbb.distributions.full_gaussian import FullGaussian
from bbb.distributions.gaussian import Gaussian, log_prob_of_noise, over_draws, scale_noise_, total
from bbb.distributions.noise import NoiseSource, normal
from bbb.distributions.point import Point
from bbb.distributions.pruned import Pruned
from bbb.distributions.scale_mixture import ScaleMixture, log_prob_and_wide, precision_times


def kl_divergence(
    posterior: WeightDistribution,
    prior: WeightDistribution,
    draws: tuple[Tensor, Tensor] | None = None,
    noise: NoiseSource = None,
) -> Tensor:
    """Evaluate KL(posterior || prior): the closed form if there is one, else the mean of log q - log p over draws.

    Gaussians have a closed form under a factorised Gaussian prior. A factorised one has it under an ARD prior too. For
    a point, with dropout or without, -log p of its mean stands in place of the KL (see
    :class:`bbb.distributions.Point`).

    Args:
        posterior: q.
        prior: p.
        draws: weights ``(S, D)`` from q and their log-densities ``(S,)``; if they are needed and not given, a single
            fresh draw is made.
        noise: source of the fresh draw.

    Returns:
        A scalar, or ``(R,)`` where the posterior stands for R replicas, in nats. Of pruned distributions it is that of
        the kept weights, and infinite if the two do not keep the same.
    """
    if isinstance(posterior, Pruned):
        if not isinstance(prior, Pruned) or not posterior.has_the_support_of(prior):
            return torch.full((), torch.inf, dtype=posterior.dtype, device=posterior.device)
        own = None if draws is None else (draws[0].index_select(-1, posterior.index), draws[1])
        return kl_divergence(posterior.base, prior.base, own, posterior.own_noise(noise))
    if isinstance(posterior, Gaussian | FullGaussian) and isinstance(prior, Gaussian):
        return posterior.kl_divergence(prior)
    if isinstance(posterior, Point):
        return -prior.log_prob(posterior.centre.unsqueeze(0)).squeeze(0)
    if isinstance(prior, ARD):
        return prior.kl_divergence(posterior)
    w, log_q = draws if draws is not None else posterior.rsample_and_log_prob(1, noise)
    return (log_q - prior.log_prob(w)).mean(0)


def draw_with_kl(
    posterior: WeightDistribution, prior: WeightDistribution, num_samples: int, noise: NoiseSource = None
) -> tuple[Tensor, Tensor]:
    """Draw weights from the posterior for a training step, and evaluate its KL as :func:`kl_divergence` does.

    Args:
        posterior: q.
        prior: p.
        num_samples: S.
        noise: source of the noise.

    Returns:
        Weights ``(S, D)`` and the KL, a scalar, in nats; ``(S, R, D)`` and ``(R,)`` for R replicas.
    """
    if isinstance(posterior, Pruned) and isinstance(prior, Pruned) and posterior.has_the_support_of(prior):
        w, kl = draw_with_kl(posterior.base, prior.base, num_samples, posterior.own_noise(noise))
        return posterior.spread(w), kl
    if isinstance(posterior, Gaussian) and isinstance(prior, Gaussian | ScaleMixture) and _is_full(posterior):
        return fused_draw_with_kl(posterior, prior, num_samples, noise)
    draws = posterior.rsample_and_log_prob(num_samples, noise)
    return draws[0], kl_divergence(posterior, prior, draws)


def fused_draw_with_kl(
    posterior: Gaussian, prior: Gaussian | ScaleMixture, num_samples: int, noise: NoiseSource = None
) -> tuple[Tensor, Tensor]:
    """Do what :func:`draw_with_kl` does, in one node of the autograd graph.

    Args:
        posterior: q, with a mean and a log_std for each weight.
        prior: p.
        num_samples: S.
        noise: source of the noise.

    Returns:
        Weights ``(S, D)`` or ``(S, R, D)`` and the KL, a scalar or ``(R,)``, in nats: the closed form under a Gaussian
        prior, else the mean of log q - log p over the draws.
    """
    epsilon = normal((num_samples, *posterior.shape), posterior.mean, noise)
    if isinstance(prior, Gaussian):
        return _AgainstGaussian.apply(posterior.mean, posterior.log_std, epsilon, prior.mean, prior.log_std)
    return _AgainstMixture.apply(posterior.mean, posterior.log_std, epsilon, prior.pi, prior.std1, prior.std2)


def _is_full(posterior: Gaussian) -> bool:
    return posterior.mean.shape == posterior.log_std.shape == posterior.shape


class _AgainstMixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, mean: Tensor, log_std: Tensor, noise: Tensor, pi: float, std1: float, std2: float
    ) -> tuple[Tensor, Tensor]:
        deviation = scale_noise_(log_std.exp(), noise)
        w = mean + deviation
        log_p, wide = log_prob_and_wide(w, pi, std1, std2)
        ctx.save_for_backward(deviation, w, wide)
        ctx.precisions = std1**-2, std2**-2
        return w, (log_prob_of_noise(noise, log_std) - log_p).mean(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_w: Tensor, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        deviation, w, wide = ctx.saved_tensors
        pull = precision_times(grad_kl.unsqueeze(-1) / len(w), wide, *ctx.precisions)
        grads = over_draws(torch.addcmul(grad_w, pull, w, out=pull), deviation, -grad_kl)
        return *grads, None, None, None, None


class _AgainstGaussian(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, mean: Tensor, log_std: Tensor, noise: Tensor, p_mean: Tensor, p_log_std: Tensor
    ) -> tuple[Tensor, Tensor]:
        std, p_precision = log_std.exp(), torch.exp(-2.0 * p_log_std)
        ratio = std.square().mul_(p_precision)
        deviation = scale_noise_(std, noise)
        shift = mean - p_mean
        pull = shift * p_precision
        quadratic = ratio.sum(-1) + torch.linalg.vecdot(shift, pull)
        ctx.save_for_backward(deviation, pull, ratio)
        return mean + deviation, total(p_log_std, mean.shape[-1]) - log_std.sum(-1) + 0.5 * (quadratic - mean.shape[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_w: Tensor, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        deviation, pull, ratio = ctx.saved_tensors
        grad_mean, grad_log_std = over_draws(grad_w, deviation, -grad_kl)
        grad_kl = grad_kl.unsqueeze(-1)
        return torch.addcmul(grad_mean, pull, grad_kl), grad_log_std.addcmul_(ratio, grad_kl), None, None, None
