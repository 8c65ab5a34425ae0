"""Time a training step and an epoch against a deterministic MLP in the same process, and print a table.

    python -m tests.benchmarks.step_time                 random images, steps only
    python -m tests.benchmarks.step_time --epochs 3      also whole epochs on MNIST, validation included

The contenders take turns in short blocks, so that a machine that changes its speed changes it for all; the ratio is
the median over the rounds of a contender's block over the deterministic block of the same round.
"""

import argparse
import dataclasses
import math
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from bbb import data
from bbb.data import Split
from bbb.distributions import FlowName, PlanarFlow, WeightDistribution, gaussian_prior, scale_mixture_prior
from bbb.inference import Categorical, Plan, Streams, Training, accuracy_and_nll, predict
from bbb.networks import MLP, BayesianNetwork, initial_network, layer_dims, num_weights
from bbb.system import set_up
from tests.tasks import one_by_one, seeded

ARCHITECTURE = MLP((784, 400, 400, 10))
LIKELIHOOD = Categorical(ARCHITECTURE.num_outputs)
PLAN = Plan(
    num_epochs=1,
    steps_per_epoch=1,
    batch_size=128,
    num_samples=1,
    num_validation_samples=5,
    lr=1e-3,
    lr_schedule="constant",
    optimizer="adam",
    beta_type="blundell",
    temperature=1.0,
    input_dropout=0.0,
    estimator="weights",
    noise_reuse=16,
    precision="float32",
    cuda_graph=False,
)
NUM_WEIGHTS = num_weights(ARCHITECTURE.layers)
MIXTURE = {"prior": scale_mixture_prior(NUM_WEIGHTS, 0.5, 1.0, 0.0025)}
GAUSSIAN = {"prior": gaussian_prior(NUM_WEIGHTS, 0.1), "beta_type": "standard"}
CONTENDERS = {
    "weights, scale mixture (`blundell`)": MIXTURE,
    "the same, fresh noise in each step": {**MIXTURE, "noise_reuse": 1},
    "the same, `beta_type=standard`": {**MIXTURE, "beta_type": "standard"},
    "weights, Gaussian prior": GAUSSIAN,
    "local reparameterisation, Gaussian prior": {**GAUSSIAN, "estimator": "local"},
}
HEAVY = {
    "weights, scale mixture, S = 8": {**MIXTURE, "num_samples": 8},
    "the same, S = 1, 16 `matrix_planar` flows": {**MIXTURE, "flow": "matrix_planar", "num_flows": 16},
    "the same, S = 1, 16 `planar` flows": {**MIXTURE, "num_flows": 16},
}
STEPS, FEW_STEPS = 391, 20  # the first is an epoch of 50,000 images: under `blundell`, the KL counts in its first steps


def deterministic_mlp() -> nn.Sequential:
    """Make an ordinary MLP of the same layers."""
    return nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))


def made_up_images(num_batches: int) -> Split:
    """Draw images and labels at random."""
    images = torch.randint(0, 256, (num_batches * PLAN.batch_size, 784), dtype=torch.uint8)
    return Split(images, torch.randint(0, 10, (len(images),)))


def mnist() -> tuple[Split, Split, Split]:
    """Load 50,000 images to train on, 10,000 to validate and the test set."""
    train, test = data.load("mnist", data.data_root(None))
    train, validation = data.hold_out(train, 1 / 6, seeded(1))
    return train, validation, test


def deterministic_run(
    train: Split, validation: Split | None, network: nn.Module | None = None, batch_size: int = PLAN.batch_size
) -> Callable[[], None]:
    """One epoch of an ordinary MLP with fused Adam, on the same batches; scored on the validation set, if any."""
    network, generator, normalization = network or deterministic_mlp(), seeded(1), data.Normalization()
    optimizer = torch.optim.Adam(network.parameters(), lr=PLAN.lr, fused=True)

    def run() -> None:
        for x, y in data.batches(train, batch_size, generator):
            optimizer.zero_grad()
            F.cross_entropy(network(normalization(x)), y).backward()
            optimizer.step()
        if validation is not None:
            with torch.no_grad():
                log_probs = network(normalization(validation.images)).log_softmax(1)
                accuracy_and_nll(log_probs, validation.labels)

    return run


def bayesian_network(
    num_flows: int = 0, flow: FlowName = "planar", architecture: MLP = ARCHITECTURE
) -> BayesianNetwork:
    """Make the network that this project trains."""
    return initial_network(architecture, 0.02, seeded(1), num_flows, flow)


