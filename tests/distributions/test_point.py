"""Laws of a point and of dropout: their draws, and what stands in place of the KL."""

import math

import pytest
import torch

from bbb.distributions import (
    ARD,
    Dropout,
    Independent,
    Laplace,
    NoiseTable,
    Point,
    Pruned,
    draw_with_kl,
    drop,
    gaussian_prior,
    join,
    kl_divergence,
    log_importance,
    mean_and_std,
    posterior_name,
    prune,
    scale_mixture_prior,
)
from tests.tasks import random_gaussian, seeded

DIM, SHARE = 7, 0.3
UNIT = torch.tensor([3, 0, 1, 0, 1, 2, 3], dtype=torch.int32)  # of three units; 3: of none
KEPT = torch.arange(DIM) % 3 != 1


def point(seed=1, dim=DIM):
    return Point(torch.randn(dim, generator=seeded(seed), dtype=torch.float64))


def dropout(share=SHARE):
    return Dropout(point().mean.detach().clone(), share, UNIT, 3)


def laplace(seed=1):
    return Laplace(
        point(seed).mean.detach().clone(), torch.rand(DIM, generator=seeded(seed), dtype=torch.float64) + 0.1
    )


MEMBERS = {
    "point": point,
    "replicas": lambda: Point.stacked([point(seed) for seed in (1, 2, 3)]),
    "dropout": dropout,
    "laplace": laplace,
    "pruned point": lambda: Pruned.of(point(), KEPT),
    "pruned dropout": lambda: Pruned.of(dropout(), KEPT),
    "pruned laplace": lambda: Pruned.of(laplace(), KEPT),
}
members = pytest.mark.parametrize("member", MEMBERS)


@members
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_have_their_shapes_and_type(member, dtype):
    q = MEMBERS[member]().to(dtype)
    w, log_q = q.rsample_and_log_prob(4, seeded(1))
    assert w.shape == (4, *q.shape)
    assert log_q.shape == (4, *q.shape[:-1])
    assert w.dtype == log_q.dtype == q.centre.dtype == q.dtype == dtype
    on_meta = q.to("meta")
    w, log_q = on_meta.rsample_and_log_prob(4)
    assert {value.device.type for value in (w, log_q, on_meta.centre, on_meta.frozen().centre)} == {"meta"}


@members
def test_there_is_no_density_and_no_prior(member):
    q = MEMBERS[member]()
    assert not q.has_density
    assert q.is_certain == ("dropout" not in member)
    assert q.makes_a_prior == ("laplace" in member)
    assert posterior_name(q) == next((name for name in ("dropout", "laplace") if name in member), "point")
    if "laplace" not in member:
        with pytest.raises(ValueError, match=r"a (Point|Dropout) has no variances to widen, so it is no prior"):
            q.widened(2.0)
    assert random_gaussian(1).has_density
    assert not random_gaussian(1).is_certain


@members
def test_frozen_and_narrowed_are_copies(member):
    q = MEMBERS[member]()
    frozen, narrow, before = q.frozen(), q.narrowed(0.1), q.centre.detach().clone()
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    for parameter in q.parameters():
        parameter.data.add_(1.0)
    for same in (frozen, narrow):
        assert torch.equal(same.centre, before)
        assert torch.equal(
            same.rsample_and_log_prob(1, seeded(1))[0] == 0, q.rsample_and_log_prob(1, seeded(1))[0] == 0
        )


@pytest.mark.parametrize("member", ["point", "replicas", "laplace", "pruned point", "pruned laplace"])
def test_draws_of_a_point_are_the_mean(member):
    q = MEMBERS[member]()
    w, log_q = q.rsample_and_log_prob(3, seeded(1))
    assert torch.equal(w, q.centre.expand(3, *q.shape))
    assert torch.equal(q.log_prob(w), log_q)
    assert (q.log_prob(w + (w != 0) * 1e-9) == -torch.inf).all()
    assert (log_q == 0).all()
    assert (mean_and_std(q)[1] == 0).all()


def test_a_point_is_split_and_joined():
    q = point()
    first, rest = q.split(3)
    assert torch.equal(join(first, rest).centre, q.centre)
    assert isinstance(join(first, rest), Point)
    with pytest.raises(ValueError, match="a Dropout cannot be split"):
        dropout().split(3)
    assert isinstance(join(first, dropout()), Independent)


def test_a_laplace_approximation_is_the_gaussian_of_its_precision_as_a_prior():
    q = laplace()
    for inflation, floor in ((1.0, 0.0), (3.0, 0.2)):
        prior = q.widened(inflation, floor)
        assert torch.equal(prior.mean, q.mean)
        torch.testing.assert_close(torch.exp(2 * prior.log_std), inflation / q.precision + floor**2)
        assert not any(parameter.requires_grad for parameter in prior.parameters())
    assert torch.equal(MEMBERS["pruned laplace"]().widened().base.mean, q.mean[KEPT])
    with pytest.raises(ValueError, match="precision: is not above 0 for all weights"):
        Laplace(q.mean.detach()).widened()
    with pytest.raises(ValueError, match="precision: has shape"):
        Laplace(q.mean.detach(), torch.ones(2))
    joined = join(*q.split(3))
    assert isinstance(joined, Laplace)
    assert torch.equal(joined.precision, q.precision)
    assert torch.equal(joined.mean, q.mean)


