"""Distributions over weight vectors.

A distribution here lives on R^D, the weights and biases of a whole network laid out in one flat vector (see
:mod:`bbb.network` for the layout). Flat vectors keep the optimiser, the noise and the KL to a few passes over memory,
which is what one training step costs beyond the deterministic network. Log-probabilities have shape ``(S,)``: one
number, in nats, for each of S draws.

A posterior may stand for R independent replicas: its parameters are ``(R, D)``, its draws ``(S, R, D)``, and each
log-probability and KL is one number a replica, ``(S, R)`` and ``(R,)``.

Posterior and prior share these types: ``posterior.frozen()`` is a prior.
"""

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from bbb.flows import Flow
from bbb.noise import NoiseSource, normal

LOG_2PI = math.log(2.0 * math.pi)


class WeightDistribution(nn.Module):
    """A distribution over weight vectors in R^D; the base of everything that can be a posterior or a prior.

    Args:
        dim: D, the number of weights.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.shape = torch.Size([dim])

    def rsample(self, num_samples: int, generator: NoiseSource = None) -> tuple[Tensor, Tensor]:
        """Draw weights by reparameterisation, with their log-density.

        Args:
            num_samples: S, the number of independent draws.
            generator: source of the noise, on the device of the parameters.

        Returns:
            Weights ``(S, D)`` and log-densities ``(S,)`` in nats, both differentiable in the parameters.
        """
        raise NotImplementedError

    def log_prob(self, w: Tensor) -> Tensor:
        """Evaluate the log-density of weights ``(S, D)``: ``(S,)``, in nats."""
        raise NotImplementedError

    def frozen(self) -> Self:
        """Copy the distribution as it is now, without gradients: what turns a posterior into a prior."""
        return copy.deepcopy(self).requires_grad_(False)

    def split(self, num_first: int) -> tuple["WeightDistribution", "WeightDistribution"]:
        """Copy the distributions of the first ``num_first`` weights and of the rest, which must be independent.

        Raises:
            ValueError: the distribution cannot be split there.
        """
        raise ValueError(f"num_first={num_first}: a {type(self).__name__} cannot be split")


class Gaussian(WeightDistribution):
    r"""Fully factorised Gaussian, :math:`N(\mu, \mathrm{diag}(\sigma^2))`.

    The posterior of Blundell et al. 2015, section 3.2 (arXiv 1505.05424), with log sigma in place of their rho:
    ``exp`` costs a fraction of ``softplus`` and the scale of a KL gradient does not depend on sigma.

    Args:
        mean: ``(D,)`` or ``(R, D)``, or a scalar shared by all weights.
        log_std: natural logarithm of the standard deviation, likewise.
        dim: D; needed where both parameters are scalars.
    """

    def __init__(self, mean: Tensor, log_std: Tensor, dim: int | None = None) -> None:
        shape = torch.broadcast_shapes(mean.shape, log_std.shape, () if dim is None else (dim,))
        super().__init__(shape[-1])
        self.shape = shape  # (D,), or (R, D)
        self.mean = nn.Parameter(mean)
        self.log_std = nn.Parameter(log_std)

    @classmethod
    def stacked(cls, posteriors: Sequence["Gaussian"]) -> Self:
        """Make one distribution that stands for R of D weights each."""
        values = (torch.stack([getattr(q, name).detach() for q in posteriors]) for name in ("mean", "log_std"))
        return cls(*values)

    def replicas(self) -> list["Gaussian"]:
        """Copy the R distributions that this one stands for."""
        return [Gaussian(mean.clone(), log_std.clone()) for mean, log_std in zip(self.mean, self.log_std, strict=True)]

    @property
    def base(self) -> Self:
        """The Gaussian itself: what is widened, moved or read where a posterior may have flows on its base or not."""
        return self

    def rsample(self, num_samples: int, generator: NoiseSource = None) -> tuple[Tensor, Tensor]:
        noise = normal((num_samples, *self.shape), self.mean, generator)
        return _GaussianSample.apply(self.mean.expand(self.shape), self.log_std.expand(self.shape), noise)

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

    def split(self, num_first: int) -> tuple["Gaussian", "Gaussian"]:
        values = (value.detach().expand(self.shape) for value in (self.mean, self.log_std))
        parts = zip(*(value.tensor_split([num_first], dim=-1) for value in values), strict=True)
        return tuple(Gaussian(mean.clone(), log_std.clone()) for mean, log_std in parts)


class FlowedGaussian(WeightDistribution):
    r"""A Gaussian whose deviations from its mean go through normalizing flows, one for each block of weights.

    .. math:: w = \mu + f(\sigma \epsilon), \qquad \log q(w) = \log N(\sigma \epsilon; 0, \sigma^2) - \log|\det f'|

    A planar map of deviations is a planar map of weights with its bias moved by :math:`w_k^T \mu` (Rezende and Mohamed
    2015, arXiv 1505.05770), so nothing is lost, and tanh stays where it is alive however far the mean wanders.

    Args:
        base: the Gaussian.
        flows: a flow for each block.
        dims: weights in each block, in the order of the flat vector.

    Raises:
        ValueError: the blocks do not add up to the base's weights.
    """

    def __init__(self, base: Gaussian, flows: Sequence[Flow], dims: Sequence[int]) -> None:
        super().__init__(base.dim)
        if sum(dims) != base.dim or len(dims) != len(flows):
            raise ValueError(f"dims={tuple(dims)}: {len(flows)} flows and {base.dim} weights do not fit these blocks")
        self.base, self.flows, self.dims = base, nn.ModuleList(flows), tuple(dims)

    @property
    def mean(self) -> Tensor:
        """The image of the base's mean ``(D,)``: a centre, where the mean itself has no closed form."""
        return self._through(torch.zeros_like(self.base.mean).unsqueeze(0), inverse=False)[0].squeeze(0)

    def rsample(self, num_samples: int, generator: NoiseSource = None) -> tuple[Tensor, Tensor]:
        z, log_q = self.base.rsample(num_samples, generator)
        w, log_det = self._through(z - self.base.mean, inverse=False)
        return w, log_q - log_det

    def log_prob(self, w: Tensor) -> Tensor:
        z, log_det = self._through(w, inverse=True)
        return self.base.log_prob(z) - log_det

    def split(self, num_first: int) -> tuple["FlowedGaussian", "FlowedGaussian"]:
        bounds = [0, *itertools.accumulate(self.dims)]
        if num_first not in bounds[1:-1]:
            raise ValueError(f"num_first={num_first}: the blocks end at {bounds[1:]}")
        i, (first, rest) = bounds.index(num_first), self.base.split(num_first)
        flows = copy.deepcopy(self.flows)
        return FlowedGaussian(first, flows[:i], self.dims[:i]), FlowedGaussian(rest, flows[i:], self.dims[i:])

    def _through(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Take deviations ``(S, D)`` to weights, or weights back to the base's; with the flows' log-determinant."""
        blocks = (x - self.base.mean if inverse else x).split(self.dims, dim=1)
        pairs = zip(self.flows, blocks, strict=True)
        images, log_dets = zip(*(flow.inverse(z) if inverse else flow(z) for flow, z in pairs), strict=True)
        return self.base.mean + torch.cat(images, dim=1), torch.stack(log_dets).sum(0)


class Independent(WeightDistribution):
    """Independent distributions over consecutive parts of the weight vector.

    Args:
        parts: the distributions, in the order of the flat vector.
    """

    def __init__(self, parts: Sequence[WeightDistribution]) -> None:
        super().__init__(sum(part.dim for part in parts))
        self.parts = nn.ModuleList(parts)

    def rsample(self, num_samples: int, generator: NoiseSource = None) -> tuple[Tensor, Tensor]:
        w, log_q = zip(*(part.rsample(num_samples, generator) for part in self.parts), strict=True)
        return torch.cat(w, dim=1), torch.stack(log_q).sum(0)

    def log_prob(self, w: Tensor) -> Tensor:
        blocks = w.split([part.dim for part in self.parts], dim=1)
        return torch.stack([part.log_prob(block) for part, block in zip(self.parts, blocks, strict=True)]).sum(0)


def join(first: WeightDistribution, second: WeightDistribution) -> WeightDistribution:
    """Join independent distributions over consecutive weights: two of a kind, and copied, where they are of one kind.

    Two Gaussians make a Gaussian, whose KL has a closed form.
    """
    if isinstance(first, Gaussian) and isinstance(second, Gaussian):
        means, log_stds = (
            [getattr(part, name).detach().expand(part.dim) for part in (first, second)] for name in ("mean", "log_std")
        )
        return Gaussian(torch.cat(means), torch.cat(log_stds))
    if isinstance(first, FlowedGaussian) and isinstance(second, FlowedGaussian):
        flows = copy.deepcopy([*first.flows, *second.flows])
        return FlowedGaussian(join(first.base, second.base), flows, first.dims + second.dims)
    return Independent(copy.deepcopy([first, second]))


class _GaussianSample(torch.autograd.Function):
    """w = mean + exp(log_std) * noise with log q(w), and their gradient in three passes over memory."""

    @staticmethod
    def forward(ctx: FunctionCtx, mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        deviation = deviate(log_std.exp(), noise)
        ctx.save_for_backward(deviation)
        return mean + deviation, log_prob_of_noise(noise, log_std)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, grad_w: Tensor, grad_log_q: Tensor) -> tuple[Tensor, Tensor, None]:
        (deviation,) = ctx.saved_tensors
        return *over_draws(grad_w, deviation, -grad_log_q.sum(0)), None


class _GaussianKL(torch.autograd.Function):
    """Closed-form KL of two factorised Gaussians; the gradient reuses the variance of the forward pass."""

    @staticmethod
    def forward(ctx: FunctionCtx, mean: Tensor, log_std: Tensor, p_mean: Tensor, p_log_std: Tensor, dim: int) -> Tensor:
        precision = torch.exp(-2.0 * p_log_std)
        shift = (mean - p_mean) * precision
        ratio = torch.exp(2.0 * log_std) * precision
        ctx.save_for_backward(shift, ratio)
        ctx.shapes = mean.shape, log_std.shape, torch.broadcast_shapes(shift.shape, ratio.shape, (dim,))
        quadratic = total(ratio, dim) + total(shift * (mean - p_mean), dim)
        return total(p_log_std, dim) - total(log_std, dim) + 0.5 * (quadratic - dim)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        shift, ratio = ctx.saved_tensors
        mean_shape, log_std_shape, shape = ctx.shapes
        grad = grad.unsqueeze(-1)
        grad_mean = (shift * grad).expand(shape).sum_to_size(mean_shape)
        grad_log_std = ((ratio - 1.0) * grad).expand(shape).sum_to_size(log_std_shape)
        return grad_mean, grad_log_std, None, None, None


def log_prob_of_noise(noise: Tensor, log_std: Tensor) -> Tensor:
    """Evaluate log q of the draws mean + std * noise ``(S, ...)``, which the mean has no part in."""
    return -0.5 * torch.linalg.vecdot(noise, noise) - log_std.sum(-1) - 0.5 * log_std.shape[-1] * LOG_2PI


def deviate(std: Tensor, noise: Tensor) -> Tensor:
    """Evaluate std * noise ``(S, ...)``, in the memory of ``std`` where it is large enough."""
    return std.unsqueeze(0).mul_(noise) if len(noise) == 1 else std * noise


def over_draws(grad_w: Tensor, deviation: Tensor, grad_log_std: Tensor) -> tuple[Tensor, Tensor]:
    """Carry the gradient of S draws w = mean + std * noise back to mean and log_std.

    w moves with mean at rate 1 and with log_std at rate std * noise, its deviation.

    Args:
        grad_w: ``(S, D)`` or ``(S, R, D)``.
        deviation: of the draws from the mean, likewise.
        grad_log_std: what is to be added to each gradient of log_std, a scalar or ``(R,)``.
    """
    added = grad_log_std.unsqueeze(-1)
    if len(grad_w) == 1:
        return grad_w[0], torch.addcmul(added, grad_w[0], deviation[0])
    return grad_w.sum(0), torch.einsum("s...d,s...d->...d", grad_w, deviation).add_(added)


def total(x: Tensor, dim: int) -> Tensor:
    """Sum over the D weights in the last axis, or over all D for which a scalar stands."""
    return x * dim if x.ndim == 0 or x.shape[-1] != dim else x.sum(-1)
