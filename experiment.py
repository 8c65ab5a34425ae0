"""Bayes by Backprop on MNIST: train a Bayesian neural network and keep a record of it.

Examples:
  python experiment.py with blundell                     as in Blundell et al. 2015, on MNIST
  python experiment.py with blundell dataset=digits8x8   on the embedded digits, without a download
  python experiment.py with best num_hidden=800 experiment_name=wide
  python experiment.py with domain_a                     digits 0-4, then
  python experiment.py with transfer fraction=0.01       digits 5-9 with that posterior as the prior
  torchrun --nproc-per-node=2 experiment.py with best    each minibatch shared by two processes
  python experiment.py print_config with best            every key, its value and its meaning
  python experiment.py grid with blundell grid="{'lr': [0.001, 0.003], 'seed': [1, 2, 3]}"
  python experiment.py reproduce                         every figure of the README; fast=True at toy size

Named configurations are files in configs/; results go to results/<experiment_name>/.
"""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path

# Read when PyTorch is loaded: threads that wait for each other go to sleep after some microseconds. By default they
# hold their cores for milliseconds, which other runs on the same machine have to wait for.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

import torch
from docopt import DocoptExit
from tqdm import tqdm

with warnings.catch_warnings():  # Sacred imports pkg_resources, whose deprecation its users cannot mend
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from sacred import SETTINGS, Experiment
    from sacred.config import ConfigDict
    from sacred.run import Run

from bbb import commands, machine, parallel, pipeline, progress, runs
from bbb.errors import InputError, in_lines, refusing_bad_input
from bbb.parallel import Group
from bbb.record import Recorder
from bbb.settings import Settings, check_text, load_file, nearest, unknown_key
from bbb.training import Epoch

ROOT = Path(runs.RESULTS)
THIS_FILE = Path(__file__).resolve()
CONFIGS = THIS_FILE.parent / "configs"
DEFAULT = CONFIGS / "default.yaml"
NAMED = {path.stem: path for path in sorted(CONFIGS.glob("*.yaml")) if path != DEFAULT}

SETTINGS.CAPTURE_MODE = "sys"  # capturing file descriptors would swallow the progress bar
SETTINGS.HOST_INFO.INCLUDE_CPU_INFO = False  # takes a second, each time


def has_commit() -> bool:
    """Tell whether git can name the commit of this code; Sacred fails where it cannot."""
    git = shutil.which("git")
    command = [git, "-C", str(CONFIGS.parent), "rev-parse", "--verify", "HEAD"]
    return git is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


ex = Experiment("bbb", save_git_info=has_commit())
sacred_messages = logging.StreamHandler()
sacred_messages.addFilter(lambda record: not record.getMessage().startswith(("Failed after", "Aborted after")))
ex.logger = logging.getLogger("bbb")  # quiet unless something is wrong; -l INFO makes Sacred talk
ex.logger.addHandler(sacred_messages)
ex.logger.setLevel(logging.WARNING)
for source_file in sorted((CONFIGS.parent / "bbb").glob("*.py")):
    ex.add_source_file(str(source_file))
for package in ("torch", "torchvision", "torchmetrics", "safetensors", "scikit-learn"):
    ex.add_package_dependency(package, version(package))
ex.add_config(str(DEFAULT))
for config_name, config_path in NAMED.items():
    ex.add_named_config(config_name, str(config_path))


@contextmanager
def noticing_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, to be acted upon after the step; a second Ctrl-C interrupts at once."""
    received = []

    def notice(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield received
        return
    before = {number: signal.signal(number, notice) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@ex.option_hook
def leave_judging_to_settings(options: dict) -> None:
    """Silence Sacred's warnings of new keys and changed types: what is wrong is refused by ``bbb.settings``."""
    options["--force"] = True
    if options.get("--id") is not None or options.get("--queue"):
        raise SystemExit("error: --id, --queue: not for this experiment; runs number themselves and start at once")


