"""The figure of the mushroom bandit: the cumulative regret of each agent."""

import statistics
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbb.runs import LINES, PALETTE, draw_curve, style

FIRST = 10  # one panel shows this part of all interactions: a tenth


def bandit_figure(points: Sequence[int], curves: Mapping[str, Sequence[Sequence[float]]], title: str) -> Figure:
    """Draw cumulative regret against interactions, as means over seeds with a band from minimum to maximum.

    Args:
        points: the numbers of interactions.
        curves: for each agent its cumulative regret after them, ``[seed][point]``.
        title: what is compared.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    num_first = sum(point <= points[-1] / FIRST for point in points)
    for axes, num in zip(panels, (len(points), max(1, num_first)), strict=True):
        for (name, seeds), colour in zip(curves.items(), PALETTE, strict=False):
            _band(axes, points[:num], [seed[:num] for seed in seeds], name, colour)
        axes.set(xlabel="interactions", ylabel="cumulative regret")
    panels[0].legend(frameon=False)
    style(*panels)
    figure.suptitle(title)
    return figure


def _band(axes: Axes, x: Sequence[int], seeds: Sequence[Sequence[float]], label: str, colour: str) -> None:
    by_point = list(zip(*seeds, strict=True))
    draw_curve(axes, x, [statistics.fmean(values) for values in by_point], label, colour, LINES[colour])
    least, most = ([choose(values) for values in by_point] for choose in (min, max))
    axes.fill_between(x, least, most, color=colour, alpha=0.15, linewidth=0)
