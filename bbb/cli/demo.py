"""The command that writes the page to draw on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bbb import data, pages, runs
from bbb.cli.signals import into_a_pipe
from bbb.system import InputError

PAGE = "demo.html"  # in the results folder


@into_a_pipe()
def demo(config: Mapping[str, Any]) -> None:
    """Write the page on which a person draws a digit, and tell where it is.

    Args:
        config: its keys ``pretrained``, which names one or two posteriors, and ``data_dir``, for the examples.

    Raises:
        bbb.system.InputError: a posterior cannot be shown, or the page cannot be written.
    """
    names, path = _names(config["pretrained"]), Path(runs.RESULTS) / PAGE
    notes = pages.write_demo(names, path, data.data_root(config["data_dir"]))
    for note in notes:
        print(note)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; open it in a browser")


def _names(pretrained: Any) -> list[str]:
    """Read one name, or several in brackets, which may stand without quotes.

    Raises:
        InputError: there is none, or they are no texts.
    """
    if isinstance(pretrained, str) and pretrained.startswith("[") and pretrained.endswith("]"):
        pretrained = [name.strip().strip("'\"") for name in pretrained[1:-1].split(",")]
    names = list(pretrained) if isinstance(pretrained, list | tuple) else [pretrained]
    if pretrained is None or not all(isinstance(name, str) and name for name in names):
        raise InputError(
            f"pretrained={pretrained!r:.80}: must name an experiment, a run folder or a weights file, or two of them, "
            "as in: python experiment.py demo with pretrained=best"
        )
    return names
