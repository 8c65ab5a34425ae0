"""Shared fixtures: small tasks, generators, and the command line run in-process."""

import os
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as in experiment.py; before PyTorch is loaded

import pytest
import torch

from bbb.data import Split
from bbb.network import BayesianMLP

REPOSITORY = Path(__file__).resolve().parents[1]


def wait_for(find, seconds=120):
    """Ask until something is found, and give it."""
    end = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def toy_split(generator):
    """Sixty-four images of 12 pixels in 3 classes that a network can tell apart."""
    labels = torch.arange(64) % 3
    centres = torch.randint(0, 256, (3, 12), generator=generator)
    noise = torch.randint(-20, 21, (64, 12), generator=generator)
    return Split((centres[labels] + noise).clamp(0, 255).to(torch.uint8), labels)


@pytest.fixture
def toy_network(generator):
    return BayesianMLP.initial((12, 8, 3), 0.05, generator)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """Work in an empty folder, so that results/ and data/ are the test's own."""
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
