"""Compare this project with the libraries a user would pick instead, side by side in one process.

    pip install blitz-bayesian-pytorch bayesian-torch torchbnn pyro-ppl
    python -m tests.benchmarks.peers                    time of a step
    python -m tests.benchmarks.peers --seconds 120      also what is learnt of MNIST in that time, with a plot

All train a 784-400-400-10 network with weights drawn once a step, on the same batches of 128, by Adam at 0.001, on the
ELBO: cross-entropy + KL / N, each in the words of its documentation. Libraries that are not installed are left out.
"""

import argparse
import json
import math
import multiprocessing
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from bbb import data
from bbb.data import Split
from bbb.inference import accuracy_and_nll, predict
from bbb.runs import PALETTE, save_figure
from bbb.system import set_up
from tests.benchmarks.step_time import (
    ARCHITECTURE,
    GAUSSIAN,
    LIKELIHOOD,
    MIXTURE,
    PLAN,
    STEPS,
    bayesian_network,
    compare,
    deterministic_mlp,
    made_up_images,
    mnist,
    training,
)
from tests.tasks import seeded

Batch = tuple[Tensor, Tensor]
PRIOR_STD = 0.1
GOALS = (0.98, 0.985)
BEST = {**GAUSSIAN, "estimator": "local", "temperature": 0.03, "input_dropout": 0.3}
SHORT = {**BEST, "lr": 0.003, "lr_schedule": "cosine", "num_epochs": 14}


class Contender:
    """A network that trains a batch at a time and predicts by averaging draws of its weights."""

    def __init__(self, num_train: int) -> None:
        self.num_train = num_train
        self.network = self.build()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=PLAN.lr)

    def build(self) -> nn.Module:
        raise NotImplementedError

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The negative ELBO per example."""
        raise NotImplementedError

    def logits(self, x: Tensor) -> Tensor:
        """The logits ``(B, C)`` under one draw."""
        return self.network(x)

    def train(self, batches: Iterator[Batch]) -> None:
        for x, y in batches:
            self.optimizer.zero_grad()
            self.loss(x, y).backward()
            self.optimizer.step()

    def epochs(self, train: Split) -> Callable[[], object]:
        """Make a function that passes once over a training set."""
        order, normalization = seeded(1), data.Normalization()

        def batches() -> Iterator[Batch]:
            for x, y in data.batches(train, PLAN.batch_size, order):
                yield normalization(x), y

        return lambda: self.train(batches())

    @torch.no_grad()
    def predict(self, images: Tensor, num_samples: int) -> Tensor:
        x = data.Normalization()(images)
        draws = torch.stack([self.logits(x).log_softmax(1) for _ in range(num_samples)])
        return draws.logsumexp(0) - math.log(num_samples)


class Deterministic(Contender):
    """The floor: an ordinary MLP with fused Adam."""

    def __init__(self, num_train: int) -> None:
        super().__init__(num_train)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=PLAN.lr, fused=True)

    def build(self) -> nn.Module:
        return deterministic_mlp()

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.network(x), y)


class Ours(Contender):
    """This project's own loop, by one of its recipes."""

    def __init__(self, recipe: dict[str, object], num_train: int) -> None:
        self.network, self.recipe = bayesian_network(), recipe
        self.draws = seeded(4)

    def epochs(self, train: Split) -> Callable[[], object]:
        epochs = training(self.network, train, None, **{"num_epochs": 10**6, **self.recipe}).fit()
        return lambda: next(epochs)

    def predict(self, images: Tensor, num_samples: int) -> Tensor:
        return predict(self.network, LIKELIHOOD, images, num_samples, self.draws)


