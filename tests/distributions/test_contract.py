"""The contract of WeightDistribution: every member keeps it, with every source of noise.

A new member is one more line of MEMBERS.
"""

import functools
import math

import pytest
import torch

from bbb.distributions import (
    FlowedGaussian,
    FullGaussian,
    Gaussian,
    Independent,
    Mixture,
    NoiseTable,
    Pruned,
    ScaleMixture,
    Stacked,
    join,
)
from tests.tasks import passes_gradcheck, random_flowed, random_full, random_gaussian, seeded

MEMBERS = {  # made for D weights, in float64
    "Gaussian": lambda dim: random_gaussian(1, dim),
    "isotropic Gaussian": lambda dim: Gaussian(*torch.tensor([0.3, -0.5], dtype=torch.float64), dim=dim),
    "Gaussian of replicas": lambda dim: Gaussian.stacked([random_gaussian(seed, dim) for seed in (1, 2, 3)]),
    "planar flows": lambda dim: random_flowed(1, dim),
    "matrix_planar flows": lambda dim: random_flowed(1, dim, 3, "matrix_planar"),
    "scale mixture": lambda dim: ScaleMixture(dim, 0.25, 1.0, 0.1).double(),
    "independent": lambda dim: Independent([random_gaussian(1, dim - 1), ScaleMixture(1, 0.25, 1.0, 0.1).double()]),
    "independent with flows": lambda dim: Independent([random_flowed(4, dim - 1, 3), random_gaussian(2, 1)]),
    "full covariance": lambda dim: random_full(1, dim),
    "mixture of Gaussians": lambda dim: Mixture(
        [random_gaussian(seed, dim) for seed in (1, 2)], torch.tensor([-0.3, 0.4], dtype=torch.float64)
    ),
    "mixture with flows": lambda dim: Mixture([random_flowed(1, dim, 3), random_gaussian(2, dim)]),
    "pruned Gaussian": lambda dim: Pruned.of(random_gaussian(1, dim), torch.arange(dim) % 3 != 1),
    "pruned mixture": lambda dim: Pruned(
        ScaleMixture(dim - dim // 4, 0.25, 1.0, 0.1).double(), torch.arange(dim) >= dim // 4
    ),
}
DIM = 7
SMALLEST = {"matrix_planar flows": 2, "independent": 2, "independent with flows": 2}  # D; of the others it is 1
SPLITTABLE = ["Gaussian", "isotropic Gaussian", "Gaussian of replicas", "planar flows", "matrix_planar flows"]
SPLITTABLE += ["pruned Gaussian"]
STATE_OF_ITS_OWN = 7  # a seed


def table(num_uses, window, seed):
    """A table at its second step, so that its window starts somewhere."""
    source = NoiseTable(seeded(seed), num_uses, window)
    source.begin_step()
    source.begin_step()
    return source


def pytorchs_own(window, seed):
    torch.manual_seed(seed)


SOURCES = {  # made to be read for one step, in which so many numbers are read
    "None": pytorchs_own,
    "generator": lambda window, seed: seeded(seed),
    "fresh noise": lambda window, seed: table(1, window, seed),
    "shared table": lambda window, seed: table(16, window, seed),
    "stacked": lambda window, seed: Stacked([table(16, window // 3, seed + 10 * r) for r in range(3)]),
    "stacked fresh noise": lambda window, seed: Stacked([table(1, window // 3, seed + 10 * r) for r in range(3)]),
}
members = pytest.mark.parametrize("member", MEMBERS)
PAIRS = [
    (member, source)
    for member in MEMBERS
    for source in SOURCES
    if not source.startswith("stacked") or member == "Gaussian of replicas"
]
with_every_source = pytest.mark.parametrize(("member", "source"), PAIRS)


@pytest.fixture(autouse=True)
def _leave_pytorchs_generator_as_it_was():
    with torch.random.fork_rng(devices=[]):
        yield


def num_noise(q, num_samples):
    """The numbers that so many draws read, of all replicas."""
    return num_samples * q.num_noise * q.shape[:-1].numel()


def draw(q, num_samples, source, seed=STATE_OF_ITS_OWN):
    return q.rsample_and_log_prob(num_samples, SOURCES[source](num_noise(q, num_samples), seed))


def tensors(q):
    return [*q.parameters(), *q.buffers()]


def density(q, w):
    with torch.no_grad():
        return q.log_prob(w)


def move(q):
    """Change all that can be changed in place."""
    for value in tensors(q):
        if value.is_floating_point():
            value.data.add_(0.1)


def random_part(q, w):
    """Those of weights that are random: without what is removed, which is zero in every draw."""
    return w[..., q.kept] if isinstance(q, Pruned) else w


def variances(q):
    """What is widened and narrowed: the variances of the base under flows, and of both components of a mixture."""
    if isinstance(q, Independent):
        return torch.cat([variances(part) for part in q.parts])
    if isinstance(q, Mixture):
        return torch.cat([variances(part) for part in q.component_list])
    if isinstance(q, FullGaussian):
        return q.variance.detach()
    if isinstance(q, FlowedGaussian | Pruned):
        return variances(q.base)
    if isinstance(q, ScaleMixture):
        return torch.tensor([q.std1**2, q.std2**2], dtype=torch.float64)
    return (2.0 * q.log_std.detach()).exp().expand(q.shape).flatten()


@functools.cache
def grid(dim):
    """Points over R^D and the volume that each stands for."""
    end, num = {1: (12.0, 200_001), 2: (8.0, 801)}[dim]
    line = torch.linspace(-end, end, num, dtype=torch.float64)
    return torch.cartesian_prod(*[line] * dim).view(-1, dim), (2.0 * end / (num - 1)) ** dim


def moments(q):
    """The integrals of 1, w and w^2 under the density, on a grid: ``(3, R, D)``, with R = 1 for a single one."""
    points, volume = grid(q.dim)
    replicas = q.shape[:-1]
    log_p = density(q, points.view(-1, *[1] * len(replicas), q.dim).expand(-1, *q.shape))
    mass = log_p.exp().view(len(points), -1) * volume
    return torch.stack([torch.einsum("nr,nd->rd", mass, points**power) for power in range(3)])


@functools.cache
def smallest(member):
    """A member over so few weights that a grid covers it, and its moments."""
    q = MEMBERS[member](SMALLEST.get(member, 1))
    return q, moments(q)


# Draws, for every source of noise


@with_every_source
@pytest.mark.parametrize("num_samples", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_and_densities_have_their_shapes_and_type(member, source, num_samples, dtype):
    q = MEMBERS[member](DIM).to(dtype)
    assert q.dim == DIM
    w, log_q = draw(q, num_samples, source)
    assert w.shape == (num_samples, *q.shape)
    assert log_q.shape == (num_samples, *q.shape[:-1]) == q.log_prob(w).shape
    assert w.dtype == log_q.dtype == q.log_prob(w).dtype == q.dtype == dtype
    assert w.device == log_q.device == q.log_prob(w).device == q.device == torch.device("cpu")


@members
def test_draws_and_densities_are_where_the_distribution_is(member):
    """PyTorch's device without memory stands for a GPU: what is made elsewhere fails on it."""
    q = MEMBERS[member](DIM).to("meta")
    w, log_q = q.rsample_and_log_prob(2)
    values = [w, log_q, q.log_prob(w), q.centre, *tensors(q.frozen()), *tensors(q.widened(2.0, 0.1))]
    assert {value.device.type for value in [*values, *tensors(q.narrowed(0.2))]} == {"meta"}
    assert q.device.type == q.widened(2.0, 0.1).device.type == q.narrowed(0.2).device.type == "meta"


@with_every_source
@pytest.mark.parametrize("num_samples", [1, 4])
def test_log_prob_of_a_draw_is_the_log_density_returned_with_it(member, source, num_samples):
    q = MEMBERS[member](DIM)
    w, log_q = draw(q, num_samples, source)
    torch.testing.assert_close(q.log_prob(w), log_q, rtol=1e-6, atol=1e-6)


@with_every_source
def test_the_same_state_of_the_noise_gives_the_same_draws(member, source):
    q = MEMBERS[member](DIM)
    first, again, other = (draw(q, 4, source, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert (random_part(q, first[0]) != random_part(q, other[0])).all()
    own = random_part(q, first[0])
    assert len(own.unique()) == own.numel(), "two weights were made from the same noise"


@with_every_source
def test_draws_go_on_where_the_last_ones_ended(member, source):
    q = MEMBERS[member](DIM)
    noise = SOURCES[source](num_noise(q, 4), STATE_OF_ITS_OWN)
    first, second = (q.rsample_and_log_prob(2, noise)[0] for _ in range(2))
    assert (random_part(q, first) != random_part(q, second)).all()


@members
@pytest.mark.parametrize("num_samples", [1, 4])
def test_draws_take_as_many_numbers_from_the_source_as_they_say(member, num_samples):
    q = MEMBERS[member](DIM)
    window = num_noise(q, num_samples)
    assert isinstance(q, Mixture) or window == num_samples * q.shape.numel()
    noise = table(16, window, STATE_OF_ITS_OWN)
    q.rsample_and_log_prob(num_samples, noise)
    with pytest.raises(ValueError, match=f"a step reads more than window={window} numbers"):
        noise.normal((1,))
    with pytest.raises(ValueError, match=f"a step reads more than window={window - 1} numbers"):
        q.rsample_and_log_prob(num_samples, table(16, window - 1, STATE_OF_ITS_OWN))


def test_each_replica_takes_one_number_for_each_weight_from_its_own_table():
    noise = SOURCES["stacked"](3 * 4 * DIM, STATE_OF_ITS_OWN)
    MEMBERS["Gaussian of replicas"](DIM).rsample_and_log_prob(4, noise)
    for source in noise.tables:
        with pytest.raises(ValueError, match=f"a step reads more than window={4 * DIM} numbers"):
            source.normal((1,))


@members
def test_the_density_integrates_to_one_on_a_grid(member):
    _, (mass, _, _) = smallest(member)
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-6)


@with_every_source
def test_draws_have_the_moments_of_the_density(member, source):
    """Means of w and of w^2 within five standard errors, for each weight of each replica on its own."""
    q, expected = smallest(member)
    w = draw(q, 100_000, source)[0].detach().view(100_000, -1, q.dim)
    for power in (1, 2):
        standard_error = (w**power).std(0) / math.sqrt(len(w))
        assert (((w**power).mean(0) - expected[power]).abs() < 5 * standard_error).all()


@members
def test_gradients_pass_gradcheck(member):
    """Of draws and densities in the parameters, under noise that is held fixed, and of densities in the weights."""
    q = MEMBERS[member](DIM)
    w = draw(q, 2, "generator")[0].detach()
    own = random_part(q, w).clone().requires_grad_()
    spread = q.spread if isinstance(q, Pruned) else torch.clone
    assert torch.autograd.gradcheck(lambda own: q.log_prob(spread(own)), (own,), fast_mode=True)
    assert passes_gradcheck(q, lambda q: q.rsample_and_log_prob(2, seeded(3)))
    assert passes_gradcheck(q, lambda q: q.log_prob(w))


# What posteriors and priors are made into


@members
def test_frozen_has_no_gradients_and_the_same_density_and_is_a_copy(member):
    q = MEMBERS[member](DIM)
    p, w = q.frozen(), draw(q, 4, "generator")[0].detach()
    assert type(p) is type(q)
    assert not any(parameter.requires_grad for parameter in p.parameters())
    assert all(parameter.requires_grad for parameter in q.parameters())
    before = density(q, w)
    assert torch.equal(density(p, w), before)
    move(q)
    assert torch.equal(density(p, w), before)
    assert not {value.data_ptr() for value in tensors(q)} & {value.data_ptr() for value in tensors(p)}


@members
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_centre_is_a_weight_vector(member, dtype):
    q = MEMBERS[member](DIM).to(dtype)
    assert q.centre.shape == q.shape
    assert q.centre.dtype == dtype
    assert q.centre.device == q.device


@members
def test_centre_is_the_mean_or_under_flows_the_image_of_the_mean(member):
    q, expected = smallest(member)
    if "flows" not in member:
        torch.testing.assert_close(q.centre.detach().view(-1, q.dim), expected[1], rtol=0, atol=1e-6)
    if isinstance(q, Mixture):
        return  # its draws come together in several points
    w, _ = draw(q.narrowed(1e-12), 3, "generator")  # the image of the mean, but for 1e-12 times the slope of the flows
    torch.testing.assert_close(w, q.centre.expand_as(w), rtol=0, atol=1e-8)


@members
@pytest.mark.parametrize(("inflation", "floor"), [(1.0, 0.0), (10.0, 0.0), (1.0, 0.3), (10.0, 0.3), (0.5, 0.03)])
def test_widened_scales_all_variances_and_adds_the_floor(member, inflation, floor):
    q = MEMBERS[member](DIM)
    p = q.widened(inflation, floor)
    assert type(p) is type(q)
    assert (p.shape, p.dtype, p.device) == (q.shape, q.dtype, q.device)
    torch.testing.assert_close(variances(p), inflation * variances(q) + floor**2)
    torch.testing.assert_close(p.centre, q.centre.detach())
    assert not any(parameter.requires_grad for parameter in p.parameters())


@pytest.mark.parametrize(
    "member", [member for member in MEMBERS if "flows" not in member and "of Gaussians" not in member]
)
def test_widened_has_the_variance_that_it_promises(member):
    """Where there are no flows, the variance of each weight under the density itself, on a grid."""
    q, (_, mean, square) = smallest(member)
    _, wide_mean, wide_square = moments(q.widened(1.5, 0.3))
    torch.testing.assert_close(wide_mean, mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(wide_square - wide_mean**2, 1.5 * (square - mean**2) + 0.3**2, rtol=1e-6, atol=1e-6)


@members
@pytest.mark.parametrize("max_std", [0.2, 0.05, math.inf])
def test_narrowed_caps_all_standard_deviations_and_keeps_the_centre(member, max_std):
    q = MEMBERS[member](DIM)
    assert variances(q).max() > 0.2**2  # so that there is something to cap
    narrow = q.narrowed(max_std)
    assert type(narrow) is type(q)
    assert (narrow.shape, narrow.dtype, narrow.device) == (q.shape, q.dtype, q.device)
    torch.testing.assert_close(variances(narrow), variances(q).clamp(max=max_std**2))
    torch.testing.assert_close(narrow.centre, q.centre)


@members
@pytest.mark.parametrize("change", [lambda q: q.widened(10.0, 0.3), lambda q: q.narrowed(0.05)], ids=["wide", "narrow"])
def test_what_is_widened_or_narrowed_shares_nothing_with_the_original(member, change):
    q = MEMBERS[member](DIM)
    w = draw(q, 4, "generator")[0].detach()
    before, scales = density(q, w), variances(q)
    changed = change(q)
    assert torch.equal(density(q, w), before)
    assert torch.equal(variances(q), scales)
    assert all(parameter.requires_grad for parameter in q.parameters())
    assert not torch.allclose(density(changed, w), before)
    after = density(changed, w)
    move(q)
    assert torch.equal(density(changed, w), after)
    assert not {value.data_ptr() for value in tensors(q)} & {value.data_ptr() for value in tensors(changed)}


@members
def test_neither_inflation_nor_floor_nor_cap_leaves_the_density_as_it_is(member):
    q = MEMBERS[member](DIM)
    w = draw(q, 4, "generator")[0].detach()
    for same in (q.widened(), q.widened(1.0, 0.0), q.narrowed(math.inf)):
        torch.testing.assert_close(density(same, w), density(q, w))


@pytest.mark.parametrize("member", SPLITTABLE)
def test_split_multiplies_densities_and_join_is_its_inverse(member):
    q = MEMBERS[member](DIM)
    w, log_q = draw(q, 4, "generator")
    w, log_q = w.detach(), log_q.detach()
    first, rest = q.split(DIM - 3)
    assert (first.shape, rest.shape) == ((*q.shape[:-1], DIM - 3), (*q.shape[:-1], 3))
    parts = first.log_prob(w[..., : DIM - 3]) + rest.log_prob(w[..., DIM - 3 :])
    torch.testing.assert_close(parts, log_q, rtol=1e-6, atol=1e-6)
    whole = join(first, rest)
    assert type(whole) is type(q)
    assert whole.shape == q.shape
    torch.testing.assert_close(whole.log_prob(w), log_q, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whole.centre, q.centre)
    before = density(whole, w), density(first, w[..., : DIM - 3])
    move(q)
    assert torch.equal(density(first, w[..., : DIM - 3]), before[1])  # a copy
    move(first)
    move(rest)
    assert torch.equal(density(whole, w), before[0])  # a copy too


@pytest.mark.parametrize("member", [member for member in MEMBERS if member not in SPLITTABLE])
def test_what_cannot_be_split_says_so(member):
    q = MEMBERS[member](DIM)
    with pytest.raises(ValueError, match=f"num_first=2: a {type(q).__name__} cannot be split"):
        q.split(2)
