"""Pruning: which weights a Gaussian needs least, and the distribution without them."""

import copy
from typing import Self

import torch
from torch import Tensor

from bbb.distributions.ard import ARD
from bbb.distributions.base import WeightDistribution
from bbb.distributions.gaussian import Gaussian
from bbb.distributions.noise import NoiseSource, Selected
from bbb.distributions.point import Point
from bbb.distributions.scale_mixture import ScaleMixture


class Pruned(WeightDistribution):
    r"""A distribution over K of D weights; the others are removed: a point mass at zero each.

    .. math:: q(w) = q_{kept}(w_{kept}) \prod_{d \text{ removed}} \delta_0(w_d)

    The log-density is that of the kept weights, minus infinity where a removed weight is not zero. Noise is read for
    all D weights, and for dropout for all units. So a draw is the one that the whole distribution makes from the same
    noise, with the removed weights set to zero.

    Args:
        base: the distribution of the kept weights, in the order of the flat vector.
        kept: which of the D weights are kept, ``(D,)`` of bool.

    Raises:
        ValueError: the base stands for replicas, or is not over as many weights as are kept.
    """

    kept: Tensor
    index: Tensor  # of the kept weights, (K,)

    def __init__(self, base: Gaussian | ScaleMixture | ARD | Point, kept: Tensor) -> None:
        super().__init__(len(kept))
        if base.shape != (int(kept.sum()),):
            raise ValueError(f"base: has shape {tuple(base.shape)}; must be over the {int(kept.sum())} kept weights")
        self.base = base
        self.register_buffer("kept", kept)
        self.register_buffer("index", kept.nonzero().squeeze(1), persistent=False)

    @classmethod
    def of(cls, whole: Gaussian | Point, kept: Tensor) -> Self:
        """Copy a distribution without the weights that are not kept."""
        return cls(whole.selected(kept), kept.clone())

    @property
    def is_certain(self) -> bool:
        return self.base.is_certain

    @property
    def has_density(self) -> bool:
        return self.base.has_density

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def makes_a_prior(self) -> bool:
        return self.base.makes_a_prior

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def centre(self) -> Tensor:
        return self.spread(self.base.centre)

    def spread(self, values: Tensor) -> Tensor:
        """Put values of the kept weights ``(..., K)`` in their places among zeros, ``(..., D)``."""
        return values.new_zeros(*values.shape[:-1], self.dim).index_copy(-1, self.index, values)

    def own_noise(self, noise: NoiseSource) -> NoiseSource:
        """Give the base the noise of the kept weights out of that of all; a point reads none for single weights."""
        return noise if isinstance(self.base, Point) else Selected(noise, self.dim, self.index)

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        w, log_q = self.base.rsample_and_log_prob(num_samples, self.own_noise(noise))
        return self.spread(w), log_q

    def log_prob(self, w: Tensor) -> Tensor:
        log_q = self.base.log_prob(w.index_select(-1, self.index))
        is_possible = ((w == 0.0) | self.kept).all(-1)
        return torch.where(is_possible, log_q, -torch.inf)

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> Self:
        """Copy with larger variances of the kept weights; removed weights stay at zero, also under a floor."""
        prior = self.frozen()
        prior.base = self.base.widened(inflation, floor)
        return prior

    def narrowed(self, max_std: float) -> Self:
        narrow = copy.deepcopy(self)
        narrow.base = self.base.narrowed(max_std)
        return narrow

    def split(self, num_first: int) -> tuple[WeightDistribution, WeightDistribution]:
        if not isinstance(self.base, Gaussian):
            return super().split(num_first)
        first, rest = self.base.split(int(self.kept[:num_first].sum()))
        return Pruned(first, self.kept[:num_first].clone()), Pruned(rest, self.kept[num_first:].clone())

    def has_the_support_of(self, other: WeightDistribution) -> bool:
        """Tell whether another distribution keeps the same weights; else the KL between the two is infinite."""
        return isinstance(other, Pruned) and torch.equal(self.kept, other.kept)


def log_importance(q: Gaussian | Point) -> Tensor:
    r"""Evaluate :math:`\log(|\mu| / \sigma)` of each weight ``(D,)``, in float64; minus infinity at a mean of zero.

    The weights with the lowest ratio are removed first (Blundell et al. 2015, section 5.1, arXiv 1505.05424; Graves
    2011). A point has no :math:`\sigma`. Of a point, with dropout or without, it is :math:`\log|\mu|`.
    """
    log_magnitude = q.centre.detach().double().abs().log()
    return log_magnitude if isinstance(q, Point) else log_magnitude - q.log_std.detach().double()


def prune(q: Gaussian | Point, share: float, among: Tensor) -> Pruned:
    """Remove the weights with the lowest signal-to-noise ratio, or of a point those with the lowest magnitude.

    Args:
        q: the distribution.
        share: to remove, in [0, 1], of the weights among which to choose, rounded to whole weights.
        among: which weights may be removed, ``(D,)`` of bool.

    Returns:
        A copy. Of two weights of the same rank, the first is removed first.

    Raises:
        ValueError: the share is not in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share={share}: must lie in 0..1")
    candidates = among.nonzero().squeeze(1)
    order = log_importance(q)[candidates].argsort(stable=True)
    kept = torch.ones_like(among)
    kept[candidates[order[: round(share * len(candidates))]]] = False
    return Pruned.of(q, kept)
