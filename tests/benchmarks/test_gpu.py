"""The benchmark for a GPU, rehearsed on the CPU."""

import json

import pytest

from bbb.system import DeviceError
from tests.benchmarks import gpu


def test_every_part_runs_on_a_cpu(capsys, tmp_path):
    gpu.main(["--device", "cpu", "--json", str(tmp_path / "gpu.json")])
    out = capsys.readouterr().out
    assert "600 epochs extrapolated" in out
    assert "left out: there are no CUDA graphs on a CPU" in out
    assert "bfloat16, seed 2: test error" in out
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results.keys() >= set(gpu.PARTS)
    assert results["resume"] == 0.0


def test_without_a_gpu_the_line_says_so(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="cuda"):
        gpu.main([])
