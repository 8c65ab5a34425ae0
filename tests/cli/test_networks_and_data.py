"""End to end: networks and data of users' own, numbers in place of classes, and trained networks as priors."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bbb import runs
from bbb.networks import WeightsError, load_weights
from bbb.runs import Settings
from tests.tasks import CPU, DEFAULT, SMALL, assert_same_weights, command, interrupt_after, refused

OWN = """
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

Path("was-run").touch()


class Own(nn.Module):
    '''A convolution, a norm, and free code with a sum.'''

    def __init__(self, num_outputs):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, bias=False)
        self.norm = nn.LayerNorm(4 * 9)
        self.hidden = nn.Linear(4 * 9, 8)
        self.head = nn.Linear(8, num_outputs)

    def forward(self, x):
        h = self.norm(F.max_pool2d(self.conv(x), 2).flatten(1))
        h = torch.relu(self.hidden(h))
        return self.head(h + h.square())


def make(input_shape, num_outputs):
    assert input_shape == (1, 8, 8)
    return Own(num_outputs)


def plain(input_shape, num_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, num_outputs))
"""
BY_OWN = [*SMALL, "network=own.py:make", "deterministic=['norm']"]
LOCAL = ["estimator=local", "num_flows=0", "prior=gaussian"]


@pytest.fixture
def own(in_tmp):
    (in_tmp / "own.py").write_text(OWN)
    return in_tmp


def result_of(name, number=1):
    return json.loads(Path("results", name, str(number), "run.json").read_text())["result"]


def info_of(name):
    return json.loads(Path("results", name, "1", "info.json").read_text())


def save_numbers(path, num_outputs=None, num=300):
    """Numbers on a plane, with noise of standard deviation 0.3: one for each example, or a row of them."""
    noise = np.random.default_rng(1)
    x = noise.normal(size=(num, 3)).astype("float32")
    slopes = noise.normal(size=(3, num_outputs or 1))
    y = x @ slopes + 0.3 * noise.normal(size=(num, num_outputs or 1))
    y = y.astype("float32") if num_outputs else y[:, 0].astype("float32")
    half = num // 2
    np.savez(path, x_train=x[:half], y_train=y[:half], x_test=x[half:], y_test=y[half:])


def stopped_and_resumed(monkeypatch, words, name, num_epochs=4):
    """Make a run twice: in one go, and stopped after two epochs; both folders."""
    words = [*words, f"num_epochs={num_epochs}"]
    command("with", *words, f"experiment_name={name}-whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(SystemExit) as stop:
            command("with", *words, f"experiment_name={name}")
    assert stop.value.code == 130
    command("with", *words, f"experiment_name={name}", "resume=True")
    ours, theirs = ({**result_of(each), "seconds": 0} for each in (name, f"{name}-whole"))
    assert ours == theirs
    whole, parts = (Path("results", each, "1") for each in (f"{name}-whole", name))
    assert_same_weights(whole, parts)
    return whole


NUMBERS = {
    "fixed noise": [],
    "learnt noise": ["learn_noise=True"],
    "local": [*LOCAL, "learn_noise=True"],
    "flows": ["num_flows=2", "learn_noise=True"],
    "replicas": ["num_replicas=2", "learn_noise=True"],
    "standardised": ["normalization=standardize", "learn_noise=True"],
}
NUMBER_SCORES = {"test_rmse", "test_nll", "test_coverage_50", "test_coverage_90", "test_rmse_mean_weights"}


def several(variant):
    """Rows of two numbers: training treats them as one, so the default suite has a variant of each shape of draws."""
    marks = [] if variant in ("learnt noise", "flows", "replicas") else pytest.mark.slow
    return pytest.param(2, variant, marks=marks, id=f"2-{variant}")


@pytest.mark.parametrize(("num_outputs", "variant"), [*((None, name) for name in NUMBERS), *map(several, NUMBERS)])
def test_a_run_on_numbers_resumes_bit_identical_and_reports_what_numbers_have(
    in_tmp, monkeypatch, capsys, variant, num_outputs
):
    save_numbers(in_tmp / "numbers.npz", num_outputs)
    words = ["blundell", *SMALL, "dataset=numbers.npz", "likelihood=gaussian", "noise_std=0.5", "lr=0.02"]
    folder = stopped_and_resumed(monkeypatch, [*words, *NUMBERS[variant]], "run")
    assert capsys.readouterr().err.count("\n") == 1, "that it was stopped"
    result = result_of("run")
    others = {"elbo", "kl", "num_epochs", "seconds", "noise_std"} | ({"replicas"} if variant == "replicas" else set())
    assert result.keys() == NUMBER_SCORES | others
    assert (result["noise_std"] == pytest.approx(0.5)) == (variant == "fixed noise")
    log_std = load_file(folder / "weights.safetensors")["likelihood.log_std"]
    assert log_std.exp().item() == pytest.approx(result["noise_std"])
    metrics = json.loads((folder / "metrics.json").read_text())
    names = {"train.nll", "train.kl", "train.elbo", "train.rmse", "train.seconds", "validation.rmse", "validation.nll"}
    assert metrics.keys() == names
    assert metrics["train.rmse"]["values"][-1] < metrics["train.rmse"]["values"][0]
    assert all(
        re.search(r"train RMSE .* validation RMSE ", line) for line in (folder / "log.txt").read_text().split("\n")[:-1]
    )
    assert (folder / "training.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("words", [["estimator=weights"], LOCAL], ids=["weights", "local"])
def test_numbers_are_predicted_to_their_noise_and_with_intervals_that_hold(in_tmp, words):
    """2,000 numbers to test on: standard errors of 1.1 % and .7 % of the coverages, were the fit perfect."""
    save_numbers(in_tmp / "numbers.npz", num=4000)
    words = ["blundell", *SMALL, "dataset=numbers.npz", "likelihood=gaussian", "learn_noise=True", *words]
    command("with", *words, "num_epochs=40", "lr=0.01", "num_hidden=16", "num_layers=1", "num_test_samples=30")
    result = result_of("blundell")
    assert result["test_rmse"] == pytest.approx(0.3, rel=0.1)
    assert result["noise_std"] == pytest.approx(0.3, rel=0.1)
    assert result["test_nll"] == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 0.09), abs=0.1)
    assert result["test_coverage_50"] == pytest.approx(50, abs=5)
    assert result["test_coverage_90"] == pytest.approx(90, abs=4)


def test_transfer_between_tasks_of_numbers_has_no_error_on_the_source(in_tmp):
    save_numbers(in_tmp / "a.npz")
    words = [*SMALL, "likelihood=gaussian", "learn_noise=True", "dataset=a.npz", "classes=None", "steps_per_epoch=1"]
    command("with", "domain_a", *words)
    command("with", "transfer", *words, "prior_inflation=auto")
    result = result_of("transfer")
    assert NUMBER_SCORES | {"prior_inflation"} <= result.keys()
    assert "source_error" not in result


VARIANTS = {
    "weights": [],
    "local": LOCAL,
    "planar flows": ["num_flows=2"],
    "matrix flows": ["num_flows=2", "flow=matrix_planar"],
    "more that is not Bayesian": ["deterministic=['norm','conv']"],
    "scale mixture, many draws": ["prior=scale_mixture", "num_samples=2"],
    "a prior that follows the posterior": ["prior=ard", "estimator=local"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_network_of_ones_own_trains_and_resumes_bit_identical(own, monkeypatch, variant):
    words = [*BY_OWN, *VARIANTS[variant], "lr=0.01"]
    folder = stopped_and_resumed(monkeypatch, words, "run")
    kept = {"fixed.norm.weight", "fixed.norm.bias"} | ({"fixed.conv.weight"} if "more" in variant else set())
    tensors = load_file(folder / "weights.safetensors")
    assert {name for name in tensors if name.startswith("fixed.")} == kept
    assert (tensors["fixed.norm.weight"] != 1.0).any(), "it was trained"
    values = json.loads((folder / "metrics.json").read_text())["train.nll"]["values"]
    assert values[-1] < values[0]
    network, _ = load_weights(folder / "weights.safetensors", network="own.py:make")
    assert network.architecture.names == (("hidden", "head") if "more" in variant else ("conv", "hidden", "head"))
    torch.testing.assert_close(network.fixed.norm.weight, tensors["fixed.norm.weight"], rtol=0, atol=0)


@pytest.mark.parametrize("words", [[], ["num_flows=2"], ["num_flows=2", "flow=matrix_planar"]], ids=" ".join)
def test_transfer_of_a_network_of_ones_own_takes_its_fixed_layers_along(own, words):
    words = [*BY_OWN, *(words and ["estimator=weights", *words]), "steps_per_epoch=1"]
    command("with", "domain_a", *words, "lr=0.01")
    command("with", "transfer", *words, "prior_inflation=1")
    assert 0.0 <= result_of("transfer")["source_error"] <= 100.0
    source = Path("results/domain_a/1/weights.safetensors")
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    assert info_of("transfer")["source"] == {"weights": str(source.resolve()), "sha256": sha256}
    config = json.loads(Path("results/transfer/1/config.json").read_text())
    made = runs.assemble(Settings.from_config(config), CPU)
    started, _ = made.network_and_prior()
    norm = load_file(source)["fixed.norm.weight"]
    assert torch.equal(started.fixed.norm.weight, norm)
    assert not torch.equal(load_file("results/transfer/weights.safetensors")["fixed.norm.weight"], norm)
    with torch.no_grad():
        started.fixed.norm.weight.add_(1.0)
    assert torch.equal(made.source.network.fixed.norm.weight, norm), "the source stays as it is"
    again, _ = made.network_and_prior()
    assert torch.equal(again.fixed.norm.weight, norm)


def test_a_network_from_a_file_is_only_run_where_it_is_named(own, capsys):
    words = [*SMALL, "steps_per_epoch=1", "prior_inflation=1"]
    command("with", "domain_a", *words, *BY_OWN)
    (own / "was-run").unlink()
    capsys.readouterr()
    for network in ([], ["network=mlp"]):
        (line,) = refused(capsys, "with", "transfer", *words, *network)
        assert re.fullmatch(
            r"error: .*: holds the weights of network=own.py:make, and no code is run .* yourself", line
        )
    with pytest.raises(WeightsError, match="no code is run because a file names it"):
        load_weights(Path("results/domain_a/1/weights.safetensors"))
    assert not (own / "was-run").exists()
    assert not Path("results/transfer").exists()
    (line,) = refused(capsys, "with", "transfer", *words, "network=own.py:plain")
    assert line.startswith("error: deterministic='norm': network=own.py:plain has no such layer")
    assert not Path("results/transfer").exists()


@pytest.mark.slow
def test_a_grid_over_networks(own, capfd):
    command("grid", "with", "blundell", *SMALL, "grid={'network': ['mlp', 'own.py:plain'], 'digits': [[0, 1], [2, 3]]}")
    found = [(run.config["network"], tuple(run.config["classes"]), run.status) for run in runs.find_runs()]
    wanted = [(network, classes, "COMPLETED") for network in ("mlp", "own.py:plain") for classes in ((0, 1), (2, 3))]
    assert sorted(found) == sorted(wanted)
    assert "| mlp | [0, 1] |" in Path("results/blundell/grid.md").read_text()


def save_images(path, side=16, channels=None):
    shape = (60, side, side) if channels is None else (60, channels, side, side)
    images = np.random.default_rng(0).integers(0, 256, shape).astype("uint8")
    labels = np.arange(60) % 3
    np.savez(path, x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("words", [["estimator=weights"], LOCAL], ids=["weights", "local"])
def test_lenet_on_images_of_ones_own(in_tmp, words, channels):
    save_images(in_tmp / "images.npz", channels=channels)
    command("with", "blundell", *SMALL, *words, "dataset=images.npz", "network=lenet")
    network, about = load_weights(in_tmp / "results" / "blundell" / "weights.safetensors")
    assert network.architecture.names == ("conv1", "conv2", "hidden", "head")
    assert network.architecture.shapes == ((20, channels or 1, 5, 5), (50, 20, 5, 5), (500, 50), (3, 500))
    assert about["network"] == "lenet"
    assert about["classes"] is None


@pytest.fixture
def trained(own):
    """An ordinary network's state_dict, whose head is for three classes."""
    noise = torch.Generator().manual_seed(0)
    shapes = {"conv.weight": (4, 1, 3, 3), "norm.weight": (36,), "norm.bias": (36,), "hidden.weight": (8, 36)}
    shapes |= {"hidden.bias": (8,), "head.weight": (3, 8), "head.bias": (3,)}
    tensors = {name: 0.1 * torch.randn(shape, generator=noise) for name, shape in shapes.items()}
    save_file(tensors, own / "trained.safetensors")
    return tensors


