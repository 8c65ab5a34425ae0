"""The contract of Architecture: every member keeps it.

A new member is one more line of MEMBERS: the architecture, the same network made of PyTorch's modules, and its words.
"""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bbb.distributions import Gaussian, NoiseTable, Stacked
from bbb.networks import (
    MLP,
    BayesianNetwork,
    forward_drawn,
    forward_local,
    initial_network,
    layer_dims,
    num_weights,
    unflatten,
)
from tests.tasks import seeded

L, R = nn.Linear, nn.ReLU
MEMBERS = {
    "MLP": (MLP((5, 4, 6, 3)), nn.Sequential(L(5, 4), R(), L(4, 6), R(), L(6, 3)), "5-4-6-3 units"),
    "MLP of two layers": (MLP((4, 8, 2)), nn.Sequential(L(4, 8), R(), L(8, 2)), "4-8-2 units"),
    "MLP of one layer": (MLP((6, 2)), nn.Sequential(L(6, 2)), "6-2 units"),
}
ARCHITECTURES = {name: architecture for name, (architecture, _, _) in MEMBERS.items()}
NUM_EXAMPLES = 7
NO_NOISE = -50.0  # the logarithm of a standard deviation that float64 loses beside any weight
members = pytest.mark.parametrize("member", MEMBERS)
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)


def inputs(architecture, *leading, seed=1):
    return torch.randn(*leading, NUM_EXAMPLES, architecture.num_inputs, generator=seeded(seed), dtype=torch.float64)


def drawn_weights(architecture, *draws, seed=2):
    """Flat weights ``(S, D)``, or ``(S, R, D)``, about as large as those of a network at its start."""
    return 0.7 * torch.randn(*draws, num_weights(architecture.shapes), generator=seeded(seed), dtype=torch.float64)


def gaussian(architecture, seed=2, log_std=-1.0):
    """A posterior whose weights are all noisy, unless told otherwise."""
    mean = drawn_weights(architecture, seed=seed)
    return Gaussian(mean, torch.full_like(mean, log_std))


def local(architecture, q, x, num_samples, noise):
    network = BayesianNetwork(architecture, q)
    return forward_local(
        architecture, network.centre_layers(), network.layers(q.log_std.unsqueeze(0)), x, num_samples, noise
    )


def layers_of(modules):
    return [module for module in modules if hasattr(module, "weight")]


def reference(modules, layers, s):
    """PyTorch's network with the weights of draw s."""
    modules = copy.deepcopy(modules).double()
    for module, (kernel, bias) in zip(layers_of(modules), layers, strict=True):
        module.weight.data, module.bias.data = kernel[s], bias[s]
    return modules


@members
def test_shapes_and_sizes_and_words_agree(member):
    architecture, modules, words = MEMBERS[member]
    assert [*architecture.shapes] == [tuple(module.weight.shape) for module in layers_of(modules)]
    assert [shape[0] for shape in architecture.shapes] == [len(module.bias) for module in layers_of(modules)]
    assert num_weights(architecture.shapes) == sum(parameter.numel() for parameter in modules.parameters())
    x = inputs(architecture)
    assert copy.deepcopy(modules).double()(x).shape == (NUM_EXAMPLES, architecture.num_outputs)
    assert architecture.num_outputs == architecture.shapes[-1][0]
    assert str(architecture) == words


@members
@pytest.mark.parametrize("num_samples", [1, 3])
def test_equals_sequential_under_the_same_weights_and_so_do_the_gradients(member, num_samples):
    architecture, modules, _ = MEMBERS[member]
    w, x = drawn_weights(architecture, num_samples).requires_grad_(), inputs(architecture)
    layers = unflatten(w, architecture.shapes)
    outputs = forward_drawn(architecture, layers, x)
    assert outputs.shape == (num_samples, NUM_EXAMPLES, architecture.num_outputs)
    (outputs.sin() * outputs).sum().backward()
    for s, gradient in enumerate(w.grad):
        network = reference(modules, unflatten(w.detach(), architecture.shapes), s)
        expected = network(x)
        torch.testing.assert_close(outputs[s], expected)
        (expected.sin() * expected).sum().backward()
        torch.testing.assert_close(gradient, torch.cat([each.grad.flatten() for each in network.parameters()]))


@architectures
def test_draws_give_different_outputs(architecture):
    network = initial_network(architecture, 0.1, seeded(1))
    w, _ = network.posterior.rsample_and_log_prob(4, seeded(2))
    outputs = forward_drawn(architecture, network.layers(w), inputs(architecture).float())
    assert all(not torch.allclose(outputs[i], outputs[j]) for i, j in itertools.combinations(range(4), 2))


@architectures
@pytest.mark.parametrize("replicas", [(), (2,)], ids=["one", "replicas"])
def test_draws_one_at_a_time_equal_draws_at_once(architecture, replicas):
    w, x = drawn_weights(architecture, 4, *replicas), inputs(architecture, *replicas)
    at_once = forward_drawn(architecture, unflatten(w, architecture.shapes), x)
    apart = [forward_drawn(architecture, unflatten(draw, architecture.shapes), x) for draw in w.split(1)]
    torch.testing.assert_close(at_once, torch.cat(apart))