def training(
    network: BayesianNetwork, train: Split, validation: Split | None, prior: WeightDistribution, **changes: object
) -> Training:
    """Make this project's own loop, nothing left out."""
    streams = Streams(seeded(1), seeded(2), 3)
    return Training(network, LIKELIHOOD, prior, train, validation, dataclasses.replace(PLAN, **changes), streams)


def bayesian_run(
    train: Split,
    validation: Split | None,
    prior: WeightDistribution,
    num_flows: int = 0,
    flow: FlowName = "planar",
    **changes: object,
) -> Callable[[], None]:
    """One epoch of this project's own loop."""
    network = bayesian_network(num_flows, flow)
    return lambda: list(training(network, train, validation, prior, **changes).fit())


def flow_run(kind: str) -> Callable[[], None]:
    """Forward and backward of 16 planar flows on each layer: all at once, or one by one as they are written down.

    One by one, each map has its own vectors u and w, as K modules in a row would.
    """
    generator, tasks = seeded(1), []
    for dim in layer_dims(ARCHITECTURE.layers):
        flow = PlanarFlow.identity(dim, 16, 0.02, generator)
        z = (0.02 * torch.randn(1, dim, generator=generator)).requires_grad_()
        maps = [
            [nn.Parameter(v.clone()) for v in (u, w, torch.zeros(()))] for u, w in zip(*flow.vectors(), strict=True)
        ]
        tasks.append((flow, maps, z, torch.randn(1, dim, generator=generator)))

    def run() -> None:
        for flow, maps, z, grad in tasks:
            for parameter in (z, *flow.parameters(), *(p for vectors in maps for p in vectors)):
                parameter.grad = None
            y, log_det = flow(z) if kind == "at once" else one_by_one(z, maps)
            torch.autograd.backward([y, log_det], [grad, torch.ones(1)])

    return run


def print_prediction_rate() -> None:
    """Compare prediction, 100 draws on 10,000 images, with the rate at which this machine multiplies matrices."""
    images, network = made_up_images(79).images[:10_000], bayesian_network()
    square, generator = torch.randn(4096, 4096), seeded(1)
    num_products = 100 * 10_000 * sum(map(math.prod, ARCHITECTURE.shapes))

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    rates = [4096**3 / seconds(lambda: square @ square) for _ in range(5)]
    predicting = min(seconds(lambda: predict(network, LIKELIHOOD, images, 100, generator)) for _ in range(3))
    rates += [4096**3 / seconds(lambda: square @ square) for _ in range(5)]
    share = num_products / predicting / max(rates)
    print(
        f"prediction, 100 draws on 10,000 images: {predicting:.2f} s, {100 * share:.0f} % of the rate of a 4096 x 4096 "
        f"product, {2e-9 * max(rates):.0f} GFLOP/s"
    )


def compare(runs: dict[str, Callable[[], None]], rounds: int, steps: int) -> None:
    """Let the runs take turns and print a row for each."""
    seconds = {name: [] for name in runs}
    for round_number in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if round_number > 0:  # the first round warms up
                seconds[name].append((time.perf_counter() - start) / steps)
    floor = next(iter(seconds.values()))
    unit, scale = ("ms", 1e3) if statistics.median(floor) < 1.0 else ("s", 1.0)
    print(f"| | {unit} | ratio |\n|---|---|---|")
    for name, times in seconds.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(times, floor, strict=True))
        print(f"| {name} | {scale * statistics.median(times):.2f} | {ratio:.2f} |")


def main() -> None:
    """Read the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=0, help="rounds of whole epochs on MNIST")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    set_up(arguments.threads)
    print(
        f"{time.strftime('%Y-%m-%d')}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{platform.machine()}\n"
    )
    for group, steps in ((CONTENDERS, STEPS), (HEAVY, FEW_STEPS)):
        train = made_up_images(steps)
        contenders = {name: bayesian_run(train, None, **changes) for name, changes in group.items()}
        compare(
            {"deterministic MLP, fused Adam": deterministic_run(train, None), **contenders}, arguments.rounds, steps
        )
        print()
    print_prediction_rate()
    print("\nforward and backward of 16 planar flows on each layer")
    compare({name: flow_run(name) for name in ("at once", "one by one")}, arguments.rounds, 1)
    if arguments.epochs:
        train, validation, _ = mnist()
        print()
        compare(
            {
                "deterministic MLP, an epoch with validation": deterministic_run(train, validation),
                "`blundell`, an epoch with validation": bayesian_run(train, validation, **MIXTURE),
            },
            arguments.epochs,
            1,
        )


if __name__ == "__main__":
    main()
