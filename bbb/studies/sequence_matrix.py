"""What a sequence of tasks has learnt and forgotten: every task tested after every later one."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bbb.inference import error_rate
from bbb.networks import load_weights, read_about
from bbb.runs import WEIGHTS, Run, open_retest, source_record
from bbb.studies.records import read_dictionary
from bbb.system import write_aside, writing

Matrix = list[list[float | None]]  # [t][j]: the accuracy in % of task j after task t; None where it was not tested


@dataclass(frozen=True)
class _Weights:
    """A weights file, its checksum, and the number of earlier heads in it, which is the number of its own."""

    path: Path
    sha256: str
    num_heads: int

    @classmethod
    def of(cls, run: Run) -> "_Weights":
        path = run.folder / WEIGHTS
        return cls(path, source_record(str(path))["sha256"], len(read_about(path).get("heads", [])))


class Retests:
    """The scores of all tasks under the posteriors of all, each computed once and kept in a file.

    A score belongs to the two weights files, so weights that change are tested again.

    Args:
        folder: of the file.
        on_validation: whether to test on what was held out of training.
        on_test: called after each test that was not kept.
    """

    def __init__(self, folder: Path, on_validation: bool, on_test: Callable[[], None] = lambda: None) -> None:
        self.path, self.on_validation, self.on_test = folder / "_tests.json", on_validation, on_test
        try:
            self.kept: dict[str, Any] = read_dictionary(self.path)
        except ValueError:  # not there, or damaged
            self.kept = {}

    def matrix(self, completed: Sequence[Run], refined: Sequence[Run] = ()) -> Matrix:
        """Test each task after itself, after all later tasks, and, under the same head, after the task just before.

        Args:
            completed: the runs of a chain, in their order.
            refined: for each, a run whose posterior is tested in place of its own; may be missing.

        Returns:
            The accuracies, in %.

        Raises:
            bbb.system.InputError: data or weights cannot be read, or the scores cannot be written.
        """
        weights = [_Weights.of(run) for run in completed]
        tested = [_Weights.of(run) for run in refined] or weights
        scores: Matrix = [[None] * len(weights) for _ in weights]
        for task, (run, own) in enumerate(zip(completed, weights, strict=True)):
            first = task - 1 if task > 0 and weights[task - 1].num_heads == own.num_heads else task
            after = range(first, len(weights))
            for t, score in zip(after, self._accuracies(run, own, tested[first:]), strict=True):
                scores[t][task] = score
        return scores

    def last(self, completed: Sequence[Run]) -> list[float]:
        """Test the posterior after the last task on all tasks: the last row of :meth:`matrix`."""
        weights = [_Weights.of(run) for run in completed]
        return [self._accuracies(run, own, weights[-1:])[0] for run, own in zip(completed, weights, strict=True)]

    def own(self, run: Run) -> float:
        """Test a run that no task came before on its own task: the accuracy in %."""
        weights = _Weights.of(run)
        return self._accuracies(run, weights, [weights])[0]

    def joint(self, run: Run, completed: Sequence[Run]) -> list[float]:
        """Test a run on all tasks at once on each: the accuracies in %, where the task of an image is known.

        Args:
            run: of the union of the tasks.
            completed: the runs of a chain, in their order, one for each task.
        """
        weights, first, found = _Weights.of(run), 0, []
        for each in completed:
            num = num_classes(each)
            found += self._accuracies(each, _Weights.of(each), [weights], slice(first, first + num))
            first += num if run.config["head"] == "fresh" else 0
        return found

    def _accuracies(
        self, run: Run, own: "_Weights", later: Sequence["_Weights"], outputs: slice | None = None
    ) -> list[float]:
        """Test on one task, with the noise of its run's own test, the posteriors of several.

        Args:
            run: of the task.
            own: its weights.
            later: the posteriors.
            outputs: those of the task in a network of several tasks; None for the head of the task.
        """
        task = own.sha256, run.config["num_test_samples"], self.on_validation
        keys = [" ".join(map(str, (weights.sha256, *task))) for weights in later]
        retest = None
        for key, weights in zip(keys, later, strict=True):
            if not isinstance(self.kept.get(key), float):
                retest = retest or open_retest(str(own.path), run.config, self.on_validation)
                head = own.num_heads if outputs is None else None
                network, _ = load_weights(weights.path, retest.device, run.config["network"], head)
                predictive = retest.predictive(network)[:, outputs or slice(None)]
                self.kept[key] = 100.0 - error_rate(predictive, retest.test.labels)
                self.on_test()
        if retest is not None:
            with writing(self.path.parent):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            write_aside(self.path, f"{json.dumps(self.kept)}\n".encode())
        return [self.kept[key] for key in keys]


def measures(
    matrix: Matrix, num_classes: Sequence[int], alone: Sequence[float] = (), joint: Sequence[float] = ()
) -> dict[str, float]:
    r"""Sum a matrix of accuracies R up.

    With T tasks, counted from 1:

    - average: the mean of R[T][j];
    - forgetting: the mean over j < T of max_{t<T} R[t][j] - R[T][j] (Chaudhry et al. 2018, arXiv 1801.10112);
    - backward transfer: the mean over j < T of R[T][j] - R[j][j] (Lopez-Paz and Ranzato 2017, arXiv 1706.08840);
    - learning: the mean of R[j][j], what each task reached when it was trained;
    - forward transfer: the mean over j > 1 of R[j][j] minus the accuracy of the same task trained alone;
    - joint: the mean accuracy of one training on all tasks at once;
    - zero shot: the mean over j > 1 of R[j-1][j] minus that of a guess, where the head is the same; this is the
      forward transfer of Lopez-Paz and Ranzato.

    Args:
        matrix: R, in %.
        num_classes: of each task.
        alone: the accuracies of the tasks from the second on, trained alone; may be missing.
        joint: the accuracies of all tasks, trained at once; may be missing.

    Returns:
        The measures that are defined, in % or points.
    """
    last, others = _numbers(matrix[-1]), range(len(matrix) - 1)
    learnt = _numbers(row[j] for j, row in enumerate(matrix))
    best = [max(score for row in matrix[j:-1] if (score := row[j]) is not None) for j in others]
    found = {
        "average": statistics.fmean(last),
        "forgetting": statistics.fmean(best[j] - last[j] for j in others),
        "backward_transfer": statistics.fmean(last[j] - learnt[j] for j in others),
        "learning": statistics.fmean(learnt),
    }
    if alone:
        found["forward_transfer"] = statistics.fmean(a - b for a, b in zip(learnt[1:], alone, strict=True))
    if joint:
        found["joint"] = statistics.fmean(joint)
    before = [matrix[j][j + 1] for j in others]
    if None not in before:
        guesses = (100.0 / num for num in num_classes[1:])
        found["zero_shot"] = statistics.fmean(a - b for a, b in zip(_numbers(before), guesses, strict=True))
    return found


def mean_matrix(matrices: Sequence[Matrix]) -> Matrix:
    """Average over seeds the accuracies that all have."""
    size = range(len(matrices[0]))
    cells = [[[matrix[t][j] for matrix in matrices] for j in size] for t in size]
    return [[None if None in cell else statistics.fmean(_numbers(cell)) for cell in row] for row in cells]


def _numbers(values: Any) -> list[float]:
    return [value for value in values if value is not None]


def num_classes(run: Run) -> int:
    """Count the classes of a run's task."""
    return load_weights(run.folder / WEIGHTS, network=run.config["network"])[0].architecture.num_outputs
