"""The random streams of a run: each has a seed of its own, so that one never moves another."""

import numpy as np
import torch

from bbb.runs.settings import Settings

_STREAMS = (
    "split",
    "fraction",
    "init",
    "order",
    "weights",
    "validation",
    "evaluation",
    "source",
    "inflation",
    "curvature",
    "coreset",
)  # in the order in which they came: the seed of each is its place
_STREAMS_OF_SPLIT = ("split", "fraction")


def stream_seed(settings: Settings, stream: str, replica: int = 0) -> int:
    """Derive the seed of one random stream, independent of the others; a replica has the stream of seed + replica."""
    seed = settings.seed + replica
    if stream in _STREAMS_OF_SPLIT and settings.split_seed is not None:
        seed = settings.split_seed
    return int(np.random.SeedSequence([seed, _STREAMS.index(stream)]).generate_state(1, np.uint64)[0] >> 1)


def generator(settings: Settings, stream: str, device: torch.device | None = None, replica: int = 0) -> torch.Generator:
    """Create the generator of one random stream, on a device, or on the CPU."""
    return torch.Generator(device or torch.device("cpu")).manual_seed(stream_seed(settings, stream, replica))
