"""What the benchmarks time: steps of ordinary networks, which are the floors, and of this project."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from bbb import data
from bbb.data import Split
from bbb.distributions import FlowName, PlanarFlow, WeightDistribution, gaussian_prior, scale_mixture_prior
from bbb.inference import Categorical, Plan, Streams, Training, predict
from bbb.networks import MLP, Architecture, BayesianNetwork, initial_network, layer_dims, lenet
from bbb.system import ALONE, Group
from tests.benchmarks.paired import Block, Contender
from tests.tasks import CPU, PLAN, one_by_one, seeded

IMAGE, CLASSES = (1, 28, 28), 10
SIZES = (784, 400, 400, CLASSES)
OURS = dataclasses.replace(
    PLAN, num_epochs=10**6, batch_size=128, num_validation_samples=5, lr=1e-3, beta_type="blundell"
)
STEPS, SOME, FEW = (
    391,
    50,
    10,
)  # the first is an epoch of 50,000 images: under `blundell`, the KL counts in its first steps
PRIOR_STD, INIT_STD = 0.1, 0.02


def made_up_images(num_batches: int, batch_size: int = OURS.batch_size, num_classes: int = CLASSES) -> Split:
    """Draw images and labels at random."""
    images = torch.randint(0, 256, (num_batches * batch_size, math.prod(IMAGE)), dtype=torch.uint8)
    return Split(images, torch.randint(0, num_classes, (len(images),)), IMAGE)


def mlp_of(linear: Callable[[int, int], nn.Module], sizes: tuple[int, ...] = SIZES) -> nn.Sequential:
    """Make an MLP of anyone's layers."""
    layers = [part for pair in pairwise(sizes) for part in (linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def lenet_of(conv: Callable[[int, int, int], nn.Module], linear: Callable[[int, int], nn.Module]) -> nn.Sequential:
    """Make the network of :func:`bbb.networks.lenet` of anyone's layers."""
    features = conv(1, 20, 5), nn.MaxPool2d(2), conv(20, 50, 5), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(nn.Unflatten(1, IMAGE), *features, linear(800, 500), nn.ReLU(), linear(500, CLASSES))


def ordinary(kind: str, sizes: tuple[int, ...] = SIZES) -> nn.Sequential:
    """Make an ordinary network, ``mlp`` or ``lenet``."""
    return lenet_of(nn.Conv2d, nn.Linear) if kind == "lenet" else mlp_of(nn.Linear, sizes)


def ours(kind: str, sizes: tuple[int, ...] = SIZES) -> Architecture:
    """Make this project's network of the same layers."""
    return lenet(IMAGE, CLASSES) if kind == "lenet" else MLP(sizes)


def prior_named(name: str, network: BayesianNetwork) -> WeightDistribution:
    """Make a prior: ``gaussian``, ``scale_mixture``, or ``posterior``, with a mean and a scale for each weight."""
    dim, device = network.posterior.dim, network.posterior.device
    if name == "gaussian":
        return gaussian_prior(dim, PRIOR_STD, device)
    if name == "scale_mixture":
        return scale_mixture_prior(dim, 0.5, 1.0, 0.0025, device)
    return initial_network(network.architecture, PRIOR_STD, seeded(5)).to(device).posterior.frozen()


def ordinary_run(train: Split, network: nn.Module, batch_size: int = OURS.batch_size) -> Block:
    """A pass of an ordinary network with fused Adam over the same batches."""
    network = network.to(train.labels.device)
    generator, normalization = seeded(1), data.Normalization()
    optimizer = torch.optim.Adam(network.parameters(), lr=OURS.lr, fused=True)

    def run() -> None:
        for x, y in data.batches(train, batch_size, generator):
            optimizer.zero_grad()
            F.cross_entropy(network(normalization(x)), y).backward()
            optimizer.step()

    return run


def training(
    network: BayesianNetwork,
    train: Split,
    prior: str,
    plan: Plan,
    validation: Split | None = None,
    group: Group = ALONE,
) -> Training:
    """Make this project's own loop, nothing left out."""
    device = train.labels.device
    network = network.to(device)
    replicas = range(network.num_replicas or 1)
    streams = [Streams(seeded(1 + 9 * i), torch.Generator(device).manual_seed(2 + 9 * i), 3) for i in replicas]
    likelihood = Categorical(network.architecture.num_outputs).to(device)
    return Training(network, likelihood, prior_named(prior, network), train, validation, plan, streams, group)


def floor(
    kind: str = "mlp",
    steps: int = STEPS,
    sizes: tuple[int, ...] = SIZES,
    batch_size: int = OURS.batch_size,
    device: torch.device = CPU,
) -> Block:
    """Make an ordinary network on random images."""
    return ordinary_run(made_up_images(steps, batch_size, sizes[-1]).to(device), ordinary(kind, sizes), batch_size)


def bayesian(
    prior: str = "scale_mixture",
    kind: str = "mlp",
    steps: int = STEPS,
    sizes: tuple[int, ...] = SIZES,
    num_flows: int = 0,
    flow: FlowName = "planar",
    num_replicas: int = 1,
    group: Group = ALONE,
    device: torch.device = CPU,
    **changes: object,
) -> Block:
    """Make this project's training on random images: a block is an epoch of it."""
    plan = dataclasses.replace(OURS, **changes)
    starts = [initial_network(ours(kind, sizes), INIT_STD, seeded(1 + i), num_flows, flow) for i in range(num_replicas)]
    network = BayesianNetwork.stacked(starts) if num_replicas > 1 else starts[0]
    train = made_up_images(steps, plan.batch_size, sizes[-1]).to(device)
    epochs = training(network, train, prior, plan, group=group).fit()
    return lambda: next(epochs)


def flows(at_once: bool) -> Block:
    """Forward and backward of 16 planar flows on each layer: all at once, or one by one as they are written down.

    One by one, each map has its own vectors u and w, as K modules in a row would.
    """
    generator, tasks = seeded(1), []
    for dim in layer_dims(MLP(SIZES).layers):
        flow = PlanarFlow.identity(dim, 16, INIT_STD, generator)
        z = (INIT_STD * torch.randn(1, dim, generator=generator)).requires_grad_()
        maps = [
            [nn.Parameter(v.clone()) for v in (u, w, torch.zeros(()))] for u, w in zip(*flow.vectors(), strict=True)
        ]
        tasks.append((flow, maps, z, torch.randn(1, dim, generator=generator)))

    def run() -> None:
        for flow, maps, z, grad in tasks:
            for parameter in (z, *flow.parameters(), *(p for vectors in maps for p in vectors)):
                parameter.grad = None
            y, log_det = flow(z) if at_once else one_by_one(z, maps)
            torch.autograd.backward([y, log_det], [grad, torch.ones(1)])

    return run


NUM_PREDICTED, NUM_DRAWS = 10_000, 100


def prediction() -> Block:
    """Predict images with 100 draws of the weights."""
    images, generator = made_up_images(79).images[:NUM_PREDICTED], seeded(1)
    network = initial_network(MLP(SIZES), INIT_STD, seeded(1))
    return lambda: predict(network, Categorical(CLASSES), images, NUM_DRAWS, generator)


def product() -> Block:
    """Multiply two matrices of 4096 x 4096, as fast as this machine can."""
    square = torch.randn(4096, 4096)
    return lambda: square @ square


def steps_of(steps: int, floor: str = "deterministic MLP", **how: object) -> Contender:
    """Make a contender of :func:`bayesian`."""
    return Contender(partial(bayesian, steps=steps, **how), steps, floor)


GIGA = 1e9  # multiplications and additions
PRODUCTS = NUM_DRAWS * NUM_PREDICTED * sum(a * b for a, b in pairwise(SIZES)) / GIGA
MIXTURE = {"prior": "scale_mixture", "beta_type": "standard"}  # the KL in every step, here and below
GAUSSIAN = {"prior": "gaussian", "beta_type": "standard"}
LOCAL = {**GAUSSIAN, "estimator": "local"}
FLOORS = {
    "deterministic MLP": Contender(floor, STEPS),
    "deterministic LeNet": Contender(partial(floor, "lenet", SOME), SOME),
    "one by one": Contender(partial(flows, False), 1),
    "a product of 4096 x 4096": Contender(product, 4096**3 / GIGA),
}
CONTENDERS = {
    "blundell": steps_of(STEPS),
    "blundell, fresh noise in each step": steps_of(STEPS, noise_reuse=1),
    "weights, Gaussian prior, the KL in each step": steps_of(SOME, **GAUSSIAN),
    "weights, scale mixture, the KL in each step": steps_of(SOME, **MIXTURE),
    "the same, S = 8": steps_of(FEW, **MIXTURE, num_samples=8),
    "the same, S = 64": steps_of(2, **MIXTURE, num_samples=64),
    "the same, 16 matrix_planar flows": steps_of(FEW, **MIXTURE, num_flows=16, flow="matrix_planar"),
    "the same, 16 planar flows": steps_of(FEW, **MIXTURE, num_flows=16),
    "local, Gaussian prior": steps_of(SOME, **LOCAL),
    "local, a posterior as the prior": steps_of(SOME, **LOCAL | {"prior": "posterior"}),
    "LeNet, local, Gaussian prior": steps_of(SOME, "deterministic LeNet", **LOCAL, kind="lenet"),
    "16 planar flows at once, forward and backward": Contender(partial(flows, True), 1, "one by one"),
    "prediction, 100 draws, by 10^9 multiplications": Contender(prediction, PRODUCTS, "a product of 4096 x 4096"),
}