def test_replicas_are_the_points_that_were_stacked():
    stacked = MEMBERS["replicas"]()
    assert [tuple(q.mean.tolist()) for q in stacked.replicas()] == [tuple(point(s).mean.tolist()) for s in (1, 2, 3)]


def test_dropout_drops_the_weights_of_a_unit_together_at_its_rate():
    q, num = dropout(), 20_000
    w, log_q = q.rsample_and_log_prob(num, seeded(1))
    factors = w / q.mean
    assert (log_q == 0).all()
    torch.testing.assert_close(factors[:, UNIT == 3], torch.ones(num, 2).double())
    for unit in range(2):
        ours = factors[:, unit == UNIT]
        assert torch.equal(ours[:, 0], ours[:, 1])
    kept = factors[:, [1, 2, 5]]
    assert ((kept == 0) | ((kept - 1 / (1 - SHARE)).abs() < 1e-12)).all()
    error = math.sqrt(SHARE * (1 - SHARE) / num)
    assert ((kept == 0).double().mean(0) - SHARE).abs().max() < 5 * error
    assert abs(torch.corrcoef(kept.T)[0, 1]) < 5 / math.sqrt(num)


def test_the_mean_of_dropouts_draws_is_its_centre_and_their_std_is_told():
    q, num = dropout(), 20_000
    w = q.rsample_and_log_prob(num, seeded(2))[0].detach()
    mean, std = mean_and_std(q)
    assert ((w.mean(0) - mean).abs() <= 5 * std / math.sqrt(num) + 1e-12).all()
    torch.testing.assert_close(w.std(0), std, rtol=0.03, atol=1e-12)


def test_dropout_takes_one_number_for_each_unit():
    noise = NoiseTable(seeded(1), 16, 2 * 3)
    noise.begin_step()
    dropout().rsample_and_log_prob(2, noise)
    with pytest.raises(ValueError, match="a step reads more than window=6 numbers"):
        noise.normal((1,))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_half_of_the_noise_is_dropped_or_nothing(share):
    noise = torch.tensor([-2.0, -0.1, 0.0, 0.1])
    assert drop(noise, share).tolist() == ([1.0] * 4 if share == 0.0 else [0.0, 0.0, 2.0, 2.0])


def test_pruned_dropout_draws_the_masks_of_the_whole():
    whole, pruned = dropout(), MEMBERS["pruned dropout"]()
    for q, p in ((whole, pruned), (point(), MEMBERS["pruned point"]())):
        w, ours = (each.rsample_and_log_prob(5, seeded(3))[0] for each in (q, p))
        assert torch.equal(ours, w * KEPT)


PRIORS = {
    "gaussian": lambda: gaussian_prior(DIM, 0.5).double(),
    "of its own means": lambda: random_gaussian(4).requires_grad_(False),
    "mixture": lambda: scale_mixture_prior(DIM, 0.4, 1.0, 0.1).double(),
}


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("q", [point(), dropout()], ids=["point", "dropout"])
def test_minus_the_log_density_of_the_mean_stands_in_place_of_the_kl(q, prior):
    p = PRIORS[prior]()
    expected = -p.log_prob(q.mean.unsqueeze(0))[0]
    (expected_gradient,) = torch.autograd.grad(expected, q.mean)
    for kl in (kl_divergence(q, p), draw_with_kl(q, p, 1, seeded(1))[1]):
        (gradient,) = torch.autograd.grad(kl, q.mean)
        torch.testing.assert_close(kl, expected)
        torch.testing.assert_close(gradient, expected_gradient)
    stacked = Point.stacked([q, q])
    torch.testing.assert_close(kl_divergence(stacked, p), expected.expand(2))
    with pytest.raises(ValueError, match="has no density"):
        kl_divergence(q, ARD(DIM, 1.0))


def test_a_point_is_no_prior_of_a_density():
    q = random_gaussian(1)
    assert kl_divergence(q, point(), noise=seeded(1)) == torch.inf


@pytest.mark.parametrize("q", [point(), dropout()], ids=["point", "dropout"])
def test_the_weights_of_the_lowest_magnitude_are_pruned_first(q):
    torch.testing.assert_close(log_importance(q), q.mean.detach().abs().log())
    pruned = prune(q, 3 / DIM, torch.ones(DIM, dtype=torch.bool))
    assert q.mean[~pruned.kept].abs().max() < q.mean[pruned.kept].abs().min()
    assert type(pruned.base) is type(q)
    assert torch.equal(pruned.centre, q.centre * pruned.kept)
