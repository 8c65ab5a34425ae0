"""What a module must be to become Bayesian; each refusal is one line that names the layer."""

import math

import pytest
import torch
from torch import nn

from bbb.networks import ModuleArchitecture, NetworkError, forward_drawn, lenet, num_weights, unflatten
from bbb.networks.lenet import num_lenet_weights
from tests.tasks import seeded

L = nn.Linear


class Code(nn.Module):
    """Layers by name, and free code that runs them."""

    def __init__(self, code, **layers):
        super().__init__()
        self.code = code
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.code(self, x)


def tied(parameter="weight"):
    first, second = L(4, 4), L(4, 4)
    setattr(second, parameter, getattr(first, parameter))
    return nn.Sequential(first, second, L(4, 2))


def fails(self, x):
    raise KeyError("no such\nthing")


REFUSED = {  # the module for inputs (4,) and two outputs, what is deterministic, and the words
    "batch norm": (nn.Sequential(L(4, 4), nn.BatchNorm1d(4), L(4, 2)), (), "layer 1 (BatchNorm1d): mixes the examples"),
    "batch norm without parameters": (
        nn.Sequential(L(4, 4), nn.BatchNorm1d(4, affine=False), L(4, 2)),
        (),
        "layer 1 (BatchNorm1d): mixes the examples",
    ),
    "deterministic batch norm": (
        nn.Sequential(L(4, 4), nn.BatchNorm1d(4), L(4, 2)),
        ("1",),
        "layer 1 (BatchNorm1d): mixes the examples of a batch; use torch.nn.LayerNorm or GroupNorm",
    ),
    "dropout": (nn.Sequential(L(4, 4), nn.Dropout(), L(4, 2)), (), "layer 1 (Dropout): the posterior is the noise"),
    "dropout inside": (
        nn.Sequential(nn.Sequential(L(4, 4), nn.AlphaDropout()), L(4, 2)),
        (),
        "layer 0.1 (AlphaDropout): the posterior is the noise of this network; leave dropout out",
    ),
    "lazy": (nn.Sequential(nn.LazyLinear(4), L(4, 2)), (), "layer 0 (LazyLinear): has no sizes yet"),
    "embedding": (
        nn.Sequential(nn.Embedding(3, 4), L(4, 2)),
        (),
        "layer 0 (Embedding): cannot be Bayesian; use torch.nn.Linear or Conv2d with zeros as padding, or keep it: "
        "deterministic=['0']",
    ),
    "layer norm that nobody named": (nn.Sequential(L(4, 4), nn.LayerNorm(4), L(4, 2)), (), "deterministic=['1']"),
    "a parameter of the module itself": (nn.PReLU(), (), "layer of the module itself (PReLU): cannot be Bayesian"),
    "padding mode": (
        nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, 2, padding_mode="circular"), nn.Flatten(), L(2, 2)),
        (),
        "layer 1 (Conv2d): cannot be Bayesian; use torch.nn.Linear or Conv2d with zeros as padding",
    ),
    "a weight that is computed": (
        nn.Sequential(torch.nn.utils.spectral_norm(L(4, 4)), L(4, 2)),
        (),
        "layer 0 (Linear): cannot be Bayesian",
    ),
    "shared weights": (tied(), (), "0 and 1: two layers share their weights; use one layer twice instead"),
    "shared bias": (tied("bias"), (), "0 and 1: two layers share their weights; use one layer twice instead"),
    "shared with a deterministic layer": (
        tied(),
        ("1",),
        "layer 0 is to be Bayesian and shares its weights with 1, which is deterministic; name both in deterministic",
    ),
    "shared with an earlier deterministic layer": (tied(), ("0",), "layer 1 is to be Bayesian and shares its weights"),
    "instance norm with running means": (
        nn.Sequential(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten(), L(4, 2)),
        (),
        "layer 1 (InstanceNorm1d): keeps running means, which are neither weights nor trained; use it with",
    ),
    "instance norm that nobody named": (
        nn.Sequential(nn.Unflatten(1, (2, 2)), nn.InstanceNorm1d(2, affine=True), nn.Flatten(), L(4, 2)),
        (),
        "layer 1 (InstanceNorm1d): cannot be Bayesian; use torch.nn.Linear or Conv2d with zeros as padding, or keep it",
    ),
    "unused": (
        Code(lambda self, x: self.head(x), head=L(4, 2), idle=L(4, 4)),
        (),
        "layer idle is never run; remove it",
    ),
    "no such name": (
        nn.Sequential(L(4, 4), L(4, 2)),
        ("hidden",),
        "deterministic='hidden': network=own has no such layer; it has 0, 1",
    ),
    "the beginning of a name": (
        Code(lambda self, x: self.head(self.hidden(x)), hidden=L(4, 4), head=L(4, 2)),
        ("hid",),
        "deterministic='hid': network=own has no such layer; it has hidden, head",
    ),
    "deterministic head": (nn.Sequential(L(4, 4), L(4, 2)), ("1",), "its last layer with weights must be Bayesian"),
    "all deterministic": (nn.Sequential(L(4, 4), L(4, 2)), ("0", "1"), "its last layer with weights must be Bayesian"),
    "no layers": (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Flatten(2)), (), "returns (2, 2, 2)"),
    "no weights": (Code(lambda self, x: x[:, :2]), (), "its last layer with weights must be Bayesian"),
    "wrong outputs": (
        nn.Sequential(L(4, 4), L(4, 3)),
        (),
        "returns (2, 3) for inputs of shape (2, 4); must be (2, 2)",
    ),
    "no tensor": (Code(lambda self, x: [self.head(x)], head=L(4, 2)), (), "returns list for inputs of shape (2, 4)"),
    "failing code": (Code(fails, head=L(4, 2)), (), "fails on inputs of shape (2, 4): KeyError: 'no such\\nthing'"),
    "inputs of another size": (nn.Sequential(L(5, 2)), (), "fails on inputs of shape (2, 4): RuntimeError: "),
    "examples that see each other": (
        Code(lambda self, x: self.head(x - x.mean(0)), head=L(4, 2)),
        (),
        "the output of an example depends on the others of its batch",
    ),
    "the batch as another axis": (
        Code(lambda self, x: self.head(self.each(x.view(-1, 4, 1).transpose(0, 1)).sum(0)), each=L(1, 3), head=L(3, 2)),
        (),
        "layer each: the examples must be the first axis of its input",
    ),
    "rows that are not examples": (
        Code(lambda self, x: self.head(self.each(x.view(-1, 1)).view(-1, 4)), each=L(1, 1), head=L(4, 2)),
        (),
        "layer each: the examples must be the first axis of its input",
    ),
    "two heads": (
        Code(lambda self, x: torch.cat([self.a(x), self.b(x)], 1), a=L(4, 1), b=L(4, 1)),
        (),
        "its last layer, b, has 1 outputs; must have 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_module_that_cannot_be_bayesian_is_refused_in_one_line(case):
    module, deterministic, words = REFUSED[case]
    with pytest.raises(NetworkError) as error:
        ModuleArchitecture(module, (4,), 2, "own", deterministic)
    message = str(error.value)
    assert words in message
    assert "network=own" in message
    assert len(message.splitlines()) == 1
    assert len(message) < 400


@pytest.mark.parametrize("shape", [(784,), (1, 15, 28), (1, 28, 15), (28, 28)])
def test_lenet_refuses_what_are_no_images_of_its_size(shape):
    with pytest.raises(NetworkError) as error:
        lenet(shape, 10)
    assert f"network=lenet: takes images of at least 16 x 16 pixels, not inputs of shape {shape}" in str(error.value)


@pytest.mark.parametrize(("shape", "num"), [((1, 28, 28), 431_080), ((3, 32, 32), 657_080), ((2, 16, 20), 81_580)])
def test_lenet_has_the_weights_of_the_pruning_papers(shape, num):
    assert lenet((1, 28, 28), 10).names == ("conv1", "conv2", "hidden", "head")
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in shape[1:])
    parts = (shape[0] * 25 + 1) * 20, (20 * 25 + 1) * 50, (50 * rows * columns + 1) * 500, 501 * 10
    assert num_weights(lenet(shape, 10).layers) == sum(parts) == num_lenet_weights(shape, 10) == num