@architectures
@pytest.mark.parametrize("num_samples", [1, 3])
def test_each_replica_gives_what_it_gives_alone(architecture, num_samples):
    w, x = drawn_weights(architecture, num_samples, 2), inputs(architecture, 2)
    both = forward_drawn(architecture, unflatten(w, architecture.shapes), x)
    assert both.shape == (num_samples, 2, NUM_EXAMPLES, architecture.num_outputs)
    for r in range(2):
        alone = forward_drawn(architecture, unflatten(w[:, r], architecture.shapes), x[r])
        torch.testing.assert_close(both[:, r], alone)


@architectures
def test_gradient_reaches_the_weights_of_every_draw_and_layer(architecture):
    w = drawn_weights(architecture, 2).requires_grad_()
    forward_drawn(architecture, unflatten(w, architecture.shapes), inputs(architecture)).sum().backward()
    assert w.grad.abs().sum(1).min() > 0
    for layer in w.grad.split(layer_dims(architecture.shapes), dim=1):
        assert layer.abs().sum(1).min() > 0


@architectures
def test_local_reparameterisation_has_the_moments_of_weight_sampling(architecture):
    """With noise on the weights of the head alone, where both are exact: equal means and variances within five SE."""
    num_head = layer_dims(architecture.shapes)[-1]
    q = gaussian(architecture, log_std=NO_NOISE)
    with torch.no_grad():
        q.log_std[-num_head:] = torch.linspace(-2.0, 0.0, num_head)
    x, num = inputs(architecture), 40_000
    with torch.no_grad():
        w, _ = q.rsample_and_log_prob(num, seeded(3))
        by_weights = forward_drawn(architecture, unflatten(w, architecture.shapes), x)
        by_activations = local(architecture, q, x, num, seeded(4))
    standard_error = by_weights.std(0) / math.sqrt(num)
    assert ((by_weights.mean(0) - by_activations.mean(0)).abs() < 5 * math.sqrt(2) * standard_error).all()
    # a Gaussian's log variance is estimated with standard error sqrt(2 / n)
    log_ratio = (by_weights.var(0) / by_activations.var(0)).log().abs()
    assert (log_ratio < 5 * math.sqrt(4 / num)).all()


@architectures
def test_local_reparameterisation_without_noise_gives_the_outputs_of_the_mean(architecture):
    q, x = gaussian(architecture, log_std=NO_NOISE), inputs(architecture)
    layers = BayesianNetwork(architecture, q).centre_layers()
    outputs = local(architecture, q, x, 3, seeded(3))
    torch.testing.assert_close(outputs, forward_drawn(architecture, layers, x).expand_as(outputs))


@architectures
def test_local_reparameterisation_draws_for_each_example_on_its_own(architecture):
    x = inputs(architecture)[:1].expand(2, -1)
    outputs = local(architecture, gaussian(architecture), x, 3, seeded(3))
    assert outputs.shape == (3, 2, architecture.num_outputs)
    assert not torch.allclose(outputs[:, 0], outputs[:, 1])
    assert all(not torch.allclose(outputs[i], outputs[j]) for i, j in itertools.combinations(range(3), 2))


@architectures
@pytest.mark.parametrize("num_samples", [1, 3])
def test_each_replica_gives_what_it_gives_alone_with_noise_on_its_activations(architecture, num_samples):
    alone, x = [gaussian(architecture, seed) for seed in (5, 6)], inputs(architecture, 2)

    def tables():
        found = [NoiseTable(seeded(seed), 4, 10_000) for seed in (7, 8)]
        for table in found:
            table.begin_step()
        return found

    both = local(architecture, Gaussian.stacked(alone), x, num_samples, Stacked(tables()))
    assert both.shape == (num_samples, 2, NUM_EXAMPLES, architecture.num_outputs)
    for r, table in enumerate(tables()):
        torch.testing.assert_close(both[:, r], local(architecture, alone[r], x[r], num_samples, table))


def applying(layers, calls=None):
    """Layers under one draw of the weights, which note the calls that they get."""

    def apply(i, h):
        if calls is not None:
            calls.append(i)
        kernel, bias = layers[i]
        return F.linear(h, kernel[0].flatten(1), bias[0])

    return apply


@architectures
def test_every_layer_is_applied_once_and_in_order(architecture):
    layers, calls = unflatten(drawn_weights(architecture, 1), architecture.shapes), []
    architecture.forward(applying(layers, calls), inputs(architecture))
    assert calls == [*range(len(architecture.shapes))]


@architectures
def test_leading_axes_are_left_alone(architecture):
    apply = applying(unflatten(drawn_weights(architecture, 1), architecture.shapes))
    x = inputs(architecture, 2, 3)
    outputs = architecture.forward(apply, x.clone())
    assert outputs.shape == (2, 3, NUM_EXAMPLES, architecture.num_outputs)
    for i, j in itertools.product(range(2), range(3)):
        torch.testing.assert_close(outputs[i, j], architecture.forward(apply, x[i, j]))


@architectures
def test_inputs_and_weights_are_not_written_to(architecture):
    w, x, q = drawn_weights(architecture, 2), inputs(architecture), gaussian(architecture)
    before = [value.clone() for value in (w, x, q.mean, q.log_std)]
    forward_drawn(architecture, unflatten(w, architecture.shapes), x)
    forward_drawn(architecture, unflatten(w[:1], architecture.shapes), x)
    local(architecture, q, x, 2, seeded(3))
    assert all(torch.equal(old, new) for old, new in zip(before, (w, x, q.mean, q.log_std), strict=True))


@architectures
def test_equal_architectures_are_equal(architecture):
    assert copy.deepcopy(architecture) == architecture
    assert [other for other in ARCHITECTURES.values() if other == architecture] == [architecture]
