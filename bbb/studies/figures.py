"""The figures of studies, one function each."""

import math
import statistics
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbb.inference import Reliability
from bbb.runs import LINES, MARKERS, PALETTE, TRAIN, VALIDATION, draw_curve, style
from bbb.studies.table import mean_and_error

LEAST_SHARE = 0.005  # %, where the histograms of entropy are cut off: half an image of 10,000


def compare(curves: Mapping[str, Sequence[Sequence[float]]], seconds: Mapping[str, float], title: str) -> Figure:
    """Draw validation accuracy against epochs and against seconds, as means over seeds with a band from min to max.

    Args:
        curves: for each contender its accuracies in %, ``[seed][epoch]``.
        seconds: for each contender the seconds of an epoch.
        title: what is compared.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    by_epoch, by_second = figure.subplots(1, 2, sharey=True)
    for (name, seeds), colour in zip(curves.items(), PALETTE, strict=False):
        _band(by_epoch, 1.0, seeds, name, colour)
        _band(by_second, seconds[name], seeds, name, colour)
    by_epoch.set(xlabel="epoch", ylabel="validation accuracy (%)")
    by_second.set(xlabel="seconds (log scale)", xscale="log")
    style(by_epoch, by_second)
    by_epoch.legend(frameon=False, loc="lower right")
    figure.suptitle(title)
    return figure


def comparing_beta(
    accuracies: Mapping[str, Sequence[Sequence[float]]], elbos: Mapping[str, Sequence[Sequence[float]]], title: str
) -> Figure:
    """Draw validation accuracy and negative ELBO against epochs, as means over seeds with a band from min to max.

    Args:
        accuracies: for each scheme its validation accuracies in %, ``[seed][epoch]``.
        elbos: its ELBO at temperature 1 on the training data in nats per example, ``[seed][epoch]``, below zero.
        title: what is compared.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    by_accuracy, by_elbo = figure.subplots(1, 2)
    for name, colour in zip(accuracies, PALETTE, strict=False):
        _band(by_accuracy, 1.0, accuracies[name], name, colour)
        _band(by_elbo, 1.0, [[-elbo for elbo in seed] for seed in elbos[name]], name, colour)
    by_accuracy.set(xlabel="epoch", ylabel="validation accuracy (%)")
    by_elbo.set(xlabel="epoch", ylabel="negative ELBO (nats per example)", yscale="log")
    style(by_accuracy, by_elbo)
    by_accuracy.legend(frameon=False, loc="lower right")
    figure.suptitle(title)
    return figure


def transfer_results(
    finals: Mapping[str, Mapping[float, Sequence[Mapping[str, float]]]],
    curves: Mapping[str, Sequence[Sequence[float]]],
    curves_title: str,
    title: str,
) -> Figure:
    """Draw test error and NLL against the fraction of the target's data, and validation error against epochs.

    Args:
        finals: for each arm and fraction the results of each seed, with ``test_error`` (%) and ``test_nll`` (nats);
            drawn as means with standard errors.
        curves: for each arm the validation accuracies in %, ``[seed][epoch]``; drawn as means, with a band from
            minimum to maximum.
        curves_title: what the curves show.
        title: what is compared.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    by_error, by_nll, by_epoch = figure.subplots(1, 3)
    for (arm, by_fraction), colour in zip(finals.items(), PALETTE, strict=False):
        for axes, measure in ((by_error, "test_error"), (by_nll, "test_nll")):
            values = [[result[measure] for result in results] for results in by_fraction.values()]
            draw_means(axes, [*by_fraction], [*zip(*values, strict=True)], arm, colour)
        if arm in curves:
            _band(by_epoch, 1.0, [[100 - accuracy for accuracy in seed] for seed in curves[arm]], arm, colour)
    by_error.set(xlabel="fraction of the target's images", ylabel="test error (%)", xscale="log", yscale="log")
    by_nll.set(xlabel="fraction of the target's images", ylabel="test NLL (nats)", xscale="log", yscale="log")
    by_epoch.set(xlabel="epoch", ylabel="validation error (%)", yscale="log", title=curves_title)
    style(by_error, by_nll, by_epoch)
    by_error.legend(frameon=False)
    figure.suptitle(title)
    return figure


def calibration(
    reliability: Mapping[str, Sequence[Mapping[str, Sequence[float]]]],
    entropies: Mapping[str, Mapping[str, Sequence[Sequence[float]]]],
    aurocs: Mapping[str, Mapping[str, Sequence[float]]],
    about: str,
) -> Figure:
    """Draw a reliability diagram, and histograms of predictive entropy on digits and on other images.

    Args:
        reliability: for each model and seed ``share``, ``confidence`` and ``accuracy`` of equal bins of confidence, in
            0..1; drawn as means over the seeds whose bin holds a thousandth of the images, with a band from minimum
            to maximum.
        entropies: for each model and kind of input the % of inputs in equal bins of entropy from 0 to log 10 nats,
            ``[seed][bin]``.
        aurocs: for each model and kind of input except the first, how well entropy separates it from the first,
            ``[seed]``.
        about: what data and how many seeds.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    diagram, *histograms = figure.subplots(1, 1 + len(entropies))
    diagram.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle=":", label="calibrated")
    for (model, bins), colour in zip(reliability.items(), PALETTE, strict=False):
        _reliability(diagram, bins, model, colour)
    diagram.set(xlabel="confidence", ylabel="accuracy", title="test digits")
    diagram.legend(frameon=False)
    for axes, (model, kinds) in zip(histograms, entropies.items(), strict=True):
        for (kind, seeds), colour in zip(kinds.items(), PALETTE, strict=False):
            scores = aurocs[model].get(kind)
            label = f"{kind}, AUROC {statistics.fmean(scores):.3f}" if scores else kind
            width = math.log(10) / len(seeds[0])
            shares = [[max(LEAST_SHARE, share) for share in seed] for seed in seeds]
            _band(axes, width, shares, label, colour, 0.5)
        axes.set(xlabel="predictive entropy (nats)", ylabel="share of images (%)", title=model, yscale="log")
        axes.set(ylim=(LEAST_SHARE, 150))
        axes.legend(frameon=False, fontsize="small")
    style(diagram, *histograms)
    figure.suptitle(about)
    return figure


