"""The commands that show all runs: in the terminal, and in the browser. They load no PyTorch."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bbb import pages, studies
from bbb.cli.options import Options
from bbb.cli.signals import into_a_pipe
from bbb.runs import RESULTS, duration
from bbb.system import InputError

if TYPE_CHECKING:
    from bbb.studies import Entry

REPORT = Path(RESULTS) / "report.html"
_COLUMNS = {"test_error": "error %", "test_rmse": "RMSE", "test_nll": "NLL"}


class NoRunsError(InputError):
    """There are no runs to show."""


@into_a_pipe()
def list_runs(options: Options, configs: Path) -> None:
    """Print the runs, newest first, with what differs from a named configuration, scores and time.

    Args:
        options: the command's options: ``json``, and the name of the only experiment.
        configs: the folder of the named configurations.

    Raises:
        NoRunsError: there are none.
    """
    entries = studies.catalogue(studies.named_configs(configs))
    if options.experiment is not None:
        entries = _of_experiment(entries, options.experiment)
    if options.json:
        print(json.dumps([entry.as_dict() for entry in entries], indent=2, allow_nan=False))
        return
    _some(entries)
    for line in table(entries):
        print(line)


@into_a_pipe()
def write_report(configs: Path) -> None:
    """Write all runs as one page that opens from disk, ``results/report.html``.

    Args:
        configs: as in :func:`list_runs`.

    Raises:
        bbb.system.InputError: there are no runs, Plotly is missing, or the page cannot be written.
    """
    if find_spec("plotly") is None:
        raise InputError("report: needs what is not installed; run: pip install plotly")
    entries = studies.catalogue(studies.named_configs(configs))
    _some(entries)
    size = pages.write_report(entries, REPORT)
    print(f"{REPORT}: {len(entries)} run{'s' * (len(entries) != 1)}, {size / 1e6:.1f} MB; open it in a browser")


def table(entries: Sequence["Entry"]) -> list[str]:
    """Format runs as lines of text: columns as wide as they need to be, what differs at the end."""
    scores = [name for name in _COLUMNS if any(name in entry.scores for entry in entries)]
    rows = [["run", "status", *(_COLUMNS[name] for name in scores), "time", "started (UTC)", "configuration"]]
    for entry in entries:
        numbers = [_number(name, entry.scores.get(name)) for name in scores]
        started = (entry.started or "")[:16].replace("T", " ")
        seconds = duration(entry.seconds) if entry.seconds is not None else ""
        rows.append([entry.id, entry.status, *numbers, seconds, started, _about(entry)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = []
    for *cells, about in rows:
        padded = [
            f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append("  ".join([*padded, about]).rstrip())
    return lines


def _about(entry: "Entry") -> str:
    if entry.problem is not None:
        return _one_line(entry.problem)
    if entry.origin is None:
        return ""
    changes = (f"{key}={value}".replace(" ", "") for key, value in entry.origin.changes.items())
    return _one_line(" ".join([entry.origin.named, *changes]))


def _one_line(text: str) -> str:
    """Keep what a terminal takes for text: files may hold anything."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:300]


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if name == "test_error" else f"{value:.4f}" if name == "test_nll" else f"{value:.4g}"


def _of_experiment(entries: Sequence["Entry"], name: str) -> list["Entry"]:
    wanted = name.removeprefix(f"{RESULTS}/").rstrip("/")
    kept = [entry for entry in entries if entry.name == wanted]
    if not kept and entries:
        names = ", ".join(dict.fromkeys(_one_line(entry.name) for entry in entries))
        raise NoRunsError(f"{name}: there is no run of this name in {RESULTS}/; there are {names}")
    return kept


def _some(entries: Sequence["Entry"]) -> None:
    if not entries:
        raise NoRunsError(
            f"{RESULTS}/: there is no run yet; make one, as in: python experiment.py with blundell dataset=digits8x8"
        )
