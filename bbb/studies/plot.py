"""A figure with the runs behind it, what it shows of them, and its files.

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

from bbb.runs import Run, load_file, modernised, save_figure
from bbb.studies.evidence import Arm, Runs
from bbb.studies.grid import FREE, Job, identity, in_order
from bbb.studies.table import Row, summarise
from bbb.system import write_aside

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
    show: Callable[[Runs], dict[str, Any]]
    draw: Callable[[dict[str, Any]], Figure]

    @property
    def jobs(self) -> list[Job]:
        """All runs that the figure needs, sources first."""
        return list(in_order(job for jobs in self.arms.values() for job in jobs))


class Maker:
    """Makes jobs from named configurations, each configuration once.

    Args:
        base: the first part of the names of all experiments.
        toy: the keys that make runs of toy size; none for the real ones. A run's own ``num_hidden`` stays.
        configs: the folder of the named configurations.
    """

    def __init__(self, base: str, toy: Mapping[str, Any], configs: Path) -> None:
        self.base, self.toy = base, toy
        self.configs = {path.stem: load_file(path) for path in configs.glob("*.yaml")}
        self.made: dict[tuple[tuple[Any, ...], Job | None], Job] = {}

    def __call__(self, named: str, group: str, source: Job | None = None, **changes: Any) -> Job:
        toy = {key: value for key, value in self.toy.items() if key != "num_hidden" or key not in changes}
        changes = {**changes, **toy, "num_threads": 1, "experiment_name": f"{self.base}/{group}"}
        if source is not None:
            changes["pretrained"] = source.config["experiment_name"]
        config = {**self.configs["default"], **self.configs[named], **changes}
        words = (named, *(_word(key, value) for key, value in changes.items()))
        return self.made.setdefault((identity(config), source), Job(config, words, source))


def _word(key: str, value: Any) -> str:
    """Write a key with its value, in YAML's words and without spaces."""
    return f"{key}={'null' if value is None else str(value).replace(' ', '')}"


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
