"""Point estimates and dropout from the command line: they are trained, resumed, pruned and shown like posteriors."""

import json
import re
from pathlib import Path

import pytest

import bbb
from bbb import data
from tests.tasks import SMALL, assert_same_weights, command, interrupt_after, refused

KINDS = {
    "point": ["posterior=point", "beta_type=none"],
    "weight decay": ["posterior=point", "prior=gaussian", "optimizer=sgd", "lr=0.1"],
    "dropout": ["posterior=dropout", "dropout=0.3", "input_dropout=0.2"],
}


def result_of(folder):
    return json.loads((folder / "run.json").read_text())["result"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_scores_but_no_evidence_and_resumes_bit_identical(in_tmp, monkeypatch, capsys, kind):
    words = ["with", "blundell", *SMALL, "num_epochs=4", *KINDS[kind]]
    command(*words, "experiment_name=whole")
    out = capsys.readouterr().out
    assert "ELBO" not in out
    assert "KL" not in out
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(SystemExit):
            command(*words, "experiment_name=parts")
    command(*words, "experiment_name=parts", "resume=True")
    folders = [Path("results", name, "1") for name in ("whole", "parts")]
    assert_same_weights(*folders)
    ours, theirs = ({**result_of(folder), "seconds": 0} for folder in folders)
    assert ours == theirs
    assert {"elbo", "kl"}.isdisjoint(ours)
    assert "train.kl" not in json.loads((folders[0] / "metrics.json").read_text())
    if kind != "dropout":
        assert ours["test_error"] == ours["test_error_mean_weights"]
    assert (folders[0] / "training.png").read_bytes().startswith(b"\x89PNG")
    command("report")
    command("runs")


def test_the_draws_of_dropout_are_masks_and_those_of_a_point_are_alike(in_tmp):
    _, test = data.load("digits8x8")
    for kind, num_distinct in (("point", 1), ("dropout", 3)):
        command("with", "blundell", *SMALL, *KINDS[kind], f"experiment_name={kind}")
        posterior = bbb.load(kind)
        first, *_, head = (f"{name}.weight" for name in posterior.names)
        draws = posterior.draws(3)
        assert all((draw[first] == draws[0][first]).all() for draw in draws), "pixels are not dropped in draws"
        assert len({tuple(draw[head].flatten().tolist()) for draw in draws}) == num_distinct
        assert posterior.predict(test.images, num_samples=3).probs.shape == (len(test), 10)


@pytest.mark.parametrize("kind", ["point", "dropout"])
def test_its_weights_are_pruned_by_their_size(in_tmp, capsys, kind):
    command("with", "blundell", *SMALL, *KINDS[kind], "experiment_name=a")
    command("prune", "with", "pretrained=a", "share=0.8")
    assert re.search(r"656 weights, lowest \|mean\| first; ", capsys.readouterr().out)
    pruned = bbb.load("results/a/1/pruned-0.8.safetensors")
    assert int((~pruned.network.posterior.kept).sum()) == round(0.8 * 656)
    record = json.loads(Path("results/a/1/prune.json").read_text())
    assert record["figure"]["title"].endswith("pruned by |mean|")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["posterior=point", "num_flows=2"], "posterior='point': has no density that num_flows=2 could transform"),
        (["posterior=dropout", "num_samples=2"], "posterior='dropout': trains on one draw a step"),
        (["posterior=point", "estimator=local"], "posterior='point': has no variances, which estimator=local needs"),
        (["posterior=dropout", "num_replicas=2"], "posterior='dropout': trains one network, not num_replicas=2"),
        (["posterior=point", "prior=ard"], "posterior='point': has no variances, which prior=ard needs"),
        (["posterior=dropout", "dropout=1.0"], "dropout=1.0: must be a number from 0 and below 1 (share of the hidden"),
        (["posterior=dirac"], "posterior='dirac': must be one of gaussian, point, dropout"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(in_tmp, capsys, words, line):
    (said,) = refused(capsys, "with", "blundell", *SMALL, *words)
    assert line in said


def test_a_point_is_no_prior_and_is_not_taken_for_another_posterior(in_tmp, capsys):
    command("with", "blundell", *SMALL, *KINDS["dropout"], "experiment_name=a")
    for words in (["prior=posterior"], ["prior=gaussian"], ["posterior=point"]):
        (said,) = refused(capsys, "with", "blundell", *SMALL, "pretrained=a", *words)
        assert "holds posterior=dropout, " in said
        assert "prior=pretrained centres a Gaussian prior at its weights" in said
    command("with", "blundell", *SMALL, "pretrained=a", "prior=pretrained", "experiment_name=centred")
    command("with", "blundell", *SMALL, "pretrained=a", *KINDS["dropout"], "experiment_name=b")
    (said,) = refused(capsys, "demo", "with", "pretrained=a")
    assert "posterior=dropout" in said
