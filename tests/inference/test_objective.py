import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from bbb import objective, priors
from bbb.weights import Gaussian

NUM_BATCHES = (1, 2, 469, 5000)


@pytest.mark.parametrize("num_batches", NUM_BATCHES)
@pytest.mark.parametrize("scheme", ["standard", "blundell", "soenderby"])
def test_weights_sum_to_one(scheme, num_batches):
    weights = objective.kl_weights(scheme, num_batches, epoch=99, num_epochs=100)
    assert len(weights) == num_batches
    assert math.fsum(weights) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("num_batches", [1, 2, 10])
def test_blundell_weights_are_those_of_the_paper(num_batches):
    expected = [2 ** (num_batches - i) / (2**num_batches - 1) for i in range(1, num_batches + 1)]
    assert objective.kl_weights("blundell", num_batches) == pytest.approx(expected)


def test_soenderby_warms_up_linearly_over_the_first_quarter():
    totals = [sum(objective.kl_weights("soenderby", 10, epoch, 40)) for epoch in range(40)]
    assert totals[:11] == pytest.approx([min(1.0, (epoch + 1) / 10) for epoch in range(11)])
    assert totals[10:] == pytest.approx([1.0] * 30)


def test_none_ignores_the_prior():
    assert objective.kl_weights("none", 3) == [0.0, 0.0, 0.0]


def test_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="beta_type=blundel: must be one of blundell, standard, soenderby, none"):
        objective.kl_weights("blundel", 3)


@pytest.mark.parametrize("scheme", ["standard", "blundell"])
def test_minibatch_costs_add_up_to_the_full_batch_cost(scheme, generator):
    """103 examples in batches of 10: the last, smaller batch must not count for more or less than its share."""
    logits = torch.randn(2, 103, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (103,), generator=generator)
    kl = torch.tensor(17.0, dtype=torch.float64)
    full = objective.negative_elbo(objective.log_likelihood_loss(logits, labels), kl, temperature=0.3)
    shares = objective.kl_weights(scheme, 11)
    parts = zip(shares, logits.split(10, dim=1), labels.split(10), strict=True)
    total = sum(
        objective.negative_elbo(objective.log_likelihood_loss(batch, label), kl, share, temperature=0.3)
        for share, batch, label in parts
    )
    torch.testing.assert_close(total, full, rtol=1e-6, atol=0)


def test_log_likelihood_loss_is_summed_over_the_batch_for_each_draw(generator):
    logits = torch.randn(3, 4, 5, generator=generator)
    labels = torch.tensor([0, 4, 2, 2])
    expected = [torch.nn.functional.cross_entropy(logits[s], labels, reduction="sum") for s in range(3)]
    torch.testing.assert_close(objective.log_likelihood_loss(logits, labels), torch.stack(expected))


class Conjugate:
    """Bayesian linear regression with orthogonal inputs, where the posterior is a factorised Gaussian, exactly."""

    dim, num, noise_std, prior_std = 3, 8, 0.7, 1.3

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        orthogonal, _ = torch.linalg.qr(torch.randn(self.num, self.dim, generator=generator, dtype=torch.float64))
        self.x = orthogonal * torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
        self.y = torch.randn(self.num, generator=generator, dtype=torch.float64)
        precision = self.x.square().sum(0) / self.noise_std**2 + self.prior_std**-2
        mean = self.x.T @ self.y / self.noise_std**2 / precision
        self.exact = Gaussian(mean, -0.5 * precision.log())
        self.prior = Gaussian(
            torch.tensor(0.0, dtype=torch.float64),
            torch.tensor(math.log(self.prior_std), dtype=torch.float64),
            self.dim,
        )

    def log_evidence(self):
        covariance = self.noise_std**2 * torch.eye(self.num).double() + self.prior_std**2 * self.x @ self.x.T
        return MultivariateNormal(torch.zeros(self.num).double(), covariance).log_prob(self.y)

    def expected_nll(self, q):
        """E_q of the negative log-likelihood, in closed form, as a tensor of shape (1,)."""
        residual = (self.y - self.x @ q.mean).square().sum() + (self.x.square() @ (2 * q.log_std).exp()).sum()
        constant = 0.5 * self.num * math.log(2 * math.pi * self.noise_std**2)
        return (residual / (2 * self.noise_std**2) + constant).unsqueeze(0)


def test_elbo_at_an_exact_conjugate_posterior_is_the_log_evidence():
    task = Conjugate()
    kl = objective.kl_divergence(task.exact, task.prior)
    elbo = -objective.negative_elbo(task.expected_nll(task.exact), kl)
    torch.testing.assert_close(elbo, task.log_evidence(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [-0.3, 0.2])
@pytest.mark.parametrize("stretch", [-0.4, 0.5])
def test_elbo_elsewhere_is_below_the_log_evidence(shift, stretch):
    task = Conjugate()
    q = Gaussian(task.exact.mean.detach() + shift, task.exact.log_std.detach() + stretch)
    elbo = -objective.negative_elbo(task.expected_nll(q), objective.kl_divergence(q, task.prior))
    assert elbo.item() < task.log_evidence().item() - 1e-3


def test_kl_to_a_mixture_is_estimated_from_the_draws(generator):
    q = Gaussian(torch.zeros(4), torch.full((4,), -1.0))
    prior = priors.scale_mixture(4, 0.5, 1.0, 0.1)
    draws = q.rsample(6, generator)
    expected = (draws[1] - prior.log_prob(draws[0])).mean()
    torch.testing.assert_close(objective.kl_divergence(q, prior, draws), expected)
    assert objective.kl_divergence(q, prior, generator=generator).isfinite()


def test_kl_of_two_gaussians_is_the_closed_form():
    q = Gaussian(torch.ones(4), torch.full((4,), -1.0))
    prior = priors.gaussian(4, 0.5)
    torch.testing.assert_close(objective.kl_divergence(q, prior), q.kl_divergence(prior))
    assert not any(parameter.requires_grad for parameter in prior.parameters())
