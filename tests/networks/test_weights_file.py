import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from bbb import checkpoint
from bbb.checkpoint import StateError, WeightsError
from bbb.network import BayesianMLP

FLAVOURS = [(0, "planar"), (16, "planar"), (3, "matrix_planar")]


@pytest.mark.parametrize(("num_flows", "flow"), FLAVOURS)
def test_log_probs_survive_the_trip_with_every_flavour(tmp_path, generator, num_flows, flow):
    network = BayesianMLP.initial((12, 8, 3), 0.05, generator, num_flows, flow)
    for parameter in network.posterior.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
    checkpoint.save_weights(tmp_path / "w", network)
    loaded, about = checkpoint.load_weights(tmp_path / "w")
    w, _ = network.posterior.rsample(3, generator)
    assert torch.equal(loaded.posterior.log_prob(w), network.posterior.log_prob(w))
    assert (about["num_flows"], about["flow"]) == (num_flows, flow if num_flows else None)


def test_a_float64_network_survives_the_trip(tmp_path, generator):
    network = BayesianMLP.initial((12, 8, 3), 0.05, generator, 2).double()
    checkpoint.save_weights(tmp_path / "w", network)
    loaded, _ = checkpoint.load_weights(tmp_path / "w")
    assert torch.equal(loaded.posterior.base.mean, network.posterior.base.mean)


@pytest.fixture
def saved(toy_network, tmp_path):
    path = tmp_path / "weights.safetensors"
    checkpoint.save_weights(path, toy_network, {"dataset": "toy", "digits": [0, 1, 2]})
    return path


def test_log_probs_and_layout_survive_the_trip(toy_network, saved, generator):
    loaded, about = checkpoint.load_weights(saved)
    w, _ = toy_network.posterior.rsample(3, generator)
    assert torch.equal(loaded.posterior.log_prob(w), toy_network.posterior.log_prob(w))
    assert loaded.sizes == toy_network.sizes
    assert about["digits"] == [0, 1, 2]
    assert about["sizes"] == [12, 8, 3]


def test_nothing_but_the_file_is_left(saved):
    assert [path.name for path in saved.parent.iterdir()] == ["weights.safetensors"]


def test_missing_file(tmp_path):
    with pytest.raises(WeightsError, match="there is no such weights file"):
        checkpoint.load_weights(tmp_path / "nope")


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
        checkpoint.load_weights(saved)


def forge(path, mean, log_std, **metadata):
    layout = {"format": checkpoint.FORMAT, "flow": None, "num_flows": 0, "sizes": [12, 8, 3], **metadata}
    metadata, tensors = {key: json.dumps(value) for key, value in layout.items()}, {"mean": mean, "log_std": log_std}
    save_file(tensors, path, {**metadata, "sha256": checkpoint._checksum(metadata, tensors)})


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
        checkpoint.load_weights(path)


def test_a_value_changed_with_a_sound_header_is_refused(saved):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(WeightsError, match="its checksum is not that of its content"):
        checkpoint.load_weights(saved)


def test_state_survives_the_trip(tmp_path):
    state = {"epochs_done": 3, "order": torch.Generator().get_state(), "history": [{"number": 1, "nll": None}]}
    checkpoint.save_state(tmp_path / "state", state)
    loaded = checkpoint.load_state(tmp_path / "state", torch.device("cpu"))
    assert torch.equal(loaded.pop("order"), state.pop("order"))
    assert loaded == state


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps(Evil()), b"bbb-state-2 x\n", b"PK\x03\x04"])
def test_other_files_are_no_states(tmp_path, content, capsys):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(StateError, match=r"damaged, or a checkpoint of another version .*; start again without resume"):
        checkpoint.load_state(tmp_path / "state", torch.device("cpu"))
    assert "executed" not in capsys.readouterr().out


def test_a_hostile_state_is_not_executed(tmp_path, capsys):
    checkpoint.save_state(tmp_path / "state", {"x": Evil()})
    with pytest.raises(StateError, match="holds what is not plain data"):
        checkpoint.load_state(tmp_path / "state", torch.device("cpu"))
    assert "executed" not in capsys.readouterr().out


def test_a_missing_state(tmp_path):
    with pytest.raises(StateError, match=r"cannot be read \(No such file"):
        checkpoint.load_state(tmp_path / "state", torch.device("cpu"))
