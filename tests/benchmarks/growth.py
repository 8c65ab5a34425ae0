"""Measure how the cost of a training step grows with the width, the draws, the flows and the minibatch, and plot it.

    python -m tests.benchmarks.growth

Each point is the time of this project's step, over that of a deterministic MLP of the same width on the same minibatch;
the two take turns. Weights are drawn, the prior is Gaussian, and the KL counts in every step.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

from bbb.data import Split
from bbb.distributions import gaussian_prior
from bbb.networks import MLP
from bbb.runs import save_figure
from bbb.system import set_up
from tests.benchmarks.step_time import PLAN, bayesian_network, deterministic_run, training

SWEEPS = {
    "hidden units of each layer": ("width", (400, 800, 1200, 1600)),
    "draws of the weights a step, S": ("num_samples", (1, 4, 16, 64)),
    "`planar` flows, K": ("planar", (0, 4, 16, 64)),
    "`matrix_planar` flows, K": ("matrix_planar", (0, 4, 16, 64)),
    "images a minibatch": ("batch_size", (32, 128, 512, 2048, 4096)),
}
SECONDS, ROUNDS = 0.5, 5  # of a block of steps, and how many blocks


def measure(kind: str, value: int) -> tuple[float, float]:
    """Time a step of a deterministic MLP and of this project: medians over rounds, in ms."""
    width = value if kind == "width" else 400
    changes = {kind: value} if kind in ("num_samples", "batch_size") else {}
    flows = (value, kind) if kind in ("planar", "matrix_planar") else (0, "planar")
    batch_size = changes.get("batch_size", PLAN.batch_size)
    num_steps = 4
    images = torch.randint(0, 256, (num_steps * batch_size, 784), dtype=torch.uint8)
    split = Split(images, torch.randint(0, 10, (len(images),)))
    layers = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    floor = deterministic_run(split, None, layers, batch_size)
    network = bayesian_network(*flows, MLP((784, width, width, 10)))
    prior = gaussian_prior(network.posterior.dim, 0.1)
    epochs = training(network, split, None, prior, beta_type="standard", num_epochs=10**6, **changes).fit()
    runs, times = (floor, lambda: next(epochs)), ([], [])
    for round_number in range(ROUNDS + 1):
        for run, seconds in zip(runs, times, strict=True):
            start, done = time.perf_counter(), 0
            while time.perf_counter() - start < SECONDS:
                run()
                done += num_steps
            if round_number > 0:  # the first round warms up
                seconds.append(1e3 * (time.perf_counter() - start) / done)
    return tuple(statistics.median(seconds) for seconds in times)


def plot(results: dict[str, list[list[float]]]) -> Figure:
    """Draw the milliseconds of a step against each setting."""
    figure = Figure(figsize=(14, 3.2), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(1, len(results), sharey=True), results.items(), strict=True):
        values, floor, ours = zip(*points, strict=True)
        labels = [str(int(value)) for value in values]
        axes.plot(labels, floor, color="0.5", marker="o", markersize=4, label="deterministic MLP")
        axes.plot(labels, ours, color="#0072B2", marker="o", markersize=4, label="this project")
        axes.set(xlabel=name.replace("`", ""), yscale="log")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("ms a step (log scale)")
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Read the arguments, print the table, and save it with its plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, default=Path("figs/growth.png"))
    arguments = parser.parse_args()
    set_up(None)
    print(f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    results = {}
    for name, (kind, values) in SWEEPS.items():
        results[name] = [[value, *measure(kind, value)] for value in values]
        cells = " | ".join(f"{int(value)}: {ours:.1f} ({ours / floor:.1f} x)" for value, floor, ours in results[name])
        print(f"| {name} | {cells} |", flush=True)
    arguments.figure.with_suffix(".json").write_text(json.dumps(results) + "\n")
    save_figure(arguments.figure, plot(results))


if __name__ == "__main__":
    main()