@ex.config_hook
def judge(config: dict, command_name: str, logger: object) -> dict:
    """Refuse a bad configuration before anything is written; else choose the folder that records the run."""
    if command_name in ("main", "print_config", "save_config") and parallel.rank() == 0:  # which alone records
        with refusing_bad_input():
            settings = Settings.from_config({key: config[key] for key in config if key != "config_filename"})
            if command_name == "main":
                folder = runs.experiment_folder(settings.experiment_name, ROOT)
                unfinished = runs.find_unfinished(folder, config) if settings.resume else None
                recorder = Recorder(folder, unfinished, ROOT / "_sources")  # first, since it claims what is resumed
                try:
                    pipeline.check(settings, ROOT, unfinished)
                except InputError:
                    recorder.release()
                    raise
                ex.observers[:] = [recorder]
    return {}


@ex.main
def main(_config: dict, _run: Run) -> dict[str, object] | None:
    """Train on one task and evaluate; the default command."""
    settings = Settings.from_config(_config)
    machine.set_up(settings.num_threads, settings.precision)
    device = machine.find_device(settings.device)
    folder = Path(_run.observers[0].dir) if _run.observers else None
    print(f"{settings.experiment_name}: {settings.dataset} on {device}{f', results in {folder}' if folder else ''}")
    with refusing_bad_input(), machine.enough_memory(), noticing_signals() as received:
        try:
            with parallel.joined(device) as group:
                result = compute(settings, device, folder, _run, received, group)
        except progress.Stopped as stopped:
            stopped.signal = received[0] if received else signal.SIGTERM  # another process of the group received it
            raise
    if result is None:
        return None
    print(", ".join(f"{name} {value:.4g}" for name, value in result.items() if name != "replicas"))
    if folder is not None:
        with refusing_bad_input():
            runs.publish(folder)
    return result


def compute(
    settings: Settings, device: torch.device, folder: Path | None, run: Run, received: list[int], group: Group
) -> dict[str, object] | None:
    """Run the experiment with a progress bar, and log its epochs; returns the result, in the first of a group."""
    is_off = True if group.rank > 0 else None  # None: where the output is not a terminal
    with tqdm(unit=" steps", file=sys.__stderr__, disable=is_off, dynamic_ncols=True, mininterval=0.5) as bar:

        def on_step(step: int, num_steps: int) -> None:
            if bar.total != num_steps or step < bar.n:
                bar.reset(num_steps)
                bar.initial = bar.n = step - 1
            bar.update()

        def on_epoch(epoch: Epoch) -> None:
            bar.write(progress.describe(epoch, settings.num_epochs), file=sys.stdout)
            log(run, epoch)

        result = pipeline.run(
            settings,
            device,
            folder,
            on_source=lambda record: run.info.update(source=record),
            on_choice=on_step,
            on_step=on_step,
            on_epoch=on_epoch,
            should_stop=lambda: bool(received),
            root=ROOT,
            group=group,
        )
    return result.as_dict() if result is not None else None


@ex.command(unobserved=True)
def print_config(_config: dict) -> None:
    """Print every key with its value and its meaning; * marks what differs from the default."""
    for line in DEFAULT.read_text().splitlines():
        if entry := re.fullmatch(r"(\w+): +(.*?) +# (.*)", line):
            key, default, meaning = entry.groups()
            value = str(list(_config[key]) if key == "digits" else _config[key])
            changed = value != {"null": "None"}.get(default, default)
            print(f"{'*' if changed else ' '} {f'{key} = {value}':<36} # {meaning}")
        elif line.startswith("# ---"):
            print(line)


@ex.command(unobserved=True)
def grid(_config: dict) -> None:
    """Make the runs of grid={KEY: [VALUE, ...], ...}, many at once, and a table of their results; scheduler=ADDRESS."""
    with refusing_bad_input():
        commands.run_grid({key: _config[key] for key in _config if key != "config_filename"}, THIS_FILE, ROOT)


@ex.command(unobserved=True)
def reproduce(_config: dict) -> None:
    """Make the runs that the README's figures are missing, and draw them; fast=True: at toy size; scheduler=ADDRESS."""
    with refusing_bad_input():
        commands.reproduce(_config.get("fast", False), _config.get("scheduler"), THIS_FILE, ROOT)


