"""Figures, one function each."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbb.training import Epoch

TRAIN, VALIDATION = "#0072B2", "#D55E00"  # Okabe and Ito's palette: distinct to colour-blind readers


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
