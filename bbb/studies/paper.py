"""The figures of the claims of Blundell et al. 2015 (arXiv 1505.05424): which runs are behind each."""

from collections.abc import Sequence
from typing import Any

import bbb.studies.paper_evidence as evidence
import bbb.studies.paper_figures as figures
from bbb.studies.evidence import Arm
from bbb.studies.plot import Arms, Maker, Plot

SEEDS, ENSEMBLE_SEEDS = (1, 2, 3), (1, 2, 3, 4, 5)
# The rows of table 1, each as changes of blundell; chosen on validation data, see docs/paper.md.
METHODS: dict[str, dict[str, Any]] = {
    "point estimate": {"posterior": "point", "beta_type": "none", "lr": 0.001},
    "dropout": {"posterior": "dropout", "beta_type": "none", "lr": 0.001, "input_dropout": 0.2, "num_epochs": 100},
    "Gaussian prior": {"prior": "gaussian"},
    "scale mixture": {},
}


def plots(make: Maker, widths: Sequence[int]) -> list[Plot]:
    """List the figures with their runs.

    Args:
        make: makes the runs.
        widths: hidden units in table 1: the first with all seeds, the others with one; table 2 has the last.
    """
    table: Arms = {}
    for method, changes in METHODS.items():
        for width in widths:
            seeds = SEEDS if width == widths[0] else SEEDS[:1]
            jobs = [make("blundell", "table1", **changes, num_hidden=width, seed=seed) for seed in seeds]
            table[Arm(f"{method}, {width} units")] = jobs
    wide, narrow = widths[-1], widths[0]
    pruned = {Arm(f"sparse, {wide} units"): [make("sparse", "sparse", num_hidden=wide, seed=1)]}
    pruned |= {Arm(name): table[Arm(f"{name}, {narrow} units")][:1] for name in METHODS}
    pruned[Arm("best")] = [make("best", "best", seed=1)]
    ensemble = {Arm("best"): [make("best", "best", seed=seed) for seed in ENSEMBLE_SEEDS]}
    return [
        Plot("paper_baselines", table, evidence.baselines, lambda shows: figures.baselines(**shows)),
        Plot("paper_pruning", pruned, evidence.pruned, lambda shows: figures.pruned(**shows)),
        Plot("paper_ensemble", ensemble, evidence.ensemble, lambda shows: figures.ensemble(**shows)),
    ]
