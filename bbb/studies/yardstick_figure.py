"""The figure of the yardstick: bands over the truth's, nats to the log-evidence, and total variation."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bbb.runs import PALETTE, style

SHOWN = ("mean field", "full covariance", "16 planar", "inducing points")  # their bands, where they were fitted


def yardstick_figure(
    rows: Sequence[Mapping[str, Any]],
    truths: Mapping[str, Any],
    x: Sequence[float],
    data: Sequence[Sequence[float]],
    bands: Mapping[str, Sequence[Sequence[float]]],
    num_seeds: int,
) -> Figure:
    """Draw what each family makes of the first problem, and how far it is from the truth on all.

    Args:
        rows: of each problem and family the measures, as means and standard errors.
        truths: what is known of each problem's truth.
        x: where the bands are.
        data: the x and the y of the first problem's examples.
        bands: the quantiles of the function at 5, 50 and 95 %, of the truth and of each family.
        num_seeds: behind each mean.
    """
    shown = [name for name in SHOWN if name in bands]
    figure = Figure(figsize=(12, 7), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 1.2))
    upper = grid[0].subgridspec(1, len(shown))
    panels: list[Axes] = []
    for i in range(len(shown)):
        panels.append(figure.add_subplot(upper[i], sharey=panels[0] if panels else None))
    truth = bands["truth"]
    for axes, name in zip(panels, shown, strict=True):
        axes.fill_between(x, truth[0], truth[-1], color="0.8", linewidth=0, label="HMC")
        own = bands[name]
        axes.fill_between(x, own[0], own[-1], color=PALETTE[0], alpha=0.45, linewidth=0, label=name)
        axes.plot(*data, "x", color="0.2", markersize=3, markeredgewidth=0.6)
        axes.set(title=name, xlabel="x")
    panels[0].set_ylabel("function, 5 to 95 %")
    measures = {"nats_to_evidence": "log-evidence - ELBO (nats)", "total_variation": "total variation to HMC"}
    lower = grid[1].subgridspec(1, len(measures))
    below = [figure.add_subplot(lower[i]) for i in range(len(measures))]
    for axes, (measure, label) in zip(below, measures.items(), strict=True):
        _measure(axes, rows, [*truths], measure)
        axes.set(xlabel=label, xscale="log")
    below[0].legend(frameon=False, fontsize="small")
    style(*panels, *below)
    figure.suptitle(f"Families of posteriors beside the true one; mean of {num_seeds} seeds, hollow: their mixture")
    return figure


def _measure(axes: Axes, rows: Sequence[Mapping[str, Any]], problems: Sequence[str], measure: str) -> None:
    """Draw a measure of each family, one row of the axis each."""
    families = [*dict.fromkeys(row["family"] for row in rows if measure in row)]
    for i, problem in enumerate(problems):
        colour = PALETTE[i % len(PALETTE)]
        for label, face in (("alone", colour), ("mixed", "none")):
            own = [row for row in rows if row["problem"] == problem and row["as"] == label and measure in row]
            at = [families.index(row["family"]) + 0.15 * (i - 1.5) for row in own]
            values, errors = [row[measure][0] for row in own], [row[measure][1] for row in own]
            name = problem if label == "alone" else None
            axes.errorbar(values, at, xerr=errors, fmt="o", color=colour, mfc=face, markersize=5, label=name)
    axes.set_yticks(range(len(families)), families)
    axes.invert_yaxis()
