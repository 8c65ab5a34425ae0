"""The figure of what a posterior is worth: errors and code lengths against the number of images, for pairs of tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbb.runs import LINES, MARKERS, PALETTE, style
from bbb.studies.table import mean_and_error


def worth_figure(pairs: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """Draw the test error of both arms of each pair, and below it what it costs to code the labels.

    A dotted line leads from transfer to the number of images that training from scratch needs for the same error.

    Args:
        pairs: for each pair of tasks, by arm: ``images``, the numbers of images; ``errors`` in % and ``code_lengths``
            in nats, ``[seed][number]``, or ``elbos`` at temperature 1 in nats; drawn as means with standard errors.
            ``worth`` holds the ``images`` that transfer had, its mean ``errors``, and the ``equal_images``.
        title: what is compared.
    """
    figure = Figure(figsize=(4 * len(pairs), 7), layout="constrained")
    above, below = figure.subplots(2, len(pairs), squeeze=False)
    for i, (name, shown) in enumerate(pairs.items()):
        for (role, errors), colour in zip(shown["errors"].items(), PALETTE, strict=False):
            images = shown["images"][role]
            _draw(above[i], images, errors, role, colour)
            _draw(below[i], images, shown["code_lengths"][role], f"{role}: prequential", colour)
        for (role, elbos), colour in zip(shown["elbos"].items(), PALETTE, strict=False):
            bounds = [[-elbo for elbo in seed] for seed in elbos]
            _draw(below[i], shown["images"][role], bounds, f"{role}: -ELBO", colour, is_bound=True)
        saved = shown["worth"]
        for number, equal, error in zip(saved["images"], saved["equal_images"], saved["errors"], strict=True):
            if equal is not None:
                above[i].plot([number, equal], [error, error], ":", color="0.4", linewidth=1)
        above[i].set(title=name, xscale="log", yscale="log", ylabel="test error (%)")
        below[i].set(xscale="log", yscale="log", ylabel="code length of the labels (nats)")
        below[i].set_xlabel("images of the target task")
    above[0].legend(frameon=False)
    below[0].legend(frameon=False, fontsize="small", loc="lower right")
    style(*above, *below)
    figure.suptitle(title)
    return figure


def _draw(
    axes: Axes, x: Sequence[float], seeds: Sequence[Sequence[float]], label: str, colour: str, is_bound: bool = False
) -> None:
    """Draw means over seeds with standard errors; a bound is dotted, with hollow points."""
    points = [mean_and_error(by_seed) for by_seed in zip(*seeds, strict=True)]
    axes.errorbar(
        x,
        [mean for mean, _ in points],
        [error or 0.0 for _, error in points],
        color=colour,
        label=label,
        linestyle=":" if is_bound else LINES[colour],
        marker=MARKERS[colour],
        fillstyle="none" if is_bound else "full",
        markersize=4,
        capsize=3,
    )
