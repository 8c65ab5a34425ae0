"""The contract of Architecture: every member keeps it.

A new member is one more line of MEMBERS: the architecture, the same network made of PyTorch's modules, and its words.
"""

import copy
import itertools
import math
from collections import OrderedDict

import pytest
import torch
from torch import nn

from bbb.distributions import Gaussian, NoiseTable, Stacked
from bbb.networks import (
    MLP,
    BayesianNetwork,
    Dense,
    ModuleArchitecture,
    forward_drawn,
    forward_local,
    initial_network,
    layer_dims,
    lenet,
    num_weights,
    unflatten,
)
from tests.tasks import seeded

L, R = nn.Linear, nn.ReLU


class Skip(nn.Module):
    """Free forward code with a skip connection; the layers are not called in the order in which they were made."""

    def __init__(self):
        super().__init__()
        self.head, self.body, self.first = L(6, 3), L(6, 6), L(5, 6)

    def forward(self, x):
        h = self.first(x).relu()
        return self.head(h + torch.tanh(self.body(h)))


class EachVector(nn.Module):
    """A layer that is applied to each of four vectors of an example."""

    def __init__(self):
        super().__init__()
        self.each, self.head = L(3, 5), L(5, 2)

    def forward(self, x):
        return self.head(self.each(x).relu().mean(1))


def lenet_of_pytorch():
    parts = OrderedDict(
        conv1=nn.Conv2d(1, 20, 5),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(20, 50, 5),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        hidden=L(50, 500),
        relu=R(),
        head=L(500, 3),
    )
    return nn.Sequential(parts)


def layer_norm():
    norm = nn.LayerNorm(4)
    norm.weight.data, norm.bias.data = torch.tensor([0.5, 2.0, -1.0, 1.0]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    return nn.Sequential(L(5, 4), norm, R(inplace=True), L(4, 3))


def made(modules, input_shape, num_outputs, words, deterministic=()):
    architecture = ModuleArchitecture(modules, input_shape, num_outputs, "own", deterministic)
    if architecture.fixed is not None:
        architecture.fixed.double()
    return architecture, modules, words


NO_BIAS = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False), R(), nn.Flatten(), L(12, 2, bias=False))
CONVOLUTIONS = nn.Sequential(
    nn.Conv2d(2, 4, 1),
    R(inplace=True),
    nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2),
    nn.Conv2d(6, 6, 3, padding="same", dilation=2, groups=6),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    L(6, 3),
)
MEMBERS = {
    "MLP": (MLP((5, 4, 6, 3)), nn.Sequential(L(5, 4), R(), L(4, 6), R(), L(6, 3)), "5-4-6-3 units"),
    "MLP of two layers": (MLP((4, 8, 2)), nn.Sequential(L(4, 8), R(), L(8, 2)), "4-8-2 units"),
    "MLP of one layer": (MLP((6, 2)), nn.Sequential(L(6, 2)), "6-2 units"),
    "LeNet": (
        lenet((1, 16, 16), 3),
        lenet_of_pytorch(),
        "lenet with kernels of 20 x 1 x 5 x 5, 50 x 20 x 5 x 5, 500 x 50, 3 x 500",
    ),
    "skip connection": made(Skip(), (5,), 3, "own with kernels of 6 x 5, 6 x 6, 3 x 6"),
    "no bias": made(NO_BIAS, (2, 4, 4), 2, "own with kernels of 3 x 2 x 3 x 3, 2 x 12"),
    "deterministic LayerNorm": made(layer_norm(), (5,), 3, "own with kernels of 4 x 5, 3 x 4", ["1"]),
    "convolutions": made(
        CONVOLUTIONS, (2, 5, 4), 3, "own with kernels of 4 x 2 x 1 x 1, 6 x 2 x 3 x 2, 6 x 1 x 3 x 3, 3 x 6"
    ),
    "a layer for each vector": made(EachVector(), (4, 3), 2, "own with kernels of 5 x 3, 2 x 5"),
}
ARCHITECTURES = {name: architecture for name, (architecture, _, _) in MEMBERS.items()}
MLPS = {name: architecture for name, architecture in ARCHITECTURES.items() if isinstance(architecture, MLP)}
NUM_EXAMPLES = 7
NO_NOISE = -50.0  # the logarithm of a standard deviation that float64 loses beside any weight
members = pytest.mark.parametrize("member", MEMBERS)
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)


def inputs(architecture, *leading, seed=1):
    return torch.randn(*leading, NUM_EXAMPLES, architecture.num_inputs, generator=seeded(seed), dtype=torch.float64)


def drawn_weights(architecture, *draws, seed=2):
    """Flat weights ``(S, D)``, or ``(S, R, D)``, about as large as those of a network at its start."""
    return 0.7 * torch.randn(*draws, num_weights(architecture.layers), generator=seeded(seed), dtype=torch.float64)


def gaussian(architecture, seed=2, log_std=-1.0):
    """A posterior whose weights are all noisy, unless told otherwise."""
    mean = drawn_weights(architecture, seed=seed)
    return Gaussian(mean, torch.full_like(mean, log_std))


