"""The heads of earlier tasks in a weights file: they come back as they were, and serve the hidden layers of today."""

import pytest
import torch

from bbb.distributions import join
from bbb.networks import (
    MLP,
    KeptHead,
    NetworkError,
    WeightsError,
    forward_drawn,
    initial_network,
    load_weights,
    pruned_network,
    save_weights,
)
from tests.networks.test_weights_file import own, own_network, rewritten
from tests.tasks import TOY, network, seeded

NETWORK = """
from torch import nn

def make(input_shape, num_outputs):
    parts = nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, num_outputs)
    return nn.Sequential(*parts)
"""
KINDS = ["gaussian", "planar", "matrix_planar", "pruned", "point", "float64"]


def made(kind, num_outputs, seed):
    """A network of a kind, away from its start."""
    flow = {"num_flows": 3, "flow": kind} if "planar" in kind else {}
    posterior = "point" if kind == "point" else "gaussian"
    new = initial_network(MLP((12, 8, num_outputs)), 0.05, seeded(seed), posterior=posterior, **flow)
    for number, parameter in enumerate(new.posterior.parameters()):
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=seeded(number))
    if kind == "pruned":
        return pruned_network(new, 0.6)
    return new.double() if kind == "float64" else new


@pytest.mark.parametrize("kind", KINDS)
def test_heads_of_every_kind_and_size_survive_the_trip_and_are_put_on_again(tmp_path, kind):
    first, second, third = (made(kind, *each) for each in ((3, 1), (2, 2), (5, 3)))
    heads = [KeptHead(each.split_head()[1], {"classes": [*range(10, 10 + n)]}) for each, n in ((first, 3), (second, 2))]
    save_weights(tmp_path / "w", third, {"classes": [1, 2, 3, 4, 5]}, heads=heads)
    x = torch.rand(6, 12, generator=seeded(4)).to(third.posterior.dtype)
    for number, (one, num_outputs) in enumerate(((first, 3), (second, 2))):
        read, about = load_weights(tmp_path / "w", head=number)
        wanted = join(third.split_head()[0], one.split_head()[1])
        torch.testing.assert_close(read.posterior.state_dict(), wanted.state_dict(), rtol=0, atol=0)
        draws = [q.rsample_and_log_prob(4, seeded(5))[0] for q in (wanted, read.posterior)]
        torch.testing.assert_close(*draws, rtol=1e-5, atol=1e-6)  # rounding depends on where memory lies
        assert read.architecture.num_outputs == len(about["classes"]) == num_outputs
        assert about["classes"][0] == 10
        assert forward_drawn(read.architecture, read.layers(draws[0]), x).shape == (4, 6, num_outputs)
    for last in (None, 2):
        read, about = load_weights(tmp_path / "w", head=last)
        torch.testing.assert_close(read.posterior.state_dict(), third.posterior.state_dict(), rtol=0, atol=0)
        assert about["classes"] == [1, 2, 3, 4, 5]
    with pytest.raises(WeightsError, match="has the heads 0 to 2, and no head=3"):
        load_weights(tmp_path / "w", head=3)


def test_heads_of_a_users_network_are_put_on_with_its_fixed_layers(tmp_path):
    written = own_network()
    written.fixed.get_submodule("2").weight.data.add_(1.0)
    head = initial_network(MLP((8, 3)), 0.1, seeded(7)).posterior
    save_weights(tmp_path / "w", written, heads=[KeptHead(head, {})])
    read, _ = load_weights(tmp_path / "w", network=own(), head=0)
    assert torch.equal(read.split_head()[1].mean, head.mean)
    torch.testing.assert_close(read.fixed.state_dict(), written.fixed.state_dict(), rtol=0, atol=0)
    assert torch.equal(read.normalization.scale, written.normalization.scale)


def test_a_head_of_another_size_needs_a_module_that_has_it(tmp_path):
    head = initial_network(MLP((8, 2)), 0.1, seeded(7)).posterior
    save_weights(tmp_path / "w", own_network(), heads=[KeptHead(head, {})])
    load_weights(tmp_path / "w", network=own())
    with pytest.raises(NetworkError, match=r"returns \(2, 3\) .* must be \(2, 2\)"):
        load_weights(tmp_path / "w", network=own(), head=0)
    (tmp_path / "net.py").write_text(NETWORK)
    read, _ = load_weights(tmp_path / "w", network=f"{tmp_path / 'net.py'}:make", head=0)
    assert read.architecture.num_outputs == 2
    assert torch.equal(read.split_head()[1].mean, head.mean)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [
        ({"heads.0.mean": None}, {}),
        ({"heads.0.mean": torch.zeros(26)}, {}),
        ({"heads.0.mean": torch.zeros(27, dtype=torch.int64)}, {}),
        ({"heads.1.mean": torch.zeros(27)}, {}),
        ({"heads.0.kept": torch.zeros(4, dtype=torch.uint8)}, {}),
        ({}, {"heads": []}),
        ({}, {"heads": "x"}),
        ({}, {"heads": [3]}),
        ({}, {"heads": [{}]}),
        ({}, {"heads": [{"num_outputs": True}]}),
        ({}, {"heads": [{"num_outputs": 10**12}]}),
        ({}, {"heads": [{"num_outputs": -1}]}),
        ({}, {"heads": [{"num_outputs": 3}, {"num_outputs": 3}]}),
    ],
    ids=str,
)
def test_forged_heads_are_refused(tmp_path, tensors, metadata):
    path = tmp_path / "w"
    save_weights(path, network(1), heads=[KeptHead(network(2).split_head()[1], {})])
    rewritten(path)
    assert len(load_weights(path)[1]["kept_heads"]) == 1
    rewritten(path, tensors, **metadata)
    with pytest.raises(WeightsError, match=r"damaged, its heads of earlier tasks|not finite"):
        load_weights(path)


def test_a_head_knows_its_outputs():
    assert KeptHead(network(1).split_head()[1], {}).num_outputs(TOY) == 3
