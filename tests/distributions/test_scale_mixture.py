import math

import pytest
import torch
from scipy import stats
from torch.distributions import Categorical, MixtureSameFamily, Normal

from bbb.distributions import NoiseTable, ScaleMixture
from tests.tasks import seeded

DIM = 7


def test_log_prob_equals_torch():
    std1, std2, pi = 1.5, 0.02, 0.25
    wide, narrow = (torch.randn(50, DIM, generator=seeded(seed)) for seed in (1, 2))
    w = torch.cat([wide, 0.02 * narrow]).double()
    weights = Categorical(torch.tensor([pi, 1 - pi], dtype=torch.float64))
    reference = MixtureSameFamily(weights, Normal(torch.zeros(2), torch.tensor([std1, std2], dtype=torch.float64)))
    torch.testing.assert_close(ScaleMixture(DIM, pi, std1, std2).log_prob(w), reference.log_prob(w).sum(1))


def test_gradient_passes_gradcheck():
    w = torch.randn(3, 4, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ScaleMixture(4, 0.5, 1.0, 0.1).log_prob, (w,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [50.0, 1e-30, 0.0])
def test_is_finite_far_in_its_tail_and_pulls_back(value, dtype):
    w = torch.full((1, 3), value, dtype=dtype, requires_grad=True)
    log_prob = ScaleMixture(3, 0.5, 1.0, 0.0025).log_prob(w)
    (gradient,) = torch.autograd.grad(log_prob.sum(), w)
    assert log_prob.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient < 0).all() == (value > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("std2", [0.5, 0.0025, 1e-6])
def test_a_product_of_responsibilities_does_not_underflow(std2, dtype):
    """log p at w = 0, where every responsibility is as small as it can be."""
    p = ScaleMixture(1000, 0.5, 1.0, std2)
    w = torch.zeros(1, 1000, dtype=dtype)
    density = 0.5 / (2 * torch.pi) ** 0.5 * (1.0 + 1.0 / std2)
    expected = 1000 * torch.tensor(density, dtype=torch.float64).log()
    torch.testing.assert_close(p.log_prob(w).double()[0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("pi", "std1", "std2"), [(0.0, 1, 0.1), (1.0, 1, 0.1), (0.5, 0.1, 1), (0.5, 1, 0)])
def test_impossible_mixtures_are_refused(pi, std1, std2):
    with pytest.raises(ValueError, match=r"pi=|std1="):
        ScaleMixture(3, pi, std1, std2)


@pytest.mark.parametrize("pi", [0.01, 0.25, 0.5, 0.9])
def test_both_components_are_drawn_in_the_right_share_and_each_is_normal(pi):
    """The scales are so far apart that a weight beyond 1e-3 is wide, and so are all but one wide weight in a thousand.

    Kolmogorov and Smirnov's test of each component; the least of 8 p-values below 1e-4 has a probability of .08 %.
    """
    num, border = 100_000, 1e-3
    w, _ = ScaleMixture(num, pi, 1.0, 1e-6).double().rsample_and_log_prob(1, seeded(1))
    wide, narrow = w[0][w[0].abs() > border], w[0][w[0].abs() < 1e-5]
    inside = 2.0 * stats.norm.cdf(border) - 1.0  # share of the wide weights that the border hides
    expected = pi * (1.0 - inside)
    assert abs(len(wide) / num - expected) < 5 * math.sqrt(expected * (1.0 - expected) / num)

    def cdf(x):  # of a wide weight beyond the border
        return (stats.norm.cdf(x) - inside * (x > 0)) / (1.0 - inside)

    assert stats.kstest(wide.numpy(), cdf).pvalue > 1e-4
    assert stats.kstest(narrow.numpy() / 1e-6, "norm").pvalue > 1e-4


@pytest.mark.parametrize(("pi", "std1", "std2"), [(0.25, 1.0, 0.1), (0.5, 1.0, 0.0025), (0.75, 0.3, 0.3)])
def test_draws_have_the_distribution_function_of_the_mixture(pi, std1, std2):
    """Where the components overlap, too."""
    w, _ = ScaleMixture(20_000, pi, std1, std2).double().rsample_and_log_prob(1, seeded(2))

    def cdf(x):
        return pi * stats.norm.cdf(x / std1) + (1 - pi) * stats.norm.cdf(x / std2)

    assert stats.kstest(w[0].numpy(), cdf).pvalue > 1e-4


class Given(NoiseTable):
    """A source of numbers that are given."""

    def __init__(self, numbers):
        super().__init__(seeded(), 1, len(numbers))
        self.numbers = numbers

    def normal(self, shape):
        return self.numbers.view(shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_noise_makes_an_infinite_weight(dtype):
    """Noise as far out as a table can hold it, and where the rank is the border of the two components."""
    numbers = torch.tensor([-40.0, -9.0, -6.0, 0.0, 6.0, 9.0, 40.0], dtype=torch.float64)
    p = ScaleMixture(len(numbers), 0.5, 1.0, 0.1).to(dtype)
    w, log_p = p.rsample_and_log_prob(1, Given(numbers))
    assert w.isfinite().all()
    assert log_p.isfinite().all()
    assert w.abs().max() < 9.0  # standard deviations: a rank of 2^-53 is 8.2 of them away


def test_no_gradient_flows_into_a_draw():
    w, log_p = ScaleMixture(3, 0.5, 1.0, 0.1).rsample_and_log_prob(2, seeded(1))
    assert not w.requires_grad
    assert not log_p.requires_grad
