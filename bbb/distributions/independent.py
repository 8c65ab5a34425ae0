"""Independent distributions over consecutive parts of the weight vector."""

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from bbb.distributions.base import WeightDistribution
from bbb.distributions.dropout import Dropout
from bbb.distributions.flowed import FlowedGaussian
from bbb.distributions.gaussian import Gaussian
from bbb.distributions.laplace import Laplace
from bbb.distributions.noise import NoiseSource
from bbb.distributions.point import Point
from bbb.distributions.pruned import Pruned


class Independent(WeightDistribution):
    """Independent distributions over consecutive parts of the weight vector.

    Args:
        parts: the distributions, in the order of the flat vector.
    """

    def __init__(self, parts: Sequence[WeightDistribution]) -> None:
        super().__init__(sum(part.dim for part in parts))
        self.parts = nn.ModuleList(parts)

    @property
    def part_list(self) -> list[WeightDistribution]:
        """The distributions, in the order of the flat vector."""
        return [part for part in self.parts if isinstance(part, WeightDistribution)]

    @property
    def centre(self) -> Tensor:
        return torch.cat([part.centre for part in self.part_list])

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        w, log_q = zip(*(part.rsample_and_log_prob(num_samples, noise) for part in self.part_list), strict=True)
        return torch.cat(w, dim=1), torch.stack(log_q).sum(0)

    def log_prob(self, w: Tensor) -> Tensor:
        blocks = w.split([part.dim for part in self.part_list], dim=1)
        return torch.stack([part.log_prob(block) for part, block in zip(self.part_list, blocks, strict=True)]).sum(0)

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> Self:
        return type(self)([part.widened(inflation, floor) for part in self.part_list])

    def narrowed(self, max_std: float) -> Self:
        return type(self)([part.narrowed(max_std) for part in self.part_list])


def join(first: WeightDistribution, second: WeightDistribution) -> WeightDistribution:
    """Join copies of independent distributions over consecutive weights.

    Two Gaussians make one Gaussian, whose KL has a closed form. Two flowed Gaussians make one flowed Gaussian. Two
    Gaussians of which one is pruned, or both, make one that is pruned. Two points make one, and so do two Laplace
    approximations.
    """
    if isinstance(first, Gaussian) and isinstance(second, Gaussian):
        return _join_gaussians(first, second)
    if isinstance(first, FlowedGaussian) and isinstance(second, FlowedGaussian):
        flows = copy.deepcopy([*first.flow_list, *second.flow_list])
        return FlowedGaussian(_join_gaussians(first.base, second.base), flows, first.dims + second.dims)
    if type(first) is type(second) is Point:
        return Point(torch.cat([first.centre.detach(), second.centre.detach()], dim=-1))
    if isinstance(first, Laplace) and isinstance(second, Laplace):
        means, precisions = zip(*((part.mean.detach(), part.precision) for part in (first, second)), strict=True)
        return Laplace(torch.cat(means), torch.cat(precisions))
    if isinstance(first, Pruned) or isinstance(second, Pruned):
        bases, masks = zip(*map(_base_and_mask, (first, second)), strict=True)
        if all(isinstance(base, Gaussian) for base in bases):
            return Pruned(_join_gaussians(*bases), torch.cat(masks))
    return Independent(copy.deepcopy([first, second]))


def _base_and_mask(part: WeightDistribution) -> tuple[WeightDistribution, Tensor]:
    if isinstance(part, Pruned):
        return part.base, part.kept
    return part, torch.ones(part.dim, dtype=torch.bool, device=part.device)


def _join_gaussians(first: Gaussian, second: Gaussian) -> Gaussian:
    means, log_stds = (
        [getattr(part, name).detach().expand(part.shape) for part in (first, second)] for name in ("mean", "log_std")
    )
    return Gaussian(torch.cat(means, dim=-1), torch.cat(log_stds, dim=-1))


def mean_and_std(distribution: WeightDistribution) -> tuple[Tensor, Tensor]:
    """Read mean and standard deviation of each weight, ``(D,)`` or ``(R, D)``: with flows of their base, 0 if removed.

    Raises:
        ValueError: the distribution is neither made of Gaussians nor a point.
    """
    if isinstance(distribution, Independent):
        means, stds = zip(*map(mean_and_std, distribution.part_list), strict=True)
        return torch.cat(means, dim=-1), torch.cat(stds, dim=-1)
    if isinstance(distribution, Pruned):
        mean, std = mean_and_std(distribution.base)
        return distribution.spread(mean), distribution.spread(std)
    if isinstance(distribution, Point):
        mean = distribution.mean.detach()
        return mean, distribution.std if isinstance(distribution, Dropout) else torch.zeros_like(mean)
    base = distribution.base if isinstance(distribution, FlowedGaussian) else distribution
    if not isinstance(base, Gaussian):
        raise ValueError(f"a {type(base).__name__} has no standard deviation for each weight")
    return base.mean.detach().expand(base.shape), base.log_std.detach().exp().expand(base.shape)
