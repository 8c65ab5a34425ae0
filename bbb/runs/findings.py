"""What a completed run shows beyond its scores, as a small file: calibration, errors, entropy and signal-to-noise.

It is made of predictions that the test computes anyway.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bbb.data import Split
from bbb.distributions import mean_and_std
from bbb.inference import GaussianNoise, Likelihood, entropy, reliability
from bbb.networks import BayesianNetwork
from bbb.runs.pictures import worst
from bbb.system import write_aside

BINS = 20
MAX_CLASSES = 30  # whose confusions are all kept; of more classes, only the most frequent ones
MAX_POINTS = 300  # numbers that are shown beside their predictions
SIGNAL_RANGE = -3.0, 2.0  # log10 of |mean| / std
SIGNAL_BINS = 40


def find(
    network: BayesianNetwork,
    likelihood: Likelihood,
    predictive: Tensor,
    aleatoric: Tensor | None,
    test: Split,
    classes: Sequence[int] | None,
) -> dict[str, Any]:
    """Collect what a run shows beyond its scores.

    Args:
        network: as trained.
        likelihood: p(y | outputs).
        predictive: the posterior predictive of the test set, as the likelihood mixes it.
        aleatoric: for classes, as in :func:`of_classes`.
        test: the test set.
        classes: as in :func:`of_classes`.
    """
    found: dict[str, Any] = {}
    if isinstance(likelihood, GaussianNoise):
        found = of_numbers(predictive, test, likelihood)
    elif aleatoric is not None:
        found = of_classes(predictive, aleatoric, test, classes)
    if network.posterior.has_density:
        found["layers"] = signal_to_noise(network)
    return found


def of_classes(log_probs: Tensor, aleatoric: Tensor, test: Split, classes: Sequence[int] | None) -> dict[str, Any]:
    """Collect what a test on classes shows.

    Args:
        log_probs: the posterior predictive ``(N, C)``, in nats.
        aleatoric: the expected entropy of a draw ``(N,)``, in nats.
        test: the test set.
        classes: the labels that the data set gives to classes 0..C-1; None if these are the same.
    """
    num_classes = log_probs.shape[1]
    predicted, y = log_probs.argmax(1), test.labels
    is_wrong = predicted != y
    bins = reliability(log_probs, y)
    counts = torch.bincount(y * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)
    parts = {"aleatoric": aleatoric, "epistemic": (entropy(log_probs) - aleatoric).clamp(min=0.0)}
    return {
        "classes": list(classes) if classes is not None else list(range(num_classes)),
        "num_test": len(test),
        "reliability": {name: _numbers(getattr(bins, name)) for name in ("share", "confidence", "accuracy")},
        "confusion": _confusion(counts),
        "errors": [int(row.sum() - row[i]) for i, row in enumerate(counts)],
        "totals": counts.sum(1).tolist(),
        "worst": worst(log_probs, predicted, test),
        "entropy": {
            "max": _rounded(math.log(num_classes)),
            **{
                name: {
                    "right": _histogram(values[~is_wrong], 0.0, math.log(num_classes)),
                    "wrong": _histogram(values[is_wrong], 0.0, math.log(num_classes)),
                    "mean": _rounded(values.mean().item()),
                }
                for name, values in parts.items()
            },
        },
    }


def of_numbers(means: Tensor, test: Split, likelihood: GaussianNoise) -> dict[str, Any]:
    """Collect what a test on numbers shows.

    Args:
        means: of the posterior predictive ``(S, N, C)``.
        test: the test set.
        likelihood: whose noise the predictive has.
    """
    means, noise = means.double(), likelihood.noise_std
    y = test.labels.double().view(means.shape[1:])
    rank = torch.special.ndtr((y - means) / noise).mean(0).flatten()
    epistemic = means.std(0, correction=0)
    levels = [level / 10 for level in range(1, 10)]
    most = max(epistemic.max().item(), 1e-12)
    shown = torch.linspace(0, y.numel() - 1, min(MAX_POINTS, y.numel())).long().to(y.device)
    std = (epistemic.square() + noise**2).sqrt()
    return {
        "num_test": len(test),
        "levels": {"expected": levels, "observed": [_rounded((rank <= p).double().mean().item()) for p in levels]},
        "predicted": {
            name: _numbers(values.flatten()[shown])
            for name, values in (("y", y), ("mean", means.mean(0)), ("std", std))
        },
        "spread": {
            "noise": _rounded(noise),
            "max": _rounded(most),
            "epistemic": _histogram(epistemic.flatten(), 0.0, most),
            "mean": _rounded(epistemic.mean().item()),
        },
    }


@torch.no_grad()
def signal_to_noise(network: BayesianNetwork) -> list[dict[str, Any]]:
    """Count the weights of each layer by log10 of |mean| / std, kernel and bias together; with flows, of the base.

    Blundell et al. 2015, section 5.2 (arXiv 1505.05424), prune by it. Replicas are counted together.
    """
    mean, std = (values.reshape(-1, network.posterior.dim) for values in mean_and_std(network.posterior))
    signal = (mean.abs() / std).clamp(min=1e-12).log10()
    layers = []
    for name, tensors in zip(network.architecture.names, network.layers(signal), strict=True):
        values = torch.cat([tensor.flatten() for tensor in tensors if tensor is not None])
        layers.append(
            {
                "name": name,
                "num": values.numel() // len(mean),
                "counts": _histogram(values, *SIGNAL_RANGE, SIGNAL_BINS),
                "median": _rounded(10 ** values.median().item()),
            }
        )
    return layers


def write_findings(path: Path, found: dict[str, Any]) -> None:
    """Write what was found, in as few bytes as it takes."""
    write_aside(path, json.dumps(found, separators=(",", ":"), allow_nan=False).encode())


def _confusion(counts: Tensor) -> dict[str, Any]:
    """Keep a matrix ``[label][predicted]``, or of many classes the most frequent confusions."""
    if len(counts) <= MAX_CLASSES:
        return {"counts": counts.tolist()}
    wrong = counts.clone().fill_diagonal_(0).flatten()
    values, index = wrong.topk(100)
    rows = zip((index // len(counts)).tolist(), (index % len(counts)).tolist(), values.tolist(), strict=True)
    return {"most": [list(row) for row in rows if row[2] > 0]}


def _histogram(values: Tensor, low: float, high: float, num_bins: int = BINS) -> list[int]:
    """Count values in equal bins; what lies outside counts in the first or the last bin."""
    return [int(count) for count in torch.histc(values.clamp(low, high).float().cpu(), num_bins, low, high).tolist()]


def _numbers(values: Tensor) -> list[float | None]:
    return [_rounded(value) if math.isfinite(value) else None for value in values.tolist()]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") if math.isfinite(value) else 0.0
