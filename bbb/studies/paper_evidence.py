"""What runs show of the claims of Blundell et al. 2015 (arXiv 1505.05424), beside the numbers of the paper.

Each function takes the completed runs of a figure's arms and returns the arguments of the function of
:mod:`bbb.studies.paper_figures` that draws them, as those of :mod:`bbb.studies.evidence` do.
"""

from collections.abc import Mapping
from typing import Any

import torch

from bbb.inference import mixture
from bbb.runs import Run, open_retest
from bbb.studies.evidence import Runs, about, rounded
from bbb.studies.pruning import PruningStudy

# Table 1: the test error in %, by method and hidden units; the paper's point estimate is trained by SGD.
TABLE_1: Mapping[str, Mapping[int, float]] = {
    "point estimate": {400: 1.83, 800: 1.84, 1200: 1.88},
    "dropout": {400: 1.51, 800: 1.33, 1200: 1.36},
    "Gaussian prior": {400: 1.82, 800: 1.99, 1200: 2.04},
    "scale mixture": {400: 1.36, 800: 1.34, 1200: 1.32},
}
# Table 2: the test error in % of 1200 units, by the share of the weights that is removed.
TABLE_2: Mapping[float, float] = {0.0: 1.24, 0.5: 1.24, 0.75: 1.24, 0.95: 1.29, 0.98: 1.39}


def baselines(arms: Runs) -> dict[str, Any]:
    """Show test errors by method and width, for :func:`bbb.studies.paper_figures.baselines`.

    An arm is named ``METHOD, UNITS units``, with a method of :data:`TABLE_1`.
    """
    errors: dict[str, list[dict[str, Any]]] = {}
    for arm, seeds in arms.items():
        found = [rounded(run.result["test_error"]) for run in seeds]
        errors.setdefault(method_of(arm.name), []).append({"units": seeds[0].config["num_hidden"], "test_error": found})
    reported = {method: [list(pair) for pair in by_units.items()] for method, by_units in TABLE_1.items()}
    return {"errors": errors, "reported": reported, "title": f"Classification: {about(arms, 'mean, standard error')}"}


def method_of(name: str) -> str:
    """Read the method from the name of an arm of table 1."""
    return name.rpartition(", ")[0]


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


def ensemble(arms: Runs) -> dict[str, Any]:
    """Show the test scores of averages of 1, 2, ... runs, for :func:`bbb.studies.paper_figures.ensemble`.

    Posteriors are averaged as replicas are: the predictive distribution is the mean of theirs.
    """
    ((arm, seeds),) = arms.items()
    retests = [open_retest(str(run.folder), run.config) for run in seeds]
    predictives = torch.stack([retest.predictive(retest.posterior.network) for retest in retests])
    likelihood, labels = retests[0].posterior.likelihood, retests[0].test.labels
    averages = [likelihood.scores(mixture(predictives[: num + 1]), labels) for num in range(len(seeds))]
    names = ("error", "nll", "ece")
    return {
        "averages": {name: [rounded(scores[name]) for scores in averages] for name in names},
        "single": {name: [rounded(run.result[f"test_{name}"]) for run in seeds] for name in names},
        "title": f"{arm.name}: {about(arms, 'averages')}",
    }
