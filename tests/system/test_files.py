import os
import subprocess
import sys

import pytest

from bbb.system import BusyError, StorageError, files


@pytest.mark.parametrize("call", ["os.replace", "os.fsync"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(call, full_disk)
    with pytest.raises(StorageError, match=r"x: cannot be written \(No space left on device\); make room"):
        files.write_aside(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path, monkeypatch):
    names = {"x", ".lock", ".hidden", "weights.safetensors", ".x.short"}
    for name in names:
        (tmp_path / name).touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr("pathlib.Path.unlink", lambda self, missing_ok: None)
        with pytest.raises(KeyboardInterrupt):
            files.write_aside(tmp_path / "checkpoint.pt", b"half")
    assert len(list(tmp_path.iterdir())) == 6
    files.remove_leftovers(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == names


def test_a_folder_has_one_process_at_a_time(tmp_path):
    claim = files.lock(tmp_path)
    with pytest.raises(BusyError, match="another process is at work on this run"):
        files.lock(tmp_path)
    claim.release()
    files.lock(tmp_path).release()


def test_a_lock_ends_with_its_process(tmp_path):
    program = (
        f"from bbb.system import files; from pathlib import Path; c = files.lock(Path({str(tmp_path)!r})); print(1)"
    )
    program += "; import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert (tmp_path / files.LOCK).exists()
    files.lock(tmp_path).release()


def test_a_claim_on_a_removed_lock_does_not_count(tmp_path):
    """A finished run removes its lock while it holds it; whoever opened it before has then nothing."""
    claim = files.lock(tmp_path)
    (tmp_path / files.LOCK).unlink()
    other = files.lock(tmp_path)
    claim.release()
    with pytest.raises(BusyError):
        files.lock(tmp_path)
    other.release()
