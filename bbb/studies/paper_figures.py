"""The figures of the claims of Blundell et al. 2015, one function each; hollow points are its own numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbb.runs import LINES, MARKERS, PALETTE, style
from bbb.studies.pruning_figure import draw_histogram
from bbb.studies.table import mean_and_error

PAPER = "as the paper reports"
LEAST_RATIO = -120.0  # dB: lower ones are of means that are zero but for rounding
LABELS = {"error": "test error (%)", "nll": "test NLL (nats)", "ece": "test ECE (%)"}


def baselines(scores: Mapping[str, Mapping[str, Sequence[float]]], reported: Mapping[str, float], title: str) -> Figure:
    """Draw the test scores of each method, and the paper's errors.

    Args:
        scores: ``error`` in %, ``nll`` in nats and ``ece`` in %: of each method and seed; drawn as points, and as means
            with standard errors.
        reported: the paper's error of each method, in %.
        title: what is compared.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(LABELS)), LABELS.items(), strict=True):
        for i, (seeds, colour) in enumerate(zip(scores[name].values(), PALETTE, strict=False)):
            mean, error = mean_and_error(seeds)
            axes.plot([i - 0.15] * len(seeds), seeds, ".", color=colour, alpha=0.6)
            axes.errorbar([i], [mean], [error or 0.0], color=colour, marker=MARKERS[colour], markersize=5, capsize=3)
        if name == "error":
            axes.plot(range(len(reported)), [*reported.values()], "ko", fillstyle="none", label=PAPER)
            axes.legend(frameon=False, fontsize="small")
        axes.set_xticks(range(len(scores[name])), [method.replace(" ", "\n") for method in scores[name]])
        axes.set(ylabel=label, xlim=(-0.6, len(scores[name]) - 0.4))
        style(axes)
    figure.suptitle(title)
    return figure


def widths(
    widths: Sequence[int],
    scores: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    reported: Mapping[str, Sequence[float]],
    title: str,
) -> Figure:
    """Draw test error and NLL against the number of hidden units, and the paper's errors.

    Args:
        widths: hidden units of each layer.
        scores: ``error`` in % and ``nll`` in nats: of each method, width and seed; drawn as means.
        reported: the paper's error of each method and width, in %.
        title: what is compared.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("error", "nll"), strict=True):
        for (method, seeds), colour in zip(scores[name].items(), PALETTE, strict=False):
            means = [mean_and_error(found)[0] for found in seeds]
            axes.plot(widths, means, color=colour, marker=MARKERS[colour], linestyle=LINES[colour], label=method)
            if name == "error":
                axes.plot(widths, reported[method][: len(widths)], "o", color=colour, fillstyle="none", markersize=8)
        axes.set(xlabel="hidden units of each of two layers", ylabel=LABELS[name], xticks=widths)
        style(axes)
    axes = figure.axes[0]
    axes.plot([], [], "ko", fillstyle="none", markersize=8, label=PAPER)
    axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title)
    return figure


def ensemble(
    alone: Mapping[str, Mapping[str, Sequence[float]]], together: Mapping[str, Mapping[str, float]], title: str
) -> Figure:
    """Draw the test scores of posteriors, and those of the average of their predictions.

    Args:
        alone: of each arm ``error`` in %, ``nll`` in nats and ``ece`` in %, of each posterior.
        together: those of the average.
        title: what is compared.
    """
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axes, (name, label) in zip(figure.subplots(1, len(LABELS)), LABELS.items(), strict=True):
        for i, (arm, colour) in enumerate(zip(alone, PALETTE, strict=False)):
            scores = alone[arm][name]
            axes.plot([i - 0.15] * len(scores), scores, MARKERS[colour], color=colour, alpha=0.5, markersize=4)
            axes.plot([i + 0.15], [together[arm][name]], "D", color=colour, label="averaged" if i == 0 else None)
        axes.set_xticks(range(len(alone)), [*alone])
        axes.set(ylabel=label, xlim=(-0.6, len(alone) - 0.4))
        axes.legend(frameon=False, fontsize="small")
        style(axes)
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
    by_share.plot(places, [error for _, error in reported], "ko", fillstyle="none", label=PAPER)
    by_share.set_xticks(range(len(shares)), [f"{100 * share:g}" for share in shares])
    by_share.set(xlabel="weights removed (%), not to scale", ylabel="test error (%)", yscale="log")
    by_share.legend(frameon=False, fontsize="small")
    for arm, histogram in histograms.items():
        draw_histogram(of_ratio, histogram, arm, colours[arm])
    of_ratio.set(xlabel="20 log10(|mean| / std) (dB)", ylabel="share of the weights (%)", xlim=(LEAST_RATIO, None))
    of_ratio.legend(frameon=False, fontsize="small")
    style(by_share, of_ratio)
    figure.suptitle(title)
    return figure


def _points(axes: Axes, values: Sequence[float], colour: str) -> None:
    axes.plot(range(len(values)), values, color=colour, marker=MARKERS[colour], linestyle="none", markersize=4)
