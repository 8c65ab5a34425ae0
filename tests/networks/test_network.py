import itertools
import math

import pytest
import torch
from torch import nn

from bbb.network import FLOWS, BayesianMLP, local_mlp, mlp, num_flow_parameters, num_weights, unflatten
from bbb.weights import Gaussian

SIZES = (5, 4, 6, 3)


def sequential(layers, s):
    modules = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[2], weight.shape[1], dtype=weight.dtype)
        linear.weight.data, linear.bias.data = weight[s], bias[s]
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


@pytest.mark.parametrize("num_samples", [1, 3])
def test_equals_sequential_under_the_same_weights(num_samples, generator):
    layers = unflatten(torch.randn(num_samples, num_weights(SIZES), generator=generator).double(), SIZES)
    x = torch.randn(7, 5, generator=generator).double()
    logits = mlp(layers, x)
    assert logits.shape == (num_samples, 7, 3)
    for s in range(num_samples):
        torch.testing.assert_close(logits[s], sequential(layers, s)(x))


def test_draws_give_different_logits(generator):
    network = BayesianMLP.initial(SIZES, 0.1, generator)
    logits = mlp(network.layers(network.posterior.rsample(4, generator)[0]), torch.ones(2, 5))
    assert all(not torch.allclose(logits[i], logits[j]) for i, j in itertools.combinations(range(4), 2))


def test_layers_are_views_that_cover_every_weight_once():
    w = torch.arange(num_weights(SIZES)).unsqueeze(0)
    layers = unflatten(w, SIZES)
    assert [tuple(weight.shape) for weight, _ in layers] == [(1, 4, 5), (1, 6, 4), (1, 3, 6)]
    flat = torch.cat([part.flatten() for layer in layers for part in layer])
    assert torch.equal(flat, w[0])
    assert all(
        part.untyped_storage().data_ptr() == w.untyped_storage().data_ptr() for layer in layers for part in layer
    )


def test_gradient_reaches_weights_through_the_views(generator):
    w = torch.randn(2, num_weights(SIZES), generator=generator, requires_grad=True)
    mlp(unflatten(w, SIZES), torch.ones(3, 5)).sum().backward()
    assert w.grad.abs().sum(1).min() > 0


def test_local_reparameterisation_has_the_moments_of_weight_sampling(generator):
    """One layer, where both are exact: equal means and variances within five standard errors."""
    sizes = (6, 2)
    q = Gaussian(torch.randn(num_weights(sizes), generator=generator), torch.full((num_weights(sizes),), -1.0))
    network = BayesianMLP(sizes, q)
    x, num = torch.randn(3, 6, generator=generator), 40_000
    with torch.no_grad():
        by_weights = mlp(network.layers(q.rsample(num, generator)[0]), x)
        by_activations = local_mlp(network.mean_layers(), network.layers(q.log_std.unsqueeze(0)), x, num, generator)
    standard_error = by_weights.std(0) / math.sqrt(num)
    assert ((by_weights.mean(0) - by_activations.mean(0)).abs() < 5 * math.sqrt(2) * standard_error).all()
    # a Gaussian's log variance is estimated with standard error sqrt(2 / n)
    log_ratio = (by_weights.var(0) / by_activations.var(0)).log().abs()
    assert (log_ratio < 5 * math.sqrt(4 / num)).all()


def test_local_reparameterisation_draws_for_each_example_on_its_own(generator):
    network = BayesianMLP.initial((4, 3, 2), 0.5, generator)
    x = torch.ones(2, 4)
    logits = local_mlp(network.mean_layers(), network.layers(network.posterior.log_std.unsqueeze(0)), x, 3, generator)
    assert logits.shape == (3, 2, 2)
    assert not torch.allclose(logits[:, 0], logits[:, 1])


def test_start_is_reproducible_and_scaled_for_relu(generator):
    network = BayesianMLP.initial((400, 300, 10), 0.02, generator)
    again = BayesianMLP.initial((400, 300, 10), 0.02, torch.Generator().manual_seed(0))
    assert torch.equal(network.posterior.mean, again.posterior.mean)
    (weight, bias), _ = network.mean_layers()
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert bias.abs().max() == 0
    torch.testing.assert_close(network.posterior.log_std.exp(), torch.full_like(network.posterior.mean, 0.02))


@pytest.mark.parametrize("flow", ["planar", "matrix_planar"])
def test_flows_start_where_the_gaussian_posterior_does(flow):
    """The same seed gives the same means, draws and densities with flows as without, until they are trained."""
    plain, flowed = (
        BayesianMLP.initial((30, 20, 5), 0.02, torch.Generator().manual_seed(1), num_flows, flow)
        for num_flows in (0, 16)
    )
    draws = [network.posterior.rsample(3, torch.Generator().manual_seed(2)) for network in (plain, flowed)]
    torch.testing.assert_close(draws[0][0], draws[1][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(draws[0][1], draws[1][1], rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(plain.mean_layers(), flowed.mean_layers(), rtol=0, atol=1e-5)


def test_an_unknown_flow_is_refused(generator):
    with pytest.raises(ValueError, match="flow=radial: must be one of planar, matrix_planar"):
        BayesianMLP.initial((3, 2), 0.1, generator, 4, "radial")


def test_a_posterior_of_another_size_is_refused():
    with pytest.raises(ValueError, match="12 weights, the posterior has 5"):
        BayesianMLP((3, 3), Gaussian(torch.zeros(5), torch.zeros(5)))


@pytest.mark.parametrize("flow", FLOWS)
def test_the_parameters_of_flows_are_counted(generator, flow):
    network = BayesianMLP.initial((12, 8, 3), 0.05, generator, 5, flow)
    there = sum(parameter.numel() for parameter in network.posterior.flows.parameters())
    assert there == 5 * num_flow_parameters((12, 8, 3), flow)
