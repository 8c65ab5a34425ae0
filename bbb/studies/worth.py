"""What a posterior is worth as the prior of another task: which runs are behind the figure and its numbers."""

from dataclasses import dataclass, field
from typing import Any

import bbb.studies.worth_evidence as evidence
from bbb.studies.evidence import Arm
from bbb.studies.plot import Arms, Maker, Plot
from bbb.studies.worth_evidence import SCRATCH, SCRATCH_AT_ONE, TRANSFER, TRANSFER_AT_ONE
from bbb.studies.worth_figure import worth_figure

SEEDS = (1, 2, 3)
FRACTIONS: dict[str, tuple[float, ...]] = {
    SCRATCH: (0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    TRANSFER: (0.01, 0.02, 0.05, 0.1),
    SCRATCH_AT_ONE: (0.01, 0.1),
    TRANSFER_AT_ONE: (0.01, 0.1),
}
TOY_FRACTIONS: dict[str, tuple[float, ...]] = {
    SCRATCH: (0.1, 0.5),
    TRANSFER: (0.1,),
    SCRATCH_AT_ONE: (0.1,),
    TRANSFER_AT_ONE: (0.1,),
}
FEW_DRAWS = {"num_validation_samples": 1, "num_test_samples": 20}
# The ELBO itself, at temperature 1 and of the images as they are. Training starts at the prior, so that it need not
# first bring the standard deviations there. Those of the prior of each arm were chosen by the ELBO of seed 1.
AT_ONE: dict[str, Any] = {"temperature": 1.0, "input_dropout": 0.0, "init_std": 0.1, "lr": 0.003, "num_epochs": 40}
SOURCE_EPOCHS = 20  # of all images of the source task
FROM_THE_PRIOR: dict[str, Any] = {"start": "prior", "prior_floor": 0.0}
PRIOR_STDS = {(SCRATCH_AT_ONE, 0.01): 0.03, (TRANSFER_AT_ONE, 0.01): 0.05}  # by role and fraction; .1 elsewhere
ALL_CLASSES: dict[str, Any] = {"classes": None}


@dataclass(frozen=True)
class Pair:
    """Two tasks, as what differs from digits 0-4 and digits 5-9.

    Attributes:
        name: in the figure.
        group: of its experiments.
        source: keys of the source task.
        target: keys of the target task.
    """

    name: str
    group: str
    source: dict[str, Any] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)


PAIRS = (
    Pair("digits 0-4 to 5-9", "digits"),
    Pair("upright to turned by 45°", "turned", ALL_CLASSES, {**ALL_CLASSES, "rotation": 45.0}),
    Pair(
        "8x8 digits to MNIST at 8x8",
        "small",
        {**ALL_CLASSES, "dataset": "digits8x8"},
        {**ALL_CLASSES, "dataset": "mnist8x8"},
    ),
)


def plot(make: Maker, fast: bool) -> Plot:
    """Name the figure with its runs; at toy size there is one seed, and one fraction for transfer."""
    arms: Arms = {}
    for pair in PAIRS:
        for seed in SEEDS[:1] if fast else SEEDS:
            _add_runs(arms, make, pair, seed, TOY_FRACTIONS if fast else FRACTIONS)
    return Plot("worth", arms, evidence.worth, lambda shows: worth_figure(**shows))


def _add_runs(arms: Arms, make: Maker, pair: Pair, seed: int, fractions: dict[str, tuple[float, ...]]) -> None:
    for scratch, transfer, changes, start in (
        (SCRATCH, TRANSFER, {}, {}),
        (SCRATCH_AT_ONE, TRANSFER_AT_ONE, AT_ONE, FROM_THE_PRIOR),
    ):
        common = {**FEW_DRAWS, **changes, "seed": seed}
        group = f"worth_{pair.group}" + ("_at_one" if changes else "")
        of_source = {**common, **pair.source, "num_epochs": SOURCE_EPOCHS}
        source = make("domain_a", f"{group}/source{seed}", **of_source)
        for role in (scratch, transfer):
            for fraction in fractions[role]:
                target = {**common, **pair.target, **_prior(role, fraction), "fraction": fraction}
                if role == scratch:
                    job = make("domain_b", group, **target)
                else:
                    job = make("transfer", group, source, **target, **start)
                arms.setdefault(Arm(evidence.arm_name(pair.name, role), fraction), []).append(job)


def _prior(role: str, fraction: float) -> dict[str, float]:
    """Choose the standard deviation of the prior, and that of the posterior at its start, where they are not .1."""
    std = PRIOR_STDS.get((role, fraction))
    return {} if std is None else {"prior_std": std, "init_std": std}
