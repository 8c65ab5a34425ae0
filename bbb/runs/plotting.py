"""The curves of one training, and the style that all figures share."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from bbb.inference import Epoch

TRAIN, VALIDATION = "#0072B2", "#D55E00"  # Okabe and Ito's palette: distinct to colour-blind readers
PALETTE = (TRAIN, VALIDATION, "#009E73", "#CC79A7", "#E69F00")
LINES = dict(zip(PALETTE, ("-", "--", "-.", ":", "-"), strict=True))  # so that lines that overlap can be told apart
MARKERS = dict(zip(PALETTE, "os^Dv", strict=True))


def training_curves(epochs: Sequence[Epoch], title: str) -> Figure:
    """Draw accuracy (or RMSE), NLL and KL against epochs, for training and validation.

    Args:
        epochs: the metrics of each epoch.
        title: what was trained.

    Returns:
        A figure that belongs to no window and no global state.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    score, nll, kl = figure.subplots(1, 3)
    numbers = [epoch.number for epoch in epochs]
    is_rmse = any(epoch.train_rmse is not None for epoch in epochs)
    name, unit = ("rmse", 1) if is_rmse else ("accuracy", 100)
    draw_curve(score, numbers, [unit * getattr(epoch, f"train_{name}") for epoch in epochs], "train", TRAIN)
    draw_curve(nll, numbers, [epoch.train_nll for epoch in epochs], "train", TRAIN)
    draw_curve(kl, numbers, [epoch.train_kl for epoch in epochs], "train", TRAIN)
    for axes, measure, factor in ((score, f"validation_{name}", unit), (nll, "validation_nll", 1)):
        values = {epoch.number: factor * value for epoch in epochs if (value := getattr(epoch, measure)) is not None}
        if values:
            draw_curve(axes, [*values], [*values.values()], "validation", VALIDATION)
    score.set_ylabel("RMSE" if is_rmse else "accuracy (%)")
    nll.set_ylabel("NLL (nats per example)")
    kl.set_ylabel("KL(q || p) (nats)")
    if all(epoch.train_nll > 0 for epoch in epochs):  # densities of numbers may exceed 1
        nll.set_yscale("log")
    for axes in (score, nll, kl):
        axes.set_xlabel("epoch")
    style(score, nll, kl)
    score.legend(frameon=False)
    figure.suptitle(title)
    return figure


def draw_curve(axes: Axes, x: Sequence[float], y: Sequence[float], label: str, colour: str, line: str = "-") -> None:
    """Draw a line through points; a single point gets a marker."""
    axes.plot(x, y, line, color=colour, label=label, linewidth=1.5, marker="o" if len(x) == 1 else None)


def style(*panels: Axes) -> None:
    """Give panels a light grid, no frame, whole epochs, and plain numbers on log axes."""
    for axes in panels:
        if axes.get_xlabel() == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":  # 0.02 in place of 2 x 10^-2
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