PRETRAINED = [*BY_OWN, "prior=pretrained", "pretrained=trained.safetensors"]


@pytest.mark.parametrize("words", [[], LOCAL[:2], ["num_flows=2"]], ids=["weights", "local", "flows"])
def test_a_trained_network_is_the_priors_mean_and_the_report_says_what_matched(trained, monkeypatch, capsys, words):
    words = [*PRETRAINED, "classes=[0,1,2]", "prior_std=0.2", *words]
    stopped_and_resumed(monkeypatch, words, "run")
    report = [
        "layer conv, 4 x 1 x 3 x 3: from conv",
        "layer hidden, 8 x 36: from hidden",
        "layer head, 3 x 8: from head",
        "not used: norm",
    ]
    assert info_of("run")["matches"] == report
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("pretrained")] == [f"pretrained: {line}" for line in 3 * report]
    content = Path("trained.safetensors").read_bytes()
    assert info_of("run")["source"]["sha256"] == hashlib.sha256(content).hexdigest()
    config = json.loads(Path("results/run/1/config.json").read_text())
    network, prior = runs.assemble(Settings.from_config(config), CPU).network_and_prior()
    names = ("conv.weight", "hidden.weight", "hidden.bias", "head.weight", "head.bias")
    mean = torch.cat([trained[name].flatten() for name in names])
    base = network.posterior.base if "num_flows=2" in words else network.posterior
    assert torch.equal(base.mean, mean)
    expected = torch.distributions.Normal(mean, 0.2).log_prob(mean + 0.1).sum()
    torch.testing.assert_close(prior.log_prob((mean + 0.1).unsqueeze(0))[0], expected)
    assert not any(parameter.requires_grad for parameter in prior.parameters())


