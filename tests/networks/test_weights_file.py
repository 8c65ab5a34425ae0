import json

import pytest
import torch
from safetensors.torch import save_file

from bbb.networks import Architecture, BayesianNetwork, WeightsError, load_weights, save_weights, weights_file
from tests.tasks import network, seeded

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


class Other(Architecture):
    """A network that is no MLP."""

    shapes, num_inputs = ((3, 12),), 12

    def forward(self, apply, x):
        return apply(0, x)

    def __str__(self):
        return "one layer"


def test_a_network_that_the_format_cannot_hold_is_refused(tmp_path):
    posterior = network(sizes=(12, 3)).posterior
    with pytest.raises(ValueError, match="network: the file format holds an MLP, not a network of one layer"):
        save_weights(tmp_path / "w", BayesianNetwork(Other(), posterior))
    assert not (tmp_path / "w").exists()


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
