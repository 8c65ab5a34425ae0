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
    SCRATCH: (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
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
# The ELBO itself, at temperature 1 and of the images as they are. Both arms start at their prior, so that training need
# not first bring the standard deviations there.
AT_ONE: dict[str, Any] = {"temperature": 1.0, "input_dropout": 0.0, "init_std": 0.1}
FROM_THE_PRIOR: dict[str, Any] = {"start": "prior", "prior_floor": 0.0}
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
    for roles, changes, start in (
        ((SCRATCH, TRANSFER), {}, {}),
        ((SCRATCH_AT_ONE, TRANSFER_AT_ONE), AT_ONE, FROM_THE_PRIOR),
    ):
        common = {**FEW_DRAWS, **changes, "seed": seed}
        group = f"worth_{pair.group}" + ("_at_one" if changes else "")
        source = make("domain_a", f"{group}/source{seed}", **common, **pair.source)
        for role in roles:
            for fraction in fractions[role]:
                arm = arms.setdefault(Arm(evidence.arm_name(pair.name, role), fraction), [])
                target = {**common, **pair.target, "fraction": fraction}
                if role in (SCRATCH, SCRATCH_AT_ONE):
                    arm.append(make("domain_b", group, **target))
                else:
                    arm.append(make("transfer", group, source, **target, **start))
