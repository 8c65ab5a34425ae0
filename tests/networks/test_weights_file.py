import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bbb.data import Normalization
from bbb.networks import (
    ModuleArchitecture,
    WeightsError,
    forward_drawn,
    initial_network,
    lenet,
    load_weights,
    save_weights,
    weights_file,
)
from tests.tasks import TOY, network, seeded

FLAVOURS = [(0, "planar"), (16, "planar"), (3, "matrix_planar")]


@pytest.mark.parametrize(("num_flows", "flow"), FLAVOURS)
def test_log_probs_survive_the_trip_with_every_flavour(tmp_path, num_flows, flow):
    saved = network(1, num_flows, flow)
    for seed, parameter in enumerate(saved.posterior.parameters()):
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=seeded(seed))
    save_weights(tmp_path / "w", saved)
    loaded, about = load_weights(tmp_path / "w")
    w, _ = saved.posterior.rsample_and_log_prob(3, seeded(2))
    assert torch.equal(loaded.posterior.log_prob(w), saved.posterior.log_prob(w))
    assert (about["num_flows"], about["flow"]) == (num_flows, flow if num_flows else None)


def test_a_float64_network_survives_the_trip(tmp_path):
    saved = network(1, 2).double()
    save_weights(tmp_path / "w", saved)
    loaded, _ = load_weights(tmp_path / "w")
    assert torch.equal(loaded.posterior.base.mean, saved.posterior.base.mean)
    assert loaded.posterior.dtype == torch.float64


def own():
    """A user's module: a convolution without bias, a deterministic layer, the head."""
    return nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 3))


def own_network(num_flows=0, flow="planar"):
    architecture = ModuleArchitecture(own(), (1, 4, 4), 3, "my_net.py:make", ("2",))
    shift, scale = torch.rand(2, 16, generator=seeded(1))
    return initial_network(architecture, 0.1, seeded(2), num_flows, flow, Normalization(shift, scale))


@pytest.mark.parametrize(("num_flows", "flow"), FLAVOURS)
def test_a_users_network_survives_the_trip_with_its_fixed_layers_and_normalization(tmp_path, num_flows, flow):
    written = own_network(num_flows, flow)
    written.fixed.get_submodule("2").weight.data.add_(torch.rand(8, generator=seeded(3)))
    save_weights(tmp_path / "w", written)
    read, about = load_weights(tmp_path / "w", network=own())
    assert about["network"] == "my_net.py:make"
    x = torch.rand(5, 16, generator=seeded(4))
    w, log_q = written.posterior.rsample_and_log_prob(2, seeded(5))
    torch.testing.assert_close(read.posterior.log_prob(w), log_q, rtol=1e-4, atol=1e-4)
    outputs = [forward_drawn(n.architecture, n.layers(w), n.normalization(x)) for n in (written, read)]
    assert torch.equal(*outputs)


def test_a_users_network_is_read_by_no_one_who_does_not_name_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text("raise SystemExit('executed')")
    save_weights(tmp_path / "w", own_network())
    for name in (None, "mlp", "lenet"):
        with pytest.raises(WeightsError, match=r"network=my_net.py:make, and no code is run .*; name it yourself"):
            load_weights(tmp_path / "w", network=name)
    other = nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.Flatten(), nn.LayerNorm(18), nn.Linear(18, 3))
    with pytest.raises(WeightsError, match="holds kernels of"):
        load_weights(tmp_path / "w", network=other)


def test_lenet_and_other_normalizations_survive_the_trip(tmp_path):
    for architecture, normalization in (
        (lenet((1, 16, 16), 3), None),
        (TOY, Normalization(scale=0.5)),
        (TOY, Normalization(torch.arange(12.0), torch.arange(1.0, 13.0))),
    ):
        written = initial_network(architecture, 0.1, seeded(2), normalization=normalization)
        save_weights(tmp_path / "w", written)
        read, _ = load_weights(tmp_path / "w")
        x = torch.rand(4, architecture.num_inputs, generator=seeded(3))
        assert torch.equal(read.normalization(x), written.normalization(x))
        assert torch.equal(read.posterior.mean, written.posterior.mean)
        assert read.architecture.layers == architecture.layers


