"""The fully factorised Gaussian: the posterior of Bayes by Backprop, and the simplest prior."""

import copy
import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from bbb.distributions.base import WeightDistribution
from bbb.distributions.noise import NoiseSource, normal

LOG_2PI = math.log(2.0 * math.pi)


class Gaussian(WeightDistribution):
    r"""Fully factorised Gaussian, :math:`N(\mu, \mathrm{diag}(\sigma^2))`.

    The posterior of Blundell et al. 2015, section 3.2 (arXiv 1505.05424), with log sigma in place of their rho:
    ``exp`` costs a fraction of ``softplus`` and the scale of a KL gradient does not depend on sigma.

    Args:
        mean: ``(D,)`` or ``(R, D)``, or a scalar shared by all weights.
        log_std: natural logarithm of the standard deviation, likewise.
        dim: D; needed if both parameters are scalars.
    """

    def __init__(self, mean: Tensor, log_std: Tensor, dim: int | None = None) -> None:
        shape = torch.broadcast_shapes(mean.shape, log_std.shape, () if dim is None else (dim,))
        super().__init__(shape[-1])
        self.shape = shape  # (D,), or (R, D)
        self.mean = nn.Parameter(mean)
        self.log_std = nn.Parameter(log_std)

    @classmethod
    def stacked(cls, posteriors: Sequence["Gaussian"]) -> Self:
        """Stack R distributions over D weights each into one."""
        means, log_stds = ([getattr(q, name).detach() for q in posteriors] for name in ("mean", "log_std"))
        return cls(torch.stack(means), torch.stack(log_stds))

    def replicas(self) -> list["Gaussian"]:
        """Copy the R distributions that this one stands for."""
        return [_copied(*each) for each in zip(self.mean, self.log_std, strict=True)]

    @property
    def centre(self) -> Tensor:
        return self.mean.expand(self.shape)

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        epsilon = normal((num_samples, *self.shape), self.mean, noise)
        return _GaussianSample.apply(self.mean.expand(self.shape), self.log_std.expand(self.shape), epsilon)

    def log_prob(self, w: Tensor) -> Tensor:
        z = (w - self.mean) * torch.exp(-self.log_std)
        return -0.5 * torch.linalg.vecdot(z, z) - total(self.log_std, self.dim) - 0.5 * self.dim * LOG_2PI

    def kl_divergence(self, prior: "Gaussian") -> Tensor:
        r"""Evaluate KL(self || prior) in closed form.

        .. math:: \sum_d \log\frac{\sigma_p}{\sigma_q} + \frac{\sigma_q^2 + (\mu_q - \mu_p)^2}{2\sigma_p^2} - \frac12

        Args:
            prior: a Gaussian over the same weights. No gradient flows into it.

        Returns:
            A scalar, or ``(R,)``, in nats.
        """
        return _GaussianKL.apply(self.mean, self.log_std, prior.mean.detach(), prior.log_std.detach(), self.dim)

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> Self:
        prior = self.frozen()
        prior.log_std.copy_(0.5 * torch.log(inflation * torch.exp(2.0 * prior.log_std) + floor**2))
        return prior

    def narrowed(self, max_std: float) -> Self:
        narrow = copy.deepcopy(self)
        with torch.no_grad():
            narrow.log_std.clamp_(max=math.log(max_std))
        return narrow

    def selected(self, kept: Tensor) -> "Gaussian":
        """Copy the distribution of the kept weights alone; ``kept`` is a mask ``(D,)``."""
        mean, log_std = (value.detach().expand(self.shape)[kept] for value in (self.mean, self.log_std))
        return Gaussian(mean, log_std)

    def split(self, num_first: int) -> tuple["Gaussian", "Gaussian"]:
        values = (value.detach().expand(self.shape) for value in (self.mean, self.log_std))
        (first, rest) = zip(*(value.tensor_split([num_first], dim=-1) for value in values), strict=True)
        return _copied(*first), _copied(*rest)


