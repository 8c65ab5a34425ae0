"""A whole command line, from its words to its exit status, and the set-up of Sacred's experiment."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any

from docopt import DocoptExit
from sacred import Experiment

from bbb.cli.options import check_options
from bbb.cli.recorder import Recorder
from bbb.cli.signals import into_a_pipe
from bbb.cli.words import check_words
from bbb.runs import RESUMABLE, Settings
from bbb.system import StoppedError, in_lines, rank, refusing_bad_input

PACKAGE = Path(__file__).resolve().parents[1]
SACREDS_OWN = ("print_dependencies", "print_named_configs", "save_config")  # commands
DEPENDENCIES = ("torch", "torchvision", "torchmetrics", "safetensors", "scikit-learn")  # whose versions are recorded


def has_commit() -> bool:
    """Tell whether git can name the commit of this code; Sacred fails if it cannot."""
    git = shutil.which("git")
    if git is None:
        return False
    command = [git, "-C", str(PACKAGE.parent), "rev-parse", "--verify", "HEAD"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def set_up(ex: Experiment) -> None:
    """Make Sacred record every module and the versions of its dependencies, and print only what is wrong.

    A pipe that closes ends its own commands as it ends ours: from within, since Sacred shows a traceback of the rest.

    ``-l INFO`` makes Sacred print more.
    """
    asks_git, ex.save_git_info = ex.save_git_info, False  # it has for experiment.py; for each file takes half a second
    for module in sorted(PACKAGE.rglob("*.py")):
        ex.add_source_file(str(module))
    ex.save_git_info = asks_git
    for name in SACREDS_OWN:
        ex.command(into_a_pipe()(ex.commands[name].__wrapped__), unobserved=True)
    for package in DEPENDENCIES:
        ex.add_package_dependency(package, version(package))
    messages = logging.StreamHandler()
    messages.addFilter(lambda record: not record.getMessage().startswith(("Failed after", "Aborted after")))
    logger = logging.getLogger("bbb")
    logger.addHandler(messages)
    logger.setLevel(logging.WARNING)
    ex.logger = logger  # type: ignore[assignment]  # Sacred declares None, and documents a logger
    ex.observers.append(Recorder())


def leave_judging_to_settings(options: dict[str, Any]) -> None:
    """Refuse options that do not fit, and silence Sacred's warnings about keys, which :func:`judge` checks.

    Raises:
        SystemExit: an option does not fit; the message is one line.
    """
    options["--force"] = True
    with refusing_bad_input():
        check_options(options)


def judge(config: Mapping[str, Any], command_name: str) -> None:
    """Refuse a bad configuration before anything starts.

    Raises:
        SystemExit: it is bad; the message has one line for each problem.
    """
    if command_name in ("main", "print_config", "save_config") and rank() == 0:  # it reports for all
        with refusing_bad_input():
            Settings.from_config({key: config[key] for key in config if key != "config_filename"})


def run_command_line(
    ex: Experiment, named: Mapping[str, Path], argv: list[str], sequences: Mapping[str, Path] | None = None
) -> None:
    """Run a command line, and exit with SystemExit if something goes wrong.

    Args:
        ex: Sacred's experiment.
        named: its named configurations, with their files.
        argv: the words, the program's name first.
        sequences: its named sequences of tasks, likewise.
    """
    # PyTorch reads this when it is loaded. Waiting threads then sleep after some microseconds. By default they occupy
    # their cores for milliseconds, and other runs on the same machine have to wait.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    if rank() == 0:
        with into_a_pipe():
            _run_words(ex, named, argv, sequences)
        return
    logging.getLogger("bbb").setLevel(logging.ERROR)  # the first process reports for all
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        _run_words(ex, named, argv, sequences)


def _run_words(
    ex: Experiment, named: Mapping[str, Path], argv: list[str], sequences: Mapping[str, Path] | None
) -> None:
    try:
        with refusing_bad_input():
            words = check_words(ex, named, argv[1:], sequences)
        ex.run_commandline([argv[0], *words])
        for observer in ex.observers:
            if isinstance(observer, Recorder) and observer.problem is not None:
                sys.exit(f"{in_lines(observer.problem)}; then the same command with resume=True ends the run")
    except DocoptExit:
        sys.exit(f"error: cannot make sense of: {' '.join(argv[1:])}; see python experiment.py --help")
    except KeyboardInterrupt as interrupt:
        stopped = interrupt if isinstance(interrupt, StoppedError) else StoppedError(RESUMABLE)
        if rank() == 0:
            print(f"stopped; the same command {stopped.what_next}", file=sys.stderr)
        sys.exit(128 + stopped.number)
