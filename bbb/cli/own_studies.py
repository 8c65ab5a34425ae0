"""The commands of studies that are not made of runs, and their part in ``reproduce`` and ``figures``."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bbb import data, studies, system
from bbb.cli.options import Options
from bbb.cli.signals import into_a_pipe, stopped_by_signals

if TYPE_CHECKING:  # PyTorch is loaded when a command needs it
    from bbb.studies import ContextsName, Study

DIGITS: "ContextsName" = "digits8x8"  # the contexts where the mushrooms cannot be had


@into_a_pipe()
@stopped_by_signals()
def regression(options: Options) -> None:
    """Fit Bayes by Backprop and a point network to a noisy curve, and draw both beyond the data.

    Args:
        options: the command's options: ``fast``.

    Raises:
        bbb.system.InputError: a file cannot be written.
    """
    run_study(studies.RegressionStudy(options.fast))


@into_a_pipe()
@stopped_by_signals()
def yardstick(options: Options) -> None:
    """Find the true posterior of small problems, fit families of posteriors to them, and compare.

    Args:
        options: the command's options: ``fast``.

    Raises:
        bbb.system.InputError: a file cannot be written, or a package is missing.
    """
    run_study(studies.YardstickStudy(options.fast))


@into_a_pipe()
@stopped_by_signals()
def bandit(config: Mapping[str, Any], options: Options) -> None:
    """Let a sampling agent and greedy ones play the mushroom bandit, and draw their regret.

    Args:
        config: its key ``data_dir``.
        options: the command's options: ``dataset``, ``file``, ``sha256`` and ``fast``. Without a data set or a file,
            digits are the contexts where the mushrooms cannot be downloaded.

    Raises:
        bbb.system.InputError: the contexts cannot be had, or a file cannot be written.
    """
    file = Path(options.file) if options.file is not None else None
    folder = data.data_root(config["data_dir"])
    try:
        study = studies.BanditStudy(options.dataset or "mushroom", file, folder, options.sha256, options.fast)
    except data.DataError as error:
        if options.dataset is not None or file is not None:
            raise
        print(f"{error}\nso the contexts are {DIGITS}", flush=True)
        study = studies.BanditStudy(DIGITS, fast=options.fast)
    run_study(study)


def run_study(study: "Study", where: Path | None = None) -> None:
    """Compute the missing parts of a study with a bar that shows the time left, and draw its figure.

    Args:
        study: the study.
        where: the folder of the figure and its JSON file; by default that of the parts.
    """
    before = study.kept()
    todo = {part: num_steps for part, num_steps in study.parts.items() if part not in before}
    print(f"{study.name}: {len(study.parts)} parts: {len(before)} computed before, {len(todo)} to do", flush=True)
    system.set_up(1)
    results = {}
    with tqdm(
        total=sum(todo.values()), unit=" steps", file=sys.__stderr__, disable=None, dynamic_ncols=True, mininterval=0.5
    ) as bar:

        def on_step() -> None:
            bar.update()

        for part, result in study.run(on_step):
            results[part] = result
            if part in todo:
                bar.write(f"{part}: computed", file=sys.stdout)
                sys.stdout.flush()
    where = where if where is not None else study.folder
    for line in study.lines(study.save(results, where)):
        print(line)
    print(f"in {where / study.name}.json and {where / study.name}.png")


def draw_study(study: "Study", where: Path) -> bool:
    """Draw a study's figure from its parts, or from its JSON file; return False if neither is there.

    Args:
        study: the study.
        where: the folder of the figure and its JSON file.
    """
    results = study.kept()
    if len(results) == len(study.parts):
        study.save(results, where)
        print(f"{where / study.name}.png: drawn from {len(results)} parts")
        return True
    if study.redraw(where):
        num_missing = len(study.parts) - len(results)
        print(f"{where / study.name}.png: drawn from {study.name}.json; {num_missing} of its parts are not here")
        return True
    return False
