"""The figures of the claims of Blundell et al. 2015, one function each; hollow points are the paper's own numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbb.runs import LINES, MARKERS, PALETTE, style
from bbb.studies.pruning_figure import draw_histogram
from bbb.studies.table import mean_and_error

PAPER = "hollow: as the paper reports"


def baselines(
    errors: Mapping[str, Sequence[Mapping[str, Any]]], reported: Mapping[str, Sequence[Sequence[float]]], title: str
) -> Figure:
    """Draw the test error of each method against the width of the network.

    Args:
        errors: for each method and width ``units`` and ``test_error``, in % of each seed; drawn as means with standard
            errors.
        reported: for each method pairs of units and the paper's error.
        title: what is compared.
    """
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for (method, widths), colour in zip(errors.items(), PALETTE, strict=False):
        points = [mean_and_error(width["test_error"]) for width in widths]
        axes.errorbar(
            [width["units"] for width in widths],
            [mean for mean, _ in points],
            [error or 0.0 for _, error in points],
            color=colour,
            label=method,
            linestyle=LINES[colour],
            marker=MARKERS[colour],
            markersize=5,
            capsize=3,
        )
        units, values = zip(*reported.get(method, [(None, None)]), strict=True)
        axes.plot(units, values, color=colour, marker=MARKERS[colour], fillstyle="none", linestyle="none", markersize=7)
    axes.set(xlabel="hidden units of each of two layers", ylabel="test error (%)")
    axes.set_xticks(sorted({width["units"] for widths in errors.values() for width in widths}))
    style(axes)
    axes.legend(frameon=False, title=PAPER, fontsize="small", title_fontsize="small")
    figure.suptitle(title)
    return figure


def pruned(
    errors: Mapping[str, Mapping[str, Any]],
    reported: Sequence[Sequence[float]],
    histograms: Mapping[str, Mapping[str, Any]],
    title: str,
) -> Figure:
    """Draw the test error against the share of weights removed, and histograms of the signal-to-noise ratio.

    Args:
        errors: for each arm ``shares`` in 0..1 and ``test_error``, in % of each seed at each share; drawn as means,
            with a band from minimum to maximum.
        reported: pairs of the share and the paper's error.
        histograms: of 20 log10(|mean| / std) by arm: ``first`` edge, ``width`` of a bin, and ``shares`` in %.
        title: what is compared.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    by_share, of_ratio = figure.subplots(1, 2)
    shares = next(iter(errors.values()))["shares"]
    colours = dict(zip(errors, PALETTE, strict=False))
    for arm, colour in colours.items():
        found = errors[arm]["test_error"]
        means = [mean_and_error(seeds)[0] for seeds in found]
        by_share.plot(range(len(shares)), means, color=colour, label=arm, linestyle=LINES[colour])
        _points(by_share, means, colour)
        by_share.fill_between(
            range(len(shares)), [*map(min, found)], [*map(max, found)], color=colour, alpha=0.15, linewidth=0
        )
    places = [shares.index(share) for share, _ in reported]
    by_share.plot(places, [error for _, error in reported], "ko", fillstyle="none", label="as the paper reports")
    by_share.set_xticks(range(len(shares)), [f"{100 * share:g}" for share in shares])
    by_share.set(xlabel="weights removed (%), not to scale", ylabel="test error (%)", yscale="log")
    by_share.legend(frameon=False, fontsize="small")
    for arm, histogram in histograms.items():
        draw_histogram(of_ratio, histogram, arm, colours[arm])
    of_ratio.set(xlabel="20 log10(|mean| / std) (dB)", ylabel="share of the weights (%)")
    of_ratio.legend(frameon=False, fontsize="small")
    style(by_share, of_ratio)
    figure.suptitle(title)
    return figure


def ensemble(averages: Mapping[str, Sequence[float]], single: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Draw the test scores of averages of the first 1, 2, ... runs, beside those of each run.

    Args:
        averages: ``error`` in %, ``nll`` in nats and ``ece`` in %, of each average.
        single: the same of each run.
        title: what is averaged.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    labels = {"error": "test error (%)", "nll": "test NLL (nats)", "ece": "test ECE (%)"}
    for axes, (name, label) in zip(figure.subplots(1, len(labels)), labels.items(), strict=True):
        numbers = range(1, len(averages[name]) + 1)
        axes.plot(numbers, averages[name], color=PALETTE[0], marker="o", markersize=4, label="the first runs, averaged")
        axes.plot(numbers, single[name], "x", color=PALETTE[1], label="each run alone")
        axes.set(xlabel="runs", ylabel=label, xticks=numbers)
        axes.legend(frameon=False, fontsize="small")
        style(axes)
    figure.suptitle(title)
    return figure


def _points(axes: Axes, values: Sequence[float], colour: str) -> None:
    axes.plot(range(len(values)), values, color=colour, marker=MARKERS[colour], linestyle="none", markersize=4)
