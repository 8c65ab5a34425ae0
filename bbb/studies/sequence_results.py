"""The files of a sequence: its matrix of accuracies and its measures as JSON, table and figure."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bbb.runs import Run, save_figure
from bbb.studies.grid import FREE, Job
from bbb.studies.sequence import TaskSequence
from bbb.studies.sequence_figure import sequence_figure
from bbb.studies.sequence_matrix import Matrix, Retests, mean_matrix, measures, num_classes
from bbb.studies.table import Row, mean_and_error, summarise
from bbb.system import write_aside, writing

FILES = ("sequence.json", "sequence.md", "sequence.png")


def sequence_results(sequence: TaskSequence, completed: Mapping[Job, Run], tests: Retests) -> dict[str, Any]:
    """Test the tasks of all complete chains, and sum up what they have learnt and forgotten.

    Args:
        sequence: the sequence.
        completed: its runs; a seed of which one is missing is left out, and one seed at least must be whole.
        tests: makes the matrices.

    Returns:
        Plain data: the configuration, and for each seed its runs, matrix and measures.

    Raises:
        bbb.system.InputError: as :meth:`bbb.studies.sequence_matrix.Retests.matrix` does.
    """
    seeds: dict[str, Any] = {}
    for seed in whole_seeds(sequence, completed):
        runs = [completed[job] for job in sequence.chains[seed]]
        refined = [completed[job] for job in sequence.refined.get(seed, [])]
        matrix = tests.matrix(runs, refined)
        alone = [tests.own(completed[job]) for job in sequence.alone.get(seed, [])]
        joint = tests.joint(completed[sequence.joint[seed]], runs) if seed in sequence.joint else []
        seeds[str(seed)] = {
            "runs": [str(run.folder) for run in runs],
            "seconds": [run.result["seconds"] for run in runs],
            "accuracy": matrix,
            "alone": alone,
            "joint": joint,
            "measures": {
                **measures(matrix, [num_classes(run) for run in runs], alone, joint),
                **({"before_coresets": _mean(tests.last(runs))} if refined else {}),
            },
        }
    jobs = next(iter(sequence.chains.values()))
    return {
        "sequence": sequence.name,
        "tested_on": "held-out images" if sequence.on_validation else "test set",
        "tasks": [*sequence.labels],
        "configs": [{key: job.config[key] for key in job.config if key not in (*FREE, "pretrained")} for job in jobs],
        "seeds": seeds,
    }


def whole_seeds(sequence: TaskSequence, completed: Mapping[Job, Run]) -> list[int]:
    """List the seeds all of whose runs are completed."""
    return [seed for seed in sequence.chains if all(job in completed for job in sequence.jobs_of(seed))]


def rows_of(results: Mapping[str, Any]) -> list[Row]:
    """Sum the measures of all seeds up, as a table of one row."""
    return summarise(({"sequence": results["sequence"]}, seed["measures"]) for seed in results["seeds"].values())


def table_of(results: Mapping[str, Any]) -> str:
    """Write the matrix, averaged over seeds, as a Markdown table."""
    lines = [["after task", *results["tasks"]], ["---"] * (1 + len(results["tasks"]))]
    for number, row in enumerate(_matrix(results), start=1):
        lines.append([str(number), *("" if score is None else f"{score:.2f}" for score in row)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def save_results(results: Mapping[str, Any], folder: Path, tables: str) -> list[Path]:
    """Write the JSON file, the tables and the figure; return their paths.

    Raises:
        bbb.system.InputError: a file cannot be written.
    """
    matrices: Sequence[Matrix] = [seed["accuracy"] for seed in results["seeds"].values()]
    averages = [[_mean(row[: t + 1]) for t, row in enumerate(matrix)] for matrix in matrices]
    first = [[_mean(row[:1]) for row in matrix] for matrix in matrices]
    mean, error = mean_and_error([each[-1] for each in averages])
    spread = f" ± {error:.2f}" if error is not None else ""
    num = f"{len(matrices)} seed{'s' * (len(matrices) > 1)}"
    title = f"{results['sequence']}: average {mean:.2f}{spread} % after the last task ({results['tested_on']}, {num})"
    figure = sequence_figure(results["tasks"], _matrix(results), averages, first, title)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in FILES]
    write_aside(paths[0], f"{json.dumps(results, indent=1)}\n".encode())
    write_aside(paths[1], tables.encode())
    save_figure(paths[2], figure)
    return paths


def _matrix(results: Mapping[str, Any]) -> Matrix:
    return mean_matrix([seed["accuracy"] for seed in results["seeds"].values()])


def _mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known)
