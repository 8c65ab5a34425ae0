"""The commands regression, yardstick and bandit: their files, their words, and their part in ``figures``."""

import json
import re
import shlex

import pytest

from bbb import studies
from bbb.data import mushrooms
from bbb.studies import bandit_study, regression, reproduction, yardstick
from bbb.studies.yardstick_truth import TruthPlan
from tests.data_files import made_up_mushrooms
from tests.documentation import documented_commands
from tests.tasks import command, refused

DOCUMENTED = [shlex.split(line)[2:] for line in documented_commands("experiment.py bandit")]
DOCUMENTED += [shlex.split(line)[2:] for line in documented_commands("experiment.py regression")]
DOCUMENTED += [shlex.split(line)[2:] for line in documented_commands("experiment.py yardstick")]
NAMES = ("regression", "yardstick", "bandit")


@pytest.fixture
def small(in_tmp, monkeypatch):
    """Few candidates and seeds, mushrooms in a file, and no network."""
    chosen = {part: regression.CANDIDATES[part] for part in ("bayes_0.3_0.003", "point_0.003")}
    monkeypatch.setattr(regression, "CANDIDATES", chosen)
    monkeypatch.setattr(regression, "SEEDS", (1,))
    monkeypatch.setattr(yardstick, "FAST_FAMILIES", ("mean field",))
    monkeypatch.setattr(yardstick, "FAST_TRUTH", TruthPlan(4, 10, 2, 4))
    monkeypatch.setattr(bandit_study, "SEEDS", (1,))
    monkeypatch.setattr(mushrooms, "URL", "http://127.0.0.1:9/nothing")
    (in_tmp / "agaricus-lepiota.data").write_text(made_up_mushrooms())
    return in_tmp


@pytest.mark.parametrize("words", DOCUMENTED, ids=" ".join)
def test_every_documented_command_writes_its_figure(small, capsys, words):
    if "dataset=mnist" in words:
        pytest.skip("needs MNIST")
    if not any(word == "with" for word in words):
        words = [words[0], "with", *words[1:]]
    command(*words, *([] if "fast=True" in words else ["fast=True"]))
    out = capsys.readouterr().out
    path = re.search(r"in (\S+\.json) and \S+\.png$", out)[1]
    record = json.loads((small / path).read_text())
    assert record["figure"] == words[0]
    assert (small / path).with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_they_are_documented():
    assert {*NAMES} <= {words[0] for words in DOCUMENTED}
    assert any(word.startswith("file=") for words in DOCUMENTED for word in words)


def test_mushrooms_that_cannot_be_had_are_replaced_by_digits_and_it_is_said(small, capsys):
    command("bandit", "fast=True")
    out = capsys.readouterr().out
    assert out.startswith("dataset=mushroom: cannot be downloaded from http://127.0.0.1:9/nothing")
    assert "so the contexts are digits8x8" in out
    assert (small / "results/reproduce-fast/bandit/digits8x8/bandit.png").exists()


def test_mushrooms_are_read_from_a_file_and_their_checksum_is_recorded(small, capsys):
    command("bandit", "file=agaricus-lepiota.data", "fast=True")
    path = small / "results/reproduce-fast/bandit/mushroom/bandit.json"
    config = json.loads(path.read_text())["config"]
    assert re.fullmatch("[0-9a-f]{64}", config["sha256"])
    command("bandit", "with", "file=agaricus-lepiota.data", f"sha256={config['sha256']}", "fast=True")
    assert "4 parts: 4 computed before, 0 to do" in capsys.readouterr().out


def test_figures_draws_them_from_their_parts_then_from_their_files_and_else_names_the_commands(
    small, capsys, monkeypatch
):
    monkeypatch.setattr(studies, "plots", lambda *args: [], raising=False)
    (line,) = refused(capsys, "figures", "fast=True")
    assert line.startswith("error: regression, yardstick, bandit: not drawn; the 3 commands above")
    command("regression", "fast=True")
    command("yardstick", "fast=True")
    command("bandit", "dataset=digits8x8", "fast=True")
    capsys.readouterr()
    command("figures", "fast=True")
    out = capsys.readouterr().out
    folder = reproduction.figures_folder(True)
    assert f"{folder / 'regression.png'}: drawn from 2 parts" in out
    assert f"{folder / 'bandit.png'}: drawn from 4 parts" in out
    first = [(folder / f"{name}.png").read_bytes() for name in NAMES]
    for study in studies.all_studies(fast=True):
        for part in study.parts:
            (study.folder / f"{part}.json").unlink()
    command("figures", "fast=True")
    assert "drawn from bandit.json; 4 of its parts are not here" in capsys.readouterr().out
    assert [(folder / f"{name}.png").read_bytes() for name in NAMES] == first


def test_reproduce_makes_them_and_draws_them_where_figures_are(small, capsys, monkeypatch):
    monkeypatch.setattr(studies, "plots", lambda *args: [], raising=False)
    command("reproduce", "fast=True")
    assert "regression: 2 parts: 0 computed before, 2 to do" in capsys.readouterr().out
    folder = reproduction.figures_folder(True)
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        f"{name}.{kind}" for name in NAMES for kind in ("json", "png")
    }
    command("reproduce", "fast=True")
    assert "bandit: 4 parts: 4 computed before, 0 to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["regression", "seed=3"], "seed=3: regression takes only fast="),
        (["regression", "with", "best"], "best: regression takes only fast="),
        (["regression", "fast=maybe"], "fast=maybe: must be True or False"),
        (["yardstick", "lr=1"], "lr=1: yardstick takes only fast="),
        (["bandit", "lr=1"], "lr=1: bandit takes only dataset= and file= and sha256= and fast= and data_dir="),
        (["bandit", "dataset=cifar10"], "dataset=cifar10: the contexts of bandit must be mushroom, digits8x8, mnist"),
        (["bandit", "sha256=abc"], "sha256=abc: must be 64 hexadecimal digits"),
        (["bandit", "file="], "file=: must name a file"),
        (["bandit", "file=yours.data", "fast=True"], "file=yours.data: cannot be read (No such file or directory)"),
        (["bandit", "dataset=mushroom"], "dataset=mushroom: cannot be downloaded from http://127.0.0.1:9/nothing"),
        (
            ["bandit", "file=agaricus-lepiota.data", f"sha256={'0' * 64}"],
            "agaricus-lepiota.data: its sha256 checksum is",
        ),
        (
            ["bandit", "dataset=mnist", "file=agaricus-lepiota.data"],
            "file=agaricus-lepiota.data: goes with dataset=mushroom, not with dataset=mnist",
        ),
        (["with", "blundell", "file=a"], "file=a: is an option of bandit, not of main"),
        (["with", "blundell", "--file=a"], "--file: is no option of main"),
    ],
    ids=lambda part: " ".join(part)[:60] if isinstance(part, list) else "",
)
def test_what_will_not_do_gets_one_line_and_leaves_nothing(small, capsys, words, line):
    before = sorted(small.rglob("*"))
    (printed,) = refused(capsys, *words)
    assert printed.startswith(f"error: {line}")
    assert sorted(small.rglob("*")) == before
