"""Laws of local reparameterisation by hand: it is what autograd makes of the formulas as they are written down."""

import contextlib

import pytest
import torch

from bbb.distributions import ARD, Gaussian, NoiseTable, gaussian_prior, kl_divergence, scale_mixture_prior
from bbb.inference import Categorical
from bbb.inference.local_gradient import LocalGradient
from bbb.networks import (
    MLP,
    BayesianNetwork,
    Convolution,
    ModuleArchitecture,
    num_activations,
    num_local_noise,
    num_weights,
)
from tests.tasks import Twice, seeded

NUM_EXAMPLES, KL_WEIGHT = 5, 0.03


def convolutions(padding):
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=padding, groups=2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 2, 2, bias=False),
        torch.nn.Flatten(),
        torch.nn.Linear(2 * 3 * 3, 3),
    )


ARCHITECTURES = {
    "MLP": MLP((6, 5, 4, 3)),
    "run twice": ModuleArchitecture(Twice(), (4,), 2),
    "convolutions": ModuleArchitecture(convolutions(1), (2, 4, 4), 3),
    "padding in words": ModuleArchitecture(convolutions("same"), (2, 4, 4), 3),
}


def double(*shape, seed):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def gaussian(*shape, seed):
    return Gaussian(0.5 * double(*shape, seed=seed), 0.3 * double(*shape, seed=seed + 1) - 1.0)


def priors(dim):
    shifted = gaussian_prior(dim, 0.7).double()
    shifted.mean.add_(0.2)
    return {
        "isotropic": gaussian_prior(dim, 0.7).double(),
        "isotropic, not centred": shifted,
        "posterior": gaussian(dim, seed=50).frozen(),
        "ARD": ARD(dim, 0.5).double(),
        "mixture": scale_mixture_prior(dim, 0.5, 1.0, 0.1).double(),
    }


def as_written_down(network, prior, x, num_samples, noise, with_kl):
    """Outputs and KL by autograd alone."""
    q, layers = network.posterior, network.architecture.layers
    mean, variance = network.layers(q.mean.unsqueeze(0)), network.layers((2.0 * q.log_std).exp().unsqueeze(0))
    num_replica_axes = q.mean.ndim - 1

    def first(weights):
        return [None if value is None else value.squeeze(0) for value in weights]

    def epsilon(*shape):
        return torch.empty(num_samples, *shape, dtype=torch.float64).normal_(generator=noise)

    def drawn(i):
        """Weights ``(S, [R], ...)`` of a layer."""
        pairs = zip(first(mean[i]), first(variance[i]), strict=True)
        return [None if m is None else m + v.sqrt() * epsilon(*m.shape) for m, v in pairs]

    def apply(i, h):
        own_axes = layers[i].num_axes + 1 + num_replica_axes
        if isinstance(layers[i], Convolution):
            h = h.expand(num_samples, *h.shape[h.ndim - own_axes :])
            kernels, biases = drawn(i)
            draws = zip(h, kernels, biases if biases is not None else [None] * num_samples, strict=True)
            return torch.stack([layers[i].apply(*draw) for draw in draws])
        centre = layers[i].apply(h, *first(mean[i]))
        std = layers[i].apply(h * h, *first(variance[i])).sqrt()
        return centre + std * epsilon(*centre.shape[centre.ndim - own_axes :])

    outputs = network.architecture.forward(apply, network.architecture.expand(x, num_samples))
    kl = kl_divergence(q, prior, noise=noise) if with_kl else torch.zeros(q.shape[:-1], dtype=torch.float64)
    return outputs, kl


@pytest.mark.parametrize("with_kl", [True, False], ids=["KL", "no KL"])
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("replicas", [(), (2,)], ids=["one", "replicas"])
@pytest.mark.parametrize("prior", priors(1))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outputs_and_gradients_are_those_of_autograd(name, prior, replicas, num_samples, with_kl):
    architecture = ARCHITECTURES[name]
    dim = num_weights(architecture.layers)
    network, p = BayesianNetwork(architecture, gaussian(*replicas, dim, seed=1)), priors(dim)[prior]
    parameters = [*network.posterior.parameters()]
    by_hand = LocalGradient(network, Categorical(2), p, num_samples)
    for seed in (10, 11):  # the second minibatch finds the first one's gradients
        x = double(*replicas, NUM_EXAMPLES, architecture.num_inputs, seed=seed)
        outputs, kl = as_written_down(network, p, x, num_samples, seeded(seed), with_kl)
        cost = (outputs * outputs.sin()).sum() + (KL_WEIGHT * kl).sum()
        expected = torch.autograd.grad(cost, parameters)
        (found, backward), found_kl = by_hand.forward(x, seeded(seed), with_kl)
        for parameter in parameters:
            parameter.grad = None
        backward(found.sin() + found * found.cos())
        if found_kl.requires_grad:
            (KL_WEIGHT * found_kl).sum().backward()
        weight = (
            torch.tensor(KL_WEIGHT, dtype=torch.float64) if seed == 10 else KL_WEIGHT
        )  # in a graph of a GPU it is a tensor
        by_hand.store(weight if with_kl else 0.0)
        torch.testing.assert_close(found, outputs, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found_kl, kl, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close([q.grad for q in parameters], [*expected], rtol=1e-9, atol=1e-11)


def test_layers_that_do_not_run_have_the_gradient_of_the_kl_alone():
    class Lazy(MLP):
        def forward(self, apply, x):
            return apply(1, x)

    architecture = Lazy((3, 3, 3))
    network = BayesianNetwork(architecture, gaussian(num_weights(architecture.layers), seed=1))
    by_hand = LocalGradient(network, Categorical(3), gaussian_prior(network.posterior.dim, 0.7).double(), 1)
    (outputs, backward), _ = by_hand.forward(double(4, 3, seed=2), seeded(3), False)
    backward(torch.ones_like(outputs))
    by_hand.store(0.0)
    kernel, bias = network.layers(network.posterior.mean.grad.unsqueeze(0))[0]
    assert (kernel == 0).all()
    assert (bias == 0).all()


@pytest.mark.parametrize(("name", "num"), [("MLP", 5 + 4 + 3), ("run twice", 4 + 4 + 2), ("convolutions", 64 + 18 + 3)])
def test_activations_are_counted_as_often_as_layers_run(name, num):
    assert num_activations(ARCHITECTURES[name]) == num


@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_noise_is_counted_as_it_is_drawn(name, num_samples):
    architecture = ARCHITECTURES[name]
    dim = num_weights(architecture.layers)
    network = BayesianNetwork(architecture, Gaussian(torch.zeros(dim), torch.zeros(dim)))
    num = num_samples * num_local_noise(architecture, NUM_EXAMPLES)
    by_hand = LocalGradient(network, Categorical(2), gaussian_prior(dim, 0.7), num_samples)
    for window, is_enough in [(num, True), (num - 1, False)]:
        table = NoiseTable(seeded(1), 2, window)
        table.begin_step()
        with contextlib.nullcontext() if is_enough else pytest.raises(ValueError, match="a step reads more than"):
            by_hand.forward(torch.zeros(NUM_EXAMPLES, architecture.num_inputs), table, False)
