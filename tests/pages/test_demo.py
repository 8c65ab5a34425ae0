"""The page to draw on, as a file: it holds the posterior in half precision, stays small, and refuses in one line."""

import base64
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from bbb.data import Normalization, load
from bbb.distributions import Gaussian
from bbb.inference import Categorical, GaussianNoise
from bbb.networks import MLP, BayesianNetwork, ModuleArchitecture, initial_network, lenet, save_weights
from bbb.pages import DemoError, write_demo
from bbb.pages.halves import rounded_weights
from bbb.runs import Posterior
from tests.pages.test_page import Elements
from tests.tasks import seeded

OF_64 = MLP((64, 8, 10))
ON_DIGITS = {"dataset": "digits8x8", "classes": None, "score": "accuracy", "takes_bytes": True, "rotation": 0.0}


def saved(folder, network, name="w", about=None, input_shape=None):
    """A weights file, by its path as users would give it."""
    path = folder / f"{name}.safetensors"
    save_weights(path, network, ON_DIGITS if about is None else about, input_shape=input_shape)
    return str(path)


def toy(architecture=OF_64, **changes):
    return initial_network(architecture, 0.05, seeded(0), **changes)


def embedded(folder, *names):
    """What the page of some posteriors holds as data, and what its writer tells."""
    notes = write_demo(names, folder / "demo.html", folder)
    (_, text), *_ = Elements((folder / "demo.html").read_text()).all("script")
    return json.loads(text), notes


def halves(text):
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f2").astype("float32"))


def test_the_posterior_survives_in_half_precision(tmp_path):
    network = toy()
    data, notes = embedded(tmp_path, saved(tmp_path, network))
    (record,) = data["posteriors"]
    mean, std = network.posterior.mean, network.posterior.log_std.exp()
    assert torch.equal(halves(record["std"]), std.half().float())
    assert torch.allclose(halves(record["std"]), std, rtol=2**-11, atol=0)
    assert torch.allclose(halves(record["mean"]), mean, rtol=2**-11, atol=mean.abs().max().item() * 2**-11)
    assert (record["replicas"], record["shift"], record["scale"]) == (1, 0.0, network.normalization.scale)
    assert (record["black"], record["white"], data["side"]) == (0.0, 255.0, 8)
    assert record["classes"] == [str(label) for label in range(10)]
    assert [operation["kind"] for operation in record["operations"]] == ["dense", "relu", "dense"]
    assert notes == []


@pytest.mark.parametrize("architecture", [OF_64, lenet((1, 16, 16), 10)], ids=str)
def test_rounding_errors_of_a_row_cancel(architecture):
    """Each output's errors add up to that of a single weight; with weights rounded one by one they grow as a root."""
    network = toy(architecture)
    w = network.posterior.mean.unsqueeze(0)
    errors = rounded_weights(network, w) - w
    assert torch.equal(rounded_weights(network, w), rounded_weights(network, w).half().float())
    for (kernel, bias), (error, bias_error) in zip(network.layers(w), network.layers(errors), strict=True):
        assert error.flatten(2).sum(2).abs().max() <= 1.01 * 2**-11 * kernel.abs().max()
        assert torch.equal(bias_error, bias.half() - bias)


def test_classes_keep_their_labels(tmp_path):
    path = saved(tmp_path, toy(MLP((64, 4, 2))), about={**ON_DIGITS, "classes": [7, 3]})
    assert embedded(tmp_path, path)[0]["posteriors"][0]["classes"] == ["7", "3"]


def test_lenet_is_written_down_as_its_layers(tmp_path):
    architecture = lenet((1, 16, 16), 10)
    data, notes = embedded(tmp_path, saved(tmp_path, toy(architecture), about={}))
    operations = data["posteriors"][0]["operations"]
    kinds = ["convolution", "pool", "convolution", "pool", "dense", "relu", "dense"]
    assert [operation["kind"] for operation in operations] == kinds
    layers = [operation for operation in operations if "out" in operation]
    nums = [o["out"] * o["in"] * math.prod(o.get("size", [])) + o["out"] * o["bias"] for o in layers]
    assert sum(nums) == toy(architecture).posterior.dim == len(halves(data["posteriors"][0]["mean"]))
    assert data["side"] == 16
    assert len(notes) == 1
    assert notes[0].startswith("the examples are of digits8x8: ")


def test_replicas_are_all_there(tmp_path):
    networks = [initial_network(OF_64, 0.05, seeded(seed)) for seed in range(3)]
    network = BayesianNetwork.stacked(networks)
    (record,) = embedded(tmp_path, saved(tmp_path, network))[0]["posteriors"]
    assert record["replicas"] == 3
    of_third = networks[2].posterior.mean
    assert torch.allclose(
        halves(record["mean"]).view(3, -1)[2], of_third, rtol=0, atol=1e-3 * of_third.abs().max().item()
    )


def test_normalization_and_units_are_those_of_training(tmp_path):
    train, test = load("digits8x8")
    arrays = {"x_train": train.images, "x_test": test.images}
    arrays = {key: (value.float() / 255 - 0.5).view(-1, 8, 8).numpy() for key, value in arrays.items()}
    np.savez(tmp_path / "mine.npz", **arrays, y_train=train.labels, y_test=test.labels)
    normalization = Normalization(torch.linspace(0, 1, 64), torch.linspace(1, 2, 64))
    about = {**ON_DIGITS, "dataset": str(tmp_path / "mine.npz"), "takes_bytes": False}
    path = saved(tmp_path, toy(normalization=normalization), about=about)
    data, notes = embedded(tmp_path, path)
    (record,) = data["posteriors"]
    assert (record["black"], record["white"]) == (-0.5, 0.5)
    assert torch.equal(torch.tensor(record["shift"]), normalization.shift)
    assert torch.equal(torch.tensor(record["scale"]), normalization.scale)
    assert (data["examples"]["noun"], notes) == ("image", [])


