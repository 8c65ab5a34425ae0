"""Hamiltonian Monte Carlo and annealing: exact where the posterior and the evidence are known."""

import math

import pytest
import torch
from torch import nn

from bbb.data import Normalization, Split
from bbb.distributions import Gaussian, gaussian_prior
from bbb.inference import (
    Categorical,
    DualAveraging,
    GaussianNoise,
    HMCPlan,
    LogJoint,
    Rung,
    anneal,
    find_path,
    sample,
    start_chains,
    trajectory,
)
from bbb.networks import MLP, BayesianNetwork, ModuleArchitecture, initial_network
from tests.tasks import seeded

NUM, NOISE_STD, PRIOR_STD = 6, 0.8, 1.5


class Line:
    """A line through six points under Gaussian noise: the posterior of slopes and offset is a known Gaussian."""

    def __init__(self, num_inputs=1):
        generator = seeded(4)
        self.x = torch.randn(NUM, num_inputs, generator=generator, dtype=torch.float64)
        self.y = torch.randn(NUM, generator=generator, dtype=torch.float64)
        dim = num_inputs + 1
        zero = torch.zeros((), dtype=torch.float64)
        prior = Gaussian(zero, zero + math.log(PRIOR_STD), dim).requires_grad_(False)
        architecture = MLP((num_inputs, 1))
        network = BayesianNetwork(architecture, gaussian_prior(dim, 1.0), Normalization(scale=1.0))
        self.target = LogJoint(network, GaussianNoise(1, NOISE_STD).double(), prior, Split(self.x, self.y))
        self.design = torch.cat([self.x, torch.ones_like(self.x[:, :1])], dim=1)
        self.covariance = torch.linalg.inv(
            self.design.T @ self.design / NOISE_STD**2 + torch.eye(dim).double() / PRIOR_STD**2
        )
        self.mean = self.covariance @ self.design.T @ self.y / NOISE_STD**2
        self.dim = dim

    @property
    def log_evidence(self):
        covariance = NOISE_STD**2 * torch.eye(NUM).double() + PRIOR_STD**2 * self.design @ self.design.T
        zero = torch.zeros(NUM, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(zero, covariance).log_prob(self.y).item()

    def from_prior(self, num, seed):
        return PRIOR_STD * torch.randn(num, self.dim, generator=seeded(seed), dtype=torch.float64)

    def from_posterior(self, num, seed):
        noise = torch.randn(num, self.dim, generator=seeded(seed), dtype=torch.float64)
        return self.mean + noise @ torch.linalg.cholesky(self.covariance).T


def assert_posterior(line, w):
    """Means and second moments of independent draws are those of the posterior, within five standard errors."""
    exact = line.covariance + torch.outer(line.mean, line.mean)
    products = w.unsqueeze(2) * w.unsqueeze(1)
    for values, expected in ((w, line.mean), (products, exact)):
        assert ((values.mean(0) - expected).abs() < 5 * values.std(0) / math.sqrt(len(w))).all()


def test_dual_averaging_is_that_of_the_publication():
    """Hoffman and Gelman 2014, algorithm 5, with gamma .05, t0 10 and kappa .75, written out."""
    adaptation = DualAveraging(0.1, 0.65)
    centre, gap, log_mean = math.log(1.0), 0.0, math.log(0.1)
    for m, share in enumerate([0.2, 0.9, 0.5, 1.0], start=1):
        adaptation.update(share)
        gap = (1 - 1 / (m + 10)) * gap + (0.65 - share) / (m + 10)
        log_step = centre - math.sqrt(m) / 0.05 * gap
        log_mean = m**-0.75 * log_step + (1 - m**-0.75) * log_mean
        assert adaptation.step == pytest.approx(math.exp(log_step))
        assert adaptation.averaged == pytest.approx(math.exp(log_mean))


def test_densities_and_their_slopes_are_those_in_closed_form():
    line, w = Line(2), torch.randn(5, 3, generator=seeded(1), dtype=torch.float64)
    found = line.target(w)
    residual = line.y - w @ line.design.T
    log_likelihood = -0.5 * (residual / NOISE_STD).square().sum(1) - NUM * math.log(NOISE_STD * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found.log_likelihood, log_likelihood)
    torch.testing.assert_close(found.likelihood_slope, residual @ line.design / NOISE_STD**2)
    torch.testing.assert_close(found.prior_slope, -w / PRIOR_STD**2)
    torch.testing.assert_close(found.log_prior, torch.distributions.Normal(0.0, PRIOR_STD).log_prob(w).sum(1))
    torch.testing.assert_close(found.log_density(0.3), found.log_prior + 0.3 * log_likelihood)
    torch.testing.assert_close(found.slope(0.3), found.prior_slope + 0.3 * found.likelihood_slope)


def test_classes_count_too():
    network = initial_network(MLP((3, 4, 2)), 0.1, seeded(1), normalization=Normalization(scale=1.0))
    data = Split(torch.randn(7, 3, generator=seeded(2)), torch.arange(7) % 2)
    target = LogJoint(network, Categorical(2), gaussian_prior(network.posterior.dim, 1.0), data)
    w = torch.randn(3, network.posterior.dim, generator=seeded(3))
    expected = target.outputs(w).log_softmax(-1)[:, torch.arange(7), data.labels].sum(1)
    torch.testing.assert_close(target(w).log_likelihood, expected)


@pytest.mark.parametrize(("step", "num_leapfrogs"), [(0.3, 3), (0.5, 2), (0.7, 1)])
def test_chains_keep_the_posterior_whatever_the_step(step, num_leapfrogs):
    """Four thousand chains that start in the posterior stay in it, even where many trajectories are rejected."""
    line, generator = Line(), seeded(2)
    chains, rejected = start_chains(line.target, line.from_posterior(4000, 1)), 0.0
    for _ in range(5):
        chains, probability = trajectory(line.target, chains, step, num_leapfrogs, generator)
        rejected += 1 - probability.mean().item()
    assert rejected > 0.05
    assert_posterior(line, chains.w)


def test_chains_find_the_posterior_from_the_prior():
    line, generator = Line(2), seeded(3)
    plan = HMCPlan(num_burn_in=40, num_draws=1, step=0.05)
    ((chains, _),) = sample(line.target, line.from_prior(4000, 5), plan, generator)
    assert_posterior(line, chains.w)


def test_densities_of_the_chains_are_those_at_their_weights():
    line, generator = Line(), seeded(4)
    chains, _ = trajectory(line.target, start_chains(line.target, line.from_prior(50, 1)), 0.6, 2, generator)
    fresh = line.target(chains.w)
    for name in ("log_likelihood", "log_prior", "likelihood_slope", "prior_slope"):
        torch.testing.assert_close(getattr(chains.densities, name), getattr(fresh, name))


def test_a_trajectory_that_explodes_is_rejected():
    line = Line()
    start = start_chains(line.target, line.from_prior(10, 1))
    chains, probability = trajectory(line.target, start, 1e200, 3, seeded(1))
    assert torch.equal(chains.w, start.w)
    assert probability.max() == 0.0


def test_the_step_is_adapted_until_the_wanted_share_is_accepted():
    line = Line()
    for first in (1e-3, 3.0):
        plan = HMCPlan(num_burn_in=200, num_draws=100, step=first, acceptance=0.8)
        accepted = [share for _, share in sample(line.target, line.from_prior(200, 1), plan, seeded(1))]
        assert sum(accepted) / len(accepted) == pytest.approx(0.8, abs=0.08)


RUNGS = [Rung(power, 0.4) for power in (0.0, 0.01, 0.1, 0.4, 1.0)]
FINE = [Rung((i / 60) ** 3, 0.4) for i in range(61)]


def test_the_mean_weight_of_annealed_particles_is_the_evidence():
    line = Line()
    log_weights, _ = anneal(line.target, line.from_prior(20_000, 2), RUNGS, seeded(3), num_leapfrogs=2)
    ratio = (log_weights - line.log_evidence).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(len(ratio))
    assert ratio.std() / math.sqrt(len(ratio)) < 0.03
    assert log_weights.mean() < line.log_evidence


def test_the_mean_weight_on_the_way_back_is_one_over_the_evidence():
    line = Line()
    log_weights, particles = anneal(line.target, line.from_posterior(20_000, 2), FINE[::-1], seeded(3), 2)
    ratio = (log_weights + line.log_evidence).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / math.sqrt(len(ratio))
    assert ratio.std() / math.sqrt(len(ratio)) < 0.03
    assert -log_weights.mean() > line.log_evidence
    assert (particles.w.std(0) / PRIOR_STD - 1).abs().max() < 0.05  # they end in the prior


def test_a_path_leads_from_the_prior_to_the_posterior_by_even_steps():
    line, counted = Line(), []
    path = find_path(line.target, line.from_prior(500, 1), seeded(2), spread=0.3, on_step=lambda: counted.append(1))
    powers = [rung.power for rung in path]
    assert powers[0] == 0.0
    assert powers[-1] == 1.0
    assert powers == sorted(set(powers))
    assert len(counted) == len(path) - 1
    log_weights, _ = anneal(line.target, line.from_prior(500, 3), path[:2], seeded(2))
    assert log_weights.std().item() == pytest.approx(0.3, rel=0.3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_it_agrees_with_the_sampler_of_pyro():
    """Mean and standard deviation of a small network's function, beside NUTS, within five standard errors of both."""
    from arviz_stats.base.array import array_stats
    from pyro.infer import MCMC, NUTS

    x = torch.tensor([[-1.0], [-0.8], [0.6], [0.9]], dtype=torch.float64)
    y = torch.tensor([0.3, -0.5, 0.8, 0.2], dtype=torch.float64)
    module = nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))
    network = initial_network(
        ModuleArchitecture(module, (1,), 1), 0.1, seeded(1), normalization=Normalization(scale=1.0)
    )
    prior = gaussian_prior(10, 1.0).double()
    target = LogJoint(network, GaussianNoise(1, 0.5).double(), prior, Split(x, y))
    grid = torch.linspace(-1.5, 1.5, 5, dtype=torch.float64).unsqueeze(1)

    def potential(weights):
        w = weights["w"].unsqueeze(0)
        return -(target.log_likelihood(w) + prior.log_prob(w)).squeeze(0)

    torch.manual_seed(1)
    nuts = MCMC(
        NUTS(potential_fn=potential), 1500, 300, initial_params={"w": torch.zeros(10).double()}, disable_progbar=True
    )
    nuts.run()
    theirs = target.outputs(nuts.get_samples()["w"], grid)[..., 0].unsqueeze(0)
    plan = HMCPlan(num_burn_in=100, num_draws=300, length=2.0)
    start = torch.randn(16, 10, generator=seeded(5), dtype=torch.float64)
    ours = torch.stack([target.outputs(c.w, grid)[..., 0] for c, _ in sample(target, start, plan, seeded(6))], dim=1)
    for power in (1, 2):
        moments, variances = [], []
        for values in (theirs.detach() ** power, ours**power):
            num = array_stats.ess(values.numpy(), chain_axis=0, draw_axis=1)
            moments.append(values.mean((0, 1)))
            variances.append(values.flatten(0, 1).var(0) / torch.tensor(num))
        assert ((moments[0] - moments[1]).abs() < 5 * (variances[0] + variances[1]).sqrt()).all()
