"""Laws of automatic relevance determination: of all priors that it may be, it is the one nearest to the posterior."""

import pytest
import torch

from bbb.distributions import ARD, Gaussian, closed_kl, draw_with_kl, kl_divergence
from tests.tasks import random_flowed, seeded

DIM, MAX_STD = 23, 0.5


def posterior(*replicas, seed=1):
    mean, log_std = torch.randn(2, *replicas, DIM, generator=seeded(seed), dtype=torch.float64)
    return Gaussian(0.4 * mean, log_std - 1.0)  # second moments on both sides of the limit


def prior(max_std=MAX_STD):
    return ARD(DIM, max_std).double()


@pytest.mark.parametrize("replicas", [(), (3,)], ids=["one", "replicas"])
def test_the_kl_is_that_to_the_prior_which_suits_the_posterior(replicas):
    q, p = posterior(*replicas), prior()
    kl = kl_divergence(q, p)
    assert kl.shape == replicas
    torch.testing.assert_close(kl, q.kl_divergence(p.fitted_to(q)), rtol=1e-9, atol=1e-9)


def test_no_other_width_suits_the_posterior_better():
    q, p = posterior(), prior()
    log_std = p.fitted_to(q).log_std
    assert (log_std.exp() < MAX_STD - 1e-6).any()
    assert (log_std.exp() > MAX_STD - 1e-6).any()
    for change in (-0.1, 0.1):
        others = (log_std + change).clamp(max=torch.tensor(MAX_STD).log())
        for d in range(DIM):
            other = log_std.clone()
            other[d] = others[d]
            assert q.kl_divergence(Gaussian(torch.zeros(DIM).double(), other)) >= kl_divergence(q, p) - 1e-12


def test_far_below_the_limit_the_kl_depends_on_the_signal_to_noise_ratio_alone():
    q, p = posterior(), prior(max_std=1e3)
    torch.testing.assert_close(
        kl_divergence(q, p), 0.5 * torch.log1p((q.mean / q.log_std.exp()) ** 2).sum(), rtol=1e-9, atol=1e-9
    )
    wider = Gaussian(3.0 * q.mean.detach(), q.log_std.detach() + torch.tensor(3.0).double().log())
    torch.testing.assert_close(kl_divergence(wider, p), kl_divergence(q, p), rtol=1e-9, atol=1e-9)


def test_gradients_are_those_with_the_prior_held_fixed():
    q, p = posterior(), prior()
    ours = torch.autograd.grad(kl_divergence(q, p), list(q.parameters()))
    fixed = torch.autograd.grad(q.kl_divergence(p.fitted_to(q)), list(q.parameters()))
    torch.testing.assert_close(ours, fixed, rtol=1e-9, atol=1e-9)


def test_the_kl_in_place_follows_the_posterior():
    q, p = posterior(), prior()
    in_place = closed_kl(q, p)
    for _ in range(2):
        value = in_place.value(q.log_std.detach().exp().square())
        of_mean = torch.zeros(DIM).double()
        in_place.add_gradient_of_mean(of_mean, 0.7)
        torch.testing.assert_close(value, kl_divergence(q, p).detach(), rtol=1e-9, atol=1e-9)
        (expected,) = torch.autograd.grad(kl_divergence(q, p), [q.mean])
        torch.testing.assert_close(of_mean, 0.7 * expected, rtol=1e-9, atol=1e-9)
        with torch.no_grad():
            q.mean.mul_(-0.3)
            q.log_std.add_(0.5)


def test_draws_come_with_the_closed_form():
    q, p = posterior(), prior()
    w, kl = draw_with_kl(q, p, 3, seeded(2))
    assert w.shape == (3, DIM)
    torch.testing.assert_close(kl, kl_divergence(q, p))


def test_it_is_no_distribution_of_its_own():
    for use in (lambda p: p.log_prob(torch.zeros(1, DIM)), lambda p: p.rsample_and_log_prob(1)):
        with pytest.raises(ValueError, match="an ARD prior depends on the posterior"):
            use(prior())
    with pytest.raises(ValueError, match="needs a Gaussian posterior"):
        kl_divergence(random_flowed(1, DIM), prior())
    with pytest.raises(ValueError, match=r"max_std=0\.0: must be above 0"):
        ARD(3, 0.0)
