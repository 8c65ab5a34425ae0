"""Tables of results: means and standard errors over seeds, as Markdown and CSV."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FIRST = ("test_error", "test_rmse", "test_nll", "test_ece")  # these columns come first, if present


@dataclass(frozen=True)
class Row:
    """The results of one configuration: for each measure, its mean and standard error over the seeds.

    The standard error is None if there is only one seed.
    """

    setting: dict[str, Any]
    num_seeds: int
    measures: dict[str, tuple[float, float | None]]


def summarise(results: Iterable[tuple[Mapping[str, Any], Mapping[str, float]]]) -> list[Row]:
    """Put the results of runs that differ only in their seed into one row.

    Args:
        results: for each run, the keys that differ between configurations, and its result.

    Returns:
        A row for each configuration, in the order of their first runs, with the numbers that all its runs have.
    """
    groups: dict[str, list[tuple[dict[str, Any], Mapping[str, float]]]] = {}
    for setting, result in results:
        apart_from_seed = {key: value for key, value in setting.items() if key != "seed"}
        groups.setdefault(str(apart_from_seed), []).append((apart_from_seed, result))
    rows = []
    for group in groups.values():
        values = [result for _, result in group]
        names = [name for name in values[0] if all(isinstance(result.get(name), int | float) for result in values)]
        measures = {name: mean_and_error([result[name] for result in values]) for name in names}
        rows.append(Row(group[0][0], len(values), measures))
    return rows


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of values and its standard error, s / sqrt(n) with the sample's s; None for a single value."""
    if len(values) < 2:
        return statistics.fmean(values), None
    return statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))


def markdown(rows: Sequence[Row]) -> str:
    """Write rows as a Markdown table, each error with two digits and its mean to the same place."""
    settings, measures = _columns(rows)
    lines = [[*settings, "seeds", *measures], ["---"] * (len(settings) + 1 + len(measures))]
    for row in rows:
        cells = [str(row.setting.get(name, "")) for name in settings]
        lines.append([*cells, str(row.num_seeds), *(_rounded(row.measures.get(name)) for name in measures)])
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def as_csv(rows: Sequence[Row]) -> str:
    """Write rows as CSV, at full precision, with columns NAME and NAME_se for the mean and its standard error."""
    settings, measures = _columns(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*settings, "seeds", *(column for name in measures for column in (name, f"{name}_se"))])
    for row in rows:
        numbers = [number for name in measures for number in row.measures.get(name, (None, None))]
        writer.writerow([*(row.setting.get(name) for name in settings), row.num_seeds, *numbers])
    return text.getvalue()


def _columns(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The names of the settings and of the measures in any of the rows."""
    settings = dict.fromkeys(name for row in rows for name in row.setting)
    measures = dict.fromkeys(name for row in rows for name in row.measures)
    first = [name for name in FIRST if name in measures]
    return list(settings), [*first, *(name for name in measures if name not in first)]


def _rounded(measure: tuple[float, float | None] | None) -> str:
    if measure is None:
        return ""
    mean, error = measure
    if not error or not math.isfinite(error):
        return f"{mean:.4g}"
    places = min(6, max(0, 1 - math.floor(math.log10(error))))
    return f"{mean:.{places}f} ± {error:.{places}f}"
