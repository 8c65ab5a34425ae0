"""Compare this project with the libraries a user would pick instead.

    pip install blitz-bayesian-pytorch bayesian-torch torchbnn pyro-ppl
    python -m tests.benchmarks.peers                    time of a step, and memory
    python -m tests.benchmarks.peers --seconds 120      what is learnt of MNIST in that time, with a plot

All train the same network on the same batches of 128: see ``peer_networks``. Each has a process of its own and takes
turns with one of the same floor: see ``paired``. A library that is not installed has a line that says so.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from bbb import data
from bbb.data import Split
from bbb.inference import accuracy_and_nll
from bbb.runs import PALETTE, save_figure
from bbb.system import refusing_bad_input, set_up
from tests.benchmarks.contenders import CONTENDERS, FLOORS, OURS, SOME, Contender, made_up_images
from tests.benchmarks.paired import Block, alone
from tests.benchmarks.peer_networks import BayesianTorch, Blitz, Deterministic, Ours, Peer, Pyro, TorchBNN
from tests.benchmarks.report import chosen_by, parser, print_surroundings, rules_of, surroundings, table, write_json
from tests.tasks import seeded

GOALS = (0.98, 0.985)
BEST = dataclasses.replace(OURS, beta_type="standard", estimator="local", temperature=0.03, input_dropout=0.3)
SHORT = dataclasses.replace(BEST, lr=0.003, lr_schedule="cosine", num_epochs=14)
LIBRARIES = {"BLiTZ": Blitz, "Bayesian-Torch": BayesianTorch, "torchbnn": TorchBNN}


def steps_of_peer(peer: Callable[[int], Peer]) -> Block:
    """Train a peer on random images."""
    images = made_up_images(SOME)
    return peer(len(images)).epochs(images)


def contender(peer: Callable[[int], Peer], floor: str = "deterministic MLP") -> Contender:
    return Contender(partial(steps_of_peer, peer), SOME, floor)


TIMED = {
    **{name: CONTENDERS[name] for name in ("blundell", "weights, Gaussian prior, the KL in each step")},
    "the recipe of best": contender(partial(Ours, prior="gaussian", plan=BEST)),
    **{name: contender(peer) for name, peer in LIBRARIES.items()},
    "Pyro": contender(Pyro),
    "LeNet, local, Gaussian prior": CONTENDERS["LeNet, local, Gaussian prior"],
    **{f"LeNet, {name}": contender(partial(p, kind="lenet"), "deterministic LeNet") for name, p in LIBRARIES.items()},
}
LEARNING: dict[str, Callable[[int], Peer]] = {
    "deterministic MLP, fused Adam": Deterministic,
    "this project, scale mixture (blundell)": partial(Ours, prior="scale_mixture", plan=OURS),
    "this project, the recipe of best": partial(Ours, prior="gaussian", plan=BEST),
    "this project, that recipe in 14 epochs, lr 0.003, cosine": partial(Ours, prior="gaussian", plan=SHORT),
    **LIBRARIES,
    "Pyro": Pyro,
}


def learn(peer: Callable[[int], Peer], seconds: float, threads: int | None) -> dict[str, Any]:
    """Train for a time, or to the recipe's end; only training is on the clock, and every epoch is validated alike."""
    set_up(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    train, validation, test = mnist()
    contender = peer(len(train))
    epoch, spent, curve = contender.epochs(train), 0.0, []
    while spent < seconds:
        start = time.perf_counter()
        try:
            epoch()
        except StopIteration:
            break
        spent += time.perf_counter() - start
        log_probs = contender.predict(validation.images, OURS.num_validation_samples)
        curve.append((spent, accuracy_and_nll(log_probs, validation.labels)[0]))
    accuracy, nll = accuracy_and_nll(contender.predict(test.images, 100), test.labels)
    reached = {str(goal): next((at for at, value in curve if value >= goal), None) for goal in GOALS}
    return {
        "epochs": len(curve),
        "test_error": 100 * (1 - accuracy),
        "test_nll": nll,
        "reached": reached,
        "curve": curve,
    }


def mnist() -> tuple[Split, Split, Split]:
    """Load 50,000 images to train on, 10,000 to validate and the test set."""
    train, test = data.load("mnist", data.data_root(None))
    train, validation = data.hold_out(train, 1 / 6, seeded(1))
    return train, validation, test


def plot(results: dict[str, dict[str, Any]]) -> Figure:
    """Draw validation accuracy against seconds of training."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    colours = {"deterministic": iter(["0.5"]), "this": iter(PALETTE), "other": iter(PALETTE)}
    for name, result in results.items():
        seconds, accuracy = zip(*result["curve"], strict=True)
        group = name.split()[0] if name.split()[0] in colours else "other"
        style = {"color": next(colours[group]), "linestyle": ":" if group == "other" else "-"}
        axes.plot(seconds, [100 * value for value in accuracy], label=name, linewidth=1.8, **style)
    axes.set(xlabel="seconds of training (log scale)", ylabel="validation accuracy (%)", xscale="log", ylim=(92, 99))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def learn_all(chosen: dict[str, Callable[[int], Peer]], seconds: float, threads: int | None) -> dict[str, Any]:
    """Let each learn in a process of its own, and print a row for each."""
    results = {}
    goals = " | ".join(f"s to {100 * goal:g} %" for goal in GOALS)
    print(f"\n| {seconds:g} s of training | epochs | {goals} | test error, % | test NLL |\n|{'---|' * 6}", flush=True)
    for name, peer in chosen.items():
        try:
            result = results[name] = alone(learn, peer, seconds, threads)
        except ImportError as error:
            print(f"| {name}: {error} |", flush=True)
            continue
        reached = " | ".join("never" if at is None else f"{at:.0f}" for at in result["reached"].values())
        scores = f"{result['test_error']:.2f} | {result['test_nll']:.4f}"
        print(f"| {name} | {result['epochs']} | {reached} | {scores} |", flush=True)
    return results


def main() -> None:
    """Read the arguments, print a table, and save the curves and their plot."""
    arguments = parser(__doc__, "--only", "--pairs", "--turns", "--threads", "--json")
    arguments.add_argument("--seconds", type=float, default=0.0, help="of training on MNIST, for each; no timing then")
    arguments.add_argument("--figure", type=Path, default=Path("figs/peers.png"))
    chosen = arguments.parse_args()
    about = surroundings(chosen.threads)
    print_surroundings(about)
    if not chosen.seconds:
        write_json(chosen.json, about, rows=table(chosen_by(TIMED, chosen.only), FLOORS, rules_of(chosen)))
        return
    results = learn_all(chosen_by(LEARNING, chosen.only), chosen.seconds, chosen.threads)
    chosen.figure.with_suffix(".json").write_text(json.dumps(results) + "\n")
    save_figure(chosen.figure, plot(results))


if __name__ == "__main__":
    with refusing_bad_input():
        main()
