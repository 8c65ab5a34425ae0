"""The figure of regression beyond the data: the median and two quantile bands of each network."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from bbb.runs import PALETTE, VALIDATION, style

MARGIN = 0.5  # what the axis of y shows above and below the data


def regression_figure(
    x: Sequence[float], data: Sequence[Sequence[float]], bands: Mapping[str, Sequence[Sequence[float]]], title: str
) -> Figure:
    """Draw the training data, and beside it the predictive distribution of each network.

    Args:
        x: where the networks predict.
        data: the x and the y of the training data.
        bands: for each network the quantiles of y at each x, ``[rank][x]``, lowest first; the middle one is a line, and
            each pair around it is a band.
        title: what is shown.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, len(bands), sharey=True)
    for axes, (name, quantiles) in zip(panels, bands.items(), strict=True):
        for i in range(len(quantiles) // 2):
            axes.fill_between(x, quantiles[i], quantiles[-1 - i], color=PALETTE[0], alpha=0.25, linewidth=0)
        axes.plot(x, quantiles[len(quantiles) // 2], color=VALIDATION, linewidth=1.5, label="median")
        axes.plot(*data, "x", color="0.2", markersize=3, markeredgewidth=0.6, label="training data")
        axes.set(xlabel="x", title=name, xlim=(x[0], x[-1]))
    panels[0].set(ylabel="y", ylim=(min(data[1]) - MARGIN, max(data[1]) + MARGIN))
    panels[0].legend(frameon=False, loc="upper right")
    style(*panels)
    figure.suptitle(title)
    return figure