@pytest.fixture
def saved(toy_network, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, toy_network, {"dataset": "toy", "digits": [0, 1, 2]})
    return path


def test_log_probs_and_layout_survive_the_trip(toy_network, saved):
    loaded, about = load_weights(saved)
    w, _ = toy_network.posterior.rsample_and_log_prob(3, seeded(2))
    assert torch.equal(loaded.posterior.log_prob(w), toy_network.posterior.log_prob(w))
    assert loaded.architecture == toy_network.architecture
    assert about["digits"] == [0, 1, 2]
    assert about["sizes"] == [12, 8, 3]


def test_nothing_but_the_file_is_left(saved):
    assert [path.name for path in saved.parent.iterdir()] == ["weights.safetensors"]


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="there is no such weights file"):
        load_weights(tmp_path / "nope")


@pytest.mark.parametrize("damage", ["truncated", "header", "empty", "pickle", "huge header"])
def test_damaged_or_foreign_files_are_refused(saved, damage):
    content = saved.read_bytes()
    if damage == "pickle":
        torch.save({"mean": torch.zeros(2)}, saved)
    else:
        changed = {
            "truncated": content[:-10],
            "header": content[:12] + b"\xff\xff" + content[14:],
            "empty": b"",
            "huge header": (2**62).to_bytes(8, "little") + content[8:],
        }
        saved.write_bytes(changed[damage])
    with pytest.raises(WeightsError, match="not a weights file, or is damaged"):
        load_weights(saved)


def forge(path, mean, log_std, **metadata):
    layout = {"format": weights_file.FORMAT, "flow": None, "num_flows": 0, "sizes": [12, 8, 3], **metadata}
    metadata, tensors = {key: json.dumps(value) for key, value in layout.items()}, {"mean": mean, "log_std": log_std}
    save_file(tensors, path, {**metadata, "sha256": weights_file._checksum(metadata, tensors)})


@pytest.mark.parametrize(
    ("mean", "metadata", "message"),
    [
        (torch.zeros(130), {}, "do not have the shape"),
        (torch.zeros(131), {"sizes": [12, 9, 3]}, "do not have the shape"),
        (torch.full((131,), float("nan")), {}, "not finite"),
        (torch.zeros(131), {"format": "bbb-weights-0"}, "not a weights file of this version"),
        (torch.zeros(131), {"num_flows": 2, "flow": "planar"}, "do not have the shape"),
        (torch.zeros(131), {"num_flows": 2, "flow": "radial"}, "layout in its metadata is damaged"),
        (torch.zeros(131), {"num_flows": -1, "flow": "planar"}, "layout in its metadata is damaged"),
        (torch.zeros(131), {"num_flows": 131, "flow": "planar"}, "do not have the shape"),
        (torch.zeros(131), {"num_flows": 10**12, "flow": "planar"}, "do not have the shape"),
        (torch.zeros(131), {"sizes": [10**9, 10**9]}, "do not have the shape"),
        (torch.zeros(131), {"sizes": [12, 8, -3]}, "layout in its metadata is damaged"),
        (torch.zeros(131), {"sizes": [12, float("inf"), 3]}, "layout in its metadata is damaged"),
        (torch.zeros(131, dtype=torch.int64), {}, "do not have the shape"),
        (torch.zeros(131, dtype=torch.float16), {}, "do not have the shape"),
        (torch.zeros(131), {"num_flows": None}, "layout in its metadata is damaged"),
        (torch.zeros(131), {"sizes": "x"}, "layout in its metadata is damaged"),
        (torch.zeros(131), {"sizes": None}, "layout in its metadata is damaged"),
    ],
)
def test_wrong_content_is_refused(tmp_path, mean, metadata, message):
    path = tmp_path / "forged.safetensors"
    forge(path, mean, torch.zeros(131), **metadata)
    with pytest.raises(WeightsError, match=message):
        load_weights(path)


def test_a_value_changed_with_a_sound_header_is_refused(saved):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(WeightsError, match="its checksum is not that of its content"):
        load_weights(saved)
