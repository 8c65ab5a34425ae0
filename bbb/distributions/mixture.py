"""A mixture of posteriors: what several trainings have found, as one distribution with a density."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from bbb.distributions.base import WeightDistribution
from bbb.distributions.noise import NoiseSource, normal


class Mixture(WeightDistribution):
    r"""A mixture of R distributions over the same weights, :math:`q(w) = \sum_r \pi_r \, q_r(w)`.

    Posteriors of separate trainings sit in separate modes. As a mixture they are one posterior, with a density and so
    an ELBO (Bishop et al. 1998). Where no two of them overlap, the best probabilities are proportional to exp(ELBO_r),
    and the ELBO of the mixture is then log sum_r exp(ELBO_r): see :meth:`weighted`.

    Args:
        components: the R distributions, without replicas.
        log_weights: log pi_r, ``(R,)``; by default all are equal. They are not trained.

    Raises:
        ValueError: there is no component, or their numbers of weights differ.
    """

    log_weights: Tensor

    def __init__(self, components: Sequence[WeightDistribution], log_weights: Tensor | None = None) -> None:
        dims = {component.dim for component in components}
        if len(dims) != 1:
            raise ValueError(f"components: must be over the same number of weights, not {sorted(dims)}")
        super().__init__(dims.pop())
        self.components = nn.ModuleList(components)
        if log_weights is None:
            log_weights = torch.zeros(len(components), dtype=components[0].dtype, device=components[0].device)
        self.register_buffer("log_weights", log_weights.log_softmax(0))

    @classmethod
    def weighted(cls, components: Sequence[WeightDistribution], elbos: Sequence[float]) -> Self:
        """Mix posteriors with probabilities proportional to exp(ELBO), the best where they do not overlap.

        Args:
            components: the posteriors.
            elbos: of each, in nats (of all examples, not per example).
        """
        like = components[0]
        return cls(components, torch.tensor([*elbos], dtype=torch.float64).log_softmax(0).to(like.device, like.dtype))

    @property
    def component_list(self) -> list[WeightDistribution]:
        """The R distributions."""
        return [component for component in self.components if isinstance(component, WeightDistribution)]

    @property
    def num_noise(self) -> int:
        return sum(component.num_noise for component in self.component_list) + 1

    @property
    def centre(self) -> Tensor:
        """The mean of the components' centres, ``(D,)``."""
        centres = torch.stack([component.centre for component in self.component_list])
        return self.log_weights.exp() @ centres

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        """Draw weights by reparameterisation within components that are drawn at random, with their log-density.

        Each component makes S draws, of which those that are chosen are kept: its own passes over memory are few, and
        the density needs all components anyway.
        """
        chance = torch.special.ndtr(normal((num_samples, 1), self.log_weights, noise)).squeeze(1)
        chosen = torch.searchsorted(self.log_weights.exp().cumsum(0)[:-1], chance, right=True)
        each = torch.stack([part.rsample_and_log_prob(num_samples, noise)[0] for part in self.component_list])
        w = each.gather(0, chosen.view(1, -1, 1).expand(1, -1, self.dim)).squeeze(0)
        return w, self.log_prob(w)

    def log_prob(self, w: Tensor) -> Tensor:
        each = torch.stack([component.log_prob(w) for component in self.component_list])
        return torch.logsumexp(each + self.log_weights.unsqueeze(1), 0)

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> Self:
        return type(self)([part.widened(inflation, floor) for part in self.component_list], self.log_weights.clone())

    def narrowed(self, max_std: float) -> Self:
        return type(self)([part.narrowed(max_std) for part in self.component_list], self.log_weights.clone())
