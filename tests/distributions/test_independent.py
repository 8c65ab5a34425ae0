import pytest
import torch

from bbb.distributions import Gaussian, Independent, ScaleMixture, join
from tests.tasks import random_flowed, random_gaussian, seeded

DIM = 7


@pytest.mark.parametrize("kind", [random_gaussian, random_flowed])
def test_split_and_join_are_inverse_and_densities_multiply(kind):
    whole = kind(1)
    first, rest = whole.split(DIM - 3)
    w, log_q = whole.rsample_and_log_prob(4, seeded(2))
    parts = first.log_prob(w[:, : DIM - 3]) + rest.log_prob(w[:, DIM - 3 :])
    torch.testing.assert_close(parts, log_q, rtol=1e-6, atol=1e-6)
    joined = join(first, rest)
    assert type(joined) is type(whole)
    torch.testing.assert_close(joined.state_dict(), whole.state_dict())
    mean = (whole if kind is random_gaussian else whole.base).mean
    mean.data.add_(1.0)
    assert not torch.allclose(joined.log_prob(w), whole.log_prob(w))  # copies


def test_join_of_two_kinds_draws_and_scores_both():
    first, second = random_flowed(1), random_gaussian(2, 4)
    both = join(first, second)
    assert isinstance(both, Independent)
    w, log_q = both.rsample_and_log_prob(3, seeded(3))
    assert w.shape == (3, DIM + 4)
    torch.testing.assert_close(both.log_prob(w), log_q, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(first.log_prob(w[:, :DIM]) + second.log_prob(w[:, DIM:]), log_q, rtol=1e-6, atol=1e-6)


def test_join_of_two_kinds_copies_both():
    first, second = random_flowed(1), random_gaussian(2, 4)
    both = join(first, second)
    w = both.centre.detach().unsqueeze(0)
    before = both.log_prob(w)
    for part in (first, second):
        for parameter in part.parameters():
            parameter.data.add_(0.1)
    assert torch.equal(both.log_prob(w), before)


def test_replicas_are_joined_as_each_would_be_alone():
    firsts, seconds = [random_gaussian(seed, 4) for seed in (1, 2)], [random_gaussian(seed, 3) for seed in (3, 4)]
    both = join(Gaussian.stacked(firsts), Gaussian.stacked(seconds))
    assert both.shape == (2, DIM)
    for replica, *parts in zip(both.replicas(), firsts, seconds, strict=True):
        torch.testing.assert_close(replica.state_dict(), join(*parts).state_dict())


def test_parts_read_numbers_of_their_own_from_one_source():
    """Two equal parts make different weights, and the whole makes those that its parts would make in turn."""
    whole, noise = Independent([ScaleMixture(3, 0.5, 1.0, 0.1), ScaleMixture(3, 0.5, 1.0, 0.1)]), seeded(1)
    w, _ = whole.rsample_and_log_prob(2, seeded(1))
    assert not torch.equal(w[:, :3], w[:, 3:])
    assert torch.equal(w, torch.cat([part.rsample_and_log_prob(2, noise)[0] for part in whole.parts], dim=1))