def test_examples_are_test_images_of_each_class(tmp_path):
    data, _ = embedded(tmp_path, saved(tmp_path, toy()))
    examples, (_, test) = data["examples"], load("digits8x8")
    assert examples["labels"] == 2 * [str(label) for label in range(10)]
    for text, label in zip(examples["images"], examples["labels"], strict=True):
        image = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
        found = (test.images == image).all(1).nonzero().flatten().tolist()
        assert str(test.labels[found[0]].item()) == label
    assert (examples["dataset"], examples["noun"], examples["box"]) == ("digits8x8", "digit", 8.0)
    assert all(abs(value - 4.0) < 0.3 for value in examples["centre"])


def test_mnists_images_are_measured_as_they_were_made(tmp_path, mnist_dir):
    """LeCun et al. 1998: digits are scaled to 20 x 20 pixels, and their mass is at the centre of 28 x 28."""
    path = saved(tmp_path, toy(MLP((784, 4, 10))), about={**ON_DIGITS, "dataset": "mnist"})
    write_demo([path], tmp_path / "demo.html", mnist_dir)
    (_, text), *_ = Elements((tmp_path / "demo.html").read_text()).all("script")
    examples = json.loads(text)["examples"]
    assert examples["box"] == 20.0
    assert all(abs(value - 14.5) < 0.1 for value in examples["centre"])
    assert 2.2 < examples["stroke"] < 2.8


def test_two_posteriors_of_400_units_are_small(tmp_path):
    network = toy(MLP((784, 400, 400, 10)))
    write_demo([saved(tmp_path, network, name, about={}) for name in "ab"], tmp_path / "demo.html", tmp_path)
    assert (tmp_path / "demo.html").stat().st_size <= 6e6


def test_a_name_that_is_markup_stays_a_text(tmp_path):
    (tmp_path / "<").mkdir()
    path = saved(tmp_path / "<", toy(), "script><script>alert(1)<", about={**ON_DIGITS, "dataset": "</script><b>"})
    data, (note,) = embedded(tmp_path, path)
    assert data["posteriors"][0]["name"] == path
    elements = Elements((tmp_path / "demo.html").read_text())
    assert [text for _, text in elements.all("title")] == [f"Draw a digit: {path}"]
    assert len(elements.all("script")) == 5  # the data, and the page's own
    assert not elements.all("b")
    assert len(note.splitlines()) == 1


def flowed(folder):
    return [saved(folder, toy(num_flows=2))]


def of_numbers(folder):
    Posterior(toy(MLP((64, 4, 1))), GaussianNoise(1, noise_std=1.0)).save(folder / "w")
    return [str(folder / "w")]


def of_floats(folder):
    return [saved(folder, toy(), about={"takes_bytes": False})]


def of_the_users_own(folder):
    module = nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    return [saved(folder, toy(ModuleArchitecture(module, (64,), 10, "my_net.py:make")))]


def deterministic(folder):
    return [saved(folder, toy(lenet((1, 16, 16), 10, ["conv1"])))]


def of_vectors(folder):
    return [saved(folder, toy(MLP((12, 4, 10))))]


def of_colours(folder):
    return [saved(folder, toy(lenet((3, 16, 16), 10)))]


def oblong(folder):
    return [saved(folder, toy(lenet((1, 16, 20), 10)))]


def huge(folder):
    dim = toy().posterior.dim
    return [saved(folder, BayesianNetwork(OF_64, Gaussian(torch.full((dim,), 1e5), torch.zeros(dim))))]


def of_two_sizes(folder):
    return [saved(folder, toy(), "a"), saved(folder, toy(MLP((784, 4, 10))), "b")]


REFUSED = [
    (flowed, "has normalizing flows, which the page cannot show; it draws weights from Gaussians"),
    (of_numbers, "predicts numbers (likelihood=gaussian), which the page cannot show"),
    (of_floats, "was trained on floats, which the page cannot show; it needs their data set"),
    (of_the_users_own, "is of network=my_net.py:make, which the page cannot show; it runs mlp and lenet"),
    (deterministic, "has deterministic layers, which the page cannot show"),
    (of_vectors, "takes inputs of 12 numbers, which the page cannot show; it draws grey square images"),
    (of_colours, "takes inputs of 3 x 16 x 16 numbers"),
    (oblong, "takes inputs of 1 x 16 x 20 numbers"),
    (huge, "has weights beyond 30000"),
    (of_two_sizes, "take images of 8 x 8 and 28 x 28 pixels; name posteriors of images of one size"),
    (lambda folder: 3 * [saved(folder, toy())], "names 3 posteriors; the page shows one or two side by side"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=lambda part: getattr(part, "__name__", ""))
def test_what_cannot_be_shown_is_refused_and_nothing_is_written(tmp_path, make, message):
    names = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DemoError) as refusal:
        write_demo(names, tmp_path / "results" / "demo.html", tmp_path)
    assert message in str(refusal.value)
    assert str(refusal.value).startswith("pretrained=")
    assert len(str(refusal.value).splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_posterior_that_bbb_fit_saved_is_shown(tmp_path):
    Posterior(toy(), Categorical(10)).save(tmp_path / "w")
    data, (note,) = embedded(tmp_path, str(tmp_path / "w"))
    assert note.endswith("w does not tell its data set")
    assert data["examples"]["dataset"] == "digits8x8"
