"""The command that removes weights from a posterior, and prints what that costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bbb import runs, studies
from bbb.cli.options import Options
from bbb.cli.signals import into_a_pipe, stopped_by_signals
from bbb.system import InputError

SCORES = {"error": "error %", "rmse": "RMSE", "nll": "NLL", "ece": "ECE %", "coverage_90": "in 90 %"}  # printed


@into_a_pipe()
@stopped_by_signals()
def prune(config: Mapping[str, Any], options: Options) -> None:
    """Print the test scores without 0 to 99 % of the weights, and write table, figure and pruned weights.

    Args:
        config: its keys ``pretrained``, which names a posterior, ``network``, ``data_dir`` and ``device``.
        options: the command's options: ``share``, at which the pruned weights are written too.

    Raises:
        bbb.system.InputError: the posterior cannot be pruned or tested, or a file cannot be written.
    """
    name = config["pretrained"]
    if not isinstance(name, str) or not name:
        raise InputError(
            f"pretrained={name!r:.80}: must name an experiment, a run folder or a weights file, as in: "
            "python experiment.py prune with pretrained=best"
        )
    study = studies.PruningStudy(name, runs.open_retest(name, config))
    print(
        f"{name}: {study.num_weights:,} weights, lowest {study.rank} first; {study.num_biases:,} biases stay; "
        f"{study.num_samples} draw{'s' * (study.num_samples > 1)}"
    )
    for row in study.run(options.share):
        shown = [score for score in SCORES if score in row]
        if row is study.rows[0]:
            _print_row(["removed %", "kept", *(SCORES[score] for score in shown)])
        numbers = [f"{row[score]:.4f}" if score in ("nll", "rmse") else f"{row[score]:.2f}" for score in shown]
        _print_row([f"{100 * row['share']:g}", f"{row['num_kept']:,}", *numbers])
    paths = [_shown(path) for path in study.save()]
    print(f"in {' and '.join(paths)}")
    if options.share is not None:
        written = study.save_pruned(options.share)
        print(
            f"{_shown(written.path)}: {written.num_bytes:,} bytes, {written.num_bytes_whole / written.num_bytes:.1f} "
            f"times smaller than the whole posterior's {written.num_bytes_whole:,}"
        )


def _print_row(cells: Sequence[str]) -> None:
    print("  ".join(f"{cell:>9}" for cell in cells), flush=True)


def _shown(path: Path) -> str:
    """Write a path as seen from here, if it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
