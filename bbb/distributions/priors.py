"""Priors that are chosen by hand; the prior of a transfer is ``posterior.widened(...)``."""

import math

import torch

from bbb.distributions.gaussian import Gaussian
from bbb.distributions.scale_mixture import ScaleMixture


def gaussian_prior(dim: int, std: float, device: torch.device | None = None) -> Gaussian:
    """Create the isotropic prior N(0, std^2).

    Args:
        dim: D, the number of weights.
        std: standard deviation of every weight.
        device: where the prior lives.
    """
    zero = torch.zeros((), device=device)
    return Gaussian(zero, torch.full_like(zero, math.log(std)), dim).requires_grad_(False)


def scale_mixture_prior(
    dim: int, pi: float, std1: float, std2: float, device: torch.device | None = None
) -> ScaleMixture:
    """Create the scale mixture prior of Blundell et al. 2015, eq. 7 (arXiv 1505.05424).

    Args:
        dim: D, the number of weights.
        pi: probability of the wide component.
        std1: standard deviation of the wide component.
        std2: standard deviation of the narrow component.
        device: where the prior lives.
    """
    return ScaleMixture(dim, pi, std1, std2).to(device)
