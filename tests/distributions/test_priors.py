import math

import pytest
import torch

from bbb.distributions import gaussian_prior, scale_mixture_prior


def test_the_gaussian_prior_has_its_scale_and_no_gradient():
    prior = gaussian_prior(5, 0.2)
    assert prior.dim == 5
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    reference = torch.distributions.Normal(0.0, 0.2)
    w = torch.linspace(-1.0, 1.0, 10).view(2, 5)
    torch.testing.assert_close(prior.log_prob(w), reference.log_prob(w).sum(1))


def test_the_scale_mixture_prior_has_its_scales():
    prior = scale_mixture_prior(1, 0.25, 1.0, 0.1)
    density = (0.25 / 1.0 + 0.75 / 0.1) / math.sqrt(2 * math.pi)
    assert prior.log_prob(torch.zeros(1, 1)).item() == pytest.approx(math.log(density), rel=1e-6)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_priors_live_on_the_device_that_is_asked_for(device):
    for prior in (
        gaussian_prior(3, 1.0, torch.device(device)),
        scale_mixture_prior(3, 0.5, 1.0, 0.1, torch.device(device)),
    ):
        assert prior.device == torch.device(device)
