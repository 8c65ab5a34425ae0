"""Whole configurations drawn by hypothesis, good and bad, go through the command line in-process."""

import contextlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import experiment
from tests.tasks import DEFAULT

TINY = ["dataset=digits8x8", "num_epochs=1", "num_hidden=8", "num_test_samples=2", "num_threads=1", "lr=0.001"]
KEYS = [*DEFAULT, "resume"]  # an option, which is written like a key
STDS = ["1", "0.1", "1.0e-06", "1000.0"]
GOOD = {  # values that are allowed and cheap
    "experiment_name": ["a", "results/b", "a/b", "x.y-z_1"],
    "dataset": ["digits8x8", "numbers.npz"],
    "data_dir": ["null", "None", "nowhere"],
    "classes": ["[0,1]", "[9,0,5]", "(1,2,3)", "[0,1,2,3,4]", "null"],
    "normalization": ["auto", "pixels", "standardize", "none"],
    "pixel_scale": ["126", "255", "1.0e-6", "1000000"],
    "rotation": ["0", "30", "-360.0"],
    "permutation": ["null", "0", "7"],
    "union": ["null", "[{'classes': [0, 1]}, {'classes': [2, 3]}]", "[{'rotation': 90}]"],
    "coreset": ["0", "20", "60000"],
    "fraction": ["1", "0.01", "0.5", "1.0e-9"],
    "validation_fraction": ["0", "0.5", "0.99"],
    "network": ["mlp", "mlp", "lenet", "net.py:make", "net.py:nothing", "no.py:make"],
    "deterministic": ["[]", "[]", "['1']", "['nothing']"],
    "num_layers": ["1", "2", "3"],
    "num_hidden": ["1", "8"],
    "num_replicas": ["1", "2"],
    "noise_reuse": ["1", "3"],
    "split_seed": ["null", "0", "4"],
    "precision": ["float32", "tf32", "bfloat16"],
    "cuda_graph": ["False", "True"],
    "num_flows": ["0", "1", "3"],
    "flow": ["planar", "matrix_planar"],
    "num_epochs": ["1", "2"],
    "steps_per_epoch": ["1", "12"],
    "batch_size": ["64", "60000"],
    "num_samples": ["1", "3"],
    "num_validation_samples": ["1", "2"],
    "num_test_samples": ["1", "2"],
    "lr": ["0.01", "1", "100"],
    "lr_schedule": ["cosine", "constant"],
    "optimizer": ["adam", "sgd"],
    "likelihood": ["categorical", "gaussian"],
    "noise_std": ["1", "0.1", "1000000"],
    "learn_noise": ["False", "True"],
    "beta_type": ["blundell", "standard", "soenderby", "none"],
    "temperature": ["0", "1", "1000"],
    "input_dropout": ["0", "0.99"],
    "input_shift": ["0", "2", "32"],
    "estimator": ["weights", "local"],
    "posterior": ["gaussian", "point", "dropout", "laplace"],
    "dropout": ["0", "0.5", "0.99"],
    "prior": ["gaussian", "scale_mixture", "ard", "posterior", "pretrained"],
    "prior_std": STDS,
    "prior_pi": ["0.5", "1.0e-300"],
    "prior_std1": STDS,
    "prior_std2": STDS,
    "init_std": STDS,
    "pretrained": ["null", "domain_a", "results/domain_a", "results/domain_a/1", "a"],
    "prior_inflation": ["1", "auto", "1.0e9", "1.0e-06"],
    "prior_floor": ["0", "0.1", "1000"],
    "head": ["fresh", "keep", "auto"],
    "start": ["prior", "narrow", "random"],
    "resume": ["False", "false", "True"],
    "checkpoint_minutes": ["1.0e-6", "5"],
    "tensorboard": ["False", "true"],
    "device": ["auto", "cpu"],
    "seed": ["0", "1", "4294967295"],
    "num_threads": ["1"],
}
NETWORK = """
import math
from torch import nn

def make(input_shape, num_outputs):
    layers = nn.Linear(math.prod(input_shape), 8), nn.ReLU(), nn.Linear(8, num_outputs)
    return nn.Sequential(nn.Flatten(), *layers)
"""
BAD = [
    *("nan", "inf", "-inf", "-1", "1e400", "10000000000000000000000", "1.5", "1e-3", "''", "[]", "{}", "[0]"),
    "[1,[2]]",
    *("[0,0]", "[-1,3]", "['a']", "(1,)", "{'a': 1}", "abc", "../x", "/etc/passwd", "latest", "1", "a b", "é", "\0"),
    *("cuda:99", "cuda", "cpu:1", "b'x'", "1j", "None", "True", "[None]", "=", "a=b", "#", "\u202e", "a\nb", "~", "%s"),
]
WILD = st.one_of(st.sampled_from(BAD), st.text(max_size=8), st.floats(-1e6, -1e-6).map(str))
WORDS = [*experiment.NAMED, "blundel", "", "=", "=1", "a.b=1", "digits.x=1", "seed", "no.yaml", "-l", "x=", "lr[0]=1"]


def test_every_key_is_tried():
    assert GOOD.keys() == {*KEYS}


def one_change():
    """One word of the form key=value: three of four good."""
    good = st.sampled_from(KEYS).flatmap(lambda key: st.sampled_from(GOOD[key]).map(lambda value: f"{key}={value}"))
    bad = st.tuples(st.sampled_from(KEYS), WILD).map("=".join)
    return st.one_of(good, good, good, bad)


def command_lines():
    named = st.sampled_from([[], *([name] for name in experiment.NAMED)])
    changes = st.lists(one_change(), max_size=6)
    strange = st.one_of(st.just([]), st.just([]), st.just([]), st.sampled_from(WORDS).map(lambda word: [word]))
    return st.tuples(named, changes, strange).map(lambda parts: [*parts[0], *TINY, *parts[1], *parts[2]])


def run_folders():
    return {path for path in Path("results").rglob("*") if path.is_dir() and path.name != "_sources"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a finished source to transfer from, a network and data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fuzz"))
        patch.delenv("BBB_DATA_DIR", raising=False)
        Path("net.py").write_text(NETWORK)
        x, y = np.random.default_rng(0).normal(size=(2, 40, 3))
        np.savez("numbers.npz", x_train=x, y_train=y[:, 0], x_test=x, y_test=y[:, 0])
        experiment.command_line(["experiment.py", "with", "domain_a", *TINY])
        yield


def ending(words):
    """Run a command line; returns what it printed on leaving, None where it completed."""
    try:
        experiment.command_line(["experiment.py", "with", *words])
    except SystemExit as stop:
        return stop.code
    return None


def try_one(words):
    before = run_folders()
    message = ending(words)
    if message is not None:
        assert all(re.match("error: .", line) for line in message.split("\n"))
        began = "error: epoch" in message  # a loss that is not finite: the run is on record as failed
        assert run_folders() == before or began
    for folder in sorted(run_folders() - before):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)


SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}


@pytest.mark.slow
@given(words=command_lines())
@settings(max_examples=40, **SETTINGS)
def test_a_configuration_completes_or_is_refused_in_one_line(workplace, words):
    try_one(words)


@pytest.mark.slow
@given(words=command_lines())
@settings(max_examples=1000, **SETTINGS)
def test_a_thousand_configurations_complete_or_are_refused(workplace, words):
    try_one(words)
