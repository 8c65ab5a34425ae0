import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bbb import runs
from bbb.runs import RESULTS, ResultsError, Settings, open_run
from bbb.system import LOCK, BusyError, lock
from tests.tasks import DEFAULT, REPOSITORY

SINCE = {  # keys that came with classes
    *("network", "deterministic", "classes", "normalization", "pixel_scale", "likelihood", "noise_std", "learn_noise")
}


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


def test_experiment_folder_stays_below_results(in_tmp):
    root = Path("results")
    root.mkdir()
    (root / "out").symlink_to(in_tmp)
    assert runs.experiment_folder("a/b") == root / "a" / "b"
    with pytest.raises(ResultsError, match="a link that leads out of"):
        runs.experiment_folder("out/x")


def test_check_writable_leaves_nothing(tmp_path):
    runs.check_writable(tmp_path / "results" / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "results").write_text("a file in the way")
    with pytest.raises(ResultsError, match=r"results cannot be written there .*choose another experiment_name"):
        runs.check_writable(tmp_path / "results" / "a")
    assert (tmp_path / "results").read_text() == "a file in the way"


def test_weights_are_found_by_file_run_folder_and_name(in_tmp):
    root = in_tmp / "results"
    first = finished_run(root / "a" / "1", "1")
    runs.publish(finished_run(root / "a" / "2", "2"))
    for pretrained, text in {
        str(first / runs.WEIGHTS): "1",
        "results/a/1": "1",
        "a": "2",
        "results/a": "2",
        str(root / "a"): "2",
    }.items():
        assert runs.find_weights(pretrained).read_text() == text


def test_missing_weights_tell_what_there_is(in_tmp):
    with pytest.raises(ResultsError, match=r": none; train one first"):
        runs.find_weights("b")
    runs.publish(finished_run(in_tmp / "results" / "a" / "1", "1"))
    finished_run(in_tmp / "results" / "failed" / "1", "1", status="FAILED")
    with pytest.raises(ResultsError, match=r"pretrained='b': .* completed under .*: a; train one first"):
        runs.find_weights("b")


def test_runs_are_found_by_configuration(tmp_path):
    finished_run(tmp_path / "a" / "2", "", seed=2, classes=[0, 1])
    finished_run(tmp_path / "a" / "10", "", seed=3, classes=[0, 1])
    finished_run(tmp_path / "a" / "1", "", seed=1, classes=[0, 1])
    finished_run(tmp_path / "b" / "1", "", status="FAILED", seed=1, classes=[2, 3])
    (tmp_path / "b" / "2").mkdir()
    (tmp_path / "b" / "2" / "run.json").write_text("{half")
    assert [run.folder.name for run in runs.find_runs(tmp_path / "a")] == ["1", "2", "10"]
    assert [run.config["seed"] for run in runs.find_runs(tmp_path, classes=(0, 1))] == [1, 2, 3]
    (run,) = runs.find_runs(tmp_path, seed=1, classes=(2, 3))
    assert run.status == "FAILED"
    assert run.result == {"test_error": 1.0}


def unfinished_run(folder, **config):
    """The folder of a run that was stopped."""
    finished_run(folder, "", status="INTERRUPTED", **config)
    (folder / runs.CHECKPOINT).touch()
    return folder


def test_the_last_unfinished_run_is_found_with_its_configuration_only(tmp_path):
    for number, status in {"1": "FAILED", "2": "INTERRUPTED", "3": "COMPLETED"}.items():
        folder = finished_run(tmp_path / number, "", status=status, seed=1, classes=[0, 1])
        if status != "COMPLETED":
            (folder / runs.CHECKPOINT).touch()
    assert runs.find_unfinished(tmp_path, {"seed": 1, "classes": (0, 1)}).name == "2"
    with pytest.raises(ResultsError, match=r"2 was started with another configuration: seed=2 \(was 1\)$"):
        runs.find_unfinished(tmp_path, {"seed": 2, "classes": [0, 1]})


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_a_version_in_which_resume_was_a_key_is_found(tmp_path, resume):
    folder = unfinished_run(tmp_path / "1", seed=1, resume=resume)
    assert runs.find_unfinished(tmp_path, {"seed": 1}) == folder
    (run,) = runs.find_runs(tmp_path)
    assert run.config == runs.modernised({"seed": 1})
    assert "resume" not in run.config
    assert run.config["seed"] == 1


def test_a_run_of_a_version_in_which_classes_were_digits_is_found(tmp_path):
    """It did what the defaults of today do: the keys that have come since then say so."""
    old = {key: value for key, value in DEFAULT.items() if key not in SINCE}
    folder = finished_run(tmp_path / "a" / "1", "", status="COMPLETED", **old, digits=[*range(10)], resume=False)
    some = finished_run(tmp_path / "a" / "2", "", status="COMPLETED", **old, digits=[5, 6])
    all_of_them, two = runs.find_runs(tmp_path)
    assert all_of_them.config == DEFAULT
    assert two.config == {**DEFAULT, "classes": [5, 6]}
    assert [run.folder for run in runs.find_runs(tmp_path, classes=(5, 6))] == [some]
    assert [run.folder for run in runs.find_runs(tmp_path, classes=None)] == [folder]
    assert Settings.from_config(two.config).classes == (5, 6)


def test_an_unfinished_run_of_a_version_in_which_classes_were_digits_is_found(tmp_path):
    old = {key: value for key, value in DEFAULT.items() if key not in SINCE}
    folder = unfinished_run(tmp_path / "1", **old, digits=[*range(10)], resume=False)
    assert runs.find_unfinished(tmp_path, DEFAULT) == folder
    with pytest.raises(ResultsError, match=r"another configuration: classes=\[0, 1\] \(was None\)$"):
        runs.find_unfinished(tmp_path, {**DEFAULT, "classes": [0, 1]})


