"""A posterior from Python: trained on one's own module and tensors, loaded, asked, handed on."""

import importlib
import itertools
import math
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import bbb
from bbb.inference import Categorical, GaussianNoise
from bbb.networks import MLP, WeightsError, build, initial_network
from bbb.runs import CHECKPOINT, WEIGHTS, NumberPrediction, Posterior, Prediction, fit, fitting
from bbb.system import InputError
from tests import tasks


def images(num=64, seed=0):
    """Bytes ``(N, 6, 6)`` whose class is the third that is bright, and the classes."""
    labels = torch.arange(num) % 3
    pixels = torch.randint(0, 60, (num, 6, 6), generator=tasks.seeded(seed), dtype=torch.uint8)
    for image, label in zip(pixels, labels, strict=True):
        image[:, 2 * label : 2 * label + 2] += 150
    return pixels, labels


def module():
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def trained(**changes):
    how = {"num_epochs": 15, "batch_size": 16, "lr": 0.01, "temperature": 0.1, "prior": 0.3, "show_progress": False}
    return bbb.fit(module(), *images(), **{**how, **changes})


@pytest.fixture(scope="module")
def posterior():
    return trained()


def test_a_users_module_learns_and_is_scored(posterior):
    scores = posterior.score(*images(seed=1))
    assert scores.keys() == {"error", "nll", "brier", "ece"}
    assert scores["error"] == 0.0


@pytest.mark.parametrize("estimator", ["weights", "local"])
def test_the_same_seed_is_the_same_posterior(estimator):
    first, second = (trained(num_epochs=2, estimator=estimator) for _ in range(2))
    other = trained(num_epochs=2, estimator=estimator, seed=2)
    assert torch.equal(first.network.posterior.centre, second.network.posterior.centre)
    assert not torch.equal(first.network.posterior.centre, other.network.posterior.centre)


def test_entropy_is_the_sum_of_its_parts_and_labels_are_the_data_sets(posterior):
    prediction = posterior.predict(images(seed=1)[0], num_samples=20)
    assert isinstance(prediction, Prediction)
    assert prediction.probs.shape == (64, 3)
    torch.testing.assert_close(prediction.probs.sum(1), torch.ones(64))
    torch.testing.assert_close(prediction.entropy, prediction.aleatoric + prediction.epistemic)
    named = Posterior(posterior.network, posterior.likelihood, classes=(7, 8, 9)).predict(images(seed=1)[0])
    assert named.labels.tolist() == (images(seed=1)[1] + 7).tolist()


def test_bytes_floats_tensors_and_a_single_image_mean_the_same(posterior):
    pixels = images(seed=1)[0]
    expected = posterior.predict(pixels).probs
    for same in (pixels.numpy(), pixels.flatten(1), pixels.unsqueeze(1), pixels / 255, (pixels / 255).double().numpy()):
        torch.testing.assert_close(posterior.predict(same).probs, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(posterior.predict(pixels[5]).probs, expected[5:6], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(4, 35), r"inputs: have shape \(4, 35\); must be \(N, ...\) with 36 numbers each"),
        (torch.zeros(0, 36), "must be"),
        (torch.full((2, 36), 2.0), r"floats must lie in 0..1"),
        (torch.full((2, 36), math.nan), "not finite"),
        (np.full((2, 36), "a"), "inputs: holds <U1; must be numbers"),
    ],
)
def test_other_inputs_are_refused(posterior, inputs, message):
    with pytest.raises(InputError, match=message):
        posterior.predict(inputs)


def test_weights_of_a_layer(posterior):
    assert posterior.names == ("0", "3")
    weights = posterior.weights("0")
    base = posterior.network.posterior
    torch.testing.assert_close(weights.kernel_mean.flatten(), base.mean[:36].detach())
    torch.testing.assert_close(weights.bias_std, base.log_std[36:40].detach().exp())
    torch.testing.assert_close(weights.signal_to_noise, weights.kernel_mean.abs() / weights.kernel_std)
    with pytest.raises(ValueError, match="name='1': there is no such layer; there are 0, 3"):
        posterior.weights("1")


def test_the_mean_of_deterministic_draws_is_the_prediction(posterior):
    """Each draw, loaded into the module itself, predicts what the posterior averages."""
    pixels = images(seed=1)[0]
    probs = []
    for state in posterior.draws(10, seed=4):
        plain = module()
        plain.load_state_dict(state)
        probs.append(plain(pixels.unsqueeze(1) / 126).softmax(1))
    expected = posterior.predict(pixels, num_samples=10, seed=4).probs
    torch.testing.assert_close(torch.stack(probs).mean(0), expected, rtol=1e-4, atol=1e-5)


