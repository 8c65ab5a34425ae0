"""Ordinary networks and dropout from the command line: what they leave, and what is refused."""

import json
import re

import pytest
import torch

import bbb
from bbb.system import InputError
from tests.tasks import SMALL, command, refused

KINDS = ("point", "dropout")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run of each kind, results/point and results/dropout, and one of an ordinary posterior."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for kind in KINDS:
            command("with", "blundell", *SMALL, f"posterior={kind}", "beta_type=none", f"experiment_name={kind}")
        command("with", "blundell", *SMALL, "experiment_name=gaussian")
    return folder


@pytest.fixture(autouse=True)
def _in_home(home, monkeypatch):
    monkeypatch.chdir(home)


def result_of(kind):
    with open(f"results/{kind}/1/run.json") as file:
        return json.load(file)["result"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_tells_no_elbo_and_no_kl(kind):
    result = result_of(kind)
    assert {"test_error", "test_nll", "test_ece", "test_error_mean_weights"} <= result.keys()
    assert not {"elbo", "kl"} & result.keys()
    with open(f"results/{kind}/1/metrics.json") as file:
        assert json.load(file).keys() == {
            *("train.nll", "train.accuracy", "train.seconds", "validation.accuracy", "validation.nll"),
        }
    with open(f"results/{kind}/1/log.txt") as file:
        assert not re.search("KL|ELBO", file.read())
    with open(f"results/{kind}/1/findings.json") as file:
        assert "layers" not in json.load(file)


def test_one_network_has_one_error_and_dropout_has_that_of_weight_scaling_too():
    assert result_of("point")["test_error"] == result_of("point")["test_error_mean_weights"]
    with open("results/point/1/findings.json") as file:
        assert json.load(file)["entropy"]["epistemic"]["mean"] == 0.0
    with open("results/dropout/1/findings.json") as file:
        assert json.load(file)["entropy"]["epistemic"]["mean"] > 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_loaded_and_predicts(kind):
    posterior = bbb.load(f"results/{kind}")
    x = torch.randint(256, (20, 64), dtype=torch.uint8)
    found = posterior.predict(x, num_samples=9)
    assert (found.epistemic.max() < 1e-6) == (kind == "point")
    assert len(posterior.draws(2)) == 2
    assert (posterior.weights("0").kernel_std == 0).all()  # nothing drops pixels in a prediction
    assert (posterior.weights("2").kernel_std == 0).all() == (kind == "point")
    with pytest.raises(InputError, match="is no prior"):
        posterior.as_prior()


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_from_it_and_a_gaussian_is_centred_at_it(kind, capsys):
    command("with", *SMALL, f"posterior={kind}", f"pretrained={kind}", "experiment_name=goes_on")
    for own in ("gaussian", "point"):
        words = f"posterior={own}", "prior=pretrained", "prior_std=0.1", f"pretrained={kind}", "lr=1e-9"
        command("with", *SMALL, *words, "experiment_name=centred")
        assert "layer 0, 8 x 64: from 0" in capsys.readouterr().out
        found, source = bbb.load("results/centred").network.posterior, bbb.load(f"results/{kind}").network.posterior
        torch.testing.assert_close(found.centre, source.centre, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_its_weights_are_pruned_by_magnitude(kind, capsys):
    command("prune", "with", f"pretrained={kind}", "share=0.5")
    lines = capsys.readouterr().out.splitlines()
    draws = "1 draw" if kind == "point" else "3 draws"
    assert lines[0] == f"{kind}: 656 weights, lowest |mean| first; 26 biases stay; {draws}"
    with open(f"results/{kind}/1/prune.json") as file:
        record = json.load(file)
    assert record["rows"][0]["error"] == result_of(kind)["test_error"]
    assert record["figure"]["rank"] == "|mean|"
    assert record["figure"]["title"] == f"{kind}: 656 weights, pruned by |mean|"
    assert [*record["figure"]["weights"]] == ["means"]
    whole, pruned = (bbb.load(f"results/{kind}/1/{name}.safetensors") for name in ("weights", "pruned-0.5"))
    assert torch.equal(pruned.network.posterior.centre, whole.pruned(0.5).network.posterior.centre)
    x = torch.randint(256, (20, 64), dtype=torch.uint8)
    assert torch.equal(pruned.predict(x, 3).probs, whole.pruned(0.5).predict(x, 3).probs)
    pruned = f"pretrained=results/{kind}/1/pruned-0.5.safetensors"
    if kind == "point":
        command("with", *SMALL, "posterior=point", pruned, "experiment_name=tuned")
        kept = bbb.load("results/tuned").network.posterior.kept
        assert torch.equal(kept, whole.pruned(0.5).network.posterior.kept)
    else:
        (line,) = refused(capsys, "with", *SMALL, "posterior=dropout", pruned)
        assert "holds a pruned posterior, which posterior=dropout cannot train" in line


def test_an_ensemble_of_ordinary_networks():
    command("with", *SMALL, "posterior=point", "num_replicas=2", "experiment_name=ensemble")
    assert len(result_of("ensemble")["replicas"]) == 2
    assert bbb.load("results/ensemble").network.num_replicas == 2


def test_the_pages_show_them(capsys):
    command("report")
    command("runs")
    command("demo", "with", "pretrained=point")
    (line,) = refused(capsys, "demo", "with", "pretrained=dropout")
    assert "drops units (posterior=dropout), which the page cannot show" in line


REFUSED = [
    ("posterior=point num_flows=2", "num_flows=2", "use num_flows=0"),
    ("posterior=dropout estimator=local", "estimator=local", "use estimator=weights"),
    ("posterior=point num_samples=3", "num_samples=3", "use 1"),
    ("posterior=point prior=ard", "prior=ard", "use prior=gaussian, scale_mixture or pretrained"),
    ("posterior=dropout prior=posterior pretrained=gaussian", "prior=posterior", "use prior=gaussian"),
    ("posterior=dropout num_replicas=2", "num_replicas=2", "use num_replicas=1"),
    ("posterior=hermite", "posterior='hermite'", "one of gaussian, point, dropout, laplace"),
    ("posterior=laplace prior=scale_mixture", "prior=scale_mixture", "use prior=gaussian, posterior or pretrained"),
    ("posterior=dropout dropout=1.0", "dropout=1.0", "a number from 0 and below 1"),
    ("prior=posterior pretrained=point", "holds posterior=point", "use prior=pretrained, which centres"),
    ("prior=posterior pretrained=dropout", "holds posterior=dropout", "use prior=pretrained, which centres"),
    ("pretrained=point", "holds posterior=point", "use posterior=point, or prior=pretrained"),
    ("posterior=point pretrained=gaussian", "holds posterior=gaussian", "use posterior=gaussian, or prior=pretrained"),
]


@pytest.mark.parametrize(("words", "wrong", "advice"), REFUSED, ids=lambda part: part)
def test_what_does_not_go_together_gets_one_line(capsys, words, wrong, advice):
    (line,) = refused(capsys, "with", *SMALL, *words.split(), "experiment_name=refused")
    assert wrong in line
    assert advice in line
    assert len(line) < 300
