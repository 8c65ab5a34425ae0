r"""A posterior that draws one layer after another, each given those before it: global inducing points.

A few pseudo-examples run through the network. Where they arrive at layer l as features :math:`\phi_l` (with a 1 for the
bias), the layer's weights are drawn from the exact posterior of a Bayesian linear regression of pseudo-targets
:math:`v_l` on these features (Ober and Aitchison 2021, section 3, arXiv 2005.08140):

.. math::
    q(W_l | W_{<l}) = N\left(\Sigma_l \phi_l^T \Lambda_l v_l, \Sigma_l\right), \qquad
    \Sigma_l = \left(I / \sigma_p^2 + \phi_l^T \Lambda_l \phi_l\right)^{-1}

for each output of the layer. So a layer follows what the layers before it turned out to be, as under the true posterior
it must. What no pseudo-example touches keeps the prior.
"""

import math
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from bbb.distributions.base import WeightDistribution
from bbb.distributions.gaussian import LOG_2PI
from bbb.distributions.noise import NoiseSource, normal


class InducingPoints(WeightDistribution):
    """The posterior of dense layers in a row, each drawn given those before it.

    Args:
        inputs: M pseudo-examples as the first layer sees them, ``(M, P)``.
        targets: for each layer its pseudo-targets, ``(M, out)``.
        log_precisions: for each layer the logarithms of their precisions, ``(M,)``.
        activation: what is between the layers.
        prior_std: sigma_p, the standard deviation of each weight where no pseudo-example says otherwise.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Sequence[Tensor],
        log_precisions: Sequence[Tensor],
        activation: Callable[[Tensor], Tensor],
        prior_std: float,
    ) -> None:
        nums_in = [inputs.shape[1], *(target.shape[1] for target in targets[:-1])]
        dims = [target.shape[1] * (num_in + 1) for target, num_in in zip(targets, nums_in, strict=True)]
        super().__init__(sum(dims))
        self.dims, self.activation, self.prior_std = dims, activation, prior_std
        self.inputs = nn.Parameter(inputs)
        self.targets = nn.ParameterList(targets)
        self.log_precisions = nn.ParameterList(log_precisions)

    @classmethod
    def at(
        cls,
        x: Tensor,
        num_hidden: Sequence[int],
        targets: Tensor,
        activation: Callable[[Tensor], Tensor],
        prior_std: float,
        log_precisions: Sequence[float],
        generator: torch.Generator,
    ) -> "InducingPoints":
        """Start at examples: the last layer fits their targets, the others little."""
        hidden = [torch.randn(len(x), num, generator=generator, dtype=x.dtype) for num in num_hidden]
        precisions = [torch.full_like(x[:, 0], value) for value in log_precisions]
        return cls(x.clone(), [*hidden, targets.clone()], precisions, activation, prior_std)

    @property
    def centre(self) -> Tensor:
        noise = self.inputs.new_zeros(1, self.dim)
        return self._draw(noise)[0].squeeze(0)

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        return self._draw(normal((num_samples, self.dim), self.inputs, noise))

    def log_prob(self, w: Tensor) -> Tensor:
        h, log_q = self.inputs.expand(len(w), *self.inputs.shape), w.new_zeros(len(w))
        for i, part in enumerate(w.split(self.dims, dim=1)):
            features = self._features(i, h)
            kernel = self._as_kernel(i, part)
            cholesky, mean = self._regression(i, features)
            epsilon = cholesky.mT @ (kernel - mean)
            log_q = log_q + _log_density(epsilon, cholesky)
            h = features @ kernel
        return log_q

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> Self:
        raise ValueError("InducingPoints: has no variances of its own that could be widened; use frozen()")

    def narrowed(self, max_std: float) -> Self:
        raise ValueError("InducingPoints: has no variances of its own that could be narrowed; use frozen()")

    def _draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        h, log_q, drawn = self.inputs.expand(len(noise), *self.inputs.shape), noise.new_zeros(len(noise)), []
        for i, part in enumerate(noise.split(self.dims, dim=1)):
            features = self._features(i, h)
            cholesky, mean = self._regression(i, features)
            epsilon = part.view(len(noise), -1, self.targets[i].shape[1])
            kernel = mean + torch.linalg.solve_triangular(cholesky.mT, epsilon, upper=True)
            log_q = log_q + _log_density(epsilon, cholesky)
            h = features @ kernel
            drawn += [kernel[:, :-1].mT.flatten(1), kernel[:, -1]]
        return torch.cat(drawn, dim=1), log_q

    def _features(self, i: int, h: Tensor) -> Tensor:
        """What layer i sees of the pseudo-examples, ``(S, M, in + 1)``, given its inputs before the activation."""
        h = h if i == 0 else self.activation(h)
        return torch.cat([h, torch.ones_like(h[..., :1])], dim=-1)

    def _as_kernel(self, i: int, part: Tensor) -> Tensor:
        """View a layer's weights in the flat vector ``(S, dim)`` as ``(S, in + 1, out)``, the bias last."""
        num_out = self.targets[i].shape[1]
        kernel, bias = part[:, :-num_out], part[:, -num_out:]
        return torch.cat([kernel.unflatten(1, (num_out, -1)).mT, bias.unsqueeze(1)], dim=1)

    def _regression(self, i: int, features: Tensor) -> tuple[Tensor, Tensor]:
        """The Cholesky factor of a layer's precision, ``(S, in + 1, in + 1)``, and its mean ``(S, in + 1, out)``."""
        weighted = features.mT * self.log_precisions[i].exp()
        precision = weighted @ features
        precision.diagonal(dim1=-2, dim2=-1).add_(self.prior_std**-2)
        cholesky = torch.linalg.cholesky(precision)
        return cholesky, torch.cholesky_solve(weighted @ self.targets[i], cholesky)


def _log_density(epsilon: Tensor, cholesky: Tensor) -> Tensor:
    """The log-density of a layer's weights, whose noise is ``(S, in + 1, out)``: ``(S,)``."""
    log_det = cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1) * epsilon.shape[-1]
    return log_det - 0.5 * epsilon.square().sum((1, 2)) - 0.5 * LOG_2PI * math.prod(epsilon.shape[1:])
