"""The figure of what a posterior is worth: errors and code lengths against the number of images, for pairs of tasks."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from bbb.runs import PALETTE, style
from bbb.studies.figures import draw_means


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
            draw_means(above[i], images, errors, role, colour)
            draw_means(below[i], images, shown["code_lengths"][role], f"{role}: prequential", colour)
        for (role, elbos), colour in zip(shown["elbos"].items(), PALETTE, strict=False):
            bounds = [[-elbo for elbo in seed] for seed in elbos]
            draw_means(below[i], shown["images"][role], bounds, f"{role}: -ELBO", colour, is_bound=True)
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
