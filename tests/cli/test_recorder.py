"""Sacred's record of a run: what it keeps, when the folder is made, and in which order a run ends."""

import datetime
import json
import shutil
from pathlib import Path

import pytest

from bbb.cli.recorder import Recorder
from bbb.runs import CHECKPOINT, assembly, tasks
from bbb.system import StorageError
from tests.tasks import REPOSITORY, SMALL, command, refused


def test_the_record_keeps_every_module(in_tmp):
    command("with", "blundell", *SMALL)
    folder = in_tmp / "results" / "blundell" / "1"
    kept = dict(json.loads((folder / "run.json").read_text())["experiment"]["sources"])
    modules = [REPOSITORY / "experiment.py", *REPOSITORY.glob("bbb/**/*.py")]
    assert kept.keys() == {path.relative_to(REPOSITORY).as_posix() for path in modules}
    assert len(kept) > 60
    for name, copy in kept.items():
        path = folder.parent / copy
        assert path.resolve().parent == in_tmp / "results" / "_sources"
        assert path.read_bytes() == (REPOSITORY / name).read_bytes()


def test_sources_that_have_not_changed_are_kept_once(in_tmp):
    for _ in range(2):
        command("with", "blundell", *SMALL)
    contents = [path.read_bytes() for path in REPOSITORY.glob("bbb/**/*.py")]
    assert len([*(in_tmp / "results" / "_sources").iterdir()]) <= 1 + len(contents)


@pytest.fixture
def damaged(tmp_path):
    """A folder with files that have the names of MNIST's and hold something else."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for file in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            (raw / f"{part}-{file}").write_text("damaged")
    return tmp_path / "data"


def test_a_refusal_during_assembly_leaves_no_folder(in_tmp, capsys, damaged):
    (in_tmp / "weights").write_text("damaged")
    for words, line in (
        (["pretrained=nope"], "pretrained='nope': there is no weights file"),
        (["pretrained=weights"], f"{in_tmp / 'weights'}: "),
        (["prior=posterior", "pretrained=nope"], "pretrained='nope': there is no weights file"),
        (["dataset=mnist", f"data_dir={damaged}"], f"{damaged}/MNIST/raw/"),
        (["digits=[0,1]", "fraction=1.0e-9", "validation_fraction=0.9999"], "validation_fraction="),
        (["num_hidden=8192", "num_layers=32", "num_flows=256"], "num_hidden=8192: training 2,"),
        (["device=cuda:99"], "device='cuda:99': is not there"),
        (["resume=True"], "resume=True: there is no unfinished run in"),
    ):
        (printed,) = refused(capsys, "with", "blundell", *SMALL, *words)
        assert printed.startswith(f"error: {line}"), printed
        assert {path.name for path in in_tmp.iterdir()} == {"data", "weights"}


def test_a_run_loads_what_it_needs_once(in_tmp, monkeypatch):
    names, load = [], assembly.load

    def watched(name, data_dir):
        names.append(name)
        return load(name, data_dir)

    for room in (assembly, tasks):
        monkeypatch.setattr(room, "load", watched)
    words = [*SMALL, "steps_per_epoch=1"]
    command("with", "domain_a", *words)
    assert names == ["digits8x8"]
    command("with", "domain_b", "pretrained=domain_a", *words)
    assert names == ["digits8x8"] * 2
    command("with", "transfer", *words)
    assert names == ["digits8x8"] * 4, "the target's, and the test set of the source"


def fail_to_save(monkeypatch, filename, when):
    """Let the disk be full when a file of the record is to be written."""
    save = Recorder.save_json

    def fail(recorder, content, name):
        if name == filename and when(content):
            raise StorageError(f"{name}: cannot be written (No space left on device)")
        save(recorder, content, name)

    monkeypatch.setattr(Recorder, "save_json", fail)


def test_the_checkpoint_stays_until_the_result_is_recorded(in_tmp, capsys, monkeypatch):
    folder = in_tmp / "results" / "blundell" / "1"
    with monkeypatch.context() as patch:
        fail_to_save(patch, "run.json", lambda record: record["status"] == "COMPLETED")
        (line,) = refused(capsys, "with", "blundell", *SMALL)
    assert line.endswith("(No space left on device); then the same command with resume=True ends the run")
    assert json.loads((folder / "run.json").read_text())["status"] == "RUNNING"
    assert (folder / CHECKPOINT).exists()
    command("with", "blundell", *SMALL, "resume=True")
    assert json.loads((folder / "run.json").read_text())["status"] == "COMPLETED"
    assert not (folder / CHECKPOINT).exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_run_whose_record_cannot_be_started_leaves_no_folder(in_tmp, capsys, monkeypatch):
    command("with", "blundell", *SMALL)
    capsys.readouterr()
    fail_to_save(monkeypatch, "config.json", lambda config: True)
    (line,) = refused(capsys, "with", "blundell", *SMALL)
    assert line == "error: config.json: cannot be written (No space left on device)"
    assert [path.name for path in Path("results/blundell").iterdir() if path.name.isdigit()] == ["1"]


def test_a_heartbeat_before_the_record_has_begun_writes_nothing(in_tmp, capsys, monkeypatch):
    """Sacred's heartbeat comes from a thread of its own, every ten seconds, however long a start takes."""
    keep = Recorder.find_or_save

    def keep_after_a_heartbeat(recorder, *args):
        recorder.heartbeat_event({}, "", datetime.datetime.now(), None)
        assert [path.name for path in Path("results/blundell/1").iterdir()] == [".lock"]
        return keep(recorder, *args)

    monkeypatch.setattr(Recorder, "find_or_save", keep_after_a_heartbeat)
    command("with", "blundell", *SMALL)
    assert capsys.readouterr().err == ""
    assert json.loads(Path("results/blundell/1/run.json").read_text())["status"] == "COMPLETED"


def test_a_run_folder_is_free_after_the_run(in_tmp):
    for number in range(2):
        command("with", "blundell", *SMALL, f"seed={number}")
    shutil.rmtree("results/blundell/2")
    command("with", "blundell", *SMALL, "seed=3")
    assert sorted(path.name for path in Path("results/blundell").iterdir() if path.name.isdigit()) == ["1", "2"]
