"""What runs show of the claims of Blundell et al. 2015 (arXiv 1505.05424), beside the numbers of the paper.

Each function takes the completed runs of a figure's arms and returns the arguments of the function of
:mod:`bbb.studies.paper_figures` that draws them, as those of :mod:`bbb.studies.evidence` do.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from bbb.runs import Run, open_retest
from bbb.studies.evidence import Runs, about, rounded
from bbb.studies.pruning import PruningStudy

# Table 1: the test error in % with 400, 800 and 1200 hidden units, by method; the paper's point estimate is from SGD.
TABLE_1: Mapping[str, Sequence[float]] = {
    "point estimate": (1.83, 1.84, 1.88),
    "dropout": (1.51, 1.33, 1.36),
    "Gaussian prior": (1.82, 1.99, 2.04),
    "scale mixture": (1.36, 1.34, 1.32),
}
# Table 2: the test error in % of 1200 units, by the share of the weights that is removed.
TABLE_2: Mapping[float, float] = {0.0: 1.24, 0.5: 1.24, 0.75: 1.24, 0.95: 1.29, 0.98: 1.39}


def baselines(arms: Runs) -> dict[str, Any]:
    """Show test error, NLL and ECE by method, for :func:`bbb.studies.paper_figures.baselines`.

    An arm is named after a method of :data:`TABLE_1`.
    """
    scores = {
        name: {arm.name: [rounded(run.result[f"test_{name}"]) for run in seeds] for arm, seeds in arms.items()}
        for name in ("error", "nll", "ece")
    }
    return {
        "scores": scores,
        "reported": {arm.name: TABLE_1[arm.name][0] for arm in arms},
        "title": f"Classification: {about(arms, 'mean, standard error and each')}",
    }


def widths(arms: Runs) -> dict[str, Any]:
    """Show test error and NLL by method and width, for :func:`bbb.studies.paper_figures.widths`.

    An arm is named after a method of :data:`TABLE_1` and its hidden units, as in ``dropout, 800 units``, by width.
    """
    widths: dict[int, None] = {}
    scores: dict[str, dict[str, list[list[float]]]] = {"error": {}, "nll": {}}
    for arm, seeds in arms.items():
        method, _, units = arm.name.partition(", ")
        widths[int(units.split()[0])] = None
        for name, by_method in scores.items():
            by_method.setdefault(method, []).append([rounded(run.result[f"test_{name}"]) for run in seeds])
    return {
        "widths": [*widths],
        "scores": scores,
        "reported": {method: [*TABLE_1[method]] for method in scores["error"]},
        "title": f"Wider networks: {about(arms, 'mean')}",
    }


def ensemble(arms: Runs) -> dict[str, Any]:
    """Show the scores of posteriors and of their average, for :func:`bbb.studies.paper_figures.ensemble`.

    An arm is one run of several replicas, or a run for each seed.
    """
    names = ("error", "nll", "ece")
    alone: dict[str, dict[str, list[float]]] = {}
    together: dict[str, dict[str, float]] = {}
    for arm, seeds in arms.items():
        members = seeds[0].result["replicas"] if len(seeds) == 1 else [run.result for run in seeds]
        average = seeds[0].result if len(seeds) == 1 else _averaged(seeds)
        alone[arm.name] = {name: [rounded(member[f"test_{name}"]) for member in members] for name in names}
        together[arm.name] = {name: rounded(average[f"test_{name}"]) for name in names}
    num = len(next(iter(alone.values()))["error"])
    return {"alone": alone, "together": together, "title": f"{num} posteriors of one configuration, and their average"}


def _averaged(seeds: Sequence[Run]) -> dict[str, float]:
    """Score the average of the posterior predictives of runs on one test set."""
    retests = [open_retest(str(run.folder), run.config) for run in seeds]
    likelihood = retests[0].posterior.likelihood
    average = likelihood.mix_replicas([retest.predictive(retest.posterior.network) for retest in retests])
    return {f"test_{name}": score for name, score in likelihood.scores(average, retests[0].test.labels).items()}


def pruned(arms: Runs) -> dict[str, Any]:
    """Show test errors without a share of the weights, for :func:`bbb.studies.paper_figures.pruned`.

    The histograms are of the first seed of each arm whose posterior has standard deviations.
    """
    errors: dict[str, Any] = {}
    histograms: dict[str, Any] = {}
    for arm, seeds in arms.items():
        studies = [_pruning(run) for run in seeds]
        shares = [row["share"] for row in studies[0].rows]
        found = [[rounded(study.rows[i]["error"]) for study in studies] for i in range(len(shares))]
        errors[arm.name] = {"shares": shares, "test_error": found}
        if seeds[0].config["posterior"] == "gaussian":
            histograms[arm.name] = studies[0].record()["figure"]["signal_to_noise"]
    reported = [list(pair) for pair in TABLE_2.items()]
    title = f"Pruning: {about(arms, 'mean and range')}"
    return {"errors": errors, "reported": reported, "histograms": histograms, "title": title}


def _pruning(run: Run) -> PruningStudy:
    study = PruningStudy(str(run.folder), open_retest(str(run.folder), run.config))
    for _ in study.run():
        pass
    return study
