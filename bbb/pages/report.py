"""The report: all runs in one page, with their curves, what each one shows, and how it is made again."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from bbb.pages.page import asset, make_page, write_page
from bbb.runs import FINDINGS
from bbb.studies import Entry, is_number, plain, read_json

MAX_POINTS = 80  # of a curve
MAX_LOG = 6_000  # letters
MAX_TEXT = 300  # letters of a value of a configuration
ROOM = 23e6  # bytes of all that is shown of single runs; Plotly takes 5 MB more
MEASURES = (
    *("train.accuracy", "train.rmse", "train.nll", "train.elbo", "train.kl"),
    *("validation.accuracy", "validation.rmse", "validation.nll"),
)


def write_report(entries: Sequence[Entry], path: Path) -> int:
    """Write the page.

    Args:
        entries: the runs, newest first.
        path: of the page.

    Returns:
        Its size in bytes.

    Raises:
        bbb.system.StorageError: it cannot be written; an old page is unchanged.
    """
    text = make_report(entries)
    write_page(path, text)
    return len(text.encode())


def make_report(entries: Sequence[Entry]) -> str:
    """Make the page: a table of all runs, and for each run an element with its curves, its findings and its log.

    These take at most :data:`ROOM`. What does not fit is left out of the oldest runs: first pictures and log, then the
    findings, then the curves. Scores are always there.
    """
    room, details = ROOM, {}
    for number, entry in zip(count(), entries):
        shown = _details(entry)
        for less in ((), ("log", "pictures"), ("findings",), ("curves",)):
            shown = _without(shown, less)
            size = len(json.dumps(shown))
            if size <= room:
                break
        room -= size
        details[f"run-{number}"] = shown
    now = datetime.now(UTC).isoformat(timespec="minutes")
    return make_page(
        "Runs",
        asset("report.html"),
        [asset("report.css")],
        [asset("report_table.js"), get_plotlyjs(), asset("report_charts.js"), asset("report_run.js")],
        {"runs": {"written": now, "runs": [_row(entry) for entry in entries]}, **details},
    )


def _row(entry: Entry) -> dict[str, Any]:
    """What the table shows of a run."""
    row = entry.as_dict()
    row["changes"] = {_text(key): _text(value) for key, value in row["changes"].items()}
    row["problem"] = _text(row["problem"]) if row["problem"] is not None else None
    return row


def _details(entry: Entry) -> dict[str, Any]:
    """What the page shows of one run alone; what is missing or damaged is left out."""
    return {
        "config": {_text(key): _text(value) for key, value in plain(entry.config).items()},
        "curves": _curves(entry.folder / "metrics.json"),
        "findings": _findings(entry.folder / FINDINGS),
        "log": _log(entry.folder),
        "left_out": [],
    }


def _without(shown: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """Leave something out, and say so."""
    fewer = dict(shown)
    for part in parts:
        if part == "pictures" and fewer["findings"]:
            fewer["findings"] = {**fewer["findings"], "worst": []}
        elif part != "pictures":
            fewer[part] = None
    return {**fewer, "left_out": [*shown["left_out"], *parts]}


def _curves(path: Path) -> dict[str, Any]:
    """Read the metrics of each epoch, thinned to :data:`MAX_POINTS` with the last one kept, and the seconds so far."""
    try:
        metrics = read_json(path)
    except ValueError:
        return {}
    if not isinstance(metrics, dict):
        return {}
    seconds, total = {}, 0.0
    for epoch, value in _points(metrics.get("train.seconds")):
        total += value
        seconds[epoch] = total
    curves = {}
    for name in MEASURES:
        points = _thinned(_points(metrics.get(name)))
        if points:
            curves[name] = {
                "epoch": [epoch for epoch, _ in points],
                "seconds": [_rounded(seconds[epoch]) if epoch in seconds else None for epoch, _ in points],
                "value": [_rounded(value) for _, value in points],
            }
    return curves


def _points(metric: object) -> list[tuple[float, float]]:
    """The epochs and finite values of a metric as Sacred records it."""
    if not isinstance(metric, dict):
        return []
    steps, values = metric.get("steps"), metric.get("values")
    if not isinstance(steps, list) or not isinstance(values, list):
        return []
    pairs = zip(steps, values, strict=False)
    return [(step, value) for step, value in pairs if is_number(step) and is_number(value)]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep every n-th point and the last one; the first epochs, where most happens, are all kept."""
    if len(points) <= MAX_POINTS:
        return points
    num_first = MAX_POINTS // 4
    first, rest = points[:num_first], points[num_first:]
    step = math.ceil(len(rest) / (MAX_POINTS - num_first - 1))
    kept = rest[::step]
    return [*first, *kept, *([rest[-1]] if kept[-1] is not rest[-1] else [])]


def _findings(path: Path) -> dict[str, Any] | None:
    """Read what a run found; the page itself checks each part when it shows it."""
    try:
        found = plain(read_json(path))
    except ValueError:
        return None
    return found if isinstance(found, dict) and len(json.dumps(found)) <= 200_000 else None


def _log(folder: Path) -> str:
    """Read the log of the epochs, or else what the run printed: its beginning and its end."""
    for name in ("log.txt", "cout.txt"):
        try:
            with open(folder / name, "rb") as file:
                text = file.read(4_000_000).decode(errors="replace")
        except OSError:
            continue
        if text.strip():
            return _ends(text)
    return ""


def _ends(text: str) -> str:
    if len(text) <= MAX_LOG:
        return text
    head, tail = text[: MAX_LOG // 3], text[-2 * MAX_LOG // 3 :]
    return f"{head.rpartition(chr(10))[0]}\n...\n{tail.partition(chr(10))[2]}"


def _text(value: Any) -> str:
    """Write a value of a configuration as people write it."""
    text = value if isinstance(value, str) else json.dumps(plain(value))
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