class Blitz(Contender):
    """BLiTZ: a class decorator and Bayesian layers; its prior is a scale mixture."""

    def build(self) -> nn.Module:
        from blitz.modules import BayesianLinear
        from blitz.utils import variational_estimator

        @variational_estimator
        class Network(nn.Sequential):
            pass

        return Network(
            BayesianLinear(784, 400), nn.ReLU(), BayesianLinear(400, 400), nn.ReLU(), BayesianLinear(400, 10)
        )

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        criterion, weight = nn.CrossEntropyLoss(), 1.0 / self.num_train
        return self.network.sample_elbo(x, y, criterion=criterion, sample_nbr=1, complexity_cost_weight=weight)


class BayesianTorch(Contender):
    """Bayesian-Torch: an ordinary network, converted."""

    def build(self) -> nn.Module:
        from bayesian_torch.models.dnn_to_bnn import dnn_to_bnn

        network = deterministic_mlp()
        parameters = {
            "prior_mu": 0.0,
            "prior_sigma": PRIOR_STD,
            "posterior_mu_init": 0.0,
            "posterior_rho_init": -3.0,
            "type": "Reparameterization",
            "moped_enable": False,
        }
        dnn_to_bnn(network, parameters)
        return network

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        from bayesian_torch.models.dnn_to_bnn import get_kl_loss

        return F.cross_entropy(self.network(x), y) + get_kl_loss(self.network) / self.num_train


class TorchBNN(Contender):
    """Torchbnn: Bayesian layers and a loss for their KL."""

    def build(self) -> nn.Module:
        import torchbnn

        def layer(fan_in: int, fan_out: int) -> nn.Module:
            return torchbnn.BayesLinear(0.0, PRIOR_STD, fan_in, fan_out)

        self.kl = torchbnn.BKLLoss(reduction="sum", last_layer_only=False)
        return nn.Sequential(layer(784, 400), nn.ReLU(), layer(400, 400), nn.ReLU(), layer(400, 10))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.network(x), y) + self.kl(self.network) / self.num_train


class Pyro(Contender):
    """Pyro: stochastic variational inference with an automatic mean-field guide."""

    def __init__(self, num_train: int) -> None:
        import pyro
        from pyro.distributions import Categorical, Normal
        from pyro.infer import SVI, Trace_ELBO
        from pyro.infer.autoguide import AutoDiagonalNormal
        from pyro.nn import PyroModule, PyroSample

        class Network(PyroModule):
            def __init__(self) -> None:
                super().__init__()
                self.layers = PyroModule[nn.ModuleList](
                    [PyroModule[nn.Linear](*pair) for pair in pairwise(ARCHITECTURE.sizes)]
                )
                for layer in self.layers:
                    layer.weight = PyroSample(Normal(0.0, PRIOR_STD).expand(layer.weight.shape).to_event(2))
                    layer.bias = PyroSample(Normal(0.0, PRIOR_STD).expand(layer.bias.shape).to_event(1))

            def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
                first, second, last = self.layers
                logits = last(second(first(x).relu()).relu())
                with pyro.plate("data", size=num_train, subsample_size=len(x)):
                    pyro.sample("label", Categorical(logits=logits), obs=y)
                return logits

        pyro.clear_param_store()
        self.network = Network()
        self.guide = AutoDiagonalNormal(self.network, init_scale=0.02)
        self.svi = SVI(self.network, self.guide, pyro.optim.Adam({"lr": PLAN.lr}), Trace_ELBO())
        self.replay = lambda trace: pyro.poutine.condition(self.network, trace)

    def train(self, batches: Iterator[Batch]) -> None:
        for x, y in batches:
            self.svi.step(x, y)

    def logits(self, x: Tensor) -> Tensor:
        return self.replay(self.guide(x))(x)


