"""Normalizing flows on a Gaussian, block by block."""

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Self, get_args

import torch
from torch import Tensor, nn

from bbb.distributions.base import WeightDistribution
from bbb.distributions.choices import FlowName
from bbb.distributions.gaussian import Gaussian
from bbb.distributions.matrix_planar import MatrixPlanarFlow
from bbb.distributions.noise import NoiseSource
from bbb.distributions.planar import Flow, PlanarFlow

FLOWS: dict[FlowName, type[PlanarFlow] | type[MatrixPlanarFlow]] = {
    "planar": PlanarFlow,
    "matrix_planar": MatrixPlanarFlow,
}


class FlowedGaussian(WeightDistribution):
    r"""A Gaussian whose deviations from its mean go through normalizing flows, one for each block of weights.

    .. math:: w = \mu + f(\sigma \epsilon), \qquad \log q(w) = \log N(\sigma \epsilon; 0, \sigma^2) - \log|\det f'|

    A planar map of deviations is a planar map of weights with its bias moved by :math:`w_k^T \mu` (Rezende and Mohamed
    2015, arXiv 1505.05770), so no generality is lost. And tanh does not saturate when the mean moves far from zero.

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
        self.base, self.dims = base, tuple(dims)
        self.flows = nn.ModuleList(flows)

    @property
    def flow_list(self) -> list[Flow]:
        """The flows, one for each block."""
        return [flow for flow in self.flows if isinstance(flow, Flow)]

    @property
    def centre(self) -> Tensor:
        return self._through(torch.zeros_like(self.base.centre).unsqueeze(0), inverse=False)[0].squeeze(0)

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        z, log_q = self.base.rsample_and_log_prob(num_samples, noise)
        w, log_det = self._through(z - self.base.mean, inverse=False)
        return w, log_q - log_det

    def log_prob(self, w: Tensor) -> Tensor:
        z, log_det = self._through(w, inverse=True)
        return self.base.log_prob(z) - log_det

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> Self:
        prior = self.frozen()
        prior.base = self.base.widened(inflation, floor)
        return prior

    def narrowed(self, max_std: float) -> Self:
        narrow = copy.deepcopy(self)
        narrow.base = self.base.narrowed(max_std)
        return narrow

    def split(self, num_first: int) -> tuple["FlowedGaussian", "FlowedGaussian"]:
        bounds = [0, *itertools.accumulate(self.dims)]
        if num_first not in bounds[1:-1]:
            raise ValueError(f"num_first={num_first}: the blocks end at {bounds[1:]}")
        i, (first, rest) = bounds.index(num_first), self.base.split(num_first)
        flows = copy.deepcopy(self.flow_list)
        return FlowedGaussian(first, flows[:i], self.dims[:i]), FlowedGaussian(rest, flows[i:], self.dims[i:])

    def images(self, deviations: Tensor, inverse: bool = False) -> tuple[list[Tensor], Tensor]:
        """Map deviations from the mean through the flows.

        Args:
            deviations: ``(S, D)``.
            inverse: whether to map them back.

        Returns:
            The image of each block ``(S, dim)``, and the log-determinant of the forward maps ``(S,)``.
        """
        pairs = zip(self.flow_list, deviations.split(self.dims, dim=1), strict=True)
        images, log_dets = zip(*(flow.inverse(z) if inverse else flow(z) for flow, z in pairs), strict=True)
        return [*images], torch.stack(log_dets).sum(0)

    def _through(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """Map deviations ``(S, D)`` to weights, or weights back to the base's, with the flows' log-determinant."""
        images, log_det = self.images(x - self.base.mean if inverse else x, inverse)
        return self.base.mean + torch.cat(images, dim=1), log_det


def identity_flow(
    name: FlowName,
    shape: tuple[int, ...],
    num_flows: int,
    std: float,
    generator: torch.Generator,
    has_bias: bool = True,
) -> Flow:
    """Create the flows of one layer, which start as the identity.

    Args:
        name: the family.
        shape: ``(out, *rest)`` of the layer's kernel; a flow treats it as a matrix of ``out`` rows.
        num_flows: K.
        std: standard deviation of the base's weights.
        generator: source of the flows' directions.
        has_bias: whether the layer has a bias.

    Raises:
        ValueError: unknown family.
    """
    num_out, num_in = shape[0], math.prod(shape[1:])
    if name == "planar":
        return PlanarFlow.identity((num_in + has_bias) * num_out, num_flows, std, generator)
    if name == "matrix_planar":
        return MatrixPlanarFlow.identity((num_out, num_in), num_flows, std, generator, has_bias)
    raise ValueError(f"flow={name}: must be one of {', '.join(get_args(FlowName))}")


def num_flow_parameters(shapes: Sequence[tuple[int, int]], name: FlowName) -> int:
    """Count the parameters of one planar map on each layer: u, w and b.

    Args:
        shapes: rows and columns of each layer's weights as a matrix, with a bias as one more column.
        name: the family.
    """
    if name == "planar":
        return sum(2 * num_rows * num_columns + 1 for num_rows, num_columns in shapes)
    return sum(2 * (num_columns + num_rows) + 1 for num_rows, num_columns in shapes)


def flows_of(distribution: WeightDistribution) -> tuple[FlowName | None, int]:
    """Tell which flows a distribution has, and how many on each layer: ``(None, 0)`` if it has none."""
    if not isinstance(distribution, FlowedGaussian):
        return None, 0
    first = distribution.flow_list[0]
    name = next(name for name, kind in FLOWS.items() if isinstance(first, kind))
    return name, len(first.b)
