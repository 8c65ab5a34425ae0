"""Options of commands: how they are written, which command takes which, and what they need."""

import importlib.util
import json
import re

import pytest

import experiment
from bbb.cli import session
from tests.tasks import DEFAULT, SMALL, command, refused


@pytest.fixture
def stopped(in_tmp, monkeypatch):
    """The folder of a run of two epochs that was interrupted after the first."""
    write = session.log

    def log_and_interrupt(run, epoch):
        write(run, epoch)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "log", log_and_interrupt)
        with pytest.raises(SystemExit):
            command("with", "blundell", *SMALL, "num_epochs=2")
    return in_tmp / "results" / "blundell" / "1"


def status(folder):
    return json.loads((folder / "run.json").read_text())["status"]


RUN = ["with", "blundell", *SMALL, "num_epochs=2"]


@pytest.mark.parametrize(
    "words",
    [
        [*RUN, "resume=True"],
        ["with", "resume=True", *RUN[1:]],
        [*RUN, "--resume"],
        ["--resume", *RUN],
        [*RUN, "-r"],
        ["-r", *RUN],
        ["main", *RUN, "-r"],
    ],
    ids=" ".join,
)
def test_every_way_to_write_resume_goes_on_with_the_stopped_run(stopped, words):
    assert status(stopped) == "INTERRUPTED"
    command(*words)
    assert status(stopped) == "COMPLETED"
    assert [path.name for path in stopped.parent.iterdir() if path.name.isdigit()] == ["1"]


def test_resume_false_starts_a_new_run(stopped):
    command(*RUN, "resume=False")
    assert (status(stopped), status(stopped.with_name("2"))) == ("INTERRUPTED", "COMPLETED")


def test_resume_is_in_no_configuration(stopped):
    assert "resume" not in DEFAULT
    assert json.loads((stopped / "config.json").read_text()).keys() == {*DEFAULT, "seed"}
    command(*RUN, "resume=True")
    assert json.loads((stopped / "config.json").read_text()).keys() == {*DEFAULT, "seed"}


@pytest.mark.parametrize("value", [False, True])
def test_a_stopped_run_of_a_version_in_which_resume_was_a_key_is_resumed(stopped, value):
    config = json.loads((stopped / "config.json").read_text())
    (stopped / "config.json").write_text(json.dumps({**config, "resume": value}))
    command(*RUN, "resume=True")
    assert status(stopped) == "COMPLETED"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["with", "blundell", *SMALL, "resume=abc"], "resume=abc: must be True or False"),
        (["with", "blundell", *SMALL, "resume=1"], "resume=1: must be True or False"),
        (["with", "blundell", *SMALL, "--resume=abc"], "cannot make sense of: "),
        (
            ["with", "blundell", *SMALL, "fast=True"],
            "fast=True: is an option of reproduce, figures, regression, yardstick and bandit, not of main",
        ),
        (["with", "blundell", *SMALL, "--fast"], "--fast: is no option of main"),
        (["save_config", "with", "resume=True"], "resume=True: is an option of main and print_config, not of save_con"),
        (
            ["grid", "with", "blundell", "resume=True"],
            "resume=True: is an option of main and print_config, not of grid",
        ),
        (["grid", "with", "blundell", "grid={'seed': [1]}", "resume=True"], "resume=True: is an option of main and "),
        (["grid", "with", "blundell", "grid={'seed': [1]}", "-r"], "--resume: is no option of grid"),
        (["reproduce", "--resume"], "--resume: is no option of reproduce"),
        (["reproduce", "--scheduler=here"], "scheduler=here: must be the address of a Dask scheduler"),
        (["figures", "--scheduler=tcp://a:1"], "--scheduler: is no option of figures"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_an_option_that_will_not_do_gets_one_line_and_leaves_nothing(in_tmp, capsys, words, line):
    (printed,) = refused(capsys, *words)
    assert printed.startswith(f"error: {line}")
    assert list(in_tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["-m", "db"], "--mongo_db: needs what is not installed; run: pip install pymongo"),
        (["--mongo_db=db"], "--mongo_db: needs what is not installed; run: pip install pymongo"),
        (["--mongo=db"], "--mongo_db: needs what is not installed; run: pip install pymongo"),
        (["-umdb"], "--mongo_db: needs what is not installed; run: pip install pymongo"),
        (["-s", "sqlite://"], "--sql: needs what is not installed; run: pip install sqlalchemy"),
        (["-t", "."], "--tiny_db: needs what is not installed; run: pip install tinydb tinydb-serialization hashfs"),
        (["-S", "s3://a/b"], "--s3: needs what is not installed; run: pip install boto3"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_an_option_without_its_package_gets_one_line_and_leaves_nothing(in_tmp, capsys, monkeypatch, words, line):
    find = importlib.util.find_spec
    absent = ("pymongo", "sqlalchemy", "tinydb", "tinydb_serialization", "hashfs", "boto3")
    monkeypatch.setattr("bbb.cli.observers.find_spec", lambda name: None if name in absent else find(name))
    for given in (["print_config", *words], [*words, "with", "blundell", *SMALL], ["with", "blundell", *SMALL, *words]):
        assert refused(capsys, *given) == [f"error: {line}"]
    assert list(in_tmp.iterdir()) == []


def test_no_letter_means_two_options():
    """Ours and Sacred's, such as its -D for --pdb."""
    _, _, options = experiment.ex.get_usage()[1].partition("\nOptions:\n")
    letters = re.findall(r"^\s+-(\w)\b", options, re.MULTILINE)
    assert {"D", "r", "T"} <= set(letters)
    assert len(letters) == len(set(letters))
