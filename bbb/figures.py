"""Figures, one function each."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbb.training import Epoch

TRAIN, VALIDATION = "#0072B2", "#D55E00"  # Okabe and Ito's palette: distinct to colour-blind readers
PALETTE = (TRAIN, VALIDATION, "#009E73", "#CC79A7", "#E69F00")


def training_curves(epochs: Sequence[Epoch], title: str) -> Figure:
    """Draw accuracy, NLL and KL against epochs, for training and validation.

    Args:
        epochs: what each epoch measured.
        title: what was trained.

    Returns:
        A figure that belongs to no window and no global state.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    accuracy, nll, kl = figure.subplots(1, 3)
    numbers = [epoch.number for epoch in epochs]
    _curve(accuracy, numbers, [100 * epoch.train_accuracy for epoch in epochs], "train", TRAIN)
    _curve(nll, numbers, [epoch.train_nll for epoch in epochs], "train", TRAIN)
    _curve(kl, numbers, [epoch.train_kl for epoch in epochs], "train", TRAIN)
    held_out = [epoch for epoch in epochs if epoch.validation_accuracy is not None]
    if held_out:
        numbers = [epoch.number for epoch in held_out]
        _curve(accuracy, numbers, [100 * epoch.validation_accuracy for epoch in held_out], "validation", VALIDATION)
        _curve(nll, numbers, [epoch.validation_nll for epoch in held_out], "validation", VALIDATION)
    accuracy.set_ylabel("accuracy (%)")
    nll.set_ylabel("NLL (nats per example)")
    kl.set_ylabel("KL(q || p) (nats)")
    nll.set_yscale("log")
    for axes in (accuracy, nll, kl):
        axes.set_xlabel("epoch")
    _style(accuracy, nll, kl)
    accuracy.legend(frameon=False)
    figure.suptitle(title)
    return figure


def _curve(axes: Axes, x: Sequence[float], y: Sequence[float], label: str, colour: str) -> None:
    axes.plot(x, y, color=colour, label=label, linewidth=1.5, marker="o" if len(x) == 1 else None)


def compare(curves: Mapping[str, Sequence[Sequence[float]]], seconds: Mapping[str, float], title: str) -> Figure:
    """Draw validation accuracy against epochs and against seconds, as means over seeds with a band from least to most.

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
    by_epoch.set(xlabel="epoch", ylabel="validation accuracy (%)", ylim=(95, None))
    by_second.set(xlabel="seconds (log scale)", xscale="log")
    _style(by_epoch, by_second)
    by_epoch.legend(frameon=False, loc="lower right")
    figure.suptitle(title)
    return figure


def transfer_results(
    finals: Mapping[str, Mapping[float, Sequence[Mapping[str, float]]]],
    curves: Mapping[str, Sequence[Sequence[float]]],
    curves_title: str,
) -> Figure:
    """Draw test error and NLL against the fraction of the target's data, and validation accuracy against epochs.

    Args:
        finals: for each arm and fraction the results of each seed, with ``test_error`` (%) and ``test_nll`` (nats);
            drawn as means with standard errors.
        curves: for each arm the validation accuracies in %, ``[seed][epoch]``; drawn as means, with a band from least
            to most.
        curves_title: what the curves are of.
    """
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    by_error, by_nll, by_epoch = figure.subplots(1, 3)
    for (arm, by_fraction), colour in zip(finals.items(), PALETTE, strict=False):
        for axes, measure in ((by_error, "test_error"), (by_nll, "test_nll")):
            means, errors = zip(*(_mean(r[measure] for r in results) for results in by_fraction.values()), strict=True)
            axes.errorbar(
                list(by_fraction), means, errors, color=colour, label=arm, marker="o", markersize=4, capsize=3
            )
        if arm in curves:
            _band(by_epoch, 1.0, curves[arm], arm, colour)
    by_error.set(xlabel="fraction of the target's images", ylabel="test error (%)", xscale="log", yscale="log")
    by_nll.set(xlabel="fraction of the target's images", ylabel="test NLL (nats)", xscale="log", yscale="log")
    by_epoch.set(xlabel="epoch", ylabel="validation accuracy (%)", title=curves_title)
    _style(by_error, by_nll, by_epoch)
    by_error.legend(frameon=False)
    return figure


def _band(axes: Axes, unit: float, seeds: Sequence[Sequence[float]], label: str, colour: str) -> None:
    """Draw the mean of ``[seed][epoch]`` and the range of the seeds against epochs, each ``unit`` long."""
    by_epoch = list(zip(*seeds, strict=True))
    x = [unit * (i + 1) for i in range(len(by_epoch))]
    _curve(axes, x, [statistics.fmean(values) for values in by_epoch], label, colour)
    least, most = ([choose(values) for values in by_epoch] for choose in (min, max))
    axes.fill_between(x, least, most, color=colour, alpha=0.15, linewidth=0)


def _style(*panels: Axes) -> None:
    for axes in panels:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)


def _mean(values: Iterable[float]) -> tuple[float, float]:
    """Return the mean and its standard error; the latter is 0 for a single value."""
    values = list(values)
    return statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
