"""Dropout as a distribution over weights."""

import statistics

import torch
from torch import Tensor

from bbb.distributions.base import WeightDistribution
from bbb.distributions.choices import PosteriorName
from bbb.distributions.laplace import Laplace
from bbb.distributions.noise import NoiseSource, normal
from bbb.distributions.point import Point
from bbb.distributions.pruned import Pruned


class Dropout(Point):
    r"""Dropout (Srivastava et al. 2014): the weights that leave a hidden unit are dropped together.

    .. math:: w_d = \mu_d \, m_{u(d)} / (1 - p), \qquad m_u \sim \mathrm{Bernoulli}(1 - p)

    u(d) is the hidden unit that weight d leaves. Weights that leave none, those of the first layer and biases, are
    fixed. The mean is :math:`\mu`. To predict with it is weight scaling. To average predictions over draws is MC
    dropout (Gal and Ghahramani 2016, arXiv 1506.02142).

    There are finitely many draws, so there is no density. The term :math:`-\log p(\mu)` stands in place of the KL, as
    with :class:`Point`. Training does not draw from this distribution: it drops units for each example anew.

    Args:
        mean: ``(D,)``.
        share: p, the probability that a unit is dropped, in [0, 1).
        unit: u, ``(D,)`` of whole numbers; U for the weights that leave none.
        num_units: U.
    """

    unit: Tensor

    def __init__(self, mean: Tensor, share: float, unit: Tensor, num_units: int) -> None:
        super().__init__(mean)
        if unit.shape != mean.shape:
            raise ValueError(f"unit: has shape {tuple(unit.shape)}; must have that of the mean, {tuple(mean.shape)}")
        self.share, self.num_units = share, num_units
        self.register_buffer("unit", unit, persistent=False)

    @property
    def is_certain(self) -> bool:
        return False

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        """Draw masks of units. Each unit takes one number from the source; the log-densities are 0 by convention."""
        factors = self.mean.new_ones(num_samples, self.num_units + 1)
        factors[:, :-1] = drop(normal((num_samples, self.num_units), self.mean, noise), self.share)
        return self.mean * factors.index_select(1, self.unit), self.mean.new_zeros(num_samples)

    def log_prob(self, w: Tensor) -> Tensor:
        raise ValueError("dropout has finitely many draws, and no density")

    def selected(self, kept: Tensor) -> "Dropout":
        return Dropout(self.mean.detach()[kept], self.share, self.unit[kept], self.num_units)

    def split(self, num_first: int) -> tuple[WeightDistribution, WeightDistribution]:
        return WeightDistribution.split(self, num_first)

    @property
    def std(self) -> Tensor:
        r"""The standard deviation of each weight, :math:`|\mu_d| \sqrt{p / (1 - p)}`; 0 if it leaves no unit."""
        rate = (self.share / (1.0 - self.share)) ** 0.5
        return torch.where(self.unit < self.num_units, rate * self.mean.detach().abs(), 0.0)


def drop(noise: Tensor, share: float) -> Tensor:
    """Turn standard normal numbers into factors: 0 with probability ``share``, else 1 / (1 - share)."""
    threshold = statistics.NormalDist().inv_cdf(share) if share > 0.0 else -torch.inf
    return (noise >= threshold).to(noise.dtype).mul_(1.0 / (1.0 - share))


def posterior_name(distribution: WeightDistribution) -> PosteriorName:
    """Tell the name that a distribution has in a configuration."""
    base = distribution.base if isinstance(distribution, Pruned) else distribution
    if isinstance(base, Dropout):
        return "dropout"
    if isinstance(base, Laplace):
        return "laplace"
    return "point" if isinstance(base, Point) else "gaussian"
