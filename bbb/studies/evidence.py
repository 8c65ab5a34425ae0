"""The data that figures show of their runs: curves, results, and the predictions of posteriors.

Each function takes the completed runs of a figure's arms, one for each seed, and returns the arguments of the function
of :mod:`bbb.studies.figures` that draws them. Numbers have six digits.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bbb.data import Split, photographs, rotate
from bbb.inference import (
    Categorical,
    auroc,
    entropy,
    mixture,
    predict_draws,
    reliability,
    split_entropy,
)
from bbb.networks import load_weights
from bbb.runs import WEIGHTS, Run, Settings, generator, load_task
from bbb.system import InputError

CURVES_AT = 0.1  # the fraction whose curves are shown
ANGLE = 90.0  # degrees of rotation, after which digits are unlike the training data
ENTROPY_BINS = 20
NUM_UNSURE = 8


@dataclass(frozen=True)
class Arm:
    """One of the configurations that a figure compares: its name in the legend, and the share of the data it saw."""

    name: str
    fraction: float | None = None


Runs = Mapping[Arm, Sequence[Run]]  # for each arm, one run per seed


def schemes(arms: Runs) -> dict[str, Any]:
    """Show validation accuracy and ELBO after each epoch, for :func:`bbb.studies.figures.comparing_beta`."""
    return {
        "accuracies": {arm.name: _accuracies(seeds) for arm, seeds in arms.items()},
        "elbos": {arm.name: [_metric(run, "train.elbo") for run in seeds] for arm, seeds in arms.items()},
        "title": f"Ways to share the KL among minibatches: {about(arms)}",
    }


def flows(arms: Runs) -> dict[str, Any]:
    """Show validation accuracy and the seconds of an epoch, for :func:`bbb.studies.figures.compare`.

    The seconds are the median over the epochs, since other work may have disturbed some, then over the seeds.
    """
    seconds = {
        arm.name: statistics.median(statistics.median(_metric(run, "train.seconds")) for run in seeds)
        for arm, seeds in arms.items()
    }
    return {
        "curves": {arm.name: _accuracies(seeds) for arm, seeds in arms.items()},
        "seconds": {name: rounded(value) for name, value in seconds.items()},
        "title": f"blundell with and without flows: {about(arms)}",
    }


def transfer(arms: Runs) -> dict[str, Any]:
    """Show what arms reach at each fraction, and their curves, for :func:`bbb.studies.figures.transfer_results`.

    The results are a list, since a fraction cannot be a key of a JSON file. The curves are those at one fraction.
    """
    measures = ("test_error", "test_nll")
    finals = [
        {
            "arm": arm.name,
            "fraction": arm.fraction,
            **{name: [rounded(run.result[name]) for run in seeds] for name in measures},
        }
        for arm, seeds in arms.items()
    ]
    return {
        "finals": finals,
        "curves": {arm.name: _accuracies(seeds) for arm, seeds in arms.items() if arm.fraction == CURVES_AT},
        "curves_title": f"fraction {CURVES_AT}",
        "title": f"Digits 5-9 after digits 0-4: {about(arms, 'mean, standard error (bars) and range (bands)')}",
    }


def calibration(arms: Runs) -> dict[str, Any]:
    """Show how far posteriors can be trusted, on digits and on other images, for :func:`figures.calibration`."""
    test = _test_set(next(iter(arms.values()))[0])
    inputs = {
        "test digits": test.images,
        f"turned by {ANGLE:.0f}°": rotate(test, ANGLE).images,
        "photographs": photographs(math.isqrt(test.images.shape[1])),
    }
    shows: dict[str, Any] = {"reliability": {}, "entropies": {}, "aurocs": {}, "about": about(arms)}
    for arm, seeds in arms.items():
        trusts = [_trust(run, inputs, test.labels) for run in seeds]
        shows["reliability"][arm.name] = [trust.bins for trust in trusts]
        shows["entropies"][arm.name] = {name: [trust.histograms[name] for trust in trusts] for name in inputs}
        shows["aurocs"][arm.name] = {name: [trust.aurocs[name] for trust in trusts] for name in trusts[0].aurocs}
    return shows


def unsure_digits(arms: Runs) -> dict[str, Any]:
    """Show the test digits with the largest entropy, a mean over seeds, for :func:`bbb.studies.figures.uncertainty`."""
    (seeds,) = arms.values()
    test = _test_set(seeds[0])
    draws = [_predictions(run, test.images)[0] for run in seeds]
    parts = [split_entropy(log_probs) for log_probs in draws]
    unsure = torch.stack([part.total for part in parts]).mean(0).topk(NUM_UNSURE).indices
    return {
        "images": test.images[unsure].tolist(),
        "labels": test.labels[unsure].tolist(),
        "probs": [[_numbers(row) for row in mixture(log_probs)[unsure].exp()] for log_probs in draws],
        "aleatoric": [_numbers(part.aleatoric[unsure]) for part in parts],
        "epistemic": [_numbers(part.epistemic[unsure]) for part in parts],
        "title": f"The test digits that best is least sure of (orange: the label): {about(arms)}",
    }


@dataclass(frozen=True)
class _Trust:
    """How far a run's predictions can be trusted: calibration, and the entropy of each kind of input.

    Attributes:
        bins: share, confidence and accuracy in equal bins of confidence.
        histograms: for each kind of input, the % of its entropies in equal bins.
        aurocs: for each kind except the first, how well entropy separates it from the first.
    """

    bins: dict[str, list[float]]
    histograms: dict[str, list[float]]
    aurocs: dict[str, float]


def _trust(run: Run, inputs: Mapping[str, Tensor], labels: Tensor) -> _Trust:
    """Score a run's predictions for several kinds of input; the labels belong to the first kind."""
    log_probs = [mixture(draws) for draws in _predictions(run, *inputs.values())]
    calibrated = reliability(log_probs[0], labels)
    parts = {"share": calibrated.share, "confidence": calibrated.confidence, "accuracy": calibrated.accuracy}
    most = math.log(log_probs[0].shape[1])
    entropies = [entropy(kind).clamp(max=most) for kind in log_probs]
    counts = [100 * torch.histc(values, ENTROPY_BINS, 0.0, most) / len(values) for values in entropies]
    aurocs = [rounded(auroc(entropies[0], values)) for values in entropies[1:]]
    return _Trust(
        {name: _numbers(part.nan_to_num()) for name, part in parts.items()},
        dict(zip(inputs, map(_numbers, counts), strict=True)),
        dict(zip([*inputs][1:], aurocs, strict=True)),
    )