@pytest.mark.parametrize("affine", [False, True])
def test_instance_norm_treats_examples_one_by_one_and_is_kept(affine):
    norm = nn.InstanceNorm1d(2, affine=affine)
    module = nn.Sequential(nn.Unflatten(1, (2, 3)), norm, nn.Flatten(), L(6, 2))
    architecture = ModuleArchitecture(module, (6,), 2, deterministic=["1"] if affine else [])
    assert (architecture.fixed is not None) == affine
    x = torch.randn(5, 6, generator=seeded(1))
    w = torch.cat([value.detach().flatten() for value in module[3].parameters()]).expand(4, -1)
    outputs = forward_drawn(architecture, unflatten(w, architecture.layers), x)
    torch.testing.assert_close(outputs, module(x).expand(4, -1, -1))


def test_two_deterministic_layers_may_share_their_weights():
    assert ModuleArchitecture(tied(), (4,), 2, deterministic=["0", "1"]).names == ("2",)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_module_of_another_precision_runs_in_float32(dtype):
    module = nn.Sequential(L(4, 3), nn.LayerNorm(3), L(3, 2)).to(dtype)
    architecture = ModuleArchitecture(module, (4,), 2, deterministic=["1"])
    assert {p.dtype for p in architecture.fixed.parameters()} == {torch.float32}
    assert {p.dtype for p in module.parameters()} == {dtype}, "the user's own stays as it is"
    weights = unflatten(torch.ones(1, num_weights(architecture.layers)), architecture.layers)
    assert forward_drawn(architecture, weights, torch.ones(5, 4)).dtype == torch.float32


