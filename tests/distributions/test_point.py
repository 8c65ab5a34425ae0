"""Laws of point estimates: a point is where it is, and dropout's draws have its mean and its rate."""

import math

import pytest
import torch

from bbb.distributions import Dropout, NoiseTable, Point, Pruned, gaussian_prior, kl_divergence, mean_and_std, prune
from tests.tasks import seeded

DIM, SHARE, NUM = 14, 0.3, 20_000
# Two weights that leave no unit, a kernel of 2 x 3 with two biases, and one of 2 x 2: three and two units.
UNITS = torch.tensor([5, 5, 0, 1, 2, 0, 1, 2, 5, 5, 3, 4, 3, 4], dtype=torch.int32)


def mean(dtype=torch.float64):
    return torch.randn(DIM, generator=seeded(1), dtype=torch.float64).to(dtype)


def dropout(share=SHARE):
    return Dropout(mean(), share, UNITS, 5)


def test_all_draws_of_a_point_are_its_mean_with_log_density_zero():
    q = Point(mean())
    w, log_q = q.rsample_and_log_prob(3)
    assert torch.equal(w, mean().expand(3, DIM))
    assert torch.equal(log_q, torch.zeros(3).double())
    assert q.log_prob(w + torch.tensor([[0.0], [0.0], [1.0]])).tolist() == [0.0, 0.0, -math.inf]
    assert torch.equal(q.centre, mean())
    assert q.is_certain
    w.sum().backward()
    assert torch.equal(q.mean.grad, torch.full((DIM,), 3.0).double())


@pytest.mark.parametrize("q", [Point(mean()), dropout(0.0)], ids=["point", "dropout of nothing"])
def test_the_kl_is_minus_the_log_density_of_the_prior(q):
    p = gaussian_prior(DIM, 0.7).double()
    torch.testing.assert_close(kl_divergence(q, p), -p.log_prob(mean().unsqueeze(0))[0])


def test_units_drop_whole_columns_at_their_rate_and_the_rest_stays():
    q = dropout()
    w, log_q = q.rsample_and_log_prob(NUM, seeded(2))
    assert not log_q.any()
    assert not q.is_certain
    ratios = w.detach() / mean()
    assert (ratios[:, UNITS == 5] == 1.0).all()
    units = torch.stack([ratios[:, unit == UNITS][:, 0] for unit in range(5)], dim=1)
    for unit in range(5):  # each is dropped as a whole
        columns = ratios[:, unit == UNITS]
        torch.testing.assert_close(columns, columns[:, :1].expand_as(columns))
    torch.testing.assert_close(units.max(), torch.tensor(1.0 / (1.0 - SHARE)).double())
    is_dropped = (units == 0.0).double()
    standard_error = math.sqrt(SHARE * (1.0 - SHARE) / NUM)
    assert ((is_dropped.mean(0) - SHARE).abs() < 5 * standard_error).all()
    together = (is_dropped - SHARE).T @ (is_dropped - SHARE) / NUM
    assert (together - together.diag().diag()).abs().max() < 5 * SHARE * (1.0 - SHARE) / math.sqrt(NUM)


def test_the_centre_is_the_mean_of_the_draws_and_std_is_theirs():
    q = dropout()
    w = q.rsample_and_log_prob(NUM, seeded(2))[0].detach()
    means, stds = mean_and_std(q)
    assert torch.equal(means, q.centre.detach())
    assert ((w.mean(0) - q.centre).abs() <= 5 * stds / math.sqrt(NUM) + 1e-9).all()
    torch.testing.assert_close(w.std(0), stds, rtol=0.05, atol=1e-9)


def test_masks_are_read_from_a_table_of_noise_too():
    noise = NoiseTable(seeded(3), 16, 4 * 5)
    noise.begin_step()
    w, _ = dropout().rsample_and_log_prob(4, noise)
    assert w.shape == (4, DIM)
    with pytest.raises(ValueError, match="a step reads more than"):
        noise.normal((1,))


def test_what_points_cannot_do_they_refuse():
    with pytest.raises(ValueError, match="a Point has no variances to widen, so it is no prior"):
        Point(mean()).widened()
    with pytest.raises(ValueError, match="finitely many draws, and no density"):
        dropout().log_prob(mean().unsqueeze(0))
    with pytest.raises(ValueError, match="a Dropout cannot be split"):
        dropout().split(2)
    with pytest.raises(ValueError, match=r"unit: has shape \(3,\); must have that of the mean, \(14,\)"):
        Dropout(mean(), SHARE, UNITS[:3], 5)


def test_parts_and_copies_of_a_point_are_its_own():
    q = Point(mean())
    first, rest = q.split(5)
    assert torch.equal(torch.cat([first.centre, rest.centre]), mean())
    narrow = q.narrowed(0.1)
    with torch.no_grad():
        q.mean.zero_()
    assert torch.equal(narrow.centre, mean())
    assert torch.equal(first.centre, mean()[:5])


@pytest.mark.parametrize("q", [Point(mean()), dropout()], ids=["point", "dropout"])
def test_the_smallest_weights_are_pruned_first_and_draws_lose_them_alone(q):
    among = torch.arange(DIM) > 1
    pruned = prune(q, 0.5, among)
    assert isinstance(pruned, Pruned)
    assert type(pruned.base) is type(q)
    removed = mean()[~pruned.kept].abs()
    assert len(removed) == 6
    assert removed.max() < mean()[pruned.kept & among].abs().min()
    whole, part = (each.rsample_and_log_prob(4, seeded(5))[0] for each in (q, pruned))
    assert torch.equal(part, whole * pruned.kept)
