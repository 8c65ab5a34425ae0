"""Choosing p(w)."""

import math

import torch

from bbb.mixture import ScaleMixture
from bbb.weights import FlowedGaussian, Gaussian


def gaussian(dim: int, std: float, device: torch.device | None = None) -> Gaussian:
    """Create the isotropic prior N(0, std^2).

    Args:
        dim: D, the number of weights.
        std: standard deviation of every weight.
        device: where the prior lives.
    """
    zero = torch.zeros((), device=device)
    return Gaussian(zero, torch.full_like(zero, math.log(std)), dim).requires_grad_(False)


def scale_mixture(dim: int, pi: float, std1: float, std2: float) -> ScaleMixture:
    """Create the scale mixture prior of Blundell et al. 2015, eq. 7 (arXiv 1505.05424).

    Args:
        dim: D, the number of weights.
        pi: probability of the wide component.
        std1: standard deviation of the wide component.
        std2: standard deviation of the narrow component.
    """
    return ScaleMixture(dim, pi, std1, std2)


def from_posterior(
    posterior: Gaussian | FlowedGaussian, inflation: float = 1.0, floor: float = 0.0
) -> Gaussian | FlowedGaussian:
    r"""Make a posterior the prior of another task: a frozen copy, flows included, widened.

    .. math:: \mu_p = \mu_q, \qquad \sigma_p^2 = c \, \sigma_q^2 + \sigma_0^2

    A posterior is too sure of itself to be a prior: it knows one task, and a factorised one underestimates variances.
    Rescaling it follows Shwartz-Ziv et al. 2022 (arXiv 2205.10279); with c = 1 and no floor this is the step of
    variational continual learning (Nguyen et al. 2018, arXiv 1710.10628). Under flows the base is widened.

    Args:
        posterior: q.
        inflation: c, the factor on every variance.
        floor: sigma_0, a standard deviation added in quadrature to all weights.
    """
    prior = posterior.frozen()
    log_std = prior.base.log_std
    log_std.copy_(0.5 * torch.log(inflation * torch.exp(2.0 * log_std) + floor**2))
    return prior
