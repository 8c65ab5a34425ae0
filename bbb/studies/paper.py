"""The figures of the claims of Blundell et al. 2015 (arXiv 1505.05424): which runs are behind each."""

from collections.abc import Sequence
from typing import Any

import bbb.studies.paper_evidence as evidence
import bbb.studies.paper_figures as figures
from bbb.studies.evidence import Arm
from bbb.studies.plot import Arms, Maker, Plot

SEEDS = (1, 2, 3)
NUM_REPLICAS = 5
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
        widths: hidden units of the networks of table 1, in order; the last also of table 2.
    """
    narrow, wide = widths[0], widths[-1]
    table: Arms = {
        Arm(method): [make("blundell", "table1", **changes, num_hidden=narrow, seed=seed) for seed in SEEDS]
        for method, changes in METHODS.items()
    }
    by_width: Arms = {
        Arm(f"{method}, {width} units"): [make("blundell", "table1", **changes, num_hidden=width, seed=SEEDS[0])]
        for method, changes in METHODS.items()
        for width in widths
    }
    pruned: Arms = {Arm(f"sparse, {wide} units"): [make("sparse", "sparse", num_hidden=wide, seed=1)]}
    ensembles: Arms = {
        Arm("best"): [make("best", "ensemble", num_hidden=narrow, num_replicas=NUM_REPLICAS, seed=SEEDS[0])],
        Arm("moved"): [make("moved", "moved", num_hidden=narrow, seed=1 + i) for i in range(NUM_REPLICAS)],
    }
    pruned[Arm(f"best, {narrow} units")] = [make("best", "best", num_hidden=narrow, seed=1)]
    pruned |= {Arm(f"{arm.name}, {narrow} units"): jobs[:1] for arm, jobs in table.items() if arm.name != "dropout"}
    return [
        Plot("ensemble", ensembles, evidence.ensemble, lambda shows: figures.ensemble(**shows)),
        Plot("paper_widths", by_width, evidence.widths, lambda shows: figures.widths(**shows)),
        Plot("paper_baselines", table, evidence.baselines, lambda shows: figures.baselines(**shows)),
        Plot("paper_pruning", pruned, evidence.pruned, lambda shows: figures.pruned(**shows)),
    ]
