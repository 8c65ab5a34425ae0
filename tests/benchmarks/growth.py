"""Measure how the cost of a training step grows with the network, the draws, the flows and the minibatch.

    python -m tests.benchmarks.growth                                  all sweeps, with a plot
    python -m tests.benchmarks.growth --only draws --json FILE         those with this in their names

Each point has a process of its own and takes turns with an ordinary network of the same layers and minibatch: see
``paired``. Weights are drawn, the prior is Gaussian, and the KL counts in every step, where a sweep says nothing else.

Work is counted in multiplications and additions, from the mathematics and not from the code. A product of the forward
pass is made twice more in the backward pass, but for the inputs' gradient in the first layer. A planar map of D weights
takes two dot products of that length forward and twice as many backward. ``cost / work`` is the growth of the time
since the first point over the growth of the work: 1 where the time follows the work, below 1 where fixed costs are
shared.
"""

import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure

from bbb.networks import MLP, num_weights
from bbb.runs import save_figure
from bbb.system import LostError, joined
from tests.benchmarks.contenders import CLASSES, GAUSSIAN, OURS, SIZES, bayesian, floor
from tests.benchmarks.paired import SPAWN, Block, Contender, ContenderError, Row, Rules, compare
from tests.benchmarks.report import chosen_by, parser, print_surroundings, rules_of, surroundings, write_json
from tests.tasks import CPU

STEPS = 4  # in a block
INPUTS = SIZES[0]
_OPEN = ExitStack()  # what stays open until the process ends


class Sweep(NamedTuple):
    """Values of one setting, and what :func:`bayesian` takes for each."""

    values: tuple[int, ...]
    how: Callable[[int], dict[str, Any]]


SWEEPS = {
    "hidden units of each layer": Sweep((100, 400, 800, 1600), lambda n: {"sizes": (INPUTS, n, n, CLASSES)}),
    "hidden layers of 400 units": Sweep((1, 2, 4, 8), lambda n: {"sizes": (INPUTS, *[400] * n, CLASSES)}),
    "draws of the weights a step, S": Sweep((1, 4, 16, 64), lambda n: {"num_samples": n}),
    "planar flows, K": Sweep((0, 4, 16, 64), lambda n: {"num_flows": n}),
    "matrix_planar flows, K": Sweep((0, 4, 16, 64), lambda n: {"num_flows": n, "flow": "matrix_planar"}),
    "images a minibatch": Sweep((32, 128, 512, 2048), lambda n: {"batch_size": n}),
    "replicas": Sweep((1, 4, 16), lambda n: {"num_replicas": n}),
    "classes": Sweep((10, 100, 1000, 10000), lambda n: {"sizes": (INPUTS, 400, 400, n)}),
}


def work(
    sizes: tuple[int, ...] = SIZES,
    batch_size: int = OURS.batch_size,
    num_samples: int = 1,
    num_flows: int = 0,
    num_replicas: int = 1,
    flow: str = "planar",
) -> float:
    """Count the multiplications and additions of a step."""
    products = [a * b for a, b in pairwise(sizes)]
    network = 2 * batch_size * (3 * sum(products) - products[0])
    return num_replicas * num_samples * (network + 3 * 4 * num_flows * num_weights(MLP(sizes).layers))


def measure(how: dict[str, Any], name: str, rules: Rules) -> Row:
    """Time a point of a sweep against an ordinary network of its layers and minibatch."""
    alike = {key: how[key] for key in ("sizes", "batch_size") if key in how}
    ordinary = Contender(partial(floor, steps=STEPS, **alike), STEPS)
    return compare(name, Contender(partial(bayesian, **GAUSSIAN, steps=STEPS, **how), STEPS), ordinary, rules)


