import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal
from torch.distributions import kl_divergence as reference_kl

from bbb.flows import PlanarFlow
from bbb.mixture import ScaleMixture
from bbb.weights import FlowedGaussian, Gaussian, Independent, join

DIM = 7


def random_gaussian(seed, dim=DIM, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(dim, generator=generator, dtype=dtype)
    return Gaussian(mean, -1.0 + 0.3 * torch.randn(dim, generator=generator, dtype=dtype))


def as_normal(gaussian):
    return Normal(gaussian.mean, gaussian.log_std.exp())


def random_flowed(seed, dim=DIM, num_flows=16):
    generator = torch.Generator().manual_seed(seed)
    base = random_gaussian(seed, dim)
    dims = [dim] if dim == 1 else [dim - 3, 3]
    flows = [
        PlanarFlow(
            *torch.randn(2, num_flows, block, generator=generator, dtype=torch.float64),
            torch.randn(num_flows, generator=generator, dtype=torch.float64),
            scale=0.4,
        )
        for block in dims
    ]
    return FlowedGaussian(base, flows, dims)


DISTRIBUTIONS = {
    "flowed gaussian": lambda dim: random_flowed(1, dim),
    "gaussian": lambda dim: random_gaussian(1, dim),
    "isotropic gaussian": lambda dim: Gaussian(torch.tensor(0.3, dtype=torch.float64), torch.tensor(-0.5), dim),
    "scale mixture": lambda dim: ScaleMixture(dim, 0.25, 1.0, 0.1),
}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_density_integrates_to_one_on_a_grid(kind):
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    density = DISTRIBUTIONS[kind](1).log_prob(grid.unsqueeze(1)).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("num_samples", [1, 4])
def test_log_prob_of_a_draw_is_the_log_density_returned_with_it(kind, num_samples, generator):
    distribution = DISTRIBUTIONS[kind](DIM)
    w, log_q = distribution.rsample(num_samples, generator)
    assert w.shape == (num_samples, DIM)
    assert log_q.shape == (num_samples,)
    # float32 noise enters the draw of the mixture; the Gaussian is float64 throughout
    torch.testing.assert_close(distribution.log_prob(w), log_q, rtol=1e-6, atol=1e-6, check_dtype=False)


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
def test_draws_have_the_moments_of_the_density(kind, generator):
    distribution = DISTRIBUTIONS[kind](1)
    w = distribution.rsample(100_000, generator)[0].squeeze(1).double().detach()
    grid = torch.linspace(-12, 12, 100_001, dtype=torch.float64)
    density = distribution.log_prob(grid.unsqueeze(1)).exp().detach()
    for power in (1, 2):
        expected = torch.trapezoid(density * grid**power, grid).item()
        standard_error = (w**power).std().item() / math.sqrt(len(w))
        assert abs((w**power).mean().item() - expected) < 5 * standard_error


def test_gaussian_log_prob_equals_torch(generator):
    q = random_gaussian(1)
    w = torch.randn(5, DIM, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(w), as_normal(q).log_prob(w).sum(1))


def test_mixture_log_prob_equals_torch(generator):
    std1, std2, pi = 1.5, 0.02, 0.25
    w = torch.cat(
        [torch.randn(50, DIM, generator=generator), 0.02 * torch.randn(50, DIM, generator=generator)]
    ).double()
    weights = Categorical(torch.tensor([pi, 1 - pi], dtype=torch.float64))
    reference = MixtureSameFamily(weights, Normal(torch.zeros(2), torch.tensor([std1, std2], dtype=torch.float64)))
    torch.testing.assert_close(ScaleMixture(DIM, pi, std1, std2).log_prob(w), reference.log_prob(w).sum(1))


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


def test_monte_carlo_kl_is_within_five_standard_errors_of_the_closed_form(generator):
    q, p = random_gaussian(1), random_gaussian(2)
    w, log_q = q.rsample(20_000, generator)
    estimates = log_q - p.log_prob(w)
    standard_error = estimates.std().item() / math.sqrt(len(w))
    assert abs(estimates.mean().item() - q.kl_divergence(p).item()) < 5 * standard_error


@pytest.mark.parametrize("num_samples", [1, 3])
def test_reparameterised_gradient_equals_autograd(num_samples):
    q = random_gaussian(1)
    noise = torch.empty(num_samples, DIM, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(5))
    w, log_q = q.rsample(num_samples, torch.Generator().manual_seed(5))
    plain_w = q.mean + q.log_std.exp() * noise
    plain_log_q = as_normal(Gaussian(torch.zeros(DIM).double(), torch.zeros(DIM).double())).log_prob(noise).sum(1)
    plain_log_q = plain_log_q - q.log_std.sum()

    def objective(w, log_q):
        return (w.sin().sum(1) * torch.arange(1.0, num_samples + 1)).sum() + (log_q**2).mean()

    ours = torch.autograd.grad(objective(w, log_q), list(q.parameters()))
    theirs = torch.autograd.grad(objective(plain_w, plain_log_q), list(q.parameters()))
    torch.testing.assert_close(ours, theirs)


def test_mixture_gradient_passes_gradcheck(generator):
    w = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ScaleMixture(4, 0.5, 1.0, 0.1).log_prob, (w,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [50.0, 1e-30, 0.0])
def test_mixture_is_finite_far_in_its_tail_and_pulls_back(value, dtype):
    w = torch.full((1, 3), value, dtype=dtype, requires_grad=True)
    log_prob = ScaleMixture(3, 0.5, 1.0, 0.0025).log_prob(w)
    (gradient,) = torch.autograd.grad(log_prob.sum(), w)
    assert log_prob.isfinite().all()
    assert gradient.isfinite().all()
    assert (gradient < 0).all() == (value > 0)


def test_every_parameter_gets_a_gradient(generator):
    q = random_gaussian(1)
    w, log_q = q.rsample(2, generator)
    (w.square().sum() + log_q.sum()).backward()
    assert all(parameter.grad.abs().min() > 0 for parameter in q.parameters())


POSTERIORS = {"gaussian": random_gaussian, "16 flows": random_flowed}


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("num_samples", [1, 5])
def test_frozen_posterior_is_a_prior_at_distance_zero(posterior, num_samples, generator):
    q = POSTERIORS[posterior](1)
    p = q.frozen()
    w, log_q = q.rsample(num_samples, generator)
    torch.testing.assert_close(log_q - p.log_prob(w), torch.zeros(num_samples).double(), rtol=0, atol=1e-6)


def test_closed_form_kl_to_the_frozen_copy_is_zero():
    q = random_gaussian(1)
    assert q.kl_divergence(q.frozen()).item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_step_on_the_posterior_leaves_the_frozen_copy_as_it_was(posterior):
    q = POSTERIORS[posterior](1)
    p = q.frozen()
    before = [value.clone() for value in p.state_dict().values()]
    optimizer = torch.optim.Adam(q.parameters(), lr=0.1)
    q.rsample(1)[0].sum().backward()
    optimizer.step()
    assert not any(parameter.requires_grad for parameter in p.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, p.state_dict().values(), strict=True))
    assert not torch.equal(q.mean, p.mean)


