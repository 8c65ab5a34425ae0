"""Figures, one function each."""

from collections.abc import Mapping, Sequence

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
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
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
        epochs = range(1, len(seeds[0]) + 1)
        mean = [sum(values) / len(values) for values in zip(*seeds, strict=True)]
        least, most = ([choose(values) for values in zip(*seeds, strict=True)] for choose in (min, max))
        for axes, x in ((by_epoch, list(epochs)), (by_second, [epoch * seconds[name] for epoch in epochs])):
            axes.plot(x, mean, color=colour, label=name, linewidth=1.5)
            axes.fill_between(x, least, most, color=colour, alpha=0.15, linewidth=0)
    by_epoch.set(xlabel="epoch", ylabel="validation accuracy (%)", ylim=(95, None))
    by_second.set(xlabel="seconds (log scale)", xscale="log")
    for axes in (by_epoch, by_second):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    by_epoch.legend(frameon=False, loc="lower right")
    figure.suptitle(title)
    return figure
