"""Time whole runs on MNIST, made by the pipeline that users run.

    python -m tests.benchmarks.whole_runs --epochs 3                          where the time of an epoch goes
    python -m tests.benchmarks.whole_runs --to-accuracy 98.5 --seeds 1 2 3    seconds and epochs that ``best`` takes
    python -m tests.benchmarks.whole_runs --to-accuracy 98.5 --recipe moved   and ``moved``

Each run has a process of its own, and writes its checkpoint after each epoch as every run does. An epoch is training,
validation with 5 draws, and the checkpoint. The seconds to an accuracy count all three, from the first step on.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bbb.inference import Epoch
from bbb.runs import CHECKPOINT, Settings, assemble, load_file, run
from bbb.system import find_device, refusing_bad_input, set_up
from tests.benchmarks.paired import alone
from tests.benchmarks.report import parser, print_surroundings, surroundings, write_json
from tests.tasks import CONFIGS, DEFAULT

HELD_OUT = {"validation_fraction": 1 / 6}
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "blundell": ("blundell", {}),
    "best": ("best", HELD_OUT),
    "blundell, 16 planar flows": ("blundell", {"num_flows": 16}),
}
QUICK = {  # with the cosine, the default
    "best": {"lr": 0.003, "num_epochs": 14, **HELD_OUT},
    "moved": {"lr": 0.003, "num_epochs": 10, **HELD_OUT},
}


def settings_of(name: str, changes: Mapping[str, Any]) -> Settings:
    """Read a named configuration, with changes."""
    return Settings.from_config({**DEFAULT, **load_file(CONFIGS / f"{name}.yaml"), **changes})


def watch(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Make a run, and note when each epoch's last step, its validation and its checkpoint were done."""
    settings = settings_of(name, changes)
    set_up(settings.num_threads, settings.precision)
    assembly = assemble(settings, find_device(settings.device))
    epochs: list[Epoch] = []
    ends: list[float] = []
    trained: list[float] = []
    sizes: list[int] = []
    last_step = 0.0

    def on_step(step: int, num_steps: int) -> None:
        nonlocal last_step
        last_step = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:

        def on_epoch(epoch: Epoch) -> None:
            epochs.append(epoch)
            trained.append(last_step)
            ends.append(time.perf_counter())
            sizes.append((Path(folder) / CHECKPOINT).stat().st_size)

        start = time.perf_counter()
        result = run(assembly, Path(folder), on_step=on_step, on_epoch=on_epoch)
    starts = [start, *ends[:-1]]
    seconds = [end - begin for begin, end in pairwise([start, *ends])]
    training = [step - begin for begin, step in zip(starts, trained, strict=True)]
    validation = [epoch.seconds - own for epoch, own in zip(epochs, training, strict=True)]
    checkpoint = [whole - epoch.seconds for whole, epoch in zip(seconds, epochs, strict=True)]
    return {
        "seconds": seconds,
        "training": training,
        "validation": validation,
        "checkpoint": checkpoint,
        "checkpoint_mb": sizes[-1] / 1e6,
        "accuracy": [epoch.validation_accuracy for epoch in epochs],
        "result": asdict(result),
    }


def print_epochs(num_epochs: int, threads: int | None) -> dict[str, Any]:
    """Print where the time of an epoch goes: medians over epochs, without the first, which also writes the start."""
    print("| one epoch on MNIST | s | training | validation | checkpoint | checkpoint, MB |\n|---|---|---|---|---|---|")
    watched = {}
    for title, (name, changes) in RECIPES.items():
        how = {**changes, "num_epochs": num_epochs + 1, "num_test_samples": 1, "num_threads": threads}
        parts = watched[title] = alone(watch, name, how)
        whole = median(parts["seconds"][1:])
        shares = [median(parts[part][1:]) / whole for part in ("training", "validation", "checkpoint")]
        cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
        print(f"| {title} | {whole:.2f} | {cells} | {parts['checkpoint_mb']:.0f} |", flush=True)
    return watched


def print_to_accuracy(recipe: str, goal: float, seeds: list[int], threads: int | None) -> dict[int, Any]:
    """Print when a recipe in its quick form first has a validation accuracy, in %, and how it ends."""
    in_all = "epochs in all | s in all | last, % | test error, % | test NLL"
    print(f"| seed of {recipe} | epochs to {goal:g} % | s | {in_all} |")
    print(f"|{'---|' * 8}", flush=True)
    watched = {}
    for seed in seeds:
        parts = watched[seed] = alone(watch, recipe, {**QUICK[recipe], "seed": seed, "num_threads": threads})
        reached = next((i for i, value in enumerate(parts["accuracy"], start=1) if 100 * value >= goal), None)
        to_goal = "never | -" if reached is None else f"{reached} | {sum(parts['seconds'][:reached]):.1f}"
        whole = f"{len(parts['seconds'])} | {sum(parts['seconds']):.1f} | {100 * parts['accuracy'][-1]:.2f}"
        scores = f"{parts['result']['test_error']:.2f} | {parts['result']['test_nll']:.4f}"
        print(f"| {seed} | {to_goal} | {whole} | {scores} |", flush=True)
    return watched


def main() -> None:
    """Read the arguments and print the tables."""
    arguments = parser(__doc__, "--threads", "--json")
    arguments.add_argument("--epochs", type=int, default=0, help="of each recipe, to be timed")
    arguments.add_argument("--to-accuracy", type=float, default=None, metavar="PERCENT")
    arguments.add_argument("--recipe", choices=[*QUICK], default="best", help="what is to reach it, in its quick form")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    chosen = arguments.parse_args()
    if not chosen.epochs and chosen.to_accuracy is None:
        arguments.error("name --epochs or --to-accuracy")
    about = surroundings(chosen.threads)
    print_surroundings(about)
    epochs = print_epochs(chosen.epochs, chosen.threads) if chosen.epochs else {}
    runs = {}
    if chosen.to_accuracy is not None:
        runs = print_to_accuracy(chosen.recipe, chosen.to_accuracy, chosen.seeds, chosen.threads)
    write_json(chosen.json, about, epochs=epochs, runs=runs)


if __name__ == "__main__":
    with refusing_bad_input():
        main()
