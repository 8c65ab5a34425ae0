"""The figure of a pruned posterior."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbb.runs import PALETTE, TRAIN, VALIDATION, style


def pruning_figure(
    shares: Sequence[float],
    scores: Sequence[float],
    score: str,
    weights: Mapping[str, Mapping[str, Any]],
    signal_to_noise: Mapping[str, Any],
    cuts: Mapping[str, float],
    title: str,
    rank: str = "|mean| / std",
) -> Figure:
    """Draw the score against the share removed, and histograms of the weights and of their signal-to-noise ratio.

    Args:
        shares: of the weights that are removed, in 0..1.
        scores: at each of them.
        score: what they are.
        weights: histograms by name: ``first`` edge, ``width`` of a bin, and ``shares`` in %.
        signal_to_noise: a histogram of what the weights are ranked by, in dB.
        cuts: the lowest ratio that is kept, in dB, by the share removed: a line each.
        title: what is shown.
        rank: what the weights are ranked by, as a formula.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    by_share, of_weights, of_ratio = figure.subplots(1, 3)
    by_share.plot(range(len(shares)), scores, color=TRAIN, marker="o", markersize=4)
    by_share.set_xticks(range(len(shares)), [f"{100 * share:g}" for share in shares])
    by_share.set(xlabel="weights removed (%), not to scale", ylabel=score)
    if min(scores) > 0 and max(scores) > 5 * min(scores):
        by_share.set_yscale("log")
    for (name, histogram), colour in zip(weights.items(), PALETTE, strict=False):
        draw_histogram(of_weights, histogram, name, colour)
    of_weights.set(xlabel="weight", ylabel="share of the weights (%)", yscale="log")
    of_weights.legend(frameon=False)
    draw_histogram(of_ratio, signal_to_noise, None, TRAIN)
    for i, (share, cut) in enumerate(cuts.items()):
        of_ratio.axvline(cut, color=VALIDATION, linewidth=1)
        place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "right", "va": "top", "fontsize": 7}
        of_ratio.annotate(f"{100 * float(share):g} %", (cut, 0.99 - 0.08 * i), **place)  # each below the last
    of_ratio.set(xlabel=f"20 log10({rank}) (dB)", ylabel="share of the weights (%)")
    style(by_share, of_weights, of_ratio)
    figure.suptitle(title)
    return figure


def draw_histogram(axes: Axes, histogram: Mapping[str, Any], label: str | None, colour: str) -> None:
    """Draw a histogram: its ``first`` edge, the ``width`` of a bin, and ``shares`` in %."""
    first, width, shares = histogram["first"], histogram["width"], histogram["shares"]
    edges = [first + width * i for i in range(len(shares) + 1)]
    axes.stairs(shares, edges, color=colour, label=label, linewidth=1.5)