def test_a_head_for_other_classes_is_fresh_unless_it_must_be_kept(trained, capsys):
    for head in ("auto", "fresh"):
        command("with", *PRETRAINED, f"head={head}", f"experiment_name={head}")
        assert info_of(head)["matches"][2:] == [
            "layer head, 10 x 8: nothing matches, prior mean 0",
            *("not used: head", "not used: norm"),
        ]
    capsys.readouterr()
    (line,) = refused(capsys, "with", *PRETRAINED, "head=keep", "experiment_name=keep")
    assert line.endswith("trained.safetensors: has no weights of shape (10, 8) for the head; use head=fresh")
    assert not Path("results/keep").exists()


def test_a_file_that_changed_since_the_run_was_stopped_is_refused(trained, capsys, monkeypatch):
    words = [*PRETRAINED, "num_epochs=4"]
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(SystemExit):
            command("with", *words)
    save_file({name: 2.0 * tensor for name, tensor in trained.items()}, "trained.safetensors")
    capsys.readouterr()
    (line,) = refused(capsys, "with", *words, "resume=True")
    assert "which is gone or has changed" in line
    save_file(trained, "trained.safetensors")
    Path("own.py").write_text(f"{OWN}\n# by another hand\n")
    (line,) = refused(capsys, "with", *words, "resume=True")
    assert "was started with network=own.py:make when own.py had another content; put the old file back" in line
    Path("own.py").write_text(OWN)
    command("with", *words, "resume=True")
    assert result_of("default")["num_epochs"] == 4


