"""The list of all runs: newest first, and whatever the files hold, no run stops it."""

import json
import os

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bbb.studies import catalogue, named_configs, plain
from tests.made_runs import COMMIT, make_run
from tests.tasks import CONFIGS

NAMED = named_configs(CONFIGS)


def listed(root):
    return {entry.id: entry for entry in catalogue(NAMED, root)}


def rewrite(folder, file, **changes):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_run_is_listed_with_what_the_report_shows(tmp_path):
    make_run(tmp_path, "wide", 3, seed=2, prior="scale_mixture", beta_type="blundell", lr=0.003, num_epochs=50)
    (entry,) = catalogue(NAMED, tmp_path)
    assert (entry.name, entry.number, entry.status, entry.problem) == ("wide", 3, "completed", None)
    assert (entry.origin.named, entry.origin.changes) == ("blundell", {"seed": 2})
    assert entry.scores["test_error"] == 1.5
    assert (entry.seconds, entry.commit, entry.is_dirty) == (9.0, COMMIT, False)
    assert entry.started == "2026-01-02T03:04:05+00:00"
    assert entry.source is None
    assert entry.as_dict()["command"] == "python experiment.py with blundell experiment_name=wide seed=2"


def test_the_newest_is_first_in_whatever_folder(tmp_path):
    for minute, (name, number) in enumerate([("b", 1), ("a/c", 1), ("b", 2), ("a", 10)]):
        make_run(tmp_path, name, number, minute=minute)
    assert [*listed(tmp_path)] == ["a/10", "b/2", "a/c/1", "b/1"]


def test_only_numbered_folders_with_a_runs_files_are_runs(tmp_path):
    folder = make_run(tmp_path, "a", 1)
    (tmp_path / "a" / "latest").symlink_to("1")
    (tmp_path / "a" / "7").symlink_to("1")
    (tmp_path / "a" / "2").mkdir()
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "run.json").touch()
    for name in ("_sources", "_logs", ".hidden"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "run.json").write_text("{}")
    (folder / "4").mkdir()
    (folder / "4" / "run.json").write_text("{}")
    assert [*listed(tmp_path)] == ["a/1"]
    assert catalogue(NAMED, tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("status", "says"),
    [("COMPLETED", "completed"), ("INTERRUPTED", "stopped"), ("FAILED", "failed"), ("RUNNING", "lost"), ("ODD", "odd")],
)
def test_every_status_has_a_word(tmp_path, status, says):
    make_run(tmp_path, "a", 1, status=status)
    assert listed(tmp_path)["a/1"].status == says


def test_a_run_with_a_heartbeat_is_running_and_a_stopped_one_can_be_resumed(tmp_path):
    running = make_run(tmp_path, "a", 1, status="RUNNING")
    rewrite(running, "run.json", heartbeat="2999-01-01T00:00:00")
    stopped = make_run(tmp_path, "a", 2, status="INTERRUPTED")
    plain = make_run(tmp_path, "default", 3, status="INTERRUPTED", num_epochs=100)
    for folder in (running, stopped, plain):
        (folder / "checkpoint.pt").touch()
    entries = listed(tmp_path)
    assert entries["a/1"].status == "running"
    assert not entries["a/1"].can_resume
    assert entries["a/2"].can_resume
    assert entries["a/2"].command == "python experiment.py with experiment_name=a num_epochs=3 resume=True"
    assert entries["default/3"].command == "python experiment.py with resume=True"


def test_a_failed_run_says_why(tmp_path):
    folder = make_run(tmp_path, "a", 1, status="FAILED")
    rewrite(folder, "run.json", fail_trace=["Traceback\n", "  File\n", "RuntimeError: it broke\nin two lines\n"])
    assert listed(tmp_path)["a/1"].problem == "RuntimeError: it broke"


DAMAGE = {
    "run.json": "run.json is missing",
    "config.json": "config.json is missing",
}


@pytest.mark.parametrize("file", DAMAGE)
@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff\xfe", b"null", b"[" * 100_000, b'{"a": 1e999'])
def test_a_damaged_run_is_listed_as_such_and_the_others_too(tmp_path, file, content):
    folder = make_run(tmp_path, "a", 1)
    make_run(tmp_path, "b", 1)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    entries = listed(tmp_path)
    assert entries["a/1"].status == "damaged"
    assert entries["a/1"].problem == (DAMAGE[file] if content is None else f"{file} is damaged")
    assert entries["b/1"].status == "completed"
    json.dumps([entry.as_dict() for entry in entries.values()], allow_nan=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_a_damage(tmp_path):
    (make_run(tmp_path, "a", 1) / "run.json").chmod(0)
    assert listed(tmp_path)["a/1"].problem == "run.json cannot be read (Permission denied)"


def test_a_folder_in_place_of_a_file_is_a_damage(tmp_path):
    folder = make_run(tmp_path, "a", 1)
    (folder / "run.json").unlink()
    (folder / "run.json").mkdir()
    assert listed(tmp_path)["a/1"].problem == "run.json cannot be read (Is a directory)"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ("status", "result", "experiment", "start_time", "heartbeat", "fail_trace", "info")


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=st.dictionaries(st.sampled_from(KEYS), ANYTHING), config=st.dictionaries(st.text(max_size=8), ANYTHING))
def test_whatever_the_files_hold_a_list_of_plain_values_comes_out(tmp_path_factory, record, config):
    root = tmp_path_factory.mktemp("results")
    folder = make_run(root, "a", 1)
    for file, changes in (("run.json", record), ("config.json", config), ("info.json", record)):
        (folder / file).write_text(json.dumps(changes))
    (entry,) = catalogue(NAMED, root)
    json.dumps(entry.as_dict(), allow_nan=False).encode()
    json.dumps(plain(entry.config), allow_nan=False).encode()


def test_the_source_is_the_run_whose_weights_were_read_also_after_a_move(tmp_path):
    source = make_run(tmp_path / "results", "domain_a", 2)
    make_run(tmp_path / "results", "transfer", 1, source=source)
    make_run(tmp_path / "results", "transfer", 2, source=tmp_path / "elsewhere")
    entries = listed(tmp_path / "results")
    assert entries["transfer/1"].source == "domain_a/2"
    assert entries["transfer/2"].source == str(tmp_path / "elsewhere" / "weights.safetensors")
    (tmp_path / "results").rename(tmp_path / "moved")
    assert listed(tmp_path / "moved")["transfer/1"].source == "domain_a/2"