def _predictions(run: Run, *inputs: Tensor) -> list[Tensor]:
    """Log-probabilities ``(S, N, C)`` of each of the inputs ``(N, P)`` under a run's posterior.

    If the first input is the test set, it gets the draws of the weights that a run on the CPU was tested with.
    """
    settings = Settings.from_config(run.config)
    network, _ = load_weights(run.folder / WEIGHTS, network=settings.network)
    likelihood = Categorical(network.architecture.num_outputs)
    draws, number = generator(settings, "evaluation"), settings.num_test_samples
    return [torch.stack([*predict_draws(network, likelihood, images, number, draws)]) for images in inputs]


def _test_set(run: Run) -> Split:
    return load_task(Settings.from_config(run.config), torch.device("cpu")).test


def _accuracies(seeds: Sequence[Run]) -> list[list[float]]:
    """Validation accuracies in %, ``[seed][epoch]``."""
    return [_metric(run, "validation.accuracy", 100) for run in seeds]


def _metric(run: Run, name: str, scale: float = 1.0) -> list[float]:
    """Return a metric of a run after each epoch.

    Raises:
        InputError: its record is damaged, or too old to hold the metric.
    """
    try:
        values = json.loads((run.folder / "metrics.json").read_text())[name]["values"]
        return [rounded(scale * value) for value in values]
    except (OSError, ValueError, KeyError, TypeError):
        where = run.folder / "metrics.json"
        raise InputError(f"{where}: holds no {name}; remove the run's folder, to make the run again") from None


def last_elbo(run: Run) -> float:
    """Return the ELBO at temperature 1 in the last epoch of training, a mean over its steps, in nats per example.

    Raises:
        InputError: the record of the run is damaged.
    """
    return _metric(run, "train.elbo")[-1]


def about(arms: Runs, shown: str = "mean and range") -> str:
    """Name the data and the number of runs behind each curve."""
    some = next(iter(arms.values()))
    names = {"mnist": "MNIST", "digits8x8": "8x8 digits"}
    counts = sorted({len(seeds) for seeds in arms.values()})
    plural = "s" * (counts != [1])
    return f"{names[some[0].config['dataset']]}, {shown} of {' or '.join(map(str, counts))} seed{plural}"


def _numbers(values: Tensor) -> list[float]:
    return [rounded(value) for value in values.tolist()]


def rounded(value: float) -> float:
    return float(f"{value:.6g}")
