"""The scale mixture prior."""

import math
from typing import Any, Self

import torch
from torch import Tensor

from bbb.distributions.base import WeightDistribution
from bbb.distributions.gaussian import LOG_2PI
from bbb.distributions.noise import NoiseSource, normal

SMALLEST = 80.0  # minus the logarithm of a number that float32 still holds with all its digits
SMALLEST_RANK = 2.0**-53  # keeps ranks off 0 and 1, at which the normal quantile is infinite


class ScaleMixture(WeightDistribution):
    r"""Mixture of two zero-mean Gaussians for each weight, the prior of Blundell et al. 2015, eq. 7 (arXiv 1505.05424).

    .. math:: p(w) = \prod_d \pi N(w_d; 0, \sigma_1^2) + (1 - \pi) N(w_d; 0, \sigma_2^2)

    Args:
        dim: D, the number of weights.
        pi: probability of the wide component, in (0, 1).
        std1: standard deviation of the wide component.
        std2: standard deviation of the narrow component, at most ``std1``.

    Raises:
        ValueError: ``pi`` is not in (0, 1), or not ``std1 >= std2 > 0``.
    """

    mean: Tensor  # of both components

    def __init__(self, dim: int, pi: float, std1: float, std2: float) -> None:
        super().__init__(dim)
        if not 0.0 < pi < 1.0:
            raise ValueError(f"pi={pi}: the probability of the wide component must lie between 0 and 1, exclusive")
        if not std1 >= std2 > 0.0:
            raise ValueError(f"std1={std1}, std2={std2}: the scales must be positive, the wide one (std1) first")
        self.pi, self.std1, self.std2 = pi, std1, std2
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        """Draw from the prior by inverting its distribution function; no gradient flows into its fixed scales.

        One standard normal number makes one weight. Its rank u is uniform, and u < pi chooses the wide component. The
        remainder of u, stretched to (0, 1), is the rank within the component.
        """
        epsilon = normal((num_samples, self.dim), self.mean, noise)
        rank = torch.special.ndtr(epsilon.double())
        is_wide = rank < self.pi
        rank = torch.where(is_wide, rank / self.pi, (rank - self.pi) / (1.0 - self.pi))
        standard = torch.special.ndtri(rank.clamp(SMALLEST_RANK, 1.0 - SMALLEST_RANK))
        w = (standard * torch.where(is_wide, self.std1, self.std2)).to(self.mean.dtype)
        return w, self.log_prob(w)

    @property
    def centre(self) -> Tensor:
        return self.mean.expand(self.dim)

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> Self:
        return self._with_stds(*(math.sqrt(inflation * std**2 + floor**2) for std in (self.std1, self.std2)))

    def narrowed(self, max_std: float) -> Self:
        return self._with_stds(min(self.std1, max_std), min(self.std2, max_std))

    def log_prob(self, w: Tensor) -> Tensor:
        return _ScaleMixtureLogProb.apply(w, self.pi, self.std1, self.std2)

    def _with_stds(self, std1: float, std2: float) -> Self:
        return type(self)(self.dim, self.pi, std1, std2).to(self.mean)


class _ScaleMixtureLogProb(torch.autograd.Function):
    r"""Log-density of the scale mixture and its gradient, from one sigmoid and one log for each weight.

    With r = p(wide | w), Bayes' rule reads log p(w) = log pi N(w; 0, std1^2) - log r(w). r never falls below its value
    at w = 0, so its logarithm is finite for every w, and the gradient -w (r / std1^2 + (1 - r) / std2^2) never dies.
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, pi: float, std1: float, std2: float) -> Tensor:
        log_prob, wide = log_prob_and_wide(w, pi, std1, std2)
        ctx.save_for_backward(w, wide)
        ctx.precisions = std1**-2, std2**-2
        return log_prob

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        w, wide = ctx.saved_tensors
        return precision_times(-grad.unsqueeze(-1), wide, *ctx.precisions).mul_(w), None, None, None


def log_prob_and_wide(
    w: Tensor, pi: float, std1: float, std2: float, memory: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Evaluate log p(w) ``(...)`` and r = p(wide | w) ``(..., D)`` for weights ``(..., D)``.

    Args:
        w: the weights.
        pi: probability of the wide component.
        std1: standard deviation of the wide component.
        std2: standard deviation of the narrow component.
        memory: where to write r, and ``(..., D // 2 + 1)`` numbers to compute with; None takes new memory.
    """
    wide, products = (torch.empty_like(w), None) if memory is None else memory
    precision1, precision2 = std1**-2, std2**-2
    log_odds_at_zero = math.log(pi / std1) - math.log((1.0 - pi) / std2)
    at_zero = w.new_tensor(log_odds_at_zero)
    torch.addcmul(at_zero, w, w, value=0.5 * (precision2 - precision1), out=wide).sigmoid_()
    log_wide = w.shape[-1] * (math.log(pi / std1) - 0.5 * LOG_2PI) - 0.5 * precision1 * torch.linalg.vecdot(w, w)
    return log_wide - _sum_of_logs(wide, math.log1p(math.exp(-log_odds_at_zero)), products), wide


def precision_times(factor: Tensor, wide: Tensor, precision1: float, precision2: float) -> Tensor:
    """Evaluate the precision that pulls a weight to zero, r / std1^2 + (1 - r) / std2^2, times a factor."""
    return (wide * (factor * (precision1 - precision2))).add_(factor * precision2)


def _sum_of_logs(x: Tensor, most: float, memory: Tensor | None) -> Tensor:
    """Sum log x over the last axis; multiply numbers first, since products cost less than logarithms.

    Args:
        x: ``(..., D)``, in (0, 1].
        most: the largest -log x, which decides how many numbers may be multiplied without underflow.
        memory: ``(..., D // 2)`` or more numbers to compute with; None takes new memory.
    """
    halvings = min(3, int(math.log2(max(1.0, SMALLEST / most))))
    num = x.shape[-1] >> halvings << halvings
    product = x[..., :num]
    for _ in range(halvings):
        first, second = product.chunk(2, dim=-1)
        product = torch.mul(first, second, out=None if memory is None else memory[..., : first.shape[-1]])
    return product.log().sum(-1) + x[..., num:].log().sum(-1)
