import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from bbb.data import Normalization
from bbb.networks import (
    BayesianNetwork,
    ModuleArchitecture,
    WeightsError,
    forward_drawn,
    initial_network,
    lenet,
    load_weights,
    pruned_network,
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


def rewritten(path, tensors=None, **metadata):
    """Change a file's metadata and tensors, and give it a sound checksum; None takes one away."""
    with safe_open(path, "pt") as file:
        layout = {key: json.loads(value) for key, value in file.metadata().items() if key != "sha256"}
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    kept = {key: value for key, value in {**layout, **metadata}.items() if key not in metadata or value is not None}
    layout = {key: json.dumps(value) for key, value in kept.items()}
    held = {name: value for name, value in {**held, **(tensors or {})}.items() if value is not None}
    save_file(held, path, {**layout, "sha256": weights_file._checksum(layout, held)})


FORGED = {  # of the user's own network: tensors, metadata, and the words
    "kernels of other sizes": ({}, {"kernels": [[2, 1, 3, 3], [3, 9]]}, "holds kernels of [(2, 1, 3, 3), (3, 9)], "),
    "fewer kernels": ({}, {"kernels": [[3, 8]]}, "holds kernels of [(3, 8)], "),
    "no kernels": ({}, {"kernels": []}, "the layout in its metadata is damaged"),
    "kernels that are none": ({}, {"kernels": "x"}, "the layout in its metadata is damaged"),
    "kernels left out": ({}, {"kernels": None}, "the layout in its metadata is damaged"),
    "endless kernels": ({}, {"kernels": [[2, 1, 3, 3], [float("inf"), 8]]}, "the layout in its metadata is damaged"),
    "no outputs": ({}, {"kernels": [[2, 1, 3, 3], [0, 8]]}, "the layout in its metadata is damaged"),
    "no inputs": ({}, {"input_shape": [1, 0, 4]}, "the layout in its metadata is damaged"),
    "inputs left out": ({}, {"input_shape": None}, "the layout in its metadata is damaged"),
    "inputs beyond any memory": ({}, {"input_shape": [1, 10**6, 10**6]}, "the layout in its metadata is damaged"),
    "outputs beyond any memory": ({}, {"kernels": [[2, 1, 3, 3], [10**9, 8]]}, "the layout in its metadata is damaged"),
    "a number for the deterministic": ({}, {"deterministic": 3}, "the layout in its metadata is damaged"),
    "no fixed tensor": ({"fixed.2.bias": None}, {}, "the weights of its deterministic layers are not those of"),
    "another fixed tensor": ({"fixed.3.bias": torch.zeros(3)}, {}, "the weights of its deterministic layers are"),
    "a fixed tensor of another size": ({"fixed.2.bias": torch.zeros(9)}, {}, "the weights of its deterministic layers"),
    "a fixed tensor that is not finite": ({"fixed.2.bias": torch.full((8,), torch.nan)}, {}, "not finite"),
    "a shift of another size": ({"normalization.shift": torch.zeros(15)}, {}, "its normalization does not fit its"),
    "a scale of another size": ({"normalization.scale": torch.ones(2, 8)}, {}, "its normalization does not fit its"),
    "a scale that is not finite": ({"normalization.scale": torch.full((16,), torch.inf)}, {}, "not finite"),
    "a shift without a scale": ({"normalization.scale": None}, {}, "its normalization does not fit its inputs"),
    "words as scale": ({"normalization.scale": None}, {"scale": "1"}, "the layout in its metadata is damaged"),
    "an endless scale": (
        {"normalization.scale": None},
        {"scale": float("inf")},
        "the layout in its metadata is damaged",
    ),
    "a scale beyond floats": ({"normalization.scale": None}, {"scale": 10**400}, "the layout in its metadata"),
    "a posterior of another size": ({"mean": torch.zeros(44)}, {}, "do not have the shape that its layout"),
    "replicas that share layers": (
        {"mean": torch.zeros(2, 45), "log_std": torch.zeros(2, 45)},
        {"num_replicas": 2},
        "do not have the shape that its layout",
    ),
    "a tensor too many": ({"extra": torch.zeros(44)}, {}, "do not have the shape that its layout"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_forged_files_of_users_networks_are_refused(tmp_path, kind):
    tensors, metadata, words = FORGED[kind]
    path = tmp_path / "w"
    save_weights(path, own_network())
    rewritten(path)
    load_weights(path, network=own())
    rewritten(path, tensors, **metadata)
    with pytest.raises(WeightsError) as error:
        load_weights(path, network=own())
    assert words in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "claim",
    [
        {"input_shape": [1, 3000, 3000]},
        {"input_shape": [10**6, 16, 16]},
        {"kernels": [[20, 1, 5, 5], [50, 20, 5, 5], [500, 50], [10**6, 500]]},
    ],
    ids=["pixels", "channels", "outputs"],
)
def test_a_lenet_larger_than_its_file_is_refused_before_it_is_made(tmp_path, monkeypatch, claim):
    path = tmp_path / "w"
    save_weights(path, initial_network(lenet((1, 16, 16), 3), 0.1, seeded(1)))
    load_weights(path)
    rewritten(path, **claim)
    monkeypatch.setattr(weights_file, "build", lambda *_: pytest.fail("it was made"))
    with pytest.raises(WeightsError, match="the layout in its metadata is damaged"):
        load_weights(path)


def test_a_file_under_another_name_is_not_the_users_network(tmp_path):
    """A name that means something here does not make a file run, nor a user's network an MLP."""
    path = tmp_path / "w"
    save_weights(path, own_network())
    for name in ("mlp", "resnet", f"{tmp_path / 'trap.py'}:make"):
        rewritten(path, network=name)
        (tmp_path / "trap.py").write_text("raise SystemExit('executed')")
        with pytest.raises(WeightsError, match="no code is run because a file names it"):
            load_weights(path)


def test_a_file_and_a_function_that_are_named_again_are_run(tmp_path):
    text = "from torch import nn\n\ndef make(input_shape, num_outputs):\n    assert input_shape == (1, 4, 4)\n"
    text += "    parts = nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, num_outputs)\n"
    (tmp_path / "my_net.py").write_text(text + "    return nn.Sequential(*parts)\n")
    written = own_network()
    save_weights(tmp_path / "w", written)
    read, _ = load_weights(tmp_path / "w", network=f"{tmp_path / 'my_net.py'}:make")
    assert torch.equal(read.posterior.mean, written.posterior.mean)
    assert read.architecture.deterministic == ("2",)
    torch.testing.assert_close(read.fixed.state_dict(), written.fixed.state_dict(), rtol=0, atol=0)


def test_reading_leaves_the_network_that_is_given_as_it_was(tmp_path):
    written = own_network()
    written.fixed.get_submodule("2").weight.data.add_(1.0)
    save_weights(tmp_path / "w", written)
    given = ModuleArchitecture(own(), (1, 4, 4), 3, deterministic=("2",))
    read, _ = load_weights(tmp_path / "w", network=given)
    assert read.fixed.get_parameter("2.weight").tolist() == [2.0] * 8
    assert given.fixed.get_parameter("2.weight").tolist() == [1.0] * 8


@pytest.mark.parametrize("kind", ["MLP", "module without deterministic layers", "LeNet, standardised"])
def test_replicas_survive_the_trip(tmp_path, kind):
    module = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(8, 3))
    architecture, given, normalization = {
        "MLP": (TOY, None, None),
        "module without deterministic layers": (ModuleArchitecture(module, (1, 4, 4), 3), module, None),
        "LeNet, standardised": (lenet((1, 16, 16), 2), None, Normalization(torch.zeros(256), torch.ones(256))),
    }[kind]
    parts = [initial_network(architecture, 0.1, seeded(s), normalization=normalization) for s in (1, 2, 3)]
    save_weights(tmp_path / "w", BayesianNetwork.stacked(parts))
    read, about = load_weights(tmp_path / "w", network=given)
    assert read.num_replicas == about["num_replicas"] == 3
    for part, replica in zip(parts, read.replicas(), strict=True):
        assert torch.equal(part.posterior.mean, replica.posterior.mean)
        x = torch.rand(2, architecture.num_inputs, generator=seeded(4))
        assert torch.equal(part.normalization(x), replica.normalization(x))


def test_what_a_likelihood_has_learnt_survives_the_trip(tmp_path):
    save_weights(tmp_path / "w", network(1), likelihood={"log_std": torch.tensor([0.5])})
    read, about = load_weights(tmp_path / "w")
    assert about["likelihood"]["log_std"].tolist() == [0.5]
    assert read.posterior.dim == network(1).posterior.dim


def test_a_float64_network_of_a_user_survives_the_trip(tmp_path):
    written = own_network().double()
    save_weights(tmp_path / "w", written)
    read, _ = load_weights(tmp_path / "w", network=own())
    x = torch.rand(4, 16, generator=seeded(1)).double()
    outputs = [forward_drawn(n.architecture, n.centre_layers(), n.normalization(x)) for n in (written, read)]
    assert outputs[1].dtype == torch.float64
    assert torch.equal(*outputs)


def test_an_mlp_on_pixels_is_written_as_it_always_was(tmp_path):
    """Older versions read it."""
    for name, saved_network in (("plain", network(1)), ("flows", network(1, 3))):
        save_weights(tmp_path / name, saved_network)
        with safe_open(tmp_path / name, "pt") as file:
            assert json.loads(file.metadata()["format"]) == "bbb-weights-2"
            assert {*file.metadata()} == {"format", "sizes", "num_replicas", "flow", "num_flows", "sha256"}
            assert {*file.keys()} == {*saved_network.posterior.state_dict()}


POINTS = [("point", 0.0), ("dropout", 0.25), ("laplace", 0.0)]


@pytest.mark.parametrize("share", [0.0, 0.6])
@pytest.mark.parametrize(("kind", "dropout"), POINTS)
def test_points_and_dropout_survive_the_trip_pruned_and_whole(tmp_path, kind, dropout, share):
    for architecture in (TOY, lenet((1, 16, 16), 3)):
        written = initial_network(architecture, 0.1, seeded(2), posterior=kind, dropout=dropout).double()
        if kind == "laplace":
            written.posterior.precision.copy_(torch.rand(written.posterior.dim, generator=seeded(3)) + 0.1)
        if share:
            written = pruned_network(written, share)
        save_weights(tmp_path / "w", written)
        read, about = load_weights(tmp_path / "w")
        assert (about["posterior"], about["format"]) == (kind, "bbb-weights-5")
        assert type(read.posterior) is type(written.posterior)
        draws = [n.posterior.rsample_and_log_prob(3, seeded(1))[0] for n in (written, read)]
        assert torch.equal(*draws)
        states = [n.posterior.state_dict() for n in (written, read)]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_replicas_of_a_point_survive_the_trip(tmp_path):
    written = BayesianNetwork.stacked([initial_network(TOY, 0.1, seeded(s), posterior="point") for s in (1, 2)])
    save_weights(tmp_path / "w", written)
    assert torch.equal(load_weights(tmp_path / "w")[0].posterior.mean, written.posterior.mean)


@pytest.mark.parametrize(
    "metadata",
    [
        {"posterior": "hermite"},
        {"posterior": "laplace", "num_replicas": 2},
        {"posterior": ["point"]},
        {"posterior": "dropout", "dropout": 1.0},
        {"posterior": "dropout", "dropout": "x"},
        {"posterior": "dropout", "dropout": float("nan")},
        {"posterior": "dropout", "dropout": 0.5, "num_replicas": 2},
        {"posterior": "point", "num_flows": 1, "flow": "planar"},
    ],
    ids=str,
)
def test_a_kind_that_cannot_be_is_refused(tmp_path, metadata):
    layout = {"format": weights_file.FORMAT_5, "flow": None, "num_flows": 0, "sizes": [12, 8, 3], **metadata}
    written = {key: json.dumps(value) for key, value in layout.items()}
    tensors = {"mean": torch.zeros(131)}
    save_file(tensors, tmp_path / "w", {**written, "sha256": weights_file._checksum(written, tensors)})
    with pytest.raises(WeightsError, match="layout in its metadata is damaged"):
        load_weights(tmp_path / "w")
