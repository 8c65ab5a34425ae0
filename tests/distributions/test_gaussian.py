import math

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from bbb.distributions import Gaussian
from tests.tasks import random_gaussian, seeded

DIM = 7


def as_normal(gaussian):
    return Normal(gaussian.mean, gaussian.log_std.exp())


def test_log_prob_equals_torch():
    q = random_gaussian(1)
    w = torch.randn(5, DIM, generator=seeded(2), dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(w), as_normal(q).log_prob(w).sum(1))


def test_kl_equals_torch_and_so_do_its_gradients():
    q, p = random_gaussian(1), random_gaussian(2)
    kl = q.kl_divergence(p)
    expected = reference_kl(as_normal(q), as_normal(p)).sum()
    torch.testing.assert_close(kl, expected)
    ours = torch.autograd.grad(3.0 * kl, list(q.parameters()))
    theirs = torch.autograd.grad(3.0 * expected, list(q.parameters()))
    torch.testing.assert_close(ours, theirs)


def test_kl_to_an_isotropic_prior_equals_the_same_prior_written_out():
    q = random_gaussian(1)
    scalar = Gaussian(torch.tensor(0.1, dtype=torch.float64), torch.tensor(-0.7, dtype=torch.float64), DIM)
    full = Gaussian(torch.full((DIM,), 0.1, dtype=torch.float64), torch.full((DIM,), -0.7, dtype=torch.float64))
    torch.testing.assert_close(q.kl_divergence(scalar), q.kl_divergence(full))


def test_monte_carlo_kl_is_within_five_standard_errors_of_the_closed_form():
    q, p = random_gaussian(1), random_gaussian(2)
    w, log_q = q.rsample_and_log_prob(20_000, seeded(3))
    estimates = log_q - p.log_prob(w)
    standard_error = estimates.std().item() / math.sqrt(len(w))
    assert abs(estimates.mean().item() - q.kl_divergence(p).item()) < 5 * standard_error


@pytest.mark.parametrize("num_samples", [1, 3])
def test_reparameterised_gradient_equals_autograd(num_samples):
    q = random_gaussian(1)
    noise = torch.empty(num_samples, DIM, dtype=torch.float64).normal_(generator=seeded(5))
    w, log_q = q.rsample_and_log_prob(num_samples, seeded(5))
    plain_w = q.mean + q.log_std.exp() * noise
    plain_log_q = as_normal(Gaussian(torch.zeros(DIM).double(), torch.zeros(DIM).double())).log_prob(noise).sum(1)
    plain_log_q = plain_log_q - q.log_std.sum()

    def objective(w, log_q):
        return (w.sin().sum(1) * torch.arange(1.0, num_samples + 1)).sum() + (log_q**2).mean()

    ours = torch.autograd.grad(objective(w, log_q), list(q.parameters()))
    theirs = torch.autograd.grad(objective(plain_w, plain_log_q), list(q.parameters()))
    torch.testing.assert_close(ours, theirs)


def test_every_parameter_gets_a_gradient():
    q = random_gaussian(1)
    w, log_q = q.rsample_and_log_prob(2, seeded(2))
    (w.square().sum() + log_q.sum()).backward()
    assert all(parameter.grad.abs().min() > 0 for parameter in q.parameters())


def test_closed_form_kl_to_the_frozen_copy_is_zero():
    q = random_gaussian(1)
    assert q.kl_divergence(q.frozen()).item() == pytest.approx(0.0, abs=1e-9)


def test_replicas_are_those_that_were_stacked():
    parts = [random_gaussian(seed) for seed in (1, 2, 3)]
    q = Gaussian.stacked(parts)
    assert (q.dim, q.shape) == (DIM, (3, DIM))
    for part, replica in zip(parts, q.replicas(), strict=True):
        torch.testing.assert_close(replica.state_dict(), part.state_dict(), rtol=0, atol=0)


def test_each_replica_has_the_density_and_the_kl_that_it_has_alone():
    parts, priors = [random_gaussian(seed) for seed in (1, 2)], [random_gaussian(seed) for seed in (3, 4)]
    q, p = Gaussian.stacked(parts), Gaussian.stacked(priors)
    w = torch.randn(5, 2, DIM, generator=seeded(5), dtype=torch.float64)
    for r in range(2):
        torch.testing.assert_close(q.log_prob(w)[:, r], parts[r].log_prob(w[:, r]))
        torch.testing.assert_close(q.kl_divergence(p)[r], parts[r].kl_divergence(priors[r]))
        torch.testing.assert_close(q.kl_divergence(priors[0])[r], parts[r].kl_divergence(priors[0]))