@pytest.mark.parametrize("where", ["word", "yaml", "json"])
def test_digits_means_classes(in_tmp, capsys, where):
    words = {"word": "digits=[7,3]", "yaml": "mine.yaml", "json": "mine.json"}[where]
    (in_tmp / "mine.yaml").write_text("digits: [7, 3]\n")
    (in_tmp / "mine.json").write_text('{"digits": [7, 3]}')
    command("with", "blundell", words, *SMALL)
    config = json.loads(Path("results/blundell/1/config.json").read_text())
    assert config.keys() - {"seed"} == DEFAULT.keys() - {"seed"}
    assert config["classes"] == [7, 3]
    (run,) = runs.find_runs(classes=(7, 3))
    assert load_weights(run.folder / "weights.safetensors")[1]["classes"] == [7, 3]
    capsys.readouterr()
    command("print_config", "with", "blundell", words)
    assert re.search(r"^\* classes = \[7, 3\]", capsys.readouterr().out, re.MULTILINE)


BAD_NETWORKS = {
    "nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10))": "layer 2 .BatchNorm1d",
    "nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 10))": "layer 1 .Dropout.: .*leave dropout out",
    "nn.Sequential(nn.Flatten(), nn.PReLU(), nn.Linear(64, 10))": "layer 1 .PReLU.: cannot be Bayesian",
    "nn.Sequential(nn.Flatten(), nn.LazyLinear(10))": "layer 1 .LazyLinear.: has no sizes yet",
    "nn.Sequential(nn.Flatten(), nn.Linear(63, 10))": r"fails on inputs of shape \(2, 1, 8, 8\): RuntimeError",
    "nn.Sequential(nn.Flatten(), nn.Linear(64, 9))": r"returns \(2, 9\) for .* must be \(2, 10\)",
    "nn.Sequential(nn.Flatten(0), nn.Linear(128, 10))": "fails on inputs|returns",
    "nn.ReLU()": r"returns \(2, 1, 8, 8\)",
    "7": "returns int; must return",
    "1 / 0": "it fails: ZeroDivisionError: division by zero",
    "open('two\\nlines')": "it fails: FileNotFoundError",
}


