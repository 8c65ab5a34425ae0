"""What the benchmarks print and write: where they were run, tables, and JSON files."""

import argparse
import datetime
import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.paired import HEAD, Contender, ContenderError, Rules, compare

OPTIONS: dict[str, dict[str, Any]] = {
    "--only": {"nargs": "+", "metavar": "NAME", "help": "contenders with one of these in their names"},
    "--pairs": {"type": int, "default": Rules.pairs, "help": "of fresh processes"},
    "--turns": {"type": int, "default": Rules.turns, "help": "of each process of a pair"},
    "--threads": {"type": int, "default": None, "help": "of each process"},
    "--json": {"type": Path, "default": None, "metavar": "FILE", "help": "where to write what was measured too"},
}


def parser(description: str, *options: str) -> argparse.ArgumentParser:
    """Make a parser that knows some of the options that benchmarks share."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in options:
        arguments.add_argument(option, **OPTIONS[option])
    return arguments


def rules_of(arguments: argparse.Namespace) -> Rules:
    """Read how long to measure."""
    return Rules(pairs=arguments.pairs, turns=arguments.turns, threads=getattr(arguments, "threads", None))


def table(chosen: dict[str, Contender], floors: dict[str, Contender], rules: Rules) -> list[dict[str, Any]]:
    """Measure contenders, print a row for each as it is done, and return the rows as plain data."""
    rows = []
    print(HEAD, flush=True)
    for name, contender in chosen.items():
        try:
            row = compare(name, contender, floors[contender.floor], rules)
        except ContenderError as error:
            print(f"| {error} |", flush=True)
            rows.append({"name": name, "error": str(error)})
        else:
            print(row, flush=True)
            rows.append(asdict(row))
    return rows


def chosen_by(contenders: dict[str, Any], words: Sequence[str] | None) -> dict[str, Any]:
    """Keep the contenders whose names hold one of the words; all without words."""
    if words is None:
        return dict(contenders)
    return {name: value for name, value in contenders.items() if any(word.lower() in name.lower() for word in words)}


def surroundings(threads: int | None) -> dict[str, Any]:
    """Describe where and when something is measured."""
    model = re.search(r"model name\s*: (.*)", _text("/proc/cpuinfo"))
    return {
        "date": datetime.date.today().isoformat(),
        "machine": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "threads": threads or torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
    }


def print_surroundings(about: dict[str, Any]) -> None:
    print(", ".join(f"{key} {value}" for key, value in about.items()) + "\n", flush=True)


def write_json(path: Path | None, about: dict[str, Any], **results: Any) -> None:
    """Write what was measured, if there is a file to write it to."""
    if path is not None:
        path.write_text(json.dumps({**about, **results}, indent=1) + "\n")


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ""