class _GaussianSample(torch.autograd.Function):
    """w = mean + exp(log_std) * noise with log q(w), and their gradient in three passes over memory."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        deviation = scale_noise_(log_std.exp(), noise)
        ctx.save_for_backward(deviation)
        return mean + deviation, log_prob_of_noise(noise, log_std)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_w: Tensor, grad_log_q: Tensor) -> tuple[Tensor, Tensor, None]:
        (deviation,) = ctx.saved_tensors
        return *over_draws(grad_w, deviation, -grad_log_q.sum(0)), None


class _GaussianKL(torch.autograd.Function):
    """Closed-form KL of two factorised Gaussians; the gradient reuses the variance of the forward pass."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, log_std: Tensor, p_mean: Tensor, p_log_std: Tensor, dim: int) -> Tensor:
        precision = torch.exp(-2.0 * p_log_std)
        shift = (mean - p_mean) * precision
        ratio = torch.exp(2.0 * log_std) * precision
        ctx.save_for_backward(shift, ratio)
        ctx.shapes = mean.shape, log_std.shape, torch.broadcast_shapes(shift.shape, ratio.shape, (dim,))
        quadratic = total(ratio, dim) + total(shift * (mean - p_mean), dim)
        return total(p_log_std, dim) - total(log_std, dim) + 0.5 * (quadratic - dim)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        shift, ratio = ctx.saved_tensors
        mean_shape, log_std_shape, shape = ctx.shapes
        grad = grad.unsqueeze(-1)
        grad_mean = (shift * grad).expand(shape).sum_to_size(mean_shape)
        grad_log_std = ((ratio - 1.0) * grad).expand(shape).sum_to_size(log_std_shape)
        return grad_mean, grad_log_std, None, None, None


def _copied(mean: Tensor, log_std: Tensor) -> Gaussian:
    return Gaussian(mean.clone(), log_std.clone())


def log_prob_of_noise(noise: Tensor, log_std: Tensor) -> Tensor:
    """Evaluate log q of the draws mean + std * noise ``(S, ...)``; it does not depend on the mean."""
    return -0.5 * torch.linalg.vecdot(noise, noise) - log_std.sum(-1) - 0.5 * log_std.shape[-1] * LOG_2PI


def exp_of_product(x: Tensor, factor: float, out: Tensor) -> Tensor:
    """Evaluate exp(factor x) without a graph. PyTorch's exp2 takes a third of the time of its exp on an AMD processor.

    Args:
        x: of any shape.
        factor: what x is multiplied by.
        out: where to write the result, of the shape of x.
    """
    return torch.mul(x, factor / math.log(2.0), out=out).exp2_()


def scale_noise_(std: Tensor, noise: Tensor) -> Tensor:
    """Evaluate std * noise ``(S, ...)``; a single draw overwrites ``std``."""
    return std.unsqueeze(0).mul_(noise) if len(noise) == 1 else std * noise


def over_draws(grad_w: Tensor, deviation: Tensor, grad_log_std: Tensor) -> tuple[Tensor, Tensor]:
    """Carry the gradient of S draws w = mean + std * noise back to mean and log_std.

    w moves with mean at rate 1 and with log_std at rate std * noise, its deviation.

    Args:
        grad_w: ``(S, D)`` or ``(S, R, D)``.
        deviation: std * noise, of the same shape.
        grad_log_std: added to each gradient of log_std, a scalar or ``(R,)``.
    """
    added = grad_log_std.unsqueeze(-1)
    if len(grad_w) == 1:
        return grad_w[0], torch.addcmul(added, grad_w[0], deviation[0])
    return grad_w.sum(0), torch.einsum("s...d,s...d->...d", grad_w, deviation).add_(added)


def total(x: Tensor, dim: int) -> Tensor:
    """Sum over the D weights in the last axis; a value shared by all D weights counts D times."""
    return x * dim if x.ndim == 0 or x.shape[-1] != dim else x.sum(-1)