@ex.command(unobserved=True)
def figures(_config: dict) -> None:
    """Draw the README's figures from the runs that are there, and print the commands of those missing; fast=True."""
    with refusing_bad_input():
        commands.figures(_config.get("fast", False), THIS_FILE, ROOT)


def log(run: Run, epoch: Epoch) -> None:
    """Log an epoch's metrics with Sacred, as ``train.nll`` and so on."""
    for part, names in {"train": ("nll", "kl", "elbo", "accuracy"), "validation": ("accuracy", "nll")}.items():
        for name in names:
            value = getattr(epoch, f"{part}_{name}")
            if value is not None:
                run.log_scalar(f"{part}.{name}", value, epoch.number)


def check_words(words: list[str]) -> list[str]:
    """Refuse an unknown command or named configuration, and let named configurations win over files of their names.

    Args:
        words: the command line without the program's name.

    Returns:
        The words to hand to Sacred.

    Raises:
        InputError: a word is not known; the message suggests the nearest.
    """
    known = [command for command, _ in ex.gather_commands()]
    command = words[0] if words and not words[0].startswith("-") else "main"
    if command in NAMED:
        raise InputError(f"{command}: is a named configuration, not a command; write: with {command}")
    if command not in ("with", "help", *known):
        raise InputError(f"{command}: unknown command{nearest(command, ['with', *known])}")
    if command == "help" and not {*words[1:]} <= {*known}:
        raise InputError(f"help: there is help for {', '.join(known)}")
    if words[-1:] == ["with"]:
        raise InputError(f"with: name a configuration ({', '.join(NAMED)}) or set a key, as in num_epochs=10")
    if command in commands.OPTIONS and "with" not in words:  # reproduce fast=True
        words = [command, "with", *words[1:]] if words[1:] and "=" in words[1] else words
    take_a_value = {flag for option in ex.all_cli_options if option.arg for flag in option.get_flags()}
    checked = list(words)
    for i, word in enumerate(words):
        if "with" not in words[:i] or word.startswith("-") or words[i - 1] in take_a_value:
            continue
        if commands.check_option(command, word):
            continue
        key, is_change, value = word.partition("=")
        if is_change:
            if not key.strip().isidentifier():  # Sacred would take a dotted key apart
                raise InputError(unknown_key(key))
            check_text(key, value)
        elif word in NAMED:
            checked[i] = str(NAMED[word]) if Path(word).is_file() else word
        elif Path(word).is_file() and Path(word).suffix in (".yaml", ".yml", ".json"):
            checked[i] = f"the file of word {i}"  # not a path: Sacred would read that itself, and create objects
            ex.named_configs[checked[i]] = ConfigDict(load_file(Path(word)))
        else:
            raise InputError(f"{word}: unknown named configuration{nearest(word, NAMED)}")
    return checked


def command_line(argv: list[str]) -> None:
    """Run a command line, ``argv`` with the program's name first; leaves by SystemExit where something went wrong."""
    if parallel.rank() > 0:  # the first process speaks for all
        ex.logger.setLevel(logging.ERROR)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            run_words(argv)
    else:
        run_words(argv)


def run_words(argv: list[str]) -> None:
    """Do what :func:`command_line` says, with output and errors where they are."""
    try:
        with refusing_bad_input():
            words = check_words(argv[1:])
        ex.observers.clear()
        ex.run_commandline([argv[0], *words])
        for recorder in ex.observers:
            if recorder.problem is not None:
                sys.exit(f"{in_lines(recorder.problem)}; then the same command with resume=True ends the run")
    except DocoptExit:
        sys.exit(f"error: cannot make sense of: {' '.join(argv[1:])}; see python experiment.py --help")
    except KeyboardInterrupt as interrupt:
        saved = getattr(interrupt, "saved", True)
        what_next = (
            "with resume=True goes on from the last checkpoint" if saved else "starts again; nothing was saved yet"
        )
        what_next = getattr(interrupt, "what_next", what_next)  # where many runs were stopped
        if parallel.rank() == 0:
            print(f"stopped; the same command {what_next}", file=sys.stderr)
        sys.exit(128 + getattr(interrupt, "signal", signal.SIGINT))


if __name__ == "__main__":
    command_line(sys.argv)