def test_saved_and_loaded_it_predicts_the_same(posterior, tmp_path):
    posterior.save(tmp_path / "w.safetensors")
    loaded = bbb.load(tmp_path / "w.safetensors", network=module())
    assert torch.equal(loaded.predict(images()[0]).probs, posterior.predict(images()[0]).probs)
    with pytest.raises(WeightsError, match="no code is run because a file names it; name it yourself"):
        bbb.load(tmp_path / "w.safetensors")


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """The folder of a training of four epochs that was stopped in its third."""
    calls = itertools.count()

    def stop_in_the_third_epoch(epoch, num_epochs):
        if next(calls) == 4:  # a line for the log and one for the bar in each epoch
            raise KeyboardInterrupt
        return "a | b | c"

    with monkeypatch.context() as patch:
        patch.setattr("bbb.runs.fitting.describe", stop_in_the_third_epoch)
        patch.setattr("bbb.runs.progress.describe", stop_in_the_third_epoch)
        with pytest.raises(KeyboardInterrupt):
            trained(num_epochs=4, folder=tmp_path)
    assert (tmp_path / CHECKPOINT).is_file()
    return tmp_path


def test_a_stopped_training_goes_on_and_ends_as_one_never_stopped(stopped):
    whole = trained(num_epochs=4)
    resumed = trained(num_epochs=4, folder=stopped)
    assert torch.equal(resumed.network.posterior.centre, whole.network.posterior.centre)
    assert {path.name for path in stopped.iterdir()} == {WEIGHTS, "log.txt"}


@pytest.mark.parametrize("change", ["data", "labels", "validation", "network", "prior", "lr", "seed"])
def test_the_checkpoint_of_another_training_is_refused_and_kept(stopped, change):
    (pixels, labels), own = images(), module()
    how = {"num_epochs": 4, "batch_size": 16, "lr": 0.01, "temperature": 0.1, "prior": 0.3, "show_progress": False}
    if change == "data":
        pixels = 255 - pixels
    elif change == "labels":
        labels = 2 - labels
    elif change == "network":
        own = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))
    else:
        how |= {"validation": {"validation": images(seed=1)}, "prior": {"prior": 0.4}}.get(change, {change: 2})
    content = (stopped / CHECKPOINT).read_bytes()
    with pytest.raises(InputError, match="with other data, another network or other arguments; name another folder"):
        bbb.fit(own, pixels, labels, folder=stopped, **how)
    assert (stopped / CHECKPOINT).read_bytes() == content


def test_a_posterior_is_a_prior_in_one_line(posterior):
    """Training that starts at a posterior and has hardly any data stays near it; from scratch it learns nothing."""
    few = images(6, seed=2)
    how = {"num_epochs": 3, "show_progress": False}
    transferred = bbb.fit(module(), *few, prior=posterior.as_prior(floor=0.05), **how)
    scratch = bbb.fit(module(), *few, prior=0.3, **how)
    assert transferred.score(*images(seed=1))["nll"] < 0.5 * scratch.score(*images(seed=1))["nll"]


def floats(shift=0.0, num=48):
    x = shift + torch.randn(num, 6, generator=tasks.seeded(7))
    return x, (x[:, 0] > shift).long()


def layered():
    with torch.random.fork_rng([]):
        torch.manual_seed(4)
        return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.ReLU(), nn.Linear(5, 2))


FLOATS = {"num_epochs": 2, "batch_size": 12, "lr": 0.01, "deterministic": ("1",), "show_progress": False}


