"""The contract of all distributions over weight vectors.

A distribution here lives on R^D, the weights and biases of a whole network laid out in one flat vector (see
:mod:`bbb.networks.layout`). With flat vectors, the optimiser, the noise and the KL need only a few passes over memory.
These passes are what a training step costs beyond the deterministic network. Log-probabilities have shape ``(S,)``: one
number, in nats, for each of S draws.

A posterior may stand for R independent replicas: its parameters are ``(R, D)``, its draws ``(S, R, D)``, and it has
one log-probability and one KL per replica, ``(S, R)`` and ``(R,)``.

Posterior and prior share these types: ``posterior.frozen()`` is a prior.
"""

import copy
from typing import Self

import torch
from torch import Tensor, nn

from bbb.distributions.noise import NoiseSource


class WeightDistribution(nn.Module):
    """A distribution over weight vectors in R^D, used as a posterior or as a prior.

    Every subclass holds at least one parameter or buffer, from which ``dtype`` and ``device`` are read.

    Args:
        dim: D, the number of weights.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.shape = torch.Size([dim])

    def rsample_and_log_prob(self, num_samples: int, noise: NoiseSource = None) -> tuple[Tensor, Tensor]:
        """Draw weights by reparameterisation, with their log-density.

        Args:
            num_samples: S, the number of independent draws.
            noise: source of the noise, on the device of the distribution.

        Returns:
            Weights ``(S, D)`` and log-densities ``(S,)`` in nats, both differentiable in the parameters.
        """
        raise NotImplementedError

    def log_prob(self, w: Tensor) -> Tensor:
        """Evaluate the log-density of weights ``(S, D)``: ``(S,)``, in nats."""
        raise NotImplementedError

    @property
    def centre(self) -> Tensor:
        """The mean ``(D,)``; with flows, whose mean has no closed form, the image of the base's mean."""
        raise NotImplementedError

    @property
    def num_noise(self) -> int:
        """The numbers that one draw reads from its source of noise, for each replica."""
        return self.dim

    @property
    def is_certain(self) -> bool:
        """Whether all draws are the same, so that one of them tells all."""
        return False

    @property
    def has_density(self) -> bool:
        """Whether there is a density over the weights, so that the KL and the ELBO are defined."""
        return True

    @property
    def makes_a_prior(self) -> bool:
        """Whether it has variances, so that :meth:`widened` makes a prior of it."""
        return True

    @property
    def dtype(self) -> torch.dtype:
        """The type of draws and densities."""
        return self._some_tensor().dtype

    @property
    def device(self) -> torch.device:
        """Where draws and densities are computed."""
        return self._some_tensor().device

    def frozen(self) -> Self:
        """Copy the distribution as it is now, without gradients; this turns a posterior into a prior."""
        return copy.deepcopy(self).requires_grad_(False)

    def widened(self, inflation: float = 1.0, floor: float = 0.0) -> Self:
        r"""Copy the distribution with larger variances and without gradients, to make a prior of a posterior.

        .. math:: \mu_p = \mu_q, \qquad \sigma_p^2 = c \, \sigma_q^2 + \sigma_0^2

        A posterior is overconfident as a prior: it has seen one task only, and a factorised posterior underestimates
        variances. Rescaling it follows Shwartz-Ziv et al. 2022 (arXiv 2205.10279). With c = 1 and no floor this is the
        step of variational continual learning (Nguyen et al. 2018, arXiv 1710.10628). With flows, the base is widened.

        Args:
            inflation: c, the factor on every variance.
            floor: sigma_0, a standard deviation added in quadrature to all weights.
        """
        raise NotImplementedError

    def narrowed(self, max_std: float) -> Self:
        """Copy the distribution with standard deviations of at most ``max_std``; with flows, those of the base."""
        raise NotImplementedError

    def split(self, num_first: int) -> tuple["WeightDistribution", "WeightDistribution"]:
        """Copy the distributions of the first ``num_first`` weights and of the rest, which must be independent.

        Raises:
            ValueError: the distribution cannot be split there.
        """
        raise ValueError(f"num_first={num_first}: a {type(self).__name__} cannot be split")

    def _some_tensor(self) -> Tensor:
        return next(iter((*self.parameters(), *self.buffers())))
