"""Laws of the curvature at a point, and of the Laplace approximation that it makes."""

import math

import pytest
import torch
from torch import nn

from bbb.data import Normalization, Split
from bbb.distributions import Laplace, gaussian_prior, scale_mixture_prior
from bbb.inference import Categorical, GaussianNoise, fisher_diagonal, measure_curvature
from bbb.networks import MLP, BayesianNetwork, ModuleArchitecture, forward_drawn, initial_network, lenet
from tests.tasks import Twice, network, seeded, split

IMAGES = Split(torch.randn(5, 256, generator=seeded(1), dtype=torch.float64), torch.arange(5) % 3, (1, 16, 16))


def own():
    return nn.Sequential(nn.Conv2d(1, 2, 3, stride=3, bias=False), nn.Flatten(2), nn.Linear(25, 4), nn.Flatten())


NETWORKS = {
    "dense": lambda: MLP((256, 6, 3)),
    "convolutions": lambda: lenet((1, 16, 16), 3),
    "a dense layer on several vectors": lambda: ModuleArchitecture(
        nn.Sequential(own(), nn.ReLU(), nn.Linear(8, 3)), (1, 16, 16), 3
    ),
    "a layer that runs twice": lambda: ModuleArchitecture(
        nn.Sequential(nn.Flatten(), nn.Linear(256, 4), Twice()), (1, 16, 16), 2
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_the_sum_of_squared_gradients_of_single_examples(name):
    """At labels that the network draws itself, from the same source."""
    architecture = NETWORKS[name]()
    net = initial_network(architecture, 0.1, seeded(2), normalization=Normalization(scale=1.0)).double()
    likelihood = Categorical(3)
    found = fisher_diagonal(net, likelihood, IMAGES, seeded(3))
    w = net.posterior.centre.detach().clone().requires_grad_()
    outputs = forward_drawn(architecture, net.layers(w.unsqueeze(0)), IMAGES.images)
    labels = likelihood.sample(outputs[0].detach(), seeded(3))
    expected = torch.zeros_like(w)
    for i in range(len(IMAGES)):
        nll = likelihood.nll(outputs[:, i : i + 1], labels[i : i + 1]).sum()
        expected += torch.autograd.grad(nll, w, retain_graph=True)[0].square()
    torch.testing.assert_close(found, expected)


def test_it_is_the_expected_hessian():
    """Of logistic regression, where the Hessian does not depend on the labels; within the noise of the labels."""
    net = initial_network(MLP((4, 2)), 0.1, seeded(2), normalization=Normalization(scale=1.0)).double()
    x = torch.randn(40, 4, generator=seeded(1), dtype=torch.float64)
    data = Split(x, torch.zeros(40, dtype=torch.int64))
    generator = seeded(3)
    draws = torch.stack([fisher_diagonal(net, Categorical(2), data, generator) for _ in range(400)])

    def nll(w):
        outputs = forward_drawn(net.architecture, net.layers(w.unsqueeze(0)), x)
        return Categorical(2).nll(outputs, data.labels).sum()

    exact = torch.autograd.functional.hessian(nll, net.posterior.centre.detach()).diagonal()
    assert ((draws.mean(0) - exact).abs() < 5 * draws.std(0) / math.sqrt(400)).all()


def test_labels_are_drawn_from_the_likelihood():
    outputs = torch.tensor([[0.0, 2.0, -1.0]], dtype=torch.float64).expand(20_000, 3)
    counts = Categorical(3).sample(outputs, seeded(1)).bincount() / 20_000
    p = outputs[0].softmax(0)
    assert ((counts - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt()).all()
    noisy = GaussianNoise(3, 0.5).double().sample(outputs, seeded(1)) - outputs
    assert noisy.mean().abs() < 5 * 0.5 / math.sqrt(60_000)
    assert noisy.std() == pytest.approx(0.5, rel=0.02)


def test_the_precision_is_that_of_the_prior_and_of_the_data():
    net, data = network(1), split()
    point = net.with_posterior(Laplace(net.posterior.centre.detach().clone()))
    assert not point.posterior.makes_a_prior
    prior = gaussian_prior(point.posterior.dim, 0.5)
    measure_curvature(point, Categorical(3), prior, data, seeded(1))
    fisher = fisher_diagonal(point, Categorical(3), data, seeded(1))
    assert (fisher > 0).any()
    torch.testing.assert_close(point.posterior.precision, fisher + 4.0)
    mixture = scale_mixture_prior(point.posterior.dim, 0.5, 1.0, 0.1)
    for other, p in ((point, mixture), (net, prior)):
        with pytest.raises(ValueError, match="must be a Laplace approximation under a Gaussian"):
            measure_curvature(other, Categorical(3), p, data, seeded(1))


def test_the_posterior_of_one_task_is_the_prior_of_the_next_in_elastic_weight_consolidation():
    """With one weight a feature and a known noise, the penalties of two tasks add up to the exact posterior."""
    noise_std, prior_std, num = 0.7, 1.3, 4000
    x = torch.eye(3, dtype=torch.float64).repeat(num, 1)
    data = Split(x, torch.zeros(len(x), dtype=torch.float64))
    architecture = ModuleArchitecture(nn.Linear(3, 1, bias=False), (3,), 1)
    prior = gaussian_prior(3, prior_std).double()
    for _ in range(2):
        net = BayesianNetwork(architecture, Laplace(torch.zeros(3).double()), Normalization(scale=1.0))
        measure_curvature(net, GaussianNoise(1, noise_std).double(), prior, data, seeded(4))
        prior = net.posterior.widened()
    exact = prior_std**-2 + 2 * num / noise_std**2
    torch.testing.assert_close(torch.exp(-2 * prior.log_std), torch.full((3,), exact).double(), rtol=0.1, atol=0.0)
