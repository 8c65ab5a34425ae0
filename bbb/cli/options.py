"""The options of commands, which users write like keys of the configuration: ``resume=True``, ``grid="{...}"``.

They say what a command does, not what a run computes. So they are options of Sacred's command line, in both ways of
writing (``resume=True`` and ``--resume``), and never part of a configuration.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from sacred.commandline_options import CLIOption, cli_option
from sacred.run import Run

from bbb.runs import read_value
from bbb.studies import ContextsName, check_grid
from bbb.system import InputError

OPTIONS = {
    "main": ("resume",),
    "print_config": ("resume",),
    "grid": ("grid", "scheduler"),
    "sequence": ("scheduler",),
    "reproduce": ("fast", "scheduler"),
    "figures": ("fast",),
    "runs": ("json", "experiment"),
    "report": (),
    "demo": (),
    "prune": ("share",),
    "regression": ("fast",),
    "yardstick": ("fast",),
    "bandit": ("dataset", "file", "sha256", "fast"),
}
_FLAGS = ("fast", "resume", "json")  # options that are True or False
# Commands that take no configuration: what they take, in words, and the keys of the configuration among that.
_TAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    "reproduce": ("only fast= and scheduler=", ()),
    "figures": ("only fast=", ()),
    "runs": ("only the name of an experiment and json=", ()),
    "report": ("no words", ()),
    "demo": ("only pretrained= and data_dir=", ("pretrained", "data_dir")),
    "prune": (
        "only share= and pretrained= and network= and data_dir= and device=",
        ("pretrained", "network", "data_dir", "device"),
    ),
    "regression": ("only fast=", ()),
    "yardstick": ("only fast=", ()),
    "bandit": ("only dataset= and file= and sha256= and fast= and data_dir=", ("data_dir",)),
}


@dataclass(frozen=True)
class Options:
    """The options that a command was given.

    Attributes:
        resume: go on with the last unfinished run of this configuration.
        fast: at toy size.
        grid: keys with lists of values.
        scheduler: the address of a Dask scheduler.
        json: print what machines read.
        experiment: the name of the only experiment to show.
        share: of the weights, to remove.
        dataset: where the contexts of a bandit come from.
        file: the file of the mushrooms.
        sha256: the checksum that this file must have.
    """

    resume: bool = False
    fast: bool = False
    grid: dict[str, list[Any]] | None = None
    scheduler: str | None = None
    json: bool = False
    experiment: str | None = None
    share: float | None = None
    dataset: ContextsName | None = None
    file: str | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, run: Run) -> "Options":
        """Read the options that a run of a command was started with.

        Raises:
            bbb.system.InputError: a value is not valid.
        """
        given: Mapping[str, Any] = run.meta_info["options"]
        grid = given.get("--grid")
        if grid is not None and not isinstance(grid, Mapping):
            grid = read_value("grid", grid)
        scheduler = given.get("--scheduler")
        if scheduler is not None:
            _check_address(str(scheduler))
        share = given.get("--share")
        dataset, file, sha256 = (given.get(f"--{option}") for option in ("dataset", "file", "sha256"))
        _check_mushrooms(dataset, file, sha256)
        return cls(
            resume=bool(given.get("--resume")),
            fast=bool(given.get("--fast")),
            grid=check_grid(grid) if grid is not None else None,
            scheduler=scheduler,
            json=bool(given.get("--json")),
            experiment=given.get("--experiment"),
            share=_check_share(str(share)) if share is not None else None,
            dataset=_check_dataset(str(dataset)) if dataset is not None else None,
            file=str(file) if file is not None else None,
            sha256=_check_sha256(str(sha256)) if sha256 is not None else None,
        )


def sacred_options() -> list[CLIOption]:
    """List the options in the form that Sacred takes; the commands read them by :meth:`Options.of`."""

    @cli_option("-r", "--resume", is_flag=True)
    def resume(args: bool, run: Run) -> None:
        """Continue the last unfinished run of this name and configuration, in its folder."""

    @cli_option("-x", "--fast", is_flag=True)
    def fast(args: bool, run: Run) -> None:
        """Make figures at toy size (reproduce, figures, regression, yardstick, bandit)."""

    @cli_option("-g", "--grid")
    def grid(args: str, run: Run) -> None:
        """Set keys with lists of values, as in "{'seed': [1, 2, 3]}" (grid)."""

    @cli_option("-a", "--scheduler")
    def scheduler(args: str, run: Run) -> None:
        """Set the address of a Dask scheduler (grid, sequence, reproduce)."""

    @cli_option("-j", "--json", is_flag=True)
    def json(args: bool, run: Run) -> None:
        """Print JSON (runs)."""

    @cli_option("-E", "--experiment")
    def experiment(args: str, run: Run) -> None:
        """Show the runs of one experiment alone (runs)."""

    @cli_option("-k", "--share")
    def share(args: str, run: Run) -> None:
        """Write the posterior without this share of its weights, 0.95 for example (prune)."""

    @cli_option("-T", "--dataset")
    def dataset(args: str, run: Run) -> None:
        """Take the contexts from mushroom, digits8x8 or mnist (bandit)."""

    @cli_option("-K", "--file")
    def file(args: str, run: Run) -> None:
        """Read the mushrooms from this file (bandit)."""

    @cli_option("-H", "--sha256")
    def sha256(args: str, run: Run) -> None:
        """Refuse a file of mushrooms with another checksum (bandit)."""

    return [resume, fast, grid, scheduler, json, experiment, share, dataset, file, sha256]


def check_options(given: Mapping[str, Any]) -> None:
    """Refuse options that a command does not take, or that need what is not installed.

    Args:
        given: the options by their long flags, as Sacred reads them, and the command.

    Raises:
        bbb.system.InputError: one of them will not do.
    """
    if given.get("--id") is not None or given.get("--queue"):
        raise InputError("--id, --queue: not for this experiment; runs number themselves and start at once")
    command = given.get("COMMAND") or "main"
    for option in sorted({option for options in OPTIONS.values() for option in options}):
        if given.get(f"--{option}") and option not in OPTIONS.get(command, ()):
            raise InputError(f"--{option}: is no option of {command}")


def as_option(command: str, word: str) -> list[str] | None:
    """Turn a word such as ``resume=True`` into the option that it means.

    Args:
        command: the command that the word was given to.
        word: a word after ``with``.

    Returns:
        A list of words for Sacred, which may be empty; None if the word is not an option of this command.

    Raises:
        bbb.system.InputError: the option's value is not valid, or the command takes only options and the word is none.
    """
    key, is_change, text = word.partition("=")
    if command == "runs" and not is_change:
        return [f"--experiment={word}"]
    if not is_change or key not in OPTIONS.get(command, ()):
        if command in _TAKES:
            takes, keys = _TAKES[command]
            if not is_change or key not in keys:
                raise InputError(f"{word}: {command} takes {takes}")
        return None
    if key in _TEXTS:
        _TEXTS[key](text)
        return [f"--{key}={text}"]
    value = read_value(key, text)
    if key in _FLAGS:
        if not isinstance(value, bool):
            raise InputError(f"{key}={text}: must be True or False")
        return [f"--{key}"] if value else []
    if key == "grid":
        check_grid(value)
    elif key == "share":
        _check_share(text)
    elif key == "scheduler":
        _check_address(text)
    return [f"--{key}={text}"]


def _check_mushrooms(dataset: str | None, file: str | None, sha256: str | None) -> None:
    """Refuse a file or a checksum of other contexts than mushrooms."""
    for option, value in (("file", file), ("sha256", sha256)):
        if value is not None and dataset not in (None, "mushroom"):
            raise InputError(f"{option}={value}: goes with dataset=mushroom, not with dataset={dataset}")


def _check_dataset(text: str) -> ContextsName:
    names: dict[str, ContextsName] = {name: name for name in get_args(ContextsName)}
    if text not in names:
        raise InputError(f"dataset={text}: the contexts of bandit must be {', '.join(names)}")
    return names[text]


def _check_file(text: str) -> str:
    if not text:
        raise InputError("file=: must name a file, as in file=agaricus-lepiota.data")
    return text


def _check_sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise InputError(f"sha256={text:.80}: must be 64 hexadecimal digits")
    return text


# Options whose values are texts, even where they look like numbers.
_TEXTS: dict[str, Callable[[str], object]] = {
    "dataset": _check_dataset,
    "file": _check_file,
    "sha256": _check_sha256,
}


def _check_address(text: str) -> None:
    if not re.fullmatch(r"\w+://\S+:\d+", text):
        raise InputError(f"scheduler={text}: must be the address of a Dask scheduler, as in tcp://host:8786")


def _check_share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share < 1.0:
        raise InputError(f"share={text}: must be a number of at least 0 and less than 1, as in share=0.95")
    return share
