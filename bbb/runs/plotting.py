"""The curves of one training, and the style that all figures share."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from bbb.inference import Epoch

TRAIN, VALIDATION = "#0072B2", "#D55E00"  # Okabe and Ito's palette: distinct to colour-blind readers
PALETTE = (TRAIN, VALIDATION, "#009E73", "#CC79A7", "#E69F00")
LINES = dict(zip(PALETTE, ("-", "--", "-.", ":", "-"), strict=True))  # so that lines that overlap can be told apart
MARKERS = dict(zip(PALETTE, "os^Dv", strict=True))


def training_curves(epochs: Sequence[Epoch], title: str, result: Mapping[str, float] | None = None) -> Figure:
    """Draw what one looks for first: error (or RMSE) and NLL against epochs, with the best epoch, then any KL.

    The best epoch is that with the lowest validation NLL. The scores on the test set are dashed lines.

    Args:
        epochs: the metrics of each epoch.
        title: what was trained.
        result: the scores on the test set, as ``test_error`` in % or ``test_rmse``, and ``test_nll``.

    Returns:
        A figure that belongs to no window and no global state.
    """
    kls = _metric(epochs, "train_kl")
    num_panels = 3 if kls else 2
    figure = Figure(figsize=(4 * num_panels, 3.8), layout="constrained")
    panels = score, nll, *others = figure.subplots(1, num_panels)
    is_rmse = any(epoch.train_rmse is not None for epoch in epochs)
    scores = {part: _scores(epochs, part, is_rmse) for part in ("train", "validation")}
    nlls = {part: _metric(epochs, f"{part}_nll") for part in ("train", "validation")}
    best = min(nlls["validation"], key=nlls["validation"].__getitem__, default=None)
    tested = result or {}
    shown = (
        (score, scores, tested.get("test_rmse" if is_rmse else "test_error")),
        (nll, nlls, tested.get("test_nll")),
    )
    unit = "" if is_rmse else " %"
    for axes, curves, at_test in shown:
        in_unit = unit if axes is score else ""
        for part, colour in (("train", TRAIN), ("validation", VALIDATION)):
            if curves[part]:
                draw_curve(axes, [*curves[part]], [*curves[part].values()], part, colour)
        if best is not None and best in curves["validation"]:
            value = curves["validation"][best]
            axes.plot(
                [best], [value], "o", color=VALIDATION, label=f"best epoch ({best}): {value:.3g}{in_unit}", markersize=7
            )
        if at_test is not None:
            axes.axhline(
                at_test, color=PALETTE[2], linestyle="--", linewidth=1.2, label=f"test: {at_test:.3g}{in_unit}"
            )
        if all(value > 0 for curve in curves.values() for value in curve.values()):  # no error, or dense numbers: not
            axes.set_yscale("log")
        axes.legend(frameon=False, fontsize="small")
    for kl in others:
        draw_curve(kl, [*kls], [*kls.values()], "train", TRAIN)
        kl.set_ylabel("KL(q || p) (nats)")
    score.set_ylabel("RMSE" if is_rmse else "error (%)")
    nll.set_ylabel("NLL (nats per example)")
    for axes in panels:
        axes.set_xlabel("epoch")
    style(*panels)
    figure.suptitle(title)
    return figure


def _scores(epochs: Sequence[Epoch], part: str, is_rmse: bool) -> dict[int, float]:
    """The RMSE, or the error in %, after each epoch that has one."""
    if is_rmse:
        return _metric(epochs, f"{part}_rmse")
    return {number: 100.0 * (1.0 - value) for number, value in _metric(epochs, f"{part}_accuracy").items()}


def _metric(epochs: Sequence[Epoch], name: str) -> dict[int, float]:
    return {epoch.number: value for epoch in epochs if (value := getattr(epoch, name)) is not None}


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
