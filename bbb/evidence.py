"""What figures show of the runs they are made of, as plain data: curves, results, and the predictions of posteriors.

Each function takes the completed runs of a figure's arms, one for each seed, and returns the arguments of the function
of :mod:`bbb.figures` that draws them. Numbers have six digits.
"""

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bbb import assembly, checkpoint, data, evaluation, runs, uncertainty
from bbb.data import Split
from bbb.errors import InputError
from bbb.runs import Run
from bbb.settings import Settings

CURVES_AT = 0.1  # the fraction whose curves are shown
ANGLE = 90.0  # degrees by which digits are turned to be something else
ENTROPY_BINS = 20
NUM_UNSURE = 8

Runs = Mapping[tuple, Sequence[Run]]


def schemes(arms: Runs) -> dict:
    """Show validation accuracy and ELBO after each epoch, for :func:`bbb.figures.comparing_beta`."""
    return {
        "accuracies": {arm: _accuracies(each) for (arm,), each in arms.items()},
        "elbos": {arm: [_metric(run, "train.elbo") for run in each] for (arm,), each in arms.items()},
        "title": f"Ways to share the KL among minibatches: {_about(arms)}",
    }


def flows(arms: Runs) -> dict:
    """Show validation accuracy and the seconds of an epoch, for :func:`bbb.figures.compare`."""
    return {
        "curves": {arm: _accuracies(each) for (arm,), each in arms.items()},
        "seconds": {
            arm: _rounded(statistics.median(_seconds_an_epoch(run) for run in each)) for (arm,), each in arms.items()
        },
        "title": f"blundell with and without flows: {_about(arms)}",
    }


def transfer(arms: Runs) -> dict:
    """Show what arms reach at each fraction, and their curves at one, for :func:`bbb.figures.transfer_results`.

    The results are a list, since a fraction cannot be a key of a JSON file.
    """
    measures = ("test_error", "test_nll")
    finals = [
        {"arm": arm, "fraction": fraction, **{name: [_rounded(run.result[name]) for run in each] for name in measures}}
        for (arm, fraction), each in arms.items()
    ]
    curves = {arm: _accuracies(each) for (arm, fraction), each in arms.items() if fraction == CURVES_AT}
    return {
        "finals": finals,
        "curves": curves,
        "curves_title": f"fraction {CURVES_AT}",
        "title": f"Digits 5-9 after digits 0-4: {_about(arms, 'mean, standard error (bars) and range (bands)')}",
    }


def calibration(arms: Runs) -> dict:
    """Show how far posteriors can be trusted, on digits and on what is none, for :func:`bbb.figures.calibration`."""
    test = _test_set(next(iter(arms.values()))[0])
    inputs = {
        "test digits": test.images,
        f"turned by {ANGLE:.0f}°": data.rotate(test, ANGLE).images,
        "photographs": data.photographs(math.isqrt(test.images.shape[1])),
    }
    shows: dict = {"reliability": {}, "entropies": {}, "aurocs": {}, "about": _about(arms)}
    for (arm,), each in arms.items():
        found = [_trust(run, inputs, test.labels) for run in each]
        shows["reliability"][arm] = [bins for bins, _, _ in found]
        shows["entropies"][arm] = {name: [histograms[name] for _, histograms, _ in found] for name in inputs}
        shows["aurocs"][arm] = {name: [aurocs[name] for _, _, aurocs in found] for name in found[0][2]}
    return shows


def unsure_digits(arms: Runs) -> dict:
    """Show the test digits with the largest entropy, a mean over seeds, for :func:`bbb.figures.uncertainty`."""
    (each,) = arms.values()
    test = _test_set(each[0])
    draws = [_predictions(run, test.images)[0] for run in each]
    parts = [uncertainty.split_entropy(log_probs) for log_probs in draws]
    unsure = torch.stack([part.total for part in parts]).mean(0).topk(NUM_UNSURE).indices
    return {
        "images": test.images[unsure].tolist(),
        "labels": test.labels[unsure].tolist(),
        "probs": [[_numbers(row) for row in uncertainty.mixture(log_probs)[unsure].exp()] for log_probs in draws],
        "aleatoric": [_numbers(part.aleatoric[unsure]) for part in parts],
        "epistemic": [_numbers(part.epistemic[unsure]) for part in parts],
        "title": f"The test digits that best is least sure of (orange: the label): {_about(arms)}",
    }