def test_a_stopped_run_is_resumed_only_with_the_files_that_it_was_started_with(in_tmp):
    """The last run with today's content is taken; one that recorded nothing, or was damaged, is not."""
    code, data = in_tmp / "own.py", in_tmp / "mine.npz"
    config = {"network": "own.py:make", "dataset": "mine.npz"}
    for number, content in enumerate(["old", "new", "old", "newest"], start=1):
        code.write_text(content)
        data.write_text("data")
        (unfinished_run(in_tmp / "e" / str(number), **config) / "info.json").write_text(
            json.dumps({"files": runs.record_files(config)})
        )
    assert runs.find_unfinished(in_tmp / "e", config).name == "4"
    code.write_text("old")
    assert runs.find_unfinished(in_tmp / "e", config).name == "3"
    (in_tmp / "e" / "3" / "info.json").write_text("{half")
    assert runs.find_unfinished(in_tmp / "e", config).name == "1"
    data.write_text("other data")
    with pytest.raises(ResultsError) as error:
        runs.find_unfinished(in_tmp / "e", config)
    (line,) = str(error.value).splitlines()
    assert "4 was started with network=own.py:make when own.py had another content; put the old file back" in line
    code.write_text("newest")
    with pytest.raises(ResultsError, match=r"4 was started with dataset=mine.npz when mine.npz had another content"):
        runs.find_unfinished(in_tmp / "e", config)
    data.unlink()
    with pytest.raises(ResultsError, match=r"4 was started with dataset=mine.npz"):
        runs.find_unfinished(in_tmp / "e", config)


def test_nothing_to_resume(tmp_path):
    finished_run(tmp_path / "1", "")
    with pytest.raises(ResultsError, match=r"resume=True: there is no unfinished run in .*; leave resume away"):
        runs.find_unfinished(tmp_path, {})


CLAIM = """
import sys
from pathlib import Path
from bbb.system import BusyError, lock
try:
    lock(Path(sys.argv[1]))
except BusyError:
    sys.exit(3)
"""


def is_claimed(folder):
    """Tell whether another process is kept out of a folder."""
    command = [sys.executable, "-c", CLAIM, str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) in ((0, ""), (3, ""))
    return done.returncode == 3


def test_nothing_is_written_before_a_run_folder_is_made(in_tmp):
    with open_run("a/b") as run:
        assert (run.folder, run.is_resumed) == (None, False)
        run.discard()
        run.complete()
    with pytest.raises(ResultsError, match="no unfinished run"), open_run("a/b") as run:
        run.resume({})
    with pytest.raises(KeyError), open_run("a/b"):
        raise KeyError
    assert list(in_tmp.iterdir()) == []


def test_a_run_folder_gets_the_next_number_and_is_claimed_while_it_is_open(in_tmp):
    with open_run("a") as first, open_run("a") as second:
        folders = [first.make(), second.make()]
        assert folders == [Path(RESULTS) / "a" / "1", Path(RESULTS) / "a" / "2"]
        assert first.make() == first.folder == folders[0], "it is made once"
        assert all(is_claimed(folder.resolve()) for folder in folders)
        (folders[0] / runs.CHECKPOINT).touch()
    assert not is_claimed(folders[0].resolve())
    assert (folders[0] / runs.CHECKPOINT).exists(), "it can be resumed"
    assert not (folders[1] / LOCK).exists(), "there is nothing to resume"


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt, SystemExit])
def test_the_claim_is_given_up_however_the_context_ends(in_tmp, error):
    def work():
        with open_run("a") as run:
            (run.make() / runs.CHECKPOINT).touch()
            raise error

    with pytest.raises(error):
        work()
    assert not is_claimed(Path(RESULTS).resolve() / "a" / "1")


def test_a_stopped_run_is_claimed_by_one_process_and_keeps_its_folder(in_tmp):
    folder = unfinished_run(Path(RESULTS) / "a" / "1", seed=1)
    (folder / f".{runs.CHECKPOINT}.0123abcd").touch()  # left by a process that was killed
    with open_run("a") as run:
        run.resume({"seed": 1})
        assert (run.folder, run.is_resumed, run.make()) == (folder, True, folder)
        assert is_claimed(folder.resolve())
        assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == {LOCK}
        run.discard()
        assert (folder / runs.CHECKPOINT).exists(), "what was there before is never thrown away"
    assert not is_claimed(folder.resolve())
    with open_run("a") as run:
        run.resume({"seed": 1})
        run.complete()
    assert {path.name for path in folder.iterdir()} == {*runs.PUBLISHED, "run.json", "config.json"}


def test_a_stopped_run_that_another_process_is_at_work_on_is_refused_and_left_alone(in_tmp):
    folder = unfinished_run(Path(RESULTS) / "a" / "1", seed=1)
    claim = lock(folder)
    with pytest.raises(BusyError, match="another process is at work on this run"), open_run("a") as run:
        run.resume({"seed": 1})
    assert (folder / runs.CHECKPOINT).exists()
    claim.release()


def test_a_new_folder_whose_record_cannot_be_started_is_removed(in_tmp):
    with open_run("a") as run:
        (run.make() / "config.json").touch()
        run.discard()
        assert run.folder is None
    assert list((Path(RESULTS) / "a").iterdir()) == []


def test_a_completed_run_keeps_its_files_and_nothing_to_resume(in_tmp):
    with open_run("a") as run:
        for name in (runs.CHECKPOINT, runs.WEIGHTS):
            (run.make() / name).touch()
        run.complete()
    assert [path.name for path in run.folder.iterdir()] == [runs.WEIGHTS]
