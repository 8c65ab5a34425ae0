"""The figure of a sequence of tasks: the matrix of accuracies, and what is left of each task."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from bbb.runs import PALETTE, VALIDATION, style

MOST_NUMBERS = 12  # tasks whose accuracies are written into the matrix


def sequence_figure(
    labels: Sequence[str],
    matrix: Sequence[Sequence[float | None]],
    averages: Sequence[Sequence[float]],
    first: Sequence[Sequence[float]],
    title: str,
) -> Figure:
    """Draw the matrix of accuracies, and beside it the average and the first task after each task.

    Args:
        labels: of the tasks.
        matrix: mean over seeds of the accuracy in %, ``[t][j]`` of task j after task t; None where it was not tested.
        averages: the mean accuracy of the tasks so far, in %, ``[seed][t]``.
        first: that of the first task alone, likewise.
        title: what is shown.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    table, curves = figure.subplots(1, 2)
    num = len(labels)
    values = [[float("nan") if score is None else score for score in row] for row in matrix]
    shown = [score for row in matrix for score in row if score is not None]
    image = table.imshow(values, cmap="cividis", vmin=min(shown), vmax=max(max(shown), min(shown) + 0.1))
    figure.colorbar(image, ax=table, label="accuracy (%)")
    middle = (min(shown) + max(shown)) / 2
    for t, row in enumerate(matrix):
        for j, score in enumerate(row):
            if score is not None and num <= MOST_NUMBERS:
                colour = "white" if score < middle else "black"
                table.text(j, t, f"{score:.1f}", ha="center", va="center", color=colour, fontsize=7)
    table.set_xticks(range(num), labels, rotation=45 if max(map(len, labels)) > 5 else 0, ha="center", fontsize=7)
    table.set_yticks(range(num), [str(t + 1) for t in range(num)])
    table.set(xlabel="tested on", ylabel="after task")
    steps = [*range(1, num + 1)]
    lines: Mapping[str, Sequence[Sequence[float]]] = {"average of the tasks so far": averages, "the first task": first}
    for (name, seeds), colour, line in zip(lines.items(), (PALETTE[0], VALIDATION), ("-", "--"), strict=True):
        means = [sum(values) / len(values) for values in zip(*seeds, strict=True)]
        curves.plot(steps, means, line, color=colour, marker="o", markersize=4, label=name)
        if len(seeds) > 1:
            low, high = ([pick(values) for values in zip(*seeds, strict=True)] for pick in (min, max))
            curves.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    curves.set(xlabel="tasks learnt", ylabel="accuracy (%)", xticks=steps)
    curves.legend(frameon=False)
    style(curves)
    figure.suptitle(title)
    return figure
