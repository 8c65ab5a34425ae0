"""The figures of the repository that are made of runs: which runs are behind each."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import bbb.studies.evidence as evidence
import bbb.studies.figures as figures
import bbb.studies.paper as paper
import bbb.studies.worth as worth
from bbb.runs import RESULTS
from bbb.studies.evidence import Arm
from bbb.studies.plot import Arms, Maker, Plot

SEEDS, TRANSFER_SEEDS = (1, 2, 3), (1, 2, 3, 4, 5)
FRACTIONS = (0.01, 0.1, 0.5, 1.0)
# With the fewest images other values validate better, in both arms; see docs/results.md.
FEW_IMAGES = {"input_dropout": 0.5, "temperature": 0.01}
FLOWS: dict[str, dict[str, Any]] = {
    "without flows": {},
    "16 matrix_planar flows": {"num_flows": 16, "flow": "matrix_planar"},
}
FLOWS |= {"16 planar flows": {"num_flows": 16, "flow": "planar"}}
SCHEMES = {"blundell": "blundell", "standard (1/M)": "standard", "soenderby": "soenderby", "none": "none"}
TOY = {"dataset": "digits8x8", "num_hidden": 64, "num_epochs": 6, "steps_per_epoch": 30, "num_test_samples": 10}
WIDTHS, TOY_WIDTHS = (400, 800, 1200), (16, 24, 32)  # hidden units of the networks of the paper


def figures_folder(fast: bool) -> Path:
    """Return the folder of the figures; those of toy size have their own and never replace the others."""
    return Path(RESULTS) / "reproduce-fast" if fast else Path("figs")


def plots(fast: bool, configs: Path) -> list[Plot]:
    """List the figures with their runs; figures with the longest come first, so that no core is idle at the end.

    Args:
        fast: at toy size, on the embedded digits, in a minute or two.
        configs: the folder of the named configurations.
    """
    make = Maker("reproduce-fast" if fast else "reproduce", TOY if fast else {}, configs)
    flows = {
        Arm(name): [make("blundell", "normflow", num_epochs=30, **changes, seed=seed) for seed in SEEDS]
        for name, changes in FLOWS.items()
    }
    best = {Arm("best"): [make("best", "best", seed=seed) for seed in SEEDS]}
    schemes = {
        Arm(name): [make("blundell", "beta", beta_type=scheme, seed=seed) for seed in SEEDS]
        for name, scheme in SCHEMES.items()
    }
    both = {**best, Arm("blundell"): schemes[Arm("blundell")]}
    return [
        Plot("normflow", flows, evidence.flows, lambda shows: figures.compare(**shows)),
        Plot("calibration", both, evidence.calibration, lambda shows: figures.calibration(**shows)),
        Plot("uncertainty", best, evidence.unsure_digits, lambda shows: figures.uncertainty(**shows)),
        Plot("comparing_beta", schemes, evidence.schemes, lambda shows: figures.comparing_beta(**shows)),
        Plot("transfer_results", _transfer_arms(make), evidence.transfer, _draw_transfer),
        worth.plot(make, fast),
        *paper.plots(make, TOY_WIDTHS if fast else WIDTHS),
    ]


def _transfer_arms(make: Maker) -> Arms:
    arms: Arms = {}
    for fraction in FRACTIONS:
        changes: dict[str, Any] = FEW_IMAGES if fraction == min(FRACTIONS) else {}
        for seed in TRANSFER_SEEDS:
            source = make("domain_a", f"domain_a/seed{seed}", seed=seed)
            fixed: dict[str, Any] = {"fraction": fraction, "seed": seed}
            scratch = make("domain_b", "domain_b", **changes, **fixed)
            arms.setdefault(Arm("from scratch", fraction), []).append(scratch)
            transferred = make("transfer", "transfer", source, **changes, **fixed)
            arms.setdefault(Arm("transfer", fraction), []).append(transferred)
            if seed in SEEDS:
                naive = make("transfer_naive", "transfer_naive", source, **fixed)
                arms.setdefault(Arm("naive", fraction), []).append(naive)
    return arms


def _draw_transfer(shows: dict[str, Any]) -> Figure:
    finals: dict[str, dict[float, list[dict[str, float]]]] = {}
    for final in shows["finals"]:
        pairs = zip(final["test_error"], final["test_nll"], strict=True)
        results = [{"test_error": error, "test_nll": nll} for error, nll in pairs]
        finals.setdefault(final["arm"], {})[final["fraction"]] = results
    return figures.transfer_results(finals, shows["curves"], shows["curves_title"], shows["title"])
