"""The command that trains on a sequence of tasks, and tests on all of them after each."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bbb import studies
from bbb.cli.making import as_plain, make_missing, report_failures
from bbb.cli.options import Options
from bbb.cli.signals import into_a_pipe, stopped_by_signals

UNITS = """Accuracies in %, the others in points: means over seeds, with standard errors. forgetting: the best accuracy
of an earlier task minus the last; backward_transfer: the last minus that right after its training; learning: right
after training; forward_transfer: the same minus that of the task trained alone; joint: the average of one training on
all tasks at once; before_coresets: the average before coresets are trained on; zero_shot: before training, above a
guess."""


@into_a_pipe()
@stopped_by_signals()
def sequence(config: Mapping[str, Any], options: Options, entry: Path) -> None:
    """Train on tasks one after the other, test on all, and write the matrix of accuracies.

    Args:
        config: the keys that the tasks share, ``tasks``, ``seeds``, ``alone``, ``joint`` and ``validation``.
        options: the command's options: the scheduler.
        entry: as in :func:`bbb.studies.make_runs`.

    Raises:
        bbb.system.InputError: the tasks are no sequence, or some runs could not be completed.
    """
    tasks = studies.TaskSequence.from_config(as_plain(config))
    studies.check_configs(tasks.jobs)
    completed = studies.find_completed(studies.in_order(tasks.jobs))
    studies.check_unchanged(tasks.jobs, completed)
    if any(job not in completed for job in tasks.jobs):
        studies.check_fit(next(iter(tasks.chains.values())))
    completed, failures = make_missing(tasks.jobs, entry, options.scheduler)
    if studies.whole_seeds(tasks, completed):
        folder = studies.sequence_folder(tasks)
        with tqdm(unit=" tests", file=sys.__stderr__, disable=None, dynamic_ncols=True) as bar:

            def on_test() -> None:
                bar.update()

            tests = studies.Retests(folder, tasks.on_validation, on_test)
            results = studies.sequence_results(tasks, completed, tests)
        tables = f"{studies.table_of(results)}\n{studies.markdown(studies.rows_of(results))}"
        print(f"\naccuracy in %, {results['tested_on']}:\n\n{tables}")
        paths = studies.save_results(results, folder, f"{tables}\n{UNITS}\n")
        print(f"in {', '.join(map(str, paths))}")
    report_failures(failures, len(tasks.jobs))