def sweep(name: str, rules: Rules) -> list[dict[str, Any]]:
    """Measure the points of a sweep, and print a row for each."""
    print(f"\n| {name} | ms | floor, ms | ratio (its range) | memory, MB | over the floor's | cost / work |")
    print("|---|---|---|---|---|---|---|", flush=True)
    points: list[dict[str, Any]] = []
    for value in SWEEPS[name].values:
        how = SWEEPS[name].how(value)
        try:
            row = measure(how, f"{name}: {value}", rules)
        except ContenderError as error:
            print(f"| {error} |", flush=True)
            continue
        points.append({"value": value, "work": work(**how), **asdict(row)})
        first = points[0]
        growth = row.ms / first["ms"] / (points[-1]["work"] / first["work"])
        cells = f"{row.ms:.2f} | {row.floor_ms:.2f} | {row.ratio:.2f} ({row.low:.2f}-{row.high:.2f}) | {row.memory:.0f}"
        print(f"| {value} | {cells} | {row.memory - row.floor_memory:+.0f} | {growth:.2f} |", flush=True)
    return points


def one_process(threads: int) -> Block:
    torch.set_num_threads(threads)
    return bayesian(**GAUSSIAN, steps=STEPS)


def two_ranks() -> Block:
    """Train in two processes of one thread each, with Gloo; the second ends with the first."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    SPAWN.Process(target=_second_rank, args=(port,), daemon=True).start()
    return _rank(0, port)


def _second_rank(port: int) -> None:
    run = _rank(1, port)
    with suppress(LostError):
        while True:
            run()


def _rank(rank: int, port: int) -> Block:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    return bayesian(**GAUSSIAN, steps=STEPS, group=_OPEN.enter_context(joined(CPU)))


def print_ranks(rules: Rules) -> list[dict[str, Any]]:
    """Compare two ranks of one thread with one process of one thread, and of two."""
    print("\n| two ranks with Gloo, one thread each | ms | one process, ms | ratio (its range) |\n|---|---|---|---|")
    rows = []
    for threads in (1, 2):
        name = f"against one process of {threads} thread{'s' * (threads > 1)}"
        try:
            row = compare(name, Contender(two_ranks, STEPS), Contender(partial(one_process, threads), STEPS), rules)
        except ContenderError as error:
            print(f"| {error} |", flush=True)
            continue
        rows.append(asdict(row))
        print(f"| {name} | {row.ms:.2f} | {row.floor_ms:.2f} | {row.ratio:.2f} ({row.low:.2f}-{row.high:.2f}) |")
    return rows


def plot(results: dict[str, list[dict[str, Any]]]) -> Figure:
    """Draw the milliseconds of a step against each setting."""
    figure = Figure(figsize=(14, 6), layout="constrained")
    for axes, (name, points) in zip(figure.subplots(2, 4, sharey=True).flat, results.items(), strict=False):
        labels = [str(point["value"]) for point in points]
        style = {"marker": "o", "markersize": 4}
        axes.plot(labels, [point["floor_ms"] for point in points], color="0.5", label="deterministic MLP", **style)
        axes.plot(labels, [point["ms"] for point in points], color="#0072B2", label="this project", **style)
        axes.set(xlabel=name, yscale="log")
        axes.grid(alpha=0.3)
    for axes in figure.axes[::4]:
        axes.set_ylabel("ms a step (log scale)")
    figure.axes[0].legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Read the arguments, print the tables, and save them with their plot."""
    arguments = parser(__doc__, "--only", "--pairs", "--turns", "--threads", "--json")
    arguments.add_argument("--figure", type=Path, default=Path("figs/growth.png"), help="of a run of all sweeps")
    chosen = arguments.parse_args()
    about, rules = surroundings(chosen.threads), rules_of(chosen)
    print_surroundings(about)
    names = chosen_by({**SWEEPS, "two ranks": None}, chosen.only)
    results = {name: sweep(name, rules) for name in names if name in SWEEPS}
    ranks = print_ranks(rules) if "two ranks" in names else []
    write_json(chosen.json, about, sweeps=results, ranks=ranks)
    if results.keys() == SWEEPS.keys():
        chosen.figure.with_suffix(".json").write_text(json.dumps({**about, "sweeps": results, "ranks": ranks}) + "\n")
        save_figure(chosen.figure, plot(results))


if __name__ == "__main__":
    main()
