"""Folders of runs that were never made, for what lists and shows runs: quick to write, and odd where needed."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import torch

from bbb.data import Split
from bbb.distributions import Gaussian
from bbb.networks import MLP, BayesianNetwork
from bbb.runs import findings
from tests.tasks import DEFAULT, seeded

FIRST = datetime(2026, 1, 2, 3, 4, 5)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def found(num_test=500, side=28, num_classes=10):
    """What a run on random images of random labels would find."""
    noise = seeded(1)
    images = torch.randint(0, 256, (num_test, side * side), generator=noise).to(torch.uint8)
    labels = torch.randint(0, num_classes, (num_test,), generator=noise)
    log_probs = torch.randn(num_test, num_classes, generator=noise).mul(3).log_softmax(1)
    test = Split(images, labels, (1, side, side))
    network = BayesianNetwork(MLP((4, 3, 2)), Gaussian(torch.linspace(-3, 3, 23), torch.linspace(-4, 1, 23)))
    shown = findings.of_classes(log_probs, -log_probs.exp().mul(log_probs).sum(1) / 2, test, None)
    return {**shown, "layers": findings.signal_to_noise(network)}


def make_run(
    root, name, number, *, status="COMPLETED", num_epochs=3, findings=None, source=None, score=1.5, minute=0, **changes
):
    """Write the files of a run, as Sacred and a run of ours do."""
    folder = Path(root) / name / str(number)
    folder.mkdir(parents=True)
    start = FIRST + timedelta(minutes=minute)
    config = {**DEFAULT, "experiment_name": name, "num_epochs": num_epochs, **changes}
    result = {"test_error": score, "test_nll": score / 30, "test_ece": 0.4, "elbo": -26.0, "kl": 1.2e6, "seconds": 9.0}
    record = {
        "status": status,
        "start_time": start.isoformat(),
        "heartbeat": start.isoformat(),
        "result": {**result, "num_epochs": num_epochs} if status == "COMPLETED" else None,
        "experiment": {"repositories": [{"commit": COMMIT, "dirty": False, "url": "somewhere"}]},
    }
    steps = list(range(1, num_epochs + 1))
    metrics = {
        metric: {"steps": steps, "values": [scale * (1 + score / step) for step in steps], "timestamps": []}
        for metric, scale in (
            *(("train.accuracy", 0.5), ("train.nll", 0.1), ("train.kl", 1e6), ("train.elbo", -30.0)),
            *(("train.seconds", 2.0), ("validation.accuracy", 0.4), ("validation.nll", 0.2)),
        )
    }
    files = {"run.json": record, "config.json": config, "metrics.json": metrics}
    if findings is not None:
        files["findings.json"] = findings
    if source is not None:
        files["info.json"] = {"source": {"weights": str(source / "weights.safetensors"), "sha256": "0" * 64}}
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content))
    lines = [f"epoch {step}/{num_epochs} | train 99.00 %, NLL 0.1, KL 1e6, ELBO -30 | 2.0 s" for step in steps]
    (folder / "log.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "weights.safetensors").write_bytes(b"")
    return folder


def make_many(root, num, num_epochs=100):
    """Write many runs of a few experiments, each with as much to show as a run may have."""
    shown = found()
    for i in range(num):
        name = ("blundell", "best", "domain_a", "wide")[i % 4]
        make_run(
            root,
            name,
            i + 1,
            num_epochs=num_epochs,
            findings=shown,
            seed=i,
            score=1 + i % 7,
            minute=i,
            lr=0.001 * (1 + i % 3),
        )
