"""The figure of what a posterior is worth."""

import statistics
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from bbb.runs import MARKERS, PALETTE, style
from bbb.studies.table import mean_and_error


def worth(pairs: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """Draw the test error against the number of images, with and without a source, and the images saved.

    Args:
        pairs: of each pair of tasks ``images``; ``error`` in % ``[arm][number][seed]``; ``code_length`` in nats
            ``[arm][seed]``; ``saved``, the ``images`` of transfer and those ``needed`` from scratch for its error.
        title: what is compared.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (pair, found) in zip(figure.subplots(1, len(pairs)), pairs.items(), strict=True):
        for (name, by_number), colour in zip(found["error"].items(), PALETTE, strict=False):
            means, errors = zip(*map(mean_and_error, by_number), strict=True)
            spread = [error or 0.0 for error in errors]
            look = {"color": colour, "marker": MARKERS[colour], "markersize": 4, "capsize": 3, "label": name}
            axes.errorbar(found["images"], means, spread, **look)
        transfer = next(iter(found["error"].values()))
        for saved in found["saved"]:
            if saved["needed"] is not None:
                level = statistics.fmean(transfer[found["images"].index(saved["images"])])
                ends = (saved["images"], level), (saved["needed"], level)
                axes.annotate("", *ends, arrowprops={"arrowstyle": "->", "color": "0.3"})
        lengths = [statistics.fmean(seeds) for seeds in found["code_length"].values()]
        axes.set(xscale="log", yscale="log", xlabel="images", ylabel="test error (%)")
        axes.set_title(f"{pair}\n{lengths[1] - lengths[0]:,.0f} of {lengths[1]:,.0f} nats", fontsize="medium")
        axes.legend(frameon=False, fontsize="small")
        style(axes)
    figure.suptitle(title)
    return figure
