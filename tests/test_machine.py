import pytest
import torch

from bbb import machine


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.find_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert machine.find_device("auto") == torch.device("cuda")
    assert machine.find_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(
        machine.DeviceError, match=r"device='cuda:2': is not there; this machine has cpu, cuda:0, cuda:1"
    ):
        machine.find_device("cuda:2")


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(machine.DeviceError, match="this machine has cpu"):
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
