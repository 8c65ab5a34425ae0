import pytest
import torch

from bbb.distributions import Gaussian, Independent, draw_with_kl, gaussian_prior, kl_divergence, scale_mixture_prior
from bbb.distributions.kl import fused_draw_with_kl
from tests.tasks import random_flowed, random_full, seeded

DIM = 37


def posterior(seed, *replicas):
    mean, log_std = torch.randn(2, *replicas, DIM, generator=seeded(seed), dtype=torch.float64)
    return Gaussian(0.3 * mean, 0.2 * log_std - 2.0)


PRIORS = {
    "mixture": scale_mixture_prior(DIM, 0.25, 1.0, 0.05),
    "narrow mixture": scale_mixture_prior(DIM, 0.5, 1.0, 1e-6),
    "equal mixture": scale_mixture_prior(DIM, 0.5, 0.5, 0.5),
    "isotropic": gaussian_prior(DIM, 0.7).double(),
    "posterior": posterior(9).frozen(),
}


@pytest.mark.parametrize("replicas", [(), (3,)], ids=["one", "replicas"])
@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("draw", [fused_draw_with_kl, draw_with_kl], ids=["fused", "chosen"])
def test_equals_drawing_and_then_scoring_and_so_do_its_gradients(draw, prior, num_samples, replicas):
    q, p = posterior(1, *replicas), PRIORS[prior]
    w, kl = draw(q, p, num_samples, seeded(2))
    draws = q.rsample_and_log_prob(num_samples, seeded(2))
    expected = kl_divergence(q, p, draws)
    assert kl.shape == replicas
    torch.testing.assert_close(w, draws[0], rtol=0, atol=0)
    torch.testing.assert_close(kl, expected, rtol=1e-9, atol=1e-9)
    weights = torch.arange(1.0, 1.0 + kl.numel()).view(kl.shape).double()
    ours = torch.autograd.grad((w.sin() * w).sum() + (weights * kl).sum(), list(q.parameters()))
    theirs = torch.autograd.grad((draws[0].sin() * draws[0]).sum() + (weights * expected).sum(), list(q.parameters()))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_replicas_are_independent():
    q = posterior(1, 3)
    w, kl = fused_draw_with_kl(q, PRIORS["mixture"], 2, seeded(2))
    assert w.shape == (2, 3, DIM)
    kl[1].backward()
    assert q.mean.grad[1].abs().min() > 0
    assert (q.mean.grad[[0, 2]] == 0).all()


def is_one_node(q, p):
    w, kl = draw_with_kl(q, p, 2, seeded(2))
    return w.grad_fn is kl.grad_fn


def test_only_pairs_it_knows_are_drawn_in_one_node():
    isotropic = gaussian_prior(DIM, 1.0).requires_grad_(True)
    assert all(is_one_node(posterior(1), p) for p in PRIORS.values())
    assert not is_one_node(isotropic, PRIORS["mixture"])
    assert not is_one_node(posterior(1), Independent([posterior(9)]))
    assert not is_one_node(random_flowed(1, DIM), PRIORS["mixture"])


@pytest.mark.parametrize("prior", [PRIORS["mixture"], PRIORS["isotropic"], random_flowed(2, DIM).frozen()])
@pytest.mark.parametrize(
    "q", [random_flowed(1, DIM), Gaussian(torch.tensor(0.1), torch.tensor(-1.0), DIM).double()], ids=["flows", "scalar"]
)
def test_other_pairs_are_drawn_and_then_scored(q, prior):
    w, kl = draw_with_kl(q, prior, 4, seeded(2))
    draws = q.rsample_and_log_prob(4, seeded(2))
    torch.testing.assert_close(w, draws[0], rtol=0, atol=0)
    torch.testing.assert_close(kl, kl_divergence(q, prior, draws), rtol=0, atol=0)


def test_the_kl_is_the_mean_over_all_draws():
    q, p = posterior(1), PRIORS["mixture"]
    w, log_q = q.rsample_and_log_prob(4, seeded(2))
    torch.testing.assert_close(kl_divergence(q, p, (w, log_q)), (log_q - p.log_prob(w)).sum() / 4)


def test_a_fresh_draw_is_made_where_none_is_given():
    q, p = posterior(1), PRIORS["mixture"]
    w, log_q = q.rsample_and_log_prob(1, seeded(2))
    torch.testing.assert_close(kl_divergence(q, p, noise=seeded(2)), (log_q - p.log_prob(w))[0])


def test_the_kl_of_two_gaussians_is_the_closed_form():
    q, p = posterior(1), gaussian_prior(DIM, 0.5)
    torch.testing.assert_close(kl_divergence(q, p), q.kl_divergence(p))
    assert not any(parameter.requires_grad for parameter in p.parameters())


@pytest.mark.parametrize("prior", ["isotropic", "posterior"])
def test_a_full_covariance_has_the_kl_of_pytorch(prior):
    q, p = random_full(1, DIM), PRIORS[prior]
    own = torch.distributions.MultivariateNormal(q.mean, scale_tril=q.cholesky)
    other = torch.distributions.MultivariateNormal(p.centre, torch.diag(torch.exp(2 * p.log_std).expand(DIM)))
    torch.testing.assert_close(kl_divergence(q, p), torch.distributions.kl_divergence(own, other), rtol=1e-9, atol=0)