def _reliability(
    axes: Axes, seeds: Sequence[Mapping[str, Sequence[float]]], label: str, colour: str, least_share: float = 0.001
) -> None:
    x, means, least, most = [], [], [], []
    for i in range(len(seeds[0]["share"])):
        filled = [seed for seed in seeds if seed["share"][i] >= least_share]
        if filled:
            accuracies = [seed["accuracy"][i] for seed in filled]
            x.append(statistics.fmean(seed["confidence"][i] for seed in filled))
            means.append(statistics.fmean(accuracies))
            least.append(min(accuracies))
            most.append(max(accuracies))
    errors = [
        100 * Reliability(**{name: torch.tensor(seed[name], dtype=torch.float64) for name in seed}).calibration_error()
        for seed in seeds
    ]
    axes.plot(x, means, color=colour, label=f"{label}, ECE {statistics.fmean(errors):.2f} %", marker="o", markersize=3)
    axes.fill_between(x, least, most, color=colour, alpha=0.15, linewidth=0)


def uncertainty(
    images: Sequence[Sequence[int]],
    labels: Sequence[int],
    probs: Sequence[Sequence[Sequence[float]]],
    aleatoric: Sequence[Sequence[float]],
    epistemic: Sequence[Sequence[float]],
    title: str,
) -> Figure:
    """Draw images, their predictive distributions and the parts of their entropy, as means over seeds.

    Args:
        images: square images ``[image][pixel]``, 0..255.
        labels: their classes.
        probs: probabilities ``[seed][image][class]``, with whiskers from minimum to maximum.
        aleatoric: the expected entropy in nats, ``[seed][image]``.
        epistemic: the mutual information of label and weights in nats, ``[seed][image]``.
        title: what is shown.
    """
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    grid = figure.add_gridspec(3, len(images), height_ratios=(1, 1, 1.1))
    for i, pixels in enumerate(images):
        side = math.isqrt(len(pixels))
        picture, bars = figure.add_subplot(grid[0, i]), figure.add_subplot(grid[1, i])
        rows = [pixels[side * row : side * (row + 1)] for row in range(side)]
        picture.imshow(rows, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        picture.set(xticks=[], yticks=[], title=f"labelled {labels[i]}")
        by_class = list(zip(*(seed[i] for seed in probs), strict=True))
        colours = [VALIDATION if label == labels[i] else TRAIN for label in range(len(by_class))]
        bars.bar(range(len(by_class)), [statistics.fmean(p) for p in by_class], color=colours)
        bars.vlines(range(len(by_class)), [min(p) for p in by_class], [max(p) for p in by_class], color="0.2")
        bars.set(ylim=(0, 1), xticks=range(len(by_class)), yticks=[0, 0.5, 1])
        bars.tick_params(labelsize=7, labelleft=i == 0)
    figure.axes[1].set_ylabel("probability")
    parts = figure.add_subplot(grid[2, :])
    below = [statistics.fmean(seeds) for seeds in zip(*aleatoric, strict=True)]
    above = [statistics.fmean(seeds) for seeds in zip(*epistemic, strict=True)]
    parts.bar(range(len(images)), below, 0.5, color=PALETTE[4], label="aleatoric: expected entropy")
    parts.bar(range(len(images)), above, 0.5, below, color=PALETTE[2], label="epistemic: mutual information")
    parts.set(xlim=(-0.5, len(images) - 0.5), xticks=[], ylabel="entropy (nats)")
    parts.set_ylim(0, 1.45 * max(a + b for a, b in zip(below, above, strict=True)))
    parts.legend(frameon=False, loc="upper right", ncols=2)
    style(parts)
    figure.suptitle(title)
    return figure


def _band(
    axes: Axes, unit: float, seeds: Sequence[Sequence[float]], label: str, colour: str, first: float = 1.0
) -> None:
    """Draw the mean of ``[seed][epoch]`` and the range of the seeds against epochs, each ``unit`` long."""
    by_epoch = list(zip(*seeds, strict=True))
    x = [unit * (i + first) for i in range(len(by_epoch))]
    draw_curve(axes, x, [statistics.fmean(values) for values in by_epoch], label, colour, LINES[colour])
    least, most = ([choose(values) for values in by_epoch] for choose in (min, max))
    axes.fill_between(x, least, most, color=colour, alpha=0.15, linewidth=0)


def draw_means(
    axes: Axes, x: Sequence[float], seeds: Sequence[Sequence[float]], label: str, colour: str, is_bound: bool = False
) -> None:
    """Draw means of ``[seed][point]`` over the seeds with standard errors; a bound is dotted, with hollow points."""
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
