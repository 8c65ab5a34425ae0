import pickle

import pytest
import torch

from bbb.runs.checkpoint import StateError, load_state, save_state
from tests.tasks import CPU, seeded


def test_state_survives_the_trip(tmp_path):
    state = {"epochs_done": 3, "order": seeded().get_state(), "history": [{"number": 1, "nll": None}]}
    save_state(tmp_path / "state", state)
    loaded = load_state(tmp_path / "state", CPU)
    assert torch.equal(loaded.pop("order"), state.pop("order"))
    assert loaded == state


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps(Evil()), b"bbb-state-2 x\n", b"PK\x03\x04"])
def test_other_files_are_no_states(tmp_path, content, capsys):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(StateError, match=r"damaged, or a checkpoint of another version .*; start again without resume"):
        load_state(tmp_path / "state", CPU)
    assert "executed" not in capsys.readouterr().out


def test_a_hostile_state_is_not_executed(tmp_path, capsys):
    save_state(tmp_path / "state", {"x": Evil()})
    with pytest.raises(StateError, match="holds what is not plain data"):
        load_state(tmp_path / "state", CPU)
    assert "executed" not in capsys.readouterr().out


def test_a_missing_state(tmp_path):
    with pytest.raises(StateError, match=r"cannot be read \(No such file"):
        load_state(tmp_path / "state", CPU)


def test_a_state_with_one_changed_bit_is_refused(tmp_path):
    save_state(tmp_path / "state", {"totals": torch.arange(1000.0)})
    content = bytearray((tmp_path / "state").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(StateError, match="its checksum is not that of its content"):
        load_state(tmp_path / "state", torch.device("cpu"))