@pytest.mark.parametrize("made", BAD_NETWORKS)
def test_a_network_that_cannot_be_used_is_refused_in_one_line_and_nothing_is_written(in_tmp, capsys, made):
    (in_tmp / "net.py").write_text(f"from torch import nn\ndef make(input_shape, num_outputs):\n    return {made}\n")
    (line,) = refused(capsys, "with", "blundell", *SMALL, "network=net.py:make")
    assert re.match(f"error: network=net.py:make: .*({BAD_NETWORKS[made]})", line)
    assert {path.name for path in in_tmp.iterdir()} - {"__pycache__"} == {"net.py"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["network=net.py:mak"], "net.py has no function mak; it has make"),
        (["network=no.py:make"], "there is no file no.py"),
        (["network=broken.py:make"], "broken.py cannot be run: SyntaxError: "),
        (["network=net.py"], "network='net.py': must be mlp, lenet or FILE.py:FUNCTION"),
        (["network=resnet"], "network='resnet': must be mlp, lenet or FILE.py:FUNCTION"),
        (["network=lenet"], r"takes images of at least 16 x 16 pixels, not inputs of shape \(1, 8, 8\)"),
        (["network=net.py:make", "deterministic=['3']"], "deterministic='3': .* has no such layer; it has 0, 1"),
        (["network=net.py:make", "deterministic=['1']"], "its last layer with weights must be Bayesian"),
        (["deterministic=['1']"], r"deterministic=\['1'\]: needs network=lenet or a module of your own"),
        (["prior=pretrained"], "pretrained=None: prior=pretrained needs the weights of a trained network"),
        (["prior=pretrained", "pretrained=net.py"], "is not a safetensors file, or is damaged"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_words_about_networks_that_are_wrong_are_refused_in_one_line(in_tmp, capsys, words, message):
    (in_tmp / "net.py").write_text(
        "from torch import nn\ndef make(input_shape, num_outputs):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_outputs))\n"
    )
    (in_tmp / "broken.py").write_text("def make(:\n")
    (line,) = refused(capsys, "with", "blundell", *SMALL, *words)
    assert re.search(message, line)
    assert not (in_tmp / "results").exists()


def arrays(**changes):
    """Sound images of three classes, but for changes; None leaves an array out."""
    images, labels = np.zeros((30, 8, 8), "uint8"), np.arange(30) % 3
    whole = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels, **changes}
    return {name: array for name, array in whole.items() if array is not None}


