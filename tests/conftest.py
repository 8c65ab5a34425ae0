"""Shared fixtures: small tasks, generators, and a folder of one's own."""

import os
from pathlib import Path

# Both before PyTorch is loaded. Tests run side by side, one on each core, and so do the runs that they start.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as on the command line
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

from tests import tasks

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine is no fault
hypothesis.settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _denormal_numbers():
    """What a run that a test starts sets for its whole process ends with the test."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def generator():
    return tasks.seeded(0)


@pytest.fixture
def toy_split():
    """Sixty-four images of 12 pixels in 3 classes that a network can tell apart."""
    return tasks.split(1)


@pytest.fixture
def toy_network():
    return tasks.network(2)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """Work in an empty folder, so that results/ and data/ are the test's own.

    Its files need not outlive a power cut: a run makes some sixty waits for the disk, which a busy disk makes long.
    """
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BBB_DATA_DIR", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def mnist_dir():
    """The real MNIST: the tests that need it are run where BBB_DATA_DIR says where it is, as CI does."""
    root = Path(os.environ.get("BBB_DATA_DIR", ""))
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip("set BBB_DATA_DIR to a folder with MNIST to run the tests on real data")
    return root
