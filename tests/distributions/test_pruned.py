"""Laws of pruning: what is removed, how much of it, and what is left."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bbb.distributions import (
    Gaussian,
    Independent,
    NoiseTable,
    Pruned,
    ScaleMixture,
    draw_with_kl,
    gaussian_prior,
    join,
    kl_divergence,
    log_importance,
    mean_and_std,
    prune,
)
from tests.tasks import random_flowed, random_gaussian, seeded

DIM = 40
ALL = torch.ones(DIM, dtype=torch.bool)


@given(share=st.floats(0, 1), num_fixed=st.integers(0, DIM))
def test_the_share_removed_is_exact_and_of_those_that_may_go(share, num_fixed):
    among = torch.arange(DIM) >= num_fixed
    pruned = prune(random_gaussian(1, DIM), share, among)
    assert int((~pruned.kept).sum()) == round(share * (DIM - num_fixed))
    assert pruned.kept[~among].all()
    assert pruned.dim == DIM
    assert pruned.base.dim == int(pruned.kept.sum())


@given(seed=st.integers(0, 100), num=st.integers(1, DIM - 1))
def test_those_of_the_lowest_ratio_of_mean_to_standard_deviation_go(seed, num):
    q = random_gaussian(seed, DIM)
    ratio = q.mean.abs() / q.log_std.exp()
    pruned = prune(q, num / DIM, ALL)
    assert ratio[~pruned.kept].max() < ratio[pruned.kept].min()


def test_neither_small_means_nor_wide_weights_go_first():
    mean, std = torch.tensor([[0.01, 1.0, -0.5], [0.001, 2.0, 0.1]])
    q = Gaussian(mean, std.log())
    torch.testing.assert_close(log_importance(q), torch.tensor([10.0, 0.5, 5.0]).double().log())
    assert prune(q, 1 / 3, ALL[:3]).kept.tolist() == [True, False, True]
    assert prune(q, 2 / 3, ALL[:3]).kept.tolist() == [True, False, False]


def test_a_mean_of_zero_goes_first_and_of_equals_the_first():
    q = Gaussian(torch.tensor([0.1, 0.0, 0.1, 0.1]), torch.tensor([-1.0, -50.0, -1.0, -1.0]))
    assert log_importance(q)[1] == -math.inf
    assert prune(q, 0.5, ALL[:4]).kept.tolist() == [False, False, True, True]


def table():
    source = NoiseTable(seeded(5), 16, 3 * DIM)
    source.begin_step()
    return source


@pytest.mark.parametrize("noise", [lambda: seeded(5), table], ids=["generator", "table"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_draws_are_those_of_the_whole_with_exact_zeros(share, dtype, noise):
    q = random_gaussian(1, DIM).to(dtype)
    pruned = prune(q, share, ALL)
    whole, w = (p.rsample_and_log_prob(3, noise())[0].detach() for p in (q, pruned))
    assert (w[:, ~pruned.kept] == 0.0).all()
    assert torch.equal(w, whole * pruned.kept)
    assert (pruned.centre[~pruned.kept] == 0.0).all()
    assert torch.equal(pruned.centre.detach(), q.centre.detach() * pruned.kept)


def test_the_density_is_that_of_what_is_kept_and_none_where_a_removed_weight_is_not_zero():
    q = random_gaussian(1, DIM)
    pruned = prune(q, 0.5, ALL)
    w, log_q = pruned.rsample_and_log_prob(3, seeded(2))
    torch.testing.assert_close(pruned.base.log_prob(w[:, pruned.kept]), log_q)
    removed = int((~pruned.kept).nonzero()[0])
    w = w.detach().clone()
    w[1, removed] = 1e-30
    assert pruned.log_prob(w)[1] == -math.inf
    assert pruned.log_prob(w)[[0, 2]].isfinite().all()


def test_pruning_copies():
    q = random_gaussian(1, DIM)
    pruned = prune(q, 0.5, ALL)
    before = pruned.centre.detach().clone()
    q.mean.data.add_(1.0)
    assert torch.equal(pruned.centre, before)


def test_a_floor_wakes_no_removed_weight():
    prior = prune(random_gaussian(1, DIM), 0.5, ALL).widened(10.0, 0.3)
    w, _ = prior.rsample_and_log_prob(5, seeded(1))
    assert (w[:, ~prior.kept] == 0.0).all()


def test_mean_and_std_are_zero_where_a_weight_is_removed():
    q = random_gaussian(1, DIM)
    pruned = prune(q, 0.5, ALL)
    for ours, whole in zip(mean_and_std(pruned), mean_and_std(q), strict=True):
        assert torch.equal(ours, whole * pruned.kept)
    with pytest.raises(ValueError, match="ScaleMixture has no standard deviation"):
        mean_and_std(Pruned(ScaleMixture(DIM, 0.25, 1.0, 0.1), ALL))


@pytest.mark.parametrize("kind", ["Gaussian", "mixture"])
def test_the_kl_is_that_of_the_kept_weights(kind):
    q = prune(random_gaussian(1, DIM), 0.5, ALL)
    base = random_gaussian(2, DIM // 2) if kind == "Gaussian" else ScaleMixture(DIM // 2, 0.25, 1.0, 0.1)
    p = Pruned(base, q.kept)
    w, kl = draw_with_kl(q, p, 4, seeded(3))
    draws = q.rsample_and_log_prob(4, seeded(3))
    torch.testing.assert_close(w, draws[0])
    expected = (draws[1] - p.log_prob(draws[0])).mean(0) if kind == "mixture" else q.base.kl_divergence(base)
    torch.testing.assert_close(kl, expected)
    torch.testing.assert_close(kl_divergence(q, p, draws), expected)
    assert kl_divergence(q, q.frozen()).item() == pytest.approx(0.0, abs=1e-12)


def test_the_kl_is_infinite_where_not_the_same_weights_are_kept():
    whole = random_gaussian(1, DIM)
    some, fewer = prune(whole, 0.5, ALL), prune(whole, 0.6, ALL)
    others = [whole, gaussian_prior(DIM, 1.0)]
    pairs = [(some, fewer), (fewer, some), *((some, other) for other in others), (whole, some)]
    for q, p in pairs:
        assert kl_divergence(q, p, noise=seeded(1)).item() == math.inf


def test_a_pruned_part_joins_a_whole_one():
    first, second = prune(random_gaussian(1, DIM), 0.5, ALL), random_gaussian(2, 3)
    for parts in ((first, second), (second, first)):
        whole = join(*parts)
        assert isinstance(whole, Pruned)
        assert torch.equal(whole.centre, torch.cat([part.centre for part in parts]))
        assert torch.equal(whole.kept, torch.cat([getattr(part, "kept", torch.ones(3).bool()) for part in parts]))
    assert isinstance(join(first, random_flowed(1)), Independent)


def test_what_does_not_fit_is_refused():
    q = random_gaussian(1, DIM)
    with pytest.raises(ValueError, match=r"share=1.5: must lie in 0..1"):
        prune(q, 1.5, ALL)
    with pytest.raises(ValueError, match="must be over the 40 kept weights"):
        Pruned(random_gaussian(1, DIM - 1), ALL)
    with pytest.raises(ValueError, match="must be over the 40 kept weights"):
        Pruned(Gaussian.stacked([q, q]), ALL)
    with pytest.raises(ValueError, match="a Pruned cannot be split"):
        Pruned(ScaleMixture(DIM, 0.25, 1.0, 0.1), ALL).split(2)
    with pytest.raises(ValueError, match=r"must end in 20, the number of selected weights"):
        prune(q, 0.5, ALL).own_noise(None).normal((1, 3), q.mean)
