import math

import pytest
import torch

from bbb.distributions import Gaussian, kl_divergence
from bbb.inference import Categorical, kl_shares, negative_elbo
from tests.tasks import Conjugate

NUM_BATCHES = (1, 2, 469, 5000)


@pytest.mark.parametrize("num_batches", NUM_BATCHES)
@pytest.mark.parametrize("scheme", ["standard", "blundell", "soenderby"])
def test_shares_sum_to_one(scheme, num_batches):
    shares = kl_shares(scheme, num_batches, epoch=99, num_epochs=100)
    assert len(shares) == num_batches
    assert math.fsum(shares) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("num_batches", [1, 2, 10])
def test_blundell_shares_are_those_of_the_paper(num_batches):
    expected = [2 ** (num_batches - i) / (2**num_batches - 1) for i in range(1, num_batches + 1)]
    assert kl_shares("blundell", num_batches) == pytest.approx(expected)


def test_soenderby_warms_up_linearly_over_the_first_quarter():
    totals = [sum(kl_shares("soenderby", 10, epoch, 40)) for epoch in range(40)]
    assert totals[:11] == pytest.approx([min(1.0, (epoch + 1) / 10) for epoch in range(11)])
    assert totals[10:] == pytest.approx([1.0] * 30)


def test_none_ignores_the_prior():
    assert kl_shares("none", 3) == [0.0, 0.0, 0.0]


def test_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="beta_type=blundel: must be one of blundell, standard, soenderby, none"):
        kl_shares("blundel", 3)


@pytest.mark.parametrize("scheme", ["standard", "blundell"])
def test_minibatch_costs_add_up_to_the_full_batch_cost(scheme, generator):
    """103 examples in batches of 10: the last, smaller batch must not count for more or less than its share."""
    logits = torch.randn(2, 103, 5, generator=generator, dtype=torch.float64)
    labels = torch.arange(103) % 5
    kl = torch.tensor(17.0, dtype=torch.float64)
    nll = Categorical(5).nll
    full = negative_elbo(nll(logits, labels), kl, temperature=0.3)
    parts = zip(kl_shares(scheme, 11), logits.split(10, dim=1), labels.split(10), strict=True)
    total = sum(negative_elbo(nll(batch, label), kl, share, temperature=0.3) for share, batch, label in parts)
    torch.testing.assert_close(total, full, rtol=1e-6, atol=0)


def test_elbo_at_an_exact_conjugate_posterior_is_the_log_evidence():
    task = Conjugate()
    elbo = -negative_elbo(task.expected_nll(task.exact), kl_divergence(task.exact, task.prior))
    torch.testing.assert_close(elbo, task.log_evidence(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [-0.3, 0.2])
@pytest.mark.parametrize("stretch", [-0.4, 0.5])
def test_elbo_elsewhere_is_below_the_log_evidence(shift, stretch):
    task = Conjugate()
    q = Gaussian(task.exact.mean.detach() + shift, task.exact.log_std.detach() + stretch)
    elbo = -negative_elbo(task.expected_nll(q), kl_divergence(q, task.prior))
    assert elbo.item() < task.log_evidence().item() - 1e-3