def test_flows_that_do_not_fit_are_refused():
    q = random_flowed(1)
    with pytest.raises(ValueError, match=r"dims=\(7, 3\): 2 flows and 7 weights do not fit"):
        FlowedGaussian(q.base, list(q.flows), (7, 3))


@pytest.mark.parametrize(("pi", "std1", "std2"), [(0.0, 1, 0.1), (1.0, 1, 0.1), (0.5, 0.1, 1), (0.5, 1, 0)])
def test_impossible_mixtures_are_refused(pi, std1, std2):
    with pytest.raises(ValueError, match=r"pi=|std1="):
        ScaleMixture(3, pi, std1, std2)


@pytest.mark.parametrize("kind", [random_gaussian, random_flowed])
def test_split_and_join_are_inverse_and_densities_multiply(kind, generator):
    whole = kind(1)
    first, rest = whole.split(DIM - 3)
    w, log_q = whole.rsample(4, generator)
    parts = first.log_prob(w[:, : DIM - 3]) + rest.log_prob(w[:, DIM - 3 :])
    torch.testing.assert_close(parts, log_q, rtol=1e-6, atol=1e-6)
    joined = join(first, rest)
    assert type(joined) is type(whole)
    torch.testing.assert_close(joined.state_dict(), whole.state_dict())
    mean = (whole if kind is random_gaussian else whole.base).mean
    mean.data.add_(1.0)
    assert not torch.allclose(joined.log_prob(w), whole.log_prob(w))  # copies


def test_join_of_two_kinds_draws_and_scores_both(generator):
    first, second = random_flowed(1), random_gaussian(2, 4)
    both = join(first, second)
    assert isinstance(both, Independent)
    w, log_q = both.rsample(3, generator)
    assert w.shape == (3, DIM + 4)
    torch.testing.assert_close(both.log_prob(w), log_q, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(first.log_prob(w[:, :DIM]) + second.log_prob(w[:, DIM:]), log_q, rtol=1e-6, atol=1e-6)


def test_split_inside_a_block_of_flows_is_refused():
    with pytest.raises(ValueError, match="num_first=2: the blocks end at"):
        random_flowed(1).split(2)
    with pytest.raises(ValueError, match="a ScaleMixture cannot be split"):
        ScaleMixture(5, 0.5, 1.0, 0.1).split(2)
