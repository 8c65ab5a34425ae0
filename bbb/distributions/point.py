"""A single weight vector as a distribution: what maximum likelihood and MAP learn."""

import copy
from collections.abc import Sequence
from typing import NoReturn, Self

import torch
from torch import Tensor, nn

from bbb.distributions.base import WeightDistribution
from bbb.distributions.noise import NoiseSource


class Point(WeightDistribution):
    r"""A point mass at the mean, :math:`q(w) = \delta(w - \mu)`: an ordinary network, as a posterior.

    Its entropy is minus infinity whatever the mean is. This constant is left out, so the log-density of the mean is 0,
    and in place of the KL stands

    .. math:: -\log p(\mu).

    Minimising the NLL plus this term is maximum a posteriori estimation (MAP). Under a Gaussian prior the term is
    weight decay. It is no KL, and the cost is no bound on the evidence (see :attr:`has_density`).

    Args:
        mean: ``(D,)``, or ``(R, D)``.
    """

    def __init__(self, mean: Tensor) -> None:
        super().__init__(mean.shape[-1])
        self.shape = mean.shape
        self.mean = nn.Parameter(mean)

    @classmethod
    def stacked(cls, posteriors: Sequence["Point"]) -> "Point":
        """Stack R points into one distribution: an ensemble."""
        return Point(torch.stack([q.mean.detach() for q in posteriors]))

    def replicas(self) -> list["Point"]:
        """Copy the R distributions that this one stands for."""
        return [Point(mean.detach().clone()) for mean in self.mean]

    @property
    def centre(self) -> Tensor:
        return self.mean

    @property
    def is_certain(self) -> bool:
        return True

    @property
    def has_density(self) -> bool:
        return False

    @property
    def makes_a_prior(self) -> bool:
        return False

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        """Repeat the mean, without noise."""
        return self.mean.expand(num_samples, *self.shape), self.mean.new_zeros(num_samples, *self.shape[:-1])

    def log_prob(self, w: Tensor) -> Tensor:
        """Return 0 for the mean and minus infinity for all other weights ``(S, D)``: ``(S,)``."""
        is_mean = (w == self.mean).all(-1)
        return torch.where(is_mean, 0.0, -torch.inf).to(w.dtype)

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> NoReturn:
        raise ValueError(
            f"a {type(self).__name__} has no variances to widen, so it is no prior; use a Gaussian prior at its mean"
        )

    def narrowed(self, max_std: float) -> Self:
        return copy.deepcopy(self)

    def selected(self, kept: Tensor) -> "Point":
        """Copy the distribution of the kept weights alone; ``kept`` is a mask ``(D,)``."""
        return Point(self.mean.detach()[kept])

    def split(self, num_first: int) -> tuple[WeightDistribution, WeightDistribution]:
        first, rest = self.mean.detach().tensor_split([num_first], dim=-1)
        return Point(first.clone()), Point(rest.clone())
