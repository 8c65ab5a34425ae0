"""The figures of the README: the runs behind each, what each shows of them, and its files.

Each figure ``NAME.png`` has a ``NAME.json`` beside it. This file holds exactly what the figure shows, and the
configurations, folders and results of its runs. The picture and the table of results are made from this file, so they
can be made again without the runs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

import bbb.studies.evidence as evidence
import bbb.studies.figures as figures
from bbb.runs import RESULTS, Run, load_file, modernised, save_figure
from bbb.studies.evidence import Arm
from bbb.studies.grid import FREE, Job, identity, in_order
from bbb.studies.table import Row, summarise
from bbb.system import write_aside

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

Arms = dict[Arm, list[Job]]  # for each arm, one run per seed


@dataclass(frozen=True)
class Plot:
    """A figure.

    Attributes:
        name: the name of its files.
        arms: what it compares, and the runs of each.
        show: turns the completed runs into what the figure shows, as plain data.
        draw: turns that data into the figure.
    """

    name: str
    arms: Arms
    show: Callable[[evidence.Runs], dict[str, Any]]
    draw: Callable[[dict[str, Any]], Figure]

    @property
    def jobs(self) -> list[Job]:
        """All runs that the figure needs, sources first."""
        return list(in_order(job for jobs in self.arms.values() for job in jobs))


class _Maker:
    """Makes jobs from named configurations, each configuration once."""

    def __init__(self, fast: bool, configs: Path) -> None:
        self.base, self.toy = "reproduce-fast" if fast else "reproduce", TOY if fast else {}
        self.configs = {path.stem: load_file(path) for path in configs.glob("*.yaml")}
        self.made: dict[tuple[tuple[Any, ...], Job | None], Job] = {}

    def __call__(self, named: str, group: str, source: Job | None = None, **changes: Any) -> Job:
        changes = {**changes, **self.toy, "num_threads": 1, "experiment_name": f"{self.base}/{group}"}
        if source is not None:
            changes["pretrained"] = source.config["experiment_name"]
        config = {**self.configs["default"], **self.configs[named], **changes}
        words = (named, *(f"{key}={value}" for key, value in changes.items()))
        return self.made.setdefault((identity(config), source), Job(config, words, source))


def figures_folder(fast: bool) -> Path:
    """Return the folder of the figures; those of toy size have their own and never replace the others."""
    return Path(RESULTS) / "reproduce-fast" if fast else Path("figs")


def plots(fast: bool, configs: Path) -> list[Plot]:
    """List the figures with their runs; figures with the longest come first, so that no core is idle at the end.

    Args:
        fast: at toy size, on the embedded digits, in a minute or two.
        configs: the folder of the named configurations.
    """
    make = _Maker(fast, configs)
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
    ]


def _transfer_arms(make: _Maker) -> Arms:
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


def draw(plot: Plot, completed: Mapping[Job, Run], where: Path) -> None:
    """Draw a figure from its runs, and write the JSON file from which it can be drawn again."""
    shows = plot.show({arm: [completed[job] for job in jobs] for arm, jobs in plot.arms.items()})
    configs = [{key: job.config[key] for key in job.config if key not in (*FREE, "pretrained")} for job in plot.jobs]
    common = {key: value for key, value in configs[0].items() if all(config[key] == value for config in configs)}
    record = {
        "figure": plot.name,
        "config": common,
        "runs": [
            {
                "run": str(completed[job].folder),
                "config": {key: config[key] for key in config if key not in common},
                "result": completed[job].result,
            }
            for job, config in zip(plot.jobs, configs, strict=True)
        ],
        "shows": shows,
    }
    where.mkdir(parents=True, exist_ok=True)
    write_aside(where / f"{plot.name}.json", _as_json(record).encode())
    save_figure(where / f"{plot.name}.png", plot.draw(json.loads(json.dumps(shows))))


def redraw(plot: Plot, where: Path) -> bool:
    """Draw a figure from its JSON file; do nothing and return False if no file has the same configurations."""
    try:
        record = json.loads((where / f"{plot.name}.json").read_text())
        drawn = [identity(modernised({**record["config"], **run["config"]})) for run in record["runs"]]
        if drawn != [identity(job.config) for job in plot.jobs] or not all(run["result"] for run in record["runs"]):
            return False
        figure = plot.draw(record["shows"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no file, or not written by us
        return False
    save_figure(where / f"{plot.name}.png", figure)
    return True


def results(plots: Sequence[Plot], where: Path) -> list[Row]:
    """Read the results of the arms from the JSON files of figures, as means over the seeds."""
    rows: list[Row] = []
    for plot in plots:
        results = [run["result"] for run in json.loads((where / f"{plot.name}.json").read_text())["runs"]]
        result_of = dict(zip(plot.jobs, results, strict=True))
        for arm, jobs in plot.arms.items():
            setting: dict[str, Any] = {"figure": plot.name, "arm": arm.name}
            setting |= {"fraction": arm.fraction} if arm.fraction is not None else {}
            rows += summarise((setting, result_of[job]) for job in jobs)
    return rows


def _as_json(record: Mapping[str, Any]) -> str:
    """Write one line for each run and for each thing shown."""
    parts = []
    for key, value in record.items():
        items = [json.dumps(item) for item in value] if isinstance(value, list) else []
        if key == "shows":
            compact = {name: json.dumps(shown, separators=(",", ":")) for name, shown in value.items()}
            items = [f"{json.dumps(name)}: {shown}" for name, shown in compact.items()]
        opening, closing = "[]" if isinstance(value, list) else "{}"
        block = opening + "\n  " + ",\n  ".join(items) + "\n " + closing if items else json.dumps(value)
        parts.append(f" {json.dumps(key)}: {block}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _draw_transfer(shows: dict[str, Any]) -> Figure:
    finals: dict[str, dict[float, list[dict[str, float]]]] = {}
    for final in shows["finals"]:
        pairs = zip(final["test_error"], final["test_nll"], strict=True)
        results = [{"test_error": error, "test_nll": nll} for error, nll in pairs]
        finals.setdefault(final["arm"], {})[final["fraction"]] = results
    return figures.transfer_results(finals, shows["curves"], shows["curves_title"], shows["title"])