FLOATS = np.zeros((30, 4), "float32")
BAD_DATA = {
    "objects": (arrays(x_train=np.array([[1, "a"]] * 30, dtype=object)), "cannot be read as plain NumPy arrays"),
    "no labels": (arrays(y_test=None), "has no y_test; must hold x_train, y_train, x_test, y_test"),
    "NaN": (arrays(x_train=FLOATS + np.nan, x_test=FLOATS), "x_train holds values that are not finite"),
    "infinite": (arrays(x_train=FLOATS, x_test=FLOATS + np.inf), "x_test holds values that are not finite"),
    "numbers": (arrays(y_train=np.arange(30) % 3 + 0.5, y_test=np.zeros(30)), "has numbers; use gaussian"),
    "texts": (arrays(y_train=np.array(["a"] * 30)), "y_train holds <U1; must be whole numbers"),
    "too few labels": (arrays(y_train=np.arange(29) % 3), r"y_train has shape \(29,\) for 30 examples"),
    "negative": (arrays(y_train=np.arange(30) % 3 - 1), r"y_train must be \(N,\) classes, counted from 0"),
    "a gap": (arrays(y_train=np.arange(30) % 3 * 2), "y_train has no example of class 1"),
    "one class": (arrays(y_train=np.zeros(30, int), y_test=np.zeros(30, int)), "y_train holds a single class"),
    "a new class": (arrays(y_test=np.arange(30) % 4), "y_test holds class 3, which y_train does not"),
    "sizes": (arrays(x_test=np.zeros((30, 9, 8), "uint8")), r"x_train and x_test differ: inputs of shape"),
    "whole numbers": (arrays(x_train=np.zeros((30, 4), int)), "x_train holds int64; must be uint8"),
    "empty": (arrays(x_test=np.zeros((0, 8, 8), "uint8"), y_test=np.zeros(0, int)), "and not empty"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_cannot_be_used_are_refused_in_one_line_and_nothing_is_written(in_tmp, capsys, name):
    content, message = BAD_DATA[name]
    np.savez(in_tmp / "bad.npz", **content)
    (line,) = refused(capsys, "with", "blundell", *SMALL, "dataset=bad.npz")
    assert re.match(f"error: (likelihood=categorical: )?dataset=bad.npz.*{message}", line)
    assert {path.name for path in in_tmp.iterdir()} == {"bad.npz"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["likelihood=gaussian"], "likelihood=gaussian: dataset=digits8x8 has classes; use categorical"),
        (["likelihood=gaussian", "classes=[0,1]"], "classes: choose among classes, which likelihood=gaussian does not"),
        (["dataset=no.npz"], "dataset=no.npz: there is no such file"),
        (["noise_std=0"], "noise_std=0: must be a number above 0"),
        (["classes=[0,11]"], r"classes=\[0, 11\]: this data set has no example of class 11"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_words_about_data_that_are_wrong_are_refused_in_one_line(in_tmp, capsys, words, message):
    (line,) = refused(capsys, "with", "blundell", *SMALL, *words)
    assert re.match(f"error: {message}", line)
    assert list(in_tmp.iterdir()) == []