def test_a_posterior_as_prior_takes_normalization_and_deterministic_layers_along():
    source = bbb.fit(layered(), *floats(), **FLOATS)
    norm, prior = source.network.fixed.get_parameter("1.weight"), source.as_prior()
    assert not torch.equal(norm, torch.ones(5)), "it was trained"
    start = bbb.fit(layered(), *floats(shift=3.0), prior=prior, **{**FLOATS, "lr": 1e-30})
    assert torch.equal(start.network.normalization.shift, source.network.normalization.shift)
    assert torch.equal(start.network.normalization.scale, source.network.normalization.scale)
    assert torch.equal(start.network.fixed.get_parameter("1.weight"), norm)
    assert torch.equal(start.network.posterior.centre, source.network.posterior.centre)
    moved = bbb.fit(layered(), *floats(shift=3.0), prior=prior, **FLOATS)
    assert not torch.equal(moved.network.fixed.get_parameter("1.weight"), norm), "it is trained on"
    assert torch.equal(source.network.fixed.get_parameter("1.weight"), prior.fixed["1.weight"]), "the source stays"
    bare = bbb.fit(layered(), *floats(shift=3.0), prior=prior.distribution, **FLOATS)
    assert not torch.allclose(bare.network.normalization.shift, source.network.normalization.shift)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x": torch.zeros(48, 6, dtype=torch.uint8)},
            "x: holds bytes, and the prior was learnt on floats; give floats",
        ),
        ({"deterministic": ("0", "1")}, "prior: is over 47 weights of a network for 6 inputs; this one has 12 and 6"),
        (
            {"network": nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 2)), "deterministic": ()},
            "1.weight, 1.bias; .* none",
        ),
    ],
)
def test_a_prior_of_another_network_or_other_inputs_is_refused_in_one_line(changes, message):
    x, y = floats()
    prior = bbb.fit(layered(), x, y, **{**FLOATS, "num_epochs": 1}).as_prior()
    how = {"network": layered(), "x": x, "y": y, "prior": prior, **FLOATS, **changes}
    with pytest.raises(InputError, match=message) as error:
        bbb.fit(**how)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_notebook_without_widgets_gets_a_plain_bar_and_no_warning(monkeypatch, capsys, is_shown):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)  # it cannot be imported
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", types.ModuleType("zmqshell"))
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        importlib.reload(fitting).fit(layered(), *floats(), **{**FLOATS, "show_progress": is_shown})
    assert found == []
    shown = capsys.readouterr().err
    assert ("8/8" in shown) == is_shown
    assert "Warning" not in shown


def test_numbers_have_means_intervals_and_a_learnt_noise():
    x = torch.linspace(-1, 1, 200).unsqueeze(1)
    y = 2 * x.squeeze(1) + 0.2 * torch.randn(200, generator=tasks.seeded(5))
    posterior = bbb.fit(
        nn.Sequential(nn.Linear(1, 1)), x, y, num_epochs=150, batch_size=50, lr=0.02, show_progress=False
    )
    prediction = posterior.predict(x)
    assert isinstance(prediction, NumberPrediction)
    assert posterior.likelihood.noise_std == pytest.approx(0.2, rel=0.2)
    assert posterior.score(x, y)["rmse"] < 0.25
    torch.testing.assert_close(prediction.quantile(0.5), prediction.mean, atol=0.02, rtol=0)
    inside = (y.unsqueeze(1) > prediction.quantile(0.05)) & (y.unsqueeze(1) < prediction.quantile(0.95))
    assert 100 * inside.double().mean().item() == pytest.approx(posterior.score(x, y)["coverage_90"], abs=1.0)
    assert (prediction.std > prediction.epistemic).all()


def test_a_run_of_the_command_line_is_loaded_by_name(in_tmp):
    folder = in_tmp / "results" / "mine"
    folder.mkdir(parents=True)
    tasks.run(folder, classes=[3, 7])
    posterior = bbb.load("results/mine")
    assert posterior.classes == (3, 7)
    assert set(posterior.predict(np.zeros((5, 8, 8), dtype=np.uint8)).labels.tolist()) <= {3, 7}


OWN_ARCHITECTURE = """
from bbb.networks import Architecture, Dense


class Own(Architecture):
    layers = (Dense(10, 64),)
    num_inputs = 64

    def forward(self, apply, x):
        return apply(0, x)

    def __str__(self):
        return "one layer"


def make(input_shape, num_outputs):
    assert (input_shape, num_outputs) == ((1, 8, 8), 10)
    return Own()
"""


@pytest.mark.parametrize("by", ["command line", "fit"])
def test_an_architecture_of_ones_own_is_made_again_for_the_shape_of_training(in_tmp, by):
    (in_tmp / "net.py").write_text(OWN_ARCHITECTURE)
    if by == "fit":
        architecture = build("net.py:make", (1, 8, 8), 10)
        pixels, labels = torch.zeros(10, 8, 8, dtype=torch.uint8), torch.arange(10)
        bbb.fit(architecture, pixels, labels, num_epochs=1, folder="results/mine", show_progress=False)
    else:
        (in_tmp / "results" / "mine").mkdir(parents=True)
        tasks.run(in_tmp / "results" / "mine", network="net.py:make")
    loaded = bbb.load("results/mine", network="net.py:make")
    loaded.save(in_tmp / "again.safetensors")
    again = bbb.load(in_tmp / "again.safetensors", network="net.py:make")
    assert torch.equal(again.network.posterior.centre, loaded.network.posterior.centre)


