"""What is timed on a GPU: captured steps, whose floor is a captured step of an ordinary network."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from bbb.data import Normalization, batches
from bbb.inference import Precision
from bbb.system import set_up
from tests.benchmarks.contenders import (
    CLASSES,
    GAUSSIAN,
    LOCAL,
    MIXTURE,
    OURS,
    SIZES,
    STEPS,
    bayesian,
    floor,
    made_up_images,
    ordinary,
)
from tests.benchmarks.paired import Block, Contender
from tests.tasks import seeded

FLOOR, LENET_FLOOR, ONE = "deterministic MLP, captured", "deterministic LeNet, captured", "blundell, captured"
NUM_EPOCHS = 600


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done on a device.

    Attributes:
        device: where to compute.
        sizes: units of the MLP.
        steps: in a block, and before weights are compared.
        epochs: of ``blundell`` that are timed, and of the runs that are scored or stopped.
        changes: to the settings of runs.
    """

    device: torch.device
    sizes: tuple[int, ...]
    steps: int
    epochs: tuple[int, int]
    changes: dict[str, Any]

    @property
    def captures(self) -> bool:
        return self.device.type == "cuda"


def size_on(device: torch.device, is_full: bool) -> Size:
    """Choose the real size on a GPU, and a toy size elsewhere."""
    changes = {"device": str(device), "cuda_graph": device.type == "cuda"}
    if device.type == "cuda":
        return Size(device, SIZES, STEPS, (NUM_EPOCHS if is_full else 21, 10), changes)
    toy = {"dataset": "digits8x8", "num_hidden": 16, "num_test_samples": 2}
    return Size(device, (SIZES[0], 16, CLASSES), 2, (2, 2), changes | toy)


def on_device(make: Callable[[], Block], precision: Precision = "float32") -> Block:
    """Make a block that ends when the device has done its work."""
    set_up(None, precision)
    block = make()

    def run_block() -> None:
        block()
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()

    return run_block


def captured_floor(kind: str, size: Size) -> Block:
    """Make an ordinary network's training as one CUDA graph a step; on a CPU an eager one."""
    if not size.captures:
        return floor(kind, size.steps, size.sizes)
    train, network = made_up_images(size.steps).to(size.device), ordinary(kind, size.sizes).to(size.device)
    optimizer = torch.optim.Adam(network.parameters(), lr=OURS.lr, fused=True, capturable=True)
    order, normalization = seeded(1), Normalization()
    x, y = train.images[: OURS.batch_size].clone(), train.labels[: OURS.batch_size].clone()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(network(normalization(x)), y).backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    def run_block() -> None:
        for images, labels in batches(train, OURS.batch_size, order):
            x.copy_(images)
            y.copy_(labels)
            graph.replay()

    return run_block


def contenders(size: Size) -> tuple[dict[str, Contender], dict[str, Contender]]:
    """Make what is timed, and its floors."""

    def step(against: str = FLOOR, captured: bool = True, precision: Precision = "float32", **how: Any) -> Contender:
        plan = {"cuda_graph": captured and size.captures, "precision": precision}
        make = partial(bayesian, steps=size.steps, sizes=size.sizes, device=size.device, **plan, **how)
        return Contender(partial(on_device, make, precision), size.steps, against)

    def ordinary_step(make: Callable[..., Block], *arguments: Any) -> Contender:
        return Contender(partial(on_device, partial(make, *arguments)), size.steps, FLOOR)

    floors = {
        FLOOR: ordinary_step(captured_floor, "mlp", size),
        LENET_FLOOR: ordinary_step(captured_floor, "lenet", size),
        ONE: step(),
    }
    chosen = {
        "deterministic MLP, eager": ordinary_step(floor, "mlp", size.steps, size.sizes, OURS.batch_size, size.device),
        "blundell, eager": step(captured=False),
        ONE: step(),
        "weights, scale mixture, the KL in each step": step(**MIXTURE),
        "the same, S = 8": step(**MIXTURE, num_samples=8),
        "the same, S = 64": step(**MIXTURE, num_samples=64),
        "the same, 16 matrix_planar flows": step(**MIXTURE, num_flows=16, flow="matrix_planar"),
        "the same, 16 planar flows": step(**MIXTURE, num_flows=16),
        "weights, Gaussian prior, the KL in each step": step(**GAUSSIAN),
        "local, Gaussian prior": step(**LOCAL),
        "LeNet, local, Gaussian prior": step(LENET_FLOOR, **LOCAL, kind="lenet"),
        "16 replicas, against one": step(ONE, num_replicas=16),
        "tf32, against float32": step(ONE, precision="tf32"),
        "bfloat16, against float32": step(ONE, precision="bfloat16"),
        "S = 64 in tf32": step(**MIXTURE, num_samples=64, precision="tf32"),
        "S = 64 in bfloat16": step(**MIXTURE, num_samples=64, precision="bfloat16"),
    }
    return chosen, floors