def test_the_module_of_the_user_is_left_as_it_was():
    module = nn.Sequential(L(4, 3), nn.LayerNorm(3), L(3, 2)).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.ones(1, 4)
    expected = module(x)
    architecture = ModuleArchitecture(module, (4,), 2, deterministic=["1"])
    with torch.no_grad():
        for parameter in architecture.fixed.parameters():
            parameter.zero_()
    assert not module.training
    assert module.state_dict().keys() == before.keys()
    assert torch.equal(module(x), expected)


def test_only_deterministic_layers_keep_parameters():
    parts = nn.Sequential(nn.Sequential(L(4, 4), nn.ReLU(), L(4, 3)), nn.LayerNorm(3), L(3, 2))
    architecture = ModuleArchitecture(parts, (4,), 2, deterministic=["0", "1"])
    assert architecture.names == ("2",)
    assert [*architecture.fixed.state_dict()] == [
        "0.0.weight",
        "0.0.bias",
        "0.2.weight",
        "0.2.bias",
        "1.weight",
        "1.bias",
    ]
    assert ModuleArchitecture(nn.Sequential(L(4, 2)), (4,), 2).fixed is None


def test_layers_stand_in_the_order_of_their_last_calls_with_the_head_last():
    """The first layer made is run first and once more at the end, where it is the head."""
    module = Code(lambda self, x: self.a(self.b(self.a(x).relu()).relu()), a=L(4, 4), b=L(4, 4))
    architecture = ModuleArchitecture(module, (4,), 4)
    assert architecture.names == ("b", "a")
    w = torch.cat([value.detach().flatten() for value in (*module.b.parameters(), *module.a.parameters())])
    x = torch.randn(3, 4, generator=seeded(1))
    torch.testing.assert_close(
        forward_drawn(architecture, unflatten(w.unsqueeze(0), architecture.layers), x)[0], module(x)
    )


def test_a_copy_runs_its_own_layers_and_so_does_the_original():
    """While one of them is running, the other is not; both may run in turn."""
    architecture = ModuleArchitecture(nn.Sequential(L(4, 3), nn.LayerNorm(3), L(3, 2)), (4,), 2, "own", ["1"])
    copied = architecture.copy()
    assert not {*map(id, copied.fixed.parameters())} & {*map(id, architecture.fixed.parameters())}
    x = torch.randn(3, 4, generator=seeded(1))

    def running(one, other):
        def apply(i, h):
            with pytest.raises(RuntimeError, match="a layer of a Bayesian network runs within the network's forward"):
                other.module.get_submodule(other.names[i])(h)
            layer = one.layers[i]
            return layer.apply(h, torch.ones(layer.shape), None)

        return one.forward(apply, x)

    assert torch.equal(running(architecture, copied), running(copied, architecture))


def test_a_failure_in_the_middle_leaves_the_network_usable():
    architecture = ModuleArchitecture(nn.Sequential(L(4, 2)), (4,), 2)

    def broken(i, h):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        architecture.forward(broken, torch.ones(1, 4))
    with pytest.raises(RuntimeError, match="runs within the network's forward"):
        architecture.module(torch.ones(1, 4))
    weights = unflatten(torch.ones(1, 10), architecture.layers)
    assert forward_drawn(architecture, weights, torch.ones(1, 4)).tolist() == [[[5.0, 5.0]]]


def test_sizes_follow_from_the_shape_of_the_inputs():
    architecture = ModuleArchitecture(nn.Sequential(nn.Flatten(), L(24, 2)), (2, 3, 4), 2)
    assert architecture.num_inputs == math.prod((2, 3, 4))
    assert architecture.input_shape == (2, 3, 4)