X, CLASSES = torch.zeros(4, 6), torch.tensor([0, 1, 1, 0])
BAD_DATA = {
    "too few labels": ((X, torch.zeros(3)), {}, r"y has shape \(3,\) for 4 examples; must be \(N,\) or \(N, C\)"),
    "not finite": ((X + math.nan, torch.zeros(4)), {}, "x holds values that are not finite"),
    "negative classes": ((X, CLASSES - 1), {}, "y must be .* classes, counted from 0"),
    "text as inputs": ((np.full((4, 6), "a"), CLASSES), {}, "x holds <U1; must be numbers"),
    "text as labels": ((X, ["a", "b", "b", "a"]), {}, "y holds <U1; must be numbers"),
    "ragged": (([[1.0], [1.0, 2.0]], CLASSES[:2]), {}, "x has rows of different lengths; must be numbers"),
    "complex": ((X.to(torch.complex64), CLASSES), {}, "x holds complex64; must be numbers"),
    "one vector": ((X[0], CLASSES), {}, r"x has shape \(6,\); must be \(N, P\)"),
    "large whole numbers": ((X.int() + 256, CLASSES), {}, "x: whole numbers must be bytes"),
    "no validation labels": ((X, CLASSES), {"validation": (X,)}, r"validation: must be a pair \(x, y\)"),
    "validation of another shape": (
        (X, CLASSES),
        {"validation": (X[:, :5], CLASSES)},
        r"the data and validation differ: inputs of shape \(6,\) and \(5,\)",
    ),
    "validation of another type": (
        (X, CLASSES),
        {"validation": (X.byte(), CLASSES)},
        "validation differ: inputs of type torch.float32 and torch.uint8",
    ),
    "validation of another kind": (
        (X, CLASSES),
        {"validation": (X, CLASSES / 2)},
        "validation differ: labels of type torch.int64 and torch.float32",
    ),
    "text in validation": ((X, CLASSES), {"validation": (X, ["a"] * 4)}, "validation y holds <U1; must be numbers"),
    "a class to validate alone": (
        (X, CLASSES),
        {"validation": (X, CLASSES + 1)},
        r"validation y: holds class 2; must be 0..1, the network's 2 outputs",
    ),
    "classes for numbers": (
        (X, CLASSES),
        {"likelihood": GaussianNoise(1, 1.0)},
        "y: holds classes; likelihood=GaussianNoise needs floats",
    ),
    "too many numbers": (
        (X, torch.zeros(4, 2)),
        {"likelihood": GaussianNoise(1, 1.0)},
        "y: has 2 numbers for each example; the likelihood has num_outputs=1",
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_data_that_cannot_be_are_refused_in_one_line(case):
    data, options, message = BAD_DATA[case]
    with pytest.raises(InputError, match=message) as error:
        fit(nn.Sequential(nn.Linear(6, 2)), *data, show_progress=False, **options)
    assert len(str(error.value).splitlines()) == 1


def test_any_kind_of_array_means_the_same():
    x, y = floats()
    expected = bbb.fit(layered(), x, y, **FLOATS).network.posterior.centre
    for same_x, same_y in ((x.numpy().astype(">f4"), y.int().numpy()), (x.tolist(), y.bool()), (x, y.tolist())):
        assert torch.equal(bbb.fit(layered(), same_x, same_y, **FLOATS).network.posterior.centre, expected)


BAD_LABELS = {
    "floats": (torch.zeros(64), r"labels: hold floats; must be classes as whole numbers 0..2"),
    "too few": (torch.zeros(63).long(), r"labels: have shape \(63,\) for 64 inputs; must be \(64,\)"),
    "one-hot": (torch.zeros(64, 3).long(), r"labels: have shape \(64, 3\) for 64 inputs"),
    "too high": (torch.arange(64) % 4, r"labels: hold 3; must be 0..2, counted in the order of classes=\(0, 1, 2\)"),
    "negative": (torch.arange(64) % 3 - 1, "labels: hold -1; must be 0..2"),
    "text": (["a"] * 64, "labels: holds <U1; must be numbers"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_cannot_be_are_not_scored(posterior, case):
    labels, message = BAD_LABELS[case]
    with pytest.raises(InputError, match=message):
        posterior.score(images()[0], labels)


def test_labels_of_numbers_are_checked_too():
    numbers = Posterior(initial_network(MLP((6, 2)), 0.1, tasks.seeded(1)), GaussianNoise(2, 1.0), takes_bytes=False)
    assert numbers.score(X, torch.zeros(4, 2).int()) == numbers.score(X, torch.zeros(4, 2))
    for labels, message in ((torch.zeros(4), r"must be \(4, 2\)"), (torch.full((4, 2), math.inf), "not finite")):
        with pytest.raises(InputError, match=message):
            numbers.score(X, labels)


def test_replicas_are_one_ensemble():
    from bbb.networks import BayesianNetwork

    members = [initial_network(MLP((36, 8, 3)), 0.1, tasks.seeded(seed)) for seed in (1, 2)]
    ensemble = Posterior(BayesianNetwork.stacked(members), Categorical(3))
    assert ensemble.predict(images()[0], num_samples=4).probs.shape == (64, 3)