def local(architecture, q, x, num_samples, noise):
    network = BayesianNetwork(architecture, q)
    return forward_local(
        architecture,
        network.centre_layers(),
        network.layers((2.0 * q.log_std).exp().unsqueeze(0)),
        x,
        num_samples,
        noise,
    )


def layers_of(architecture, modules):
    return [modules.get_submodule(name) for name in architecture.names]


def parameters_of(architecture, modules):
    """Those of the posterior's layers, in its order."""
    return [parameter for layer in layers_of(architecture, modules) for parameter in layer.parameters()]


def as_the_module_takes_them(architecture, x):
    return x.unflatten(-1, getattr(architecture, "input_shape", (-1,)))


def reference(architecture, modules, layers, s):
    """PyTorch's network with the weights of draw s."""
    modules = copy.deepcopy(modules).double()
    for module, (kernel, bias) in zip(layers_of(architecture, modules), layers, strict=True):
        module.weight.data = kernel[s]
        if bias is not None:
            module.bias.data = bias[s]
    return modules


@members
def test_shapes_and_sizes_and_words_agree(member):
    architecture, modules, words = MEMBERS[member]
    layers, found = layers_of(architecture, modules), architecture.layers
    assert (
        [*architecture.shapes] == [layer.shape for layer in found] == [tuple(module.weight.shape) for module in layers]
    )
    biases = [None if module.bias is None else len(module.bias) for module in layers]
    assert [layer.shape[0] if layer.has_bias else None for layer in found] == biases
    posterior, fixed = parameters_of(architecture, modules), architecture.fixed
    assert num_weights(found) == sum(parameter.numel() for parameter in posterior)
    num_fixed = 0 if fixed is None else sum(parameter.numel() for parameter in fixed.parameters())
    assert num_weights(found) + num_fixed == sum(parameter.numel() for parameter in modules.parameters())
    x = as_the_module_takes_them(architecture, inputs(architecture))
    assert copy.deepcopy(modules).double()(x).shape == (NUM_EXAMPLES, architecture.num_outputs)
    assert architecture.num_outputs == architecture.shapes[-1][0]
    assert str(architecture) == words


@members
@pytest.mark.parametrize("num_samples", [1, 3])
def test_equals_sequential_under_the_same_weights_and_so_do_the_gradients(member, num_samples):
    architecture, modules, _ = MEMBERS[member]
    architecture = architecture.copy()
    w, x = drawn_weights(architecture, num_samples).requires_grad_(), inputs(architecture)
    layers = unflatten(w, architecture.layers)
    outputs = forward_drawn(architecture, layers, x)
    assert outputs.shape == (num_samples, NUM_EXAMPLES, architecture.num_outputs)
    (outputs.sin() * outputs).sum().backward()
    fixed = {} if architecture.fixed is None else dict(architecture.fixed.named_parameters())
    totals = {name: torch.zeros_like(parameter) for name, parameter in fixed.items()}
    for s, gradient in enumerate(w.grad):
        network = reference(architecture, modules, unflatten(w.detach(), architecture.layers), s)
        expected = network(as_the_module_takes_them(architecture, x))
        torch.testing.assert_close(outputs[s], expected)
        (expected.sin() * expected).sum().backward()
        expected_gradient = [each.grad.flatten() for each in parameters_of(architecture, network)]
        torch.testing.assert_close(gradient, torch.cat(expected_gradient))
        for name, total in totals.items():
            total += network.get_parameter(name).grad
    torch.testing.assert_close({name: parameter.grad for name, parameter in fixed.items()}, totals)


@architectures
def test_draws_give_different_outputs(architecture):
    architecture = architecture.copy()
    network = initial_network(architecture, 0.1, seeded(1)).float()
    w, _ = network.posterior.rsample_and_log_prob(4, seeded(2))
    outputs = forward_drawn(architecture, network.layers(w), inputs(architecture).float())
    assert all(not torch.allclose(outputs[i], outputs[j]) for i, j in itertools.combinations(range(4), 2))


@architectures
@pytest.mark.parametrize("replicas", [(), (2,)], ids=["one", "replicas"])
def test_draws_one_at_a_time_equal_draws_at_once(architecture, replicas):
    w, x = drawn_weights(architecture, 4, *replicas), inputs(architecture, *replicas)
    at_once = forward_drawn(architecture, unflatten(w, architecture.layers), x)
    apart = [forward_drawn(architecture, unflatten(draw, architecture.layers), x) for draw in w.split(1)]
    torch.testing.assert_close(at_once, torch.cat(apart))


@architectures
@pytest.mark.parametrize("num_samples", [1, 3])
def test_each_replica_gives_what_it_gives_alone(architecture, num_samples):
    w, x = drawn_weights(architecture, num_samples, 2), inputs(architecture, 2)
    both = forward_drawn(architecture, unflatten(w, architecture.layers), x)
    assert both.shape == (num_samples, 2, NUM_EXAMPLES, architecture.num_outputs)
    for r in range(2):
        alone = forward_drawn(architecture, unflatten(w[:, r], architecture.layers), x[r])
        torch.testing.assert_close(both[:, r], alone)


