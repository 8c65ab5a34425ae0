import pytest
import torch

from bbb.system import DeviceError, machine


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.find_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert machine.find_device("auto") == torch.device("cuda")
    assert machine.find_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match=r"device='cuda:2': is not there; this machine has cpu, cuda:0, cuda:1"):
        machine.find_device("cuda:2")


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="this machine has cpu"):
        machine.find_device("cuda")


def test_threads_are_set():
    before = torch.get_num_threads()
    try:
        machine.set_up(1)
        assert torch.get_num_threads() == 1
        machine.set_up(None)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush denormal numbers")
def test_denormal_numbers_become_zero():
    tiny = torch.tensor([1e-39])
    assert (tiny * 0.5).item() != 0.0
    machine.set_up(None)
    assert (tiny * 0.5).item() == 0.0


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("x: can't allocate memory: y")]
)
def test_a_full_memory_is_told_in_one_line(error):
    with pytest.raises(DeviceError, match=r"the memory is full; make num_hidden, .* smaller"), machine.enough_memory():
        raise error


def test_other_errors_are_not_taken_for_a_full_memory():
    with pytest.raises(RuntimeError, match=r"^another$"), machine.enough_memory():
        raise RuntimeError("another")


def test_memory_of_the_cpu():
    assert 2**28 < machine.memory(torch.device("cpu")) < 2**50
