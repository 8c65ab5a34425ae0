"""The command demo: what it takes, what it prints, and what it refuses before anything is written."""

import json
import re
import shlex

import pytest

from bbb.networks import MLP, initial_network, save_weights
from tests.documentation import documented_commands
from tests.pages.test_page import Elements
from tests.tasks import command, refused, seeded

DOCUMENTED = [shlex.split(line)[2:] for line in documented_commands("experiment.py demo")]


@pytest.fixture
def two_runs(in_tmp):
    """Posteriors as two runs of the embedded digits would leave them."""
    for name in ("best", "blundell"):
        (in_tmp / "results" / name).mkdir(parents=True)
        network = initial_network(MLP((64, 8, 10)), 0.05, seeded(0))
        save_weights(in_tmp / "results" / name / "weights.safetensors", network, {"dataset": "digits8x8"})
    return in_tmp


def names_in(page):
    (_, text), *_ = Elements(page.read_text()).all("script")
    return [posterior["name"] for posterior in json.loads(text)["posteriors"]]


@pytest.mark.parametrize("words", DOCUMENTED, ids=" ".join)
def test_every_documented_demo_is_written_and_says_where(two_runs, capsys, words):
    command(*words)
    page = two_runs / "results" / "demo.html"
    assert re.fullmatch(r"results/demo\.html: \d\.\d MB; open it in a browser\n", capsys.readouterr().out)
    assert names_in(page) == re.findall(r"best|blundell", " ".join(words))


def test_demos_are_documented():
    assert len(DOCUMENTED) >= 2


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("pretrained=best", ["best"]),
        ("pretrained=results/best", ["results/best"]),
        ("pretrained=results/best/weights.safetensors", ["results/best/weights.safetensors"]),
        ("pretrained=[best]", ["best"]),
        ("pretrained=[best, blundell]", ["best", "blundell"]),
        ("pretrained=['best', 'blundell']", ["best", "blundell"]),
    ],
)
@pytest.mark.parametrize("start", [["demo", "with"], ["demo"]], ids=" ".join)
def test_posteriors_are_named_as_everywhere(two_runs, start, word, names):
    command(*start, word)
    assert names_in(two_runs / "results" / "demo.html") == names


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["demo"], "pretrained=None: must name an experiment, a run folder or a weights file"),
        (["demo", "with", "pretrained=3"], "pretrained=3: must name an experiment"),
        (["demo", "with", "pretrained=[]"], "pretrained=[]: names 0 posteriors; the page shows one or two"),
        (["demo", "with", "pretrained=[best,]"], "pretrained=['best', '']: must name an experiment"),
        (["demo", "with", "pretrained=worst"], "pretrained='worst': there is no weights file, run folder or completed"),
        (["demo", "with", "best"], "best: demo takes only pretrained= and data_dir="),
        (["demo", "with", "pretrained=best", "lr=1"], "lr=1: demo takes only pretrained= and data_dir="),
        (["demo", "with", "pretrained=best", "--fast"], "--fast: is no option of demo"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_what_will_not_do_gets_one_line_and_leaves_nothing(two_runs, capsys, words, line):
    before = sorted(two_runs.rglob("*"))
    (printed,) = refused(capsys, *words)
    assert printed.startswith(f"error: {line}")
    assert sorted(two_runs.rglob("*")) == before