@architectures
def test_gradient_reaches_the_weights_of_every_draw_and_layer(architecture):
    w = drawn_weights(architecture, 2).requires_grad_()
    forward_drawn(architecture, unflatten(w, architecture.layers), inputs(architecture)).sum().backward()
    assert w.grad.abs().sum(1).min() > 0
    for layer in w.grad.split(layer_dims(architecture.layers), dim=1):
        assert layer.abs().sum(1).min() > 0


@architectures
def test_local_reparameterisation_has_the_moments_of_weight_sampling(architecture):
    """With noise on the weights of the head alone, where both are exact: equal means and variances within five SE."""
    num_head = layer_dims(architecture.layers)[-1]
    q = gaussian(architecture, log_std=NO_NOISE)
    with torch.no_grad():
        q.log_std[-num_head:] = torch.linspace(-2.0, 0.0, num_head)
    x, num = inputs(architecture), 40_000 if {type(layer) for layer in architecture.layers} == {Dense} else 500
    num = num if q.dim < 1_000 else 100  # LeNet
    with torch.no_grad():
        w, _ = q.rsample_and_log_prob(num, seeded(3))
        parts = [forward_drawn(architecture, unflatten(part, architecture.layers), x) for part in w.split(200)]
        by_weights = torch.cat(parts)
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
        found = [NoiseTable(seeded(seed), 4, 100_000) for seed in (7, 8)]
        for table in found:
            table.begin_step()
        return found

    both = local(architecture, Gaussian.stacked(alone), x, num_samples, Stacked(tables()))
    assert both.shape == (num_samples, 2, NUM_EXAMPLES, architecture.num_outputs)
    for r, table in enumerate(tables()):
        torch.testing.assert_close(both[:, r], local(architecture, alone[r], x[r], num_samples, table))


def applying(architecture, calls=None):
    """Layers under one draw of the weights, which note the calls that they get."""
    weights = unflatten(drawn_weights(architecture, 1), architecture.layers)

    def apply(i, h):
        if calls is not None:
            calls.append(i)
        kernel, bias = weights[i]
        return architecture.layers[i].apply(h, kernel[0], None if bias is None else bias[0])

    return apply


@architectures
def test_every_layer_is_applied_once_and_in_order(architecture):
    calls = []
    architecture.forward(applying(architecture, calls), inputs(architecture))
    assert calls == [*range(len(architecture.shapes))]


@architectures
def test_leading_axes_are_left_alone(architecture):
    apply = applying(architecture)
    x = inputs(architecture, 2, 3)
    outputs = architecture.forward(apply, x.clone())
    assert outputs.shape == (2, 3, NUM_EXAMPLES, architecture.num_outputs)
    for i, j in itertools.product(range(2), range(3)):
        torch.testing.assert_close(outputs[i, j], architecture.forward(apply, x[i, j]))


@architectures
def test_inputs_and_weights_are_not_written_to(architecture):
    w, x, q = drawn_weights(architecture, 2), inputs(architecture), gaussian(architecture)
    before = [value.clone() for value in (w, x, q.mean, q.log_std)]
    forward_drawn(architecture, unflatten(w, architecture.layers), x)
    forward_drawn(architecture, unflatten(w[:1], architecture.layers), x)
    local(architecture, q, x, 2, seeded(3))
    assert all(torch.equal(old, new) for old, new in zip(before, (w, x, q.mean, q.log_std), strict=True))


@pytest.mark.parametrize("architecture", MLPS.values(), ids=MLPS)
def test_equal_architectures_are_equal(architecture):
    assert copy.deepcopy(architecture) == architecture
    assert [other for other in ARCHITECTURES.values() if other == architecture] == [architecture]


@architectures
def test_a_copy_is_the_same_network_with_parameters_of_its_own(architecture):
    layers, x = unflatten(drawn_weights(architecture, 2), architecture.layers), inputs(architecture)
    before = forward_drawn(architecture, layers, x)
    copied = architecture.copy()
    assert (copied.layers, copied.names, str(copied)) == (architecture.layers, architecture.names, str(architecture))
    assert torch.equal(forward_drawn(copied, layers, x), before)
    if architecture.fixed is None:
        assert copied.fixed is None
        return
    with torch.no_grad():
        for parameter in copied.fixed.parameters():
            parameter.add_(1.0)
    assert torch.equal(forward_drawn(architecture, layers, x), before)
    assert not torch.allclose(forward_drawn(copied, layers, x), before)


@architectures
def test_names_are_those_of_an_ordinary_state_dict(architecture):
    _, modules, _ = next(member for member in MEMBERS.values() if member[0] is architecture)
    held = {name.removesuffix(".weight") for name in modules.state_dict() if name.endswith(".weight")}
    assert len({*architecture.names}) == len(architecture.layers)
    assert held >= {*architecture.names}
