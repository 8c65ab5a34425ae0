"""The command prune: its table, its files, and what it refuses before anything is written."""

import json
import re
import shlex

import numpy as np
import pytest
import torch

import bbb
from bbb import data
from bbb.networks import MLP, BayesianNetwork, initial_network, pruned_network, save_weights
from bbb.runs import open_retest
from bbb.studies import PruningStudy
from bbb.studies.pruning import SHARES
from tests.documentation import documented_commands
from tests.tasks import DEFAULT, SMALL, command, refused, seeded

DOCUMENTED = [
    shlex.split(line.replace("pretrained=sparse", "pretrained=best"))[2:]
    for line in documented_commands("experiment.py prune")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a short run on the embedded digits, in results/best."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.chdir(home)
        command("with", "blundell", *SMALL, "num_epochs=2", "experiment_name=best")
    return home / "results" / "best" / "1"


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.chdir(folder.parents[2])
    yield folder
    for path in [*folder.glob("prune*"), *folder.glob("*-prune*")]:
        path.unlink()


def rows_of(path):
    return json.loads(path.read_text())["rows"]


def test_without_removal_the_scores_are_those_of_the_runs_own_test(run):
    result = json.loads((run / "run.json").read_text())["result"]
    retest = open_retest("best", DEFAULT)
    row = next(PruningStudy("best", retest).run())
    assert row["share"] == 0.0
    for score in ("error", "nll", "ece"):
        assert row[score] == result[f"test_{score}"]
    assert retest.scores(retest.posterior.network) == retest.scores(pruned_network(retest.posterior.network, 0.0))


@pytest.mark.parametrize(
    "words",
    [list(words) for words in sorted({*map(tuple, DOCUMENTED), ("prune", "pretrained=results/best/1")})],
    ids=" ".join,
)
def test_every_way_to_call_it_prints_a_table_and_writes_its_files(run, capsys, words):
    command(*words)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\S+: 656 weights, lowest \|mean\| / std first; 26 biases stay; 3 draws", lines[0])
    assert lines[1].split() == ["removed", "%", "kept", "error", "%", "NLL", "ECE", "%"]
    table = [line.split() for line in lines[2 : 2 + len(SHARES)]]
    assert [float(row[0]) for row in table] == [100 * share for share in SHARES]
    assert [int(row[1]) for row in table] == [656 - round(share * 656) for share in SHARES]
    rows = rows_of(run / "prune.json")
    assert [(row["share"], row["num_kept"]) for row in rows] == [(share, 656 - round(share * 656)) for share in SHARES]
    assert [f"{row['error']:.2f}" for row in rows] == [row[2] for row in table]
    assert (run / "prune.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "pruned-0.95.safetensors").exists() == ("share=0.95" in words)


def test_it_is_documented():
    assert any("share=0.95" in words for words in DOCUMENTED)
    assert len(DOCUMENTED) >= 2


def test_the_pruned_file_is_smaller_predicts_and_is_exact(run, capsys):
    command("prune", "with", "pretrained=best", "share=0.8")
    path = run / "pruned-0.8.safetensors"
    said = re.search(r"safetensors: ([\d,]+) bytes, ([\d.]+) times smaller than .* ([\d,]+)$", capsys.readouterr().out)
    sizes = [int(said[i].replace(",", "")) for i in (1, 3)]
    assert sizes == [path.stat().st_size, (run / "weights.safetensors").stat().st_size]
    assert sizes[0] < sizes[1] / 1.5  # of 682 weights; most of it is the header
    whole, pruned = bbb.load("best"), bbb.load(path)
    _, test = data.load("digits8x8")
    kept = pruned.network.posterior.kept
    with torch.no_grad():
        whole.network.posterior.mean[~kept] = 0.0
        whole.network.posterior.log_std[~kept] = -torch.inf
    ours, theirs = (p.predict(test.images, num_samples=5) for p in (pruned, whole))
    assert torch.equal(ours.probs, theirs.probs)
    assert torch.equal(ours.epistemic, theirs.epistemic)
    assert torch.equal(bbb.load("best").pruned(0.8).predict(test.images, num_samples=5).probs, ours.probs)
    row = next(row for row in rows_of(run / "prune.json") if row["share"] == 0.8)
    retest = open_retest(str(path), DEFAULT)
    assert retest.scores(retest.posterior.network) == {key: row[key] for key in retest.scores(pruned.network)}


def test_summaries_and_draws_have_zeros_where_weights_are_removed(run):
    pruned = bbb.load("best").pruned(0.8)
    removed = 0
    for name in pruned.names:
        layer = pruned.weights(name)
        is_removed = layer.kernel_std == 0
        assert (layer.kernel_mean[is_removed] == 0).all()
        assert (layer.signal_to_noise[is_removed] == 0).all()
        assert (layer.signal_to_noise[~is_removed] > 0).all()
        assert all((draw[f"{name}.weight"][is_removed] == 0).all() for draw in pruned.draws(3))
        removed += int(is_removed.sum())
    assert removed == round(0.8 * 656)


def test_a_pruned_file_is_taken_wherever_a_posterior_is(run, capsys):
    pruned = bbb.load("best").pruned(0.8)
    save_weights(run / "prune.small", pruned.network, {"dataset": "digits8x8", "classes": None})
    kept = pruned.network.posterior.kept
    own = [*SMALL, "num_hidden=8", f"pretrained={run / 'prune.small'}"]
    for number, words in enumerate(
        [
            ["prior=gaussian"],
            ["prior=scale_mixture"],
            ["prior=posterior", "start=narrow"],
            ["prior=posterior", "start=random", "prior_floor=0.1"],
            ["prior=posterior", "head=fresh"],
        ],
        start=1,
    ):
        command("with", "blundell", *own, *words, "experiment_name=tuned")
        tuned = bbb.load(f"results/tuned/{number}").network.posterior
        to = -90 if "head=fresh" in words else None
        assert torch.equal(tuned.kept[:to], kept[:to])
        assert not torch.equal(tuned.base.mean, pruned.network.posterior.base.mean)
    (line,) = refused(capsys, "with", "blundell", *own, "prior=gaussian", "estimator=local")
    assert "holds a pruned posterior, which estimator=local cannot train; use estimator=weights" in line
    command("demo", "with", f"pretrained={run / 'prune.small'}")
    (line,) = refused(capsys, "prune", "with", f"pretrained={run / 'prune.small'}")
    assert "is pruned already; prune the posterior that it was made of" in line


def test_weights_without_a_run_are_tested_on_the_data_that_they_name(in_tmp, capsys):
    network = initial_network(MLP((64, 8, 10)), 0.05, seeded(0))
    save_weights(in_tmp / "mine.safetensors", network, {"dataset": "digits8x8"})
    retest = open_retest("mine.safetensors", {**DEFAULT, "num_test_samples": 2})
    study = PruningStudy("mine", retest)
    assert len([*study.run(0.9)]) == len(SHARES) + 1
    assert [path.name for path in study.save()] == ["mine-prune.json", "mine-prune.png"]
    save_weights(in_tmp / "nameless", network)
    (line,) = refused(capsys, "prune", "with", "pretrained=nameless")
    assert "does not tell what data it was trained on, and no record of a run is beside it" in line
    save_weights(in_tmp / "wrong", initial_network(MLP((63, 8, 10)), 0.05, seeded(0)), {"dataset": "digits8x8"})
    (line,) = refused(capsys, "prune", "with", "pretrained=wrong")
    assert "takes inputs of 63 numbers; digits8x8 has 64" in line


def test_numbers_in_place_of_classes(in_tmp, capsys):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    np.savez("numbers.npz", x_train=x, y_train=x.sum(1), x_test=x[:20], y_test=x[:20].sum(1))
    words = [word for word in SMALL if not word.startswith("dataset")]
    command("with", "blundell", *words, "dataset=numbers.npz", "likelihood=gaussian", "experiment_name=numbers")
    capsys.readouterr()
    command("prune", "with", "pretrained=numbers")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["removed", "%", "kept", "RMSE", "NLL", "in", "90", "%"]
    result = json.loads((in_tmp / "results/numbers/1/run.json").read_text())["result"]
    first = rows_of(in_tmp / "results/numbers/1/prune.json")[0]
    assert (first["rmse"], first["nll"]) == (result["test_rmse"], result["test_nll"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prune"], "pretrained=None: must name an experiment, a run folder or a weights file"),
        (["prune", "with", "pretrained=3"], "pretrained=3: must name an experiment"),
        (
            ["prune", "with", "pretrained=worst"],
            "pretrained='worst': there is no weights file, run folder or completed",
        ),
        (["prune", "with", "best"], "best: prune takes only share= and pretrained= and network="),
        (["prune", "with", "pretrained=best", "lr=1"], "lr=1: prune takes only share= and pretrained="),
        (["prune", "with", "pretrained=best", "share=1"], "share=1: must be a number of at least 0 and less than 1"),
        (["prune", "with", "pretrained=best", "share=-0.1"], "share=-0.1: must be a number of at least 0"),
        (["prune", "with", "pretrained=best", "share=nan"], "share=nan: must be a number of at least 0"),
        (["prune", "with", "pretrained=best", "share=half"], "share=half: must be a number of at least 0"),
        (["prune", "with", "pretrained=best", "--share=2"], "share=2: must be a number of at least 0"),
        (["with", "blundell", "share=0.5"], "share=0.5: is an option of prune, not of main"),
        (["prune", "with", "pretrained=best", "--fast"], "--fast: is no option of prune"),
        (["prune", "with", "pretrained=best", "data_dir=3"], "data_dir=3: must be"),
        (["prune", "with", "pretrained=best", "device=gpu"], "device='gpu': must be"),
        (["prune", "with", "pretrained=flows"], "pretrained='flows': has normalizing flows"),
        (["prune", "with", "pretrained=many"], "pretrained='many': holds 2 replicas"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_what_will_not_do_gets_one_line_and_leaves_nothing(run, capsys, words, line):
    networks = [initial_network(MLP((64, 8, 10)), 0.05, seeded(seed), num_flows=2) for seed in (0, 1)]
    save_weights(run.parents[2] / "flows", networks[0], {"dataset": "digits8x8"})
    networks = [initial_network(MLP((64, 8, 10)), 0.05, seeded(seed)) for seed in (0, 1)]
    save_weights(run.parents[2] / "many", BayesianNetwork.stacked(networks), {"dataset": "digits8x8"})
    before = sorted(run.parents[2].rglob("*"))
    (printed,) = refused(capsys, *words)
    assert printed.startswith(f"error: {line}")
    assert sorted(run.parents[2].rglob("*")) == before
