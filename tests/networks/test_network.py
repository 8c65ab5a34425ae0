import math

import pytest
import torch
from torch import nn

from bbb.distributions import Gaussian
from bbb.networks import MLP, BayesianNetwork, ModuleArchitecture, initial_network, num_hidden_weights, num_weights
from tests.tasks import TOY, network, random_gaussian, seeded


def test_start_is_reproducible_and_scaled_for_relu():
    mlp = MLP((400, 300, 10))
    first, again = (initial_network(mlp, 0.02, seeded(0)) for _ in range(2))
    assert torch.equal(first.posterior.mean, again.posterior.mean)
    (weight, bias), _ = first.centre_layers()
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert bias.abs().max() == 0
    torch.testing.assert_close(first.posterior.log_std.exp(), torch.full_like(first.posterior.mean, 0.02))


@pytest.mark.parametrize("flow", ["planar", "matrix_planar"])
def test_flows_start_where_the_gaussian_posterior_does(flow):
    """The same seed gives the same means, draws and densities with flows as without, until they are trained."""
    plain, flowed = (initial_network(MLP((30, 20, 5)), 0.02, seeded(1), num_flows, flow) for num_flows in (0, 16))
    draws = [network.posterior.rsample_and_log_prob(3, seeded(2)) for network in (plain, flowed)]
    torch.testing.assert_close(draws[0][0], draws[1][0], rtol=0, atol=1e-5)
    torch.testing.assert_close(draws[0][1], draws[1][1], rtol=1e-6, atol=1e-3)
    torch.testing.assert_close(plain.centre_layers(), flowed.centre_layers(), rtol=0, atol=1e-5)


def test_an_unknown_flow_is_refused():
    with pytest.raises(ValueError, match="flow=radial: must be one of planar, matrix_planar"):
        initial_network(MLP((3, 2)), 0.1, seeded(), 4, "radial")


def test_a_posterior_of_another_size_is_refused():
    with pytest.raises(ValueError, match="posterior: has 5 weights, the network of 3-3 units has 12"):
        BayesianNetwork(MLP((3, 3)), Gaussian(torch.zeros(5), torch.zeros(5)))


@pytest.mark.parametrize(("num_flows", "flow"), [(0, "planar"), (3, "planar"), (3, "matrix_planar")])
def test_the_head_is_the_last_layer(num_flows, flow):
    whole = network(1, num_flows, flow)
    assert num_hidden_weights(TOY) == 8 * 12 + 8
    hidden, head = whole.split_head()
    assert (hidden.dim, head.dim) == (8 * 12 + 8, 3 * 8 + 3)
    torch.testing.assert_close(torch.cat([hidden.centre, head.centre]), whole.posterior.centre)


def test_replicas_are_the_networks_that_were_stacked():
    parts = [network(seed) for seed in (1, 2, 3)]
    whole = BayesianNetwork.stacked(parts)
    assert (whole.num_replicas, parts[0].num_replicas) == (3, None)
    for part, replica in zip(parts, whole.replicas(), strict=True):
        assert replica.architecture == part.architecture
        torch.testing.assert_close(replica.posterior.state_dict(), part.posterior.state_dict(), rtol=0, atol=0)
    assert parts[0].replicas() == [parts[0]]


def test_networks_with_flows_are_not_stacked():
    with pytest.raises(ValueError, match="replicas must have Gaussian posteriors, without flows"):
        BayesianNetwork.stacked([network(1), network(2, 3)])


def test_replicas_would_share_deterministic_layers_and_are_refused():
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    parts = [
        initial_network(ModuleArchitecture(module, (4,), 2, deterministic=["0"]), 0.1, seeded(seed)) for seed in (1, 2)
    ]
    with pytest.raises(ValueError, match="replicas would share the layers that are not Bayesian"):
        BayesianNetwork.stacked(parts)


def test_the_network_holds_its_posterior_and_nothing_else():
    q = random_gaussian(1, num_weights(TOY.layers))
    assert [*BayesianNetwork(TOY, q).parameters()] == [*q.parameters()]
