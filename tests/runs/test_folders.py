import json
import os

import pytest

from bbb import runs
from bbb.runs import ResultsError


def finished_run(folder, text, status="COMPLETED", **config):
    folder.mkdir(parents=True)
    for name in runs.PUBLISHED:
        (folder / name).write_text(text)
    (folder / "run.json").write_text(json.dumps({"status": status, "result": {"test_error": 1.0}}))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def published(experiment):
    return [(experiment / name).read_text() for name in runs.PUBLISHED]


@pytest.mark.parametrize("links", [True, False])
def test_the_last_completed_run_is_published_and_no_other_is_touched(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("pathlib.Path.symlink_to", lambda self, target: os.stat("/no links here"))
    experiment = tmp_path / "e"
    for number in ("1", "2"):
        runs.publish(finished_run(experiment / number, number))
        assert published(experiment) == [number] * 3
    assert (experiment / "1" / "log.txt").read_text() == "1"
    assert not [path for path in experiment.iterdir() if path.name.startswith(".")]


def test_all_files_change_in_one_move(tmp_path, monkeypatch):
    """After the first run a publication is a single rename: there is no moment with files of two runs."""
    experiment = tmp_path / "e"
    runs.publish(finished_run(experiment / "1", "1"))
    second, moves = finished_run(experiment / "2", "2"), []
    replace = os.replace

    def watched(source, target):
        moves.append(target)
        replace(source, target)

    monkeypatch.setattr("os.replace", watched)
    runs.publish(second)
    assert moves == [experiment / "latest"]


def test_experiment_folder_stays_below_results(tmp_path):
    root = tmp_path / "results"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    assert runs.experiment_folder("a/b", root) == root / "a" / "b"
    with pytest.raises(ResultsError, match="a link that leads out of"):
        runs.experiment_folder("out/x", root)


def test_check_writable_leaves_nothing(tmp_path):
    runs.check_writable(tmp_path / "results" / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "results").write_text("a file in the way")
    with pytest.raises(ResultsError, match=r"results cannot be written there .*choose another experiment_name"):
        runs.check_writable(tmp_path / "results" / "a")
    assert (tmp_path / "results").read_text() == "a file in the way"


def test_weights_are_found_by_file_run_folder_and_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "results"
    first = finished_run(root / "a" / "1", "1")
    runs.publish(finished_run(root / "a" / "2", "2"))
    for pretrained, text in {
        str(first / runs.WEIGHTS): "1",
        "results/a/1": "1",
        "a": "2",
        "results/a": "2",
        str(root / "a"): "2",
    }.items():
        assert runs.find_weights(pretrained, root).read_text() == text


def test_missing_weights_tell_what_there_is(tmp_path):
    runs.publish(finished_run(tmp_path / "results" / "a" / "1", "1"))
    finished_run(tmp_path / "results" / "failed" / "1", "1", status="FAILED")
    with pytest.raises(ResultsError, match=r"pretrained='b': .* completed under .*: a; train one first"):
        runs.find_weights("b", tmp_path / "results")
    with pytest.raises(ResultsError, match=r": none; train one first"):
        runs.find_weights("b", tmp_path / "empty")


def test_runs_are_found_by_configuration(tmp_path):
    finished_run(tmp_path / "a" / "2", "", seed=2, digits=[0, 1])
    finished_run(tmp_path / "a" / "10", "", seed=3, digits=[0, 1])
    finished_run(tmp_path / "a" / "1", "", seed=1, digits=[0, 1])
    finished_run(tmp_path / "b" / "1", "", status="FAILED", seed=1, digits=[2, 3])
    (tmp_path / "b" / "2").mkdir()
    (tmp_path / "b" / "2" / "run.json").write_text("{half")
    assert [run.folder.name for run in runs.find_runs(tmp_path / "a")] == ["1", "2", "10"]
    assert [run.config["seed"] for run in runs.find_runs(tmp_path, digits=(0, 1))] == [1, 2, 3]
    (run,) = runs.find_runs(tmp_path, seed=1, digits=(2, 3))
    assert run.status == "FAILED"
    assert run.result == {"test_error": 1.0}


def test_the_last_unfinished_run_is_found_with_its_configuration_only(tmp_path):
    for number, status in {"1": "FAILED", "2": "INTERRUPTED", "3": "COMPLETED"}.items():
        folder = finished_run(tmp_path / number, "", status=status, seed=1, digits=[0, 1], resume=False)
        if status != "COMPLETED":
            (folder / runs.CHECKPOINT).touch()
    assert runs.find_unfinished(tmp_path, {"seed": 1, "digits": (0, 1), "resume": True}).name == "2"
    with pytest.raises(ResultsError, match=r"2 was started with another configuration: seed=2 \(was 1\)$"):
        runs.find_unfinished(tmp_path, {"seed": 2, "digits": [0, 1], "resume": True})


def test_nothing_to_resume(tmp_path):
    finished_run(tmp_path / "1", "")
    with pytest.raises(ResultsError, match=r"resume=True: there is no unfinished run in .*; leave resume away"):
        runs.find_unfinished(tmp_path, {})
