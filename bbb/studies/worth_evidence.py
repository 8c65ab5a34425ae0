"""What runs show of the worth of a posterior: images saved, and nats of description length.

Both arms of a pair train on the same images of the target task. One starts from nothing, the other has the posterior of
the source task as its prior.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from bbb.runs import Run, Settings, load_task
from bbb.studies.evidence import Runs, about, last_elbo, rounded
from bbb.studies.sequence_matrix import num_classes
from bbb.studies.table import mean_and_error

SCRATCH, TRANSFER = "from scratch", "transfer"
SCRATCH_AT_ONE, TRANSFER_AT_ONE = "from scratch, T = 1", "transfer, T = 1"
LEAST_ERROR = 0.001  # %: a small test set may have no error at all, which has no logarithm
_BETWEEN = ": "


def arm_name(pair: str, role: str) -> str:
    """Name an arm after its pair of tasks and its role."""
    return f"{pair}{_BETWEEN}{role}"


def worth(arms: Runs) -> dict[str, Any]:
    """Show errors and description lengths by the number of images, for :func:`bbb.studies.worth_figure.worth_figure`.

    An arm is named by :func:`arm_name`. Its fractions come in ascending order.
    """
    found: dict[str, dict[str, dict[float, Sequence[Run]]]] = {}
    for arm, seeds in arms.items():
        pair, _, role = arm.name.rpartition(_BETWEEN)
        found.setdefault(pair, {}).setdefault(role, {})[arm.fraction or 1.0] = seeds
    return {
        "pairs": {pair: _shows(roles) for pair, roles in found.items()},
        "title": f"What a posterior is worth: {about(arms, 'mean and standard error')}",
    }


def images_for(error: float, images: Sequence[float], errors: Sequence[float]) -> float | None:
    """Find the number of images with which a curve of errors reaches an error.

    Between its points the curve is a straight line in the logarithms of both. Where it is not falling, its least error
    so far counts.

    Args:
        error: what to reach, in %.
        images: of the points, ascending.
        errors: of the points, in %.

    Returns:
        The number of images; that of the first point if its error is as low already; None if no point is so low.
    """
    error, *errors = (max(value, LEAST_ERROR) for value in (error, *errors))
    if errors[0] <= error:
        return images[0]
    for (few, high), (many, low) in pairwise(zip(images, errors, strict=True)):
        if low <= error < high:
            share = math.log(high / error) / math.log(high / low)
            return few * (many / few) ** share
    return None


def code_lengths(images: Sequence[int], nlls: Sequence[float], num_labels: int) -> list[float]:
    """Sum up the prequential code length of the labels of the first images (Blier and Ollivier 2018, arXiv 1802.07044).

    The labels of the first block cost log C each. Those of each later block are coded with a network that was trained
    on all images before it. Its NLL on the test set stands for that on the block: both are images that it has not seen.

    Args:
        images: the number of images that each network was trained on, ascending; the blocks end there.
        nlls: the NLL of each network, in nats per image.
        num_labels: C, the number of classes.

    Returns:
        The code length of the labels up to the end of each block, in nats.
    """
    lengths = [images[0] * math.log(num_labels)]
    for (few, many), nll in zip(pairwise(images), nlls[:-1], strict=True):
        lengths.append(lengths[-1] + (many - few) * nll)
    return lengths


def _shows(roles: Mapping[str, Mapping[float, Sequence[Run]]]) -> dict[str, Any]:
    """Show one pair of tasks."""
    sizes = {fraction: _num_images(seeds[0]) for fraction, seeds in roles[SCRATCH].items()}
    classes = num_classes(next(iter(roles[SCRATCH].values()))[0])
    shown: dict[str, Any] = {"images": {}, "errors": {}, "code_lengths": {}, "elbos": {}}
    for role, by_fraction in roles.items():
        images = [sizes[fraction] for fraction in by_fraction]
        shown["images"][role] = images
        seeds = [*zip(*by_fraction.values(), strict=True)]
        if role in (SCRATCH, TRANSFER):
            errors = [[rounded(run.result["test_error"]) for run in runs] for runs in seeds]
            nlls = [[run.result["test_nll"] for run in runs] for runs in seeds]
            shown["errors"][role] = errors
            shown["code_lengths"][role] = [
                [rounded(length) for length in code_lengths(images, each, classes)] for each in nlls
            ]
        else:
            shown["elbos"][role] = [
                [rounded(number * last_elbo(run)) for number, run in zip(images, runs, strict=True)] for runs in seeds
            ]
    shown["worth"] = _worth(shown)
    return shown


def _worth(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Compare both arms: for each number of images that transfer had, the images and the nats that it saves."""
    images, errors, lengths, elbos = (shown[key] for key in ("images", "errors", "code_lengths", "elbos"))
    scratch = [mean_and_error(by_seed)[0] for by_seed in zip(*errors[SCRATCH], strict=True)]
    transfer = [mean_and_error(by_seed)[0] for by_seed in zip(*errors[TRANSFER], strict=True)]
    equals = [images_for(error, images[SCRATCH], scratch) for error in transfer]
    return {
        "images": images[TRANSFER],
        "errors": [rounded(error) for error in transfer],
        "equal_images": [rounded(number) if number is not None else None for number in equals],
        "code_length": _saved(lengths[SCRATCH], lengths[TRANSFER]),
        "elbo_images": images[TRANSFER_AT_ONE],
        "elbo": _saved(elbos[TRANSFER_AT_ONE], elbos[SCRATCH_AT_ONE]),
    }


def _saved(more: Sequence[Sequence[float]], less: Sequence[Sequence[float]]) -> list[list[float | None]]:
    """Mean and standard error over seeds of the differences ``[seed][number]``, for the numbers that both have."""
    differences = [[a - b for a, b in zip(*pair, strict=False)] for pair in zip(more, less, strict=True)]
    summed = [mean_and_error(by_seed) for by_seed in zip(*differences, strict=True)]
    return [[rounded(mean), rounded(error) if error is not None else None] for mean, error in summed]


def _num_images(run: Run) -> int:
    """Count the images that a run was trained on."""
    return len(load_task(Settings.from_config(run.config), torch.device("cpu")).train)
