"""Laws of single layers: their sets of weights at once, and the noise of the local reparameterisation."""

import math

import pytest
import torch
import torch.nn.functional as F

from bbb.distributions import Gaussian
from bbb.networks import (
    BayesianNetwork,
    Convolution,
    Dense,
    ModuleArchitecture,
    forward_drawn,
    forward_local,
)
from tests.tasks import Twice, seeded

LAYERS = {
    "Linear": (torch.nn.Linear(6, 3), (6,)),
    "Linear without bias": (torch.nn.Linear(6, 3, bias=False), (6,)),
    "Conv2d": (torch.nn.Conv2d(2, 3, 2, stride=2, padding=1), (2, 3, 4)),
    "Conv2d without bias": (torch.nn.Conv2d(2, 4, 2, groups=2, bias=False), (2, 3, 3)),
}
NUM = 20_000


def double(*shape, seed=1):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def single(module):
    if isinstance(module, torch.nn.Linear):
        return Dense(module.out_features, module.in_features, module.bias is not None)
    return Convolution(
        module.out_channels,
        module.in_channels,
        module.kernel_size,
        module.stride,
        module.padding,
        module.dilation,
        module.groups,
        module.bias is not None,
    )


class One:
    """An architecture of one layer, whose outputs are the layer's."""

    num_inputs, names, fixed = 0, ("0",), None

    def __init__(self, layer, input_shape):
        self.layers, self.input_shape = (layer,), input_shape

    def forward(self, apply, x):
        return apply(0, x.unflatten(-1, self.input_shape)).flatten(-self.layers[0].num_axes)

    def expand(self, x, num_samples):
        return x


@pytest.mark.parametrize("name", LAYERS)
def test_local_reparameterisation_has_the_mean_and_the_variance_of_weight_sampling(name):
    """Of one layer with noise on all its weights, within five standard errors of each number."""
    module, input_shape = LAYERS[name]
    layer = single(module)
    architecture, x = One(layer, input_shape), double(2, math.prod(input_shape))
    q = Gaussian(double(layer.dim, seed=2), 0.5 * double(layer.dim, seed=3) - 1.0)
    network = BayesianNetwork(architecture, q)
    with torch.no_grad():
        by_weights = forward_drawn(architecture, network.layers(q.rsample_and_log_prob(NUM, seeded(4))[0]), x)
        by_activations = forward_local(
            architecture,
            network.centre_layers(),
            network.layers((2.0 * q.log_std).exp().unsqueeze(0)),
            x,
            NUM,
            seeded(5),
        )
        # in closed form: the layer is linear in its weights
        mean = forward_drawn(architecture, network.centre_layers(), x)[0]
        square = network.layers((2.0 * q.log_std).exp().unsqueeze(0))
        variance = forward_drawn(architecture, square, x.square())[0]
    assert by_weights.shape == by_activations.shape == (NUM, *mean.shape)
    for draws in (by_weights, by_activations):
        assert ((draws.mean(0) - mean).abs() < 5 * (variance / NUM).sqrt()).all()
        assert ((draws.var(0) / variance).log().abs() < 5 * math.sqrt(2 / NUM)).all()


@pytest.mark.parametrize("name", LAYERS)
def test_sets_of_weights_at_once_are_those_of_pytorch_one_by_one(name):
    """For ``apply_batched``, and for ``apply`` with the axes (draws, replicas, batch)."""
    module, input_shape = LAYERS[name]
    layer = single(module)
    num_draws, num_replicas, num_examples = 2, 3, 4
    h = double(num_draws, num_replicas, num_examples, *input_shape)
    kernel = double(num_replicas, *layer.shape, seed=2)
    bias = double(num_replicas, layer.shape[0], seed=3) if layer.has_bias else None

    def by_pytorch(h, kernel, bias):
        if isinstance(layer, Dense):
            return F.linear(h, kernel, bias)
        return F.conv2d(h, kernel, bias, module.stride, module.padding, module.dilation, module.groups)

    outputs = layer.apply(h, kernel, bias)
    for s in range(num_draws):
        batched = layer.apply_batched(h[s], kernel, bias)
        for r in range(num_replicas):
            expected = by_pytorch(h[s, r], kernel[r], None if bias is None else bias[r])
            torch.testing.assert_close(outputs[s, r], expected)
            torch.testing.assert_close(batched[r], expected)


def test_pixels_of_a_minibatch_share_the_drawn_kernel_of_a_convolution():
    """Equal patches have equal outputs within a draw, as under drawn weights."""
    layer = Convolution(1, 1, (1, 1))
    architecture, q = One(layer, (1, 2, 2)), Gaussian(torch.ones(2), torch.zeros(2))
    network = BayesianNetwork(architecture, q)
    outputs = forward_local(
        architecture,
        network.centre_layers(),
        network.layers((2.0 * q.log_std).exp().unsqueeze(0)),
        torch.ones(2, 4),
        3,
        seeded(1),
    )
    assert outputs.shape == (3, 2, 4)
    assert [len(draw.unique()) for draw in outputs] == [1, 1, 1]
    assert len(outputs.unique()) == 3


def test_a_network_whose_layers_run_twice_has_the_same_weights_both_times():
    module = Twice()
    architecture = ModuleArchitecture(module, (4,), 2)
    assert architecture.names == ("body", "head")
    w = torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).unsqueeze(0)
    x = double(3, 4).float()
    network = BayesianNetwork(architecture, Gaussian(w[0], torch.zeros_like(w[0])))
    torch.testing.assert_close(forward_drawn(architecture, network.layers(w), x)[0], module(x))
    torch.testing.assert_close(forward_drawn(architecture, network.layers(w.expand(3, -1)), x)[2], module(x))


@pytest.mark.parametrize("name", LAYERS)
def test_inputs_of_zeros_leave_local_gradients_finite(name):
    """Without a bias such an activation has no variance, and the square root has no gradient there."""
    module, input_shape = LAYERS[name]
    layer = single(module)
    kernel, log_std = double(1, *layer.shape, seed=1).requires_grad_(), double(1, *layer.shape, seed=2).requires_grad_()
    biases = [double(1, layer.shape[0], seed=3 + i) if layer.has_bias else None for i in range(2)]
    x = double(3, math.prod(input_shape), seed=5) * torch.tensor([[1.0], [0.0], [1.0]])
    outputs = forward_local(
        One(layer, input_shape),
        [(kernel, biases[0])],
        [((2.0 * log_std).exp(), None if biases[1] is None else (2.0 * biases[1]).exp())],
        x,
        2,
        seeded(6),
    )
    assert outputs.isfinite().all()
    for gradient in torch.autograd.grad(outputs.square().sum(), (kernel, log_std)):
        assert gradient.isfinite().all()
        assert (gradient != 0).any()