def _trust(
    run: Run, inputs: Mapping[str, Tensor], labels: Tensor
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, float]]:
    """The reliability of a run's predictions, histograms of their entropy in %, and how well that tells inputs apart.

    The first of the inputs are those with the labels, from which the others shall be told.
    """
    log_probs = [uncertainty.mixture(draws) for draws in _predictions(run, *inputs.values())]
    found = uncertainty.reliability(log_probs[0], labels, evaluation.ECE_BINS)
    parts = {"share": found.share, "confidence": found.confidence, "accuracy": found.accuracy}
    bins = {name: _numbers(part.nan_to_num()) for name, part in parts.items()}
    most = math.log(log_probs[0].shape[1])
    entropies = [uncertainty.entropy(each).clamp(max=most) for each in log_probs]
    counts = [100 * torch.histc(each, ENTROPY_BINS, 0.0, most) / len(each) for each in entropies]
    aurocs = [_rounded(uncertainty.auroc(entropies[0], each)) for each in entropies[1:]]
    return bins, dict(zip(inputs, map(_numbers, counts), strict=True)), dict(zip([*inputs][1:], aurocs, strict=True))


def _predictions(run: Run, *inputs: Tensor) -> list[Tensor]:
    """Log-probabilities ``(S, N, C)`` of each of the inputs ``(N, P)`` under a run's posterior.

    Those of the first, where it is the test set, are the draws that a run on the CPU was itself tested with.
    """
    settings = Settings.from_config({**run.config, "resume": False})
    network, _ = checkpoint.load_weights(run.folder / runs.WEIGHTS)
    draws = assembly.generator(settings, "evaluation")
    number = settings.num_test_samples
    return [torch.stack([*evaluation.predict_draws(network, each, number, draws)]) for each in inputs]


def _test_set(run: Run) -> Split:
    return assembly.load_task(Settings.from_config({**run.config, "resume": False}), torch.device("cpu")).test


def _accuracies(each: Sequence[Run]) -> list[list[float]]:
    """Validation accuracies in %, ``[seed][epoch]``."""
    return [_metric(run, "validation.accuracy", 100) for run in each]


def _metric(run: Run, name: str, scale: float = 1.0) -> list[float]:
    """What a run measured after each epoch.

    Raises:
        InputError: its record is damaged.
    """
    try:
        values = json.loads((run.folder / "metrics.json").read_text())[name]["values"]
        return [_rounded(scale * value) for value in values]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{run.folder / 'metrics.json'}: cannot be read; remove the run's folder") from None


def _seconds_an_epoch(run: Run) -> float:
    """The median length of an epoch, which the log tells, validation included; others may have disturbed some.

    Raises:
        InputError: the log is damaged.
    """
    path = run.folder / "log.txt"
    try:
        return statistics.median(float(text) for text in re.findall(r"\| ([\d.]+) s$", path.read_text(), re.MULTILINE))
    except (OSError, ValueError):
        raise InputError(f"{path}: cannot be read; remove the run's folder") from None


def _about(arms: Runs, shown: str = "mean and range") -> str:
    """Name the data and the number of runs behind each curve."""
    some = next(iter(arms.values()))
    names = {"mnist": "MNIST", "digits8x8": "8x8 digits"}
    counts = sorted({len(each) for each in arms.values()})
    return f"{names[some[0].config['dataset']]}, {shown} of {' or '.join(map(str, counts))} seeds"


def _numbers(values: Tensor) -> list[float]:
    return [_rounded(value) for value in values.tolist()]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