CONTENDERS: dict[str, tuple[Callable[[int], Contender], str]] = {
    "deterministic MLP, fused Adam": (Deterministic, "torch"),
    "this project, scale mixture (`blundell`)": (partial(Ours, MIXTURE), "torch"),
    "this project, Gaussian prior": (partial(Ours, GAUSSIAN), "torch"),
    "this project, the recipe of `best`": (partial(Ours, BEST), "torch"),
    "this project, that recipe in 14 epochs, lr 0.003, cosine": (partial(Ours, SHORT), "torch"),
    "BLiTZ (scale mixture)": (Blitz, "blitz"),
    "Bayesian-Torch": (BayesianTorch, "bayesian_torch"),
    "torchbnn": (TorchBNN, "torchbnn"),
    "Pyro": (Pyro, "pyro"),
}


def learn(contender: Contender, train: Split, validation: Split, test: Split, seconds: float) -> dict[str, object]:
    """Train for a time, or to the recipe's end; only training is on the clock, and every epoch is validated alike."""
    epoch, spent, curve = contender.epochs(train), 0.0, []
    while spent < seconds:
        start = time.perf_counter()
        try:
            epoch()
        except StopIteration:
            break
        spent += time.perf_counter() - start
        log_probs = contender.predict(validation.images, PLAN.num_validation_samples)
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


def peak_memory(name: str) -> float:
    """Measure the peak memory in MB of a process that makes fifty steps, PyTorch and the images included."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_steps_alone, name).result()


def _steps_alone(name: str) -> float:
    set_up(None)
    images = made_up_images(50)
    CONTENDERS[name][0](len(images)).epochs(images)()
    status = Path("/proc/self/status").read_text()  # unlike getrusage it does not count what the parent once held
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


def plot(results: dict[str, dict[str, object]]) -> Figure:
    """Draw validation accuracy against seconds of training."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    colours = {"deterministic": iter(["0.5"]), "this": iter(PALETTE), "other": iter(PALETTE)}
    for name, result in results.items():
        seconds, accuracy = zip(*result["curve"], strict=True)
        group = name.split()[0] if name.split()[0] in colours else "other"
        style = {"color": next(colours[group]), "linestyle": ":" if group == "other" else "-"}
        axes.plot(seconds, [100 * value for value in accuracy], label=name.replace("`", ""), linewidth=1.8, **style)
    axes.set(xlabel="seconds of training (log scale)", ylabel="validation accuracy (%)", xscale="log", ylim=(92, 99))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def main() -> None:
    """Read the arguments, print the tables, and save the curves and their plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.0, help="of training on MNIST, for each")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="of these contenders")
    parser.add_argument("--figure", type=Path, default=Path("figs/peers.png"))
    arguments = parser.parse_args()
    set_up(None)
    wanted = [name for name in CONTENDERS if any(part.lower() in name.lower() for part in arguments.only)]
    there = {name: CONTENDERS[name][0] for name in wanted if find_spec(CONTENDERS[name][1])}
    steps = STEPS
    made_up = made_up_images(steps)
    print(f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    timed = {name: kind(len(made_up)).epochs(made_up) for name, kind in there.items() if "14 epochs" not in name}
    compare(timed, arguments.rounds, steps)
    if Path("/proc/self/status").is_file():
        print("\n| | peak memory, MB |\n|---|---|")
        for name in there:
            print(f"| {name} | {peak_memory(name):.0f} |")
    if not arguments.seconds:
        return
    train, validation, test = mnist()
    results = {}
    goals = " | ".join(f"s to {100 * goal:g} %" for goal in GOALS)
    print(f"\n| {arguments.seconds:g} s of training | epochs | {goals} | test error, % | test NLL |\n|{'---|' * 6}")
    for name, kind in there.items():
        torch.manual_seed(1)
        result = results[name] = learn(kind(len(train)), train, validation, test, arguments.seconds)
        reached = " | ".join("never" if at is None else f"{at:.0f}" for at in result["reached"].values())
        print(f"| {name} | {result['epochs']} | {reached} | {result['test_error']:.2f} | {result['test_nll']:.4f} |")
    arguments.figure.with_suffix(".json").write_text(json.dumps(results) + "\n")
    save_figure(arguments.figure, plot(results))


if __name__ == "__main__":
    main()
