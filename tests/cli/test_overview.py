"""``runs`` and ``report``: what they print and write, and what they refuse."""

import json
import shlex

import pytest

from bbb.cli import overview
from tests.documentation import documented_commands
from tests.made_runs import make_run
from tests.tasks import SMALL, command, refused


@pytest.fixture
def some_runs(in_tmp):
    """Three runs, one of them damaged."""
    results = in_tmp / "results"
    make_run(results, "blundell", 1, prior="scale_mixture", beta_type="blundell", lr=0.003, num_epochs=50)
    make_run(results, "wide", 2, num_epochs=100, num_hidden=800, score=2.25, minute=1)
    (make_run(results, "broken", 1, minute=2) / "run.json").write_text("{")
    return results


def printed(capsys, *words):
    command(*words)
    output = capsys.readouterr()
    assert output.err == ""
    return output.out.splitlines()


def test_runs_are_printed_newest_first_with_what_differs_scores_and_time(some_runs, capsys):
    head, *rows = printed(capsys, "runs")
    assert head.split() == ["run", "status", "error", "%", "NLL", "time", "started", "(UTC)", "configuration"]
    broken, wide, blundell = rows  # a damaged run has the time of its folder
    assert wide.split() == [
        *("wide/2", "completed", "2.25", "0.0750", "9.0", "s", "2026-01-02", "03:05", "default", "num_hidden=800")
    ]
    assert blundell.endswith("  blundell")
    assert broken.split()[:2] == ["broken/1", "damaged"]
    assert broken.endswith("run.json is damaged")


@pytest.mark.parametrize("words", [["with", "wide"], ["with", "results/wide"], ["--experiment=wide"]], ids=" ".join)
def test_runs_of_one_experiment(some_runs, capsys, words):
    assert [row.split()[0] for row in printed(capsys, "runs", *words)] == ["run", "wide/2"]


@pytest.mark.parametrize("words", [["--json"], ["-j"], ["with", "json=True"], ["json=True"]], ids=" ".join)
def test_runs_as_json(some_runs, capsys, words):
    entries = json.loads("\n".join(printed(capsys, "runs", *words)))
    assert {entry["run"]: entry["status"] for entry in entries} == {
        **{"broken/1": "damaged", "wide/2": "completed", "blundell/1": "completed"}
    }
    (wide,) = (entry for entry in entries if entry["run"] == "wide/2")
    assert wide["command"] == "python experiment.py with experiment_name=wide num_hidden=800"
    assert wide["scores"]["test_error"] == 2.25


def test_runs_of_one_experiment_as_json(some_runs, capsys):
    (entry,) = json.loads("\n".join(printed(capsys, "runs", "with", "wide", "json=True")))
    assert entry["changes"] == {"num_hidden": 800}


def test_a_run_leaves_what_runs_and_report_show(in_tmp, capsys):
    lines = printed(capsys, "with", "blundell", *SMALL)
    assert lines[-2].endswith("and the record in results/blundell/1")
    assert "python experiment.py report" in lines[-1]
    (row,) = printed(capsys, "runs")[1:]
    assert row.startswith("blundell/1  completed")
    assert row.endswith("blundell dataset=digits8x8 num_epochs=1 num_hidden=8 num_test_samples=3")
    (line,) = printed(capsys, "report")
    assert line.startswith("results/report.html: 1 run, ")
    assert (in_tmp / "results" / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["runs"], "results/: there is no run yet; make one, as in: python experiment.py with blundell dataset="),
        (["report"], "results/: there is no run yet; make one, as in: python experiment.py with blundell dataset="),
        (["report", "with", "best"], "best: report takes no words"),
        (["report", "json=True"], "json=True: report takes no words"),
        (["report", "--json"], "--json: is no option of report"),
        (["runs", "with", "seed=1"], "seed=1: runs takes only the name of an experiment and json="),
        (["runs", "with", "json=1"], "json=1: must be True or False"),
        (["with", "blundell", "json=True"], "json=True: is an option of runs, not of main"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_what_cannot_be_shown_gets_one_line_and_leaves_nothing(in_tmp, capsys, words, line):
    (refusal,) = refused(capsys, *words)
    assert refusal.startswith(f"error: {line}")
    assert list(in_tmp.iterdir()) == []


def test_an_experiment_without_runs_is_refused_and_the_others_are_named(some_runs, capsys):
    (line,) = refused(capsys, "runs", "with", "wid")
    assert line == "error: wid: there is no run of this name in results/; there are broken, wide, blundell"


def test_no_runs_as_json_are_an_empty_list(in_tmp, capsys):
    assert printed(capsys, "runs", "--json") == ["[]"]


def test_without_plotly_the_package_is_named(some_runs, capsys, monkeypatch):
    monkeypatch.setattr(overview, "find_spec", lambda name: None)
    (line,) = refused(capsys, "report")
    assert line == "error: report: needs what is not installed; run: pip install plotly"


def test_a_folder_that_cannot_be_written_is_refused(some_runs, capsys):
    (some_runs / "report.html").mkdir()
    (line,) = refused(capsys, "report")
    assert line.startswith("error: results/report.html: cannot be written")
    assert list((some_runs / "report.html").iterdir()) == []


def test_what_a_file_holds_cannot_steer_the_terminal(some_runs, capsys):
    make_run(some_runs, "odd", 1, dataset="\x1b[31mred\nline", minute=3)
    (row,) = printed(capsys, "runs", "with", "odd")[1:]
    assert row.isprintable()


@pytest.mark.parametrize(
    "words",
    [shlex.split(line)[2:] for kind in ("runs", "report") for line in documented_commands(f"experiment.py {kind}")],
    ids=" ".join,
)
def test_every_documented_command_of_these_works(in_tmp, capsys, words):
    make_run(in_tmp / "results", "blundell", 1)
    assert printed(capsys, *words)
