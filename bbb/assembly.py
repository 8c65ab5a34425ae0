"""From settings to what an experiment is made of: data, source, network and prior."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bbb import checkpoint, data, priors, runs, transfer
from bbb.data import Split
from bbb.network import BayesianMLP, layer_dims
from bbb.settings import Settings
from bbb.weights import WeightDistribution

_STREAMS = ("split", "fraction", "init", "order", "weights", "validation", "evaluation", "source", "inflation")


@dataclass(frozen=True)
class Task:
    """The data of an experiment, on its device."""

    train: Split
    validation: Split | None
    test: Split


@dataclass(frozen=True)
class Source:
    """The posterior that a run starts from: the weights file, its checksum, the network in it, and what it tells."""

    path: Path
    sha256: str
    network: BayesianMLP
    about: dict[str, object]

    def record(self) -> dict[str, str]:
        """Return what identifies the file."""
        return {"weights": str(self.path), "sha256": self.sha256}


def load_task(settings: Settings, device: torch.device) -> Task:
    """Load the data, keep the wanted classes, hold out validation, then keep the wanted share of the training set.

    Raises:
        bbb.data.DataError: the data are not there or damaged, or leave nothing to train on.
    """
    train, test = data.load(settings.dataset, data.data_root(settings.data_dir))
    train, test = (data.rotate(data.select(split, settings.digits), settings.rotation) for split in (train, test))
    train, validation = data.hold_out(train, settings.validation_fraction, generator(settings, "split"))
    train = data.subsample(train, settings.fraction, generator(settings, "fraction"))
    return Task(train.to(device), validation.to(device) if validation is not None else None, test.to(device))


def load_source(settings: Settings, root: Path, device: torch.device | None = None) -> Source | None:
    """Load the weights that the key ``pretrained`` names, if it names any.

    Raises:
        bbb.runs.ResultsError: there are no such weights.
        bbb.checkpoint.WeightsError: they are damaged.
    """
    if settings.pretrained is None:
        return None
    path = runs.find_weights(settings.pretrained, root)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    return Source(path, checksum, *checkpoint.load_weights(path, device))


def load_source_task(settings: Settings, source: Source, device: torch.device) -> Task | None:
    """Load the data that the source was trained on; None where its weights file does not tell what they were.

    Raises:
        bbb.data.DataError: they are not there or damaged.
    """
    about = source.about
    if not {"dataset", "digits"} <= about.keys():
        return None
    digits, rotation = tuple(about["digits"]), about.get("rotation", 0.0)
    same = {"dataset": about["dataset"], "digits": digits, "rotation": rotation, "fraction": 1.0}
    return load_task(dataclasses.replace(settings, **same), device)


def create(
    settings: Settings, task: Task, source: Source | None = None, inflation: float = 1.0
) -> tuple[BayesianMLP, WeightDistribution]:
    """Create the network, at its start, and its prior.

    Args:
        settings: the configuration.
        task: the data, which decide the number of inputs and the device.
        source: the weights to start from, or whose posterior shall be the prior.
        inflation: factor on the variances of such a prior.

    Raises:
        bbb.checkpoint.WeightsError: the source is of another layout than configured.
    """
    device = task.train.labels.device
    sizes = (task.train.images.shape[1], *[settings.num_hidden] * settings.num_layers, len(settings.digits))
    init = generator(settings, "init")
    fresh = BayesianMLP.initial(sizes, settings.init_std, init, settings.num_flows, settings.flow).to(device)
    keep_head = source is not None and (settings.prior != "posterior" or _keeps_head(settings, source))
    if source is not None:
        _check_layout(settings, source, sizes, keep_head)
    if settings.prior != "posterior":
        return source.network if source is not None else fresh, create_prior(settings, fresh.posterior.dim, device)
    head_prior = None if keep_head else priors.gaussian(layer_dims(sizes)[-1], settings.prior_std, device)
    where = settings.prior_floor, settings.start, settings.init_std
    return transfer.prepare(source.network, fresh, head_prior, inflation, *where)


def create_prior(settings: Settings, dim: int, device: torch.device) -> WeightDistribution:
    """Create the prior over ``dim`` weights that settings ask for, where it is not a posterior."""
    if settings.prior == "gaussian":
        return priors.gaussian(dim, settings.prior_std, device)
    return priors.scale_mixture(dim, settings.prior_pi, settings.prior_std1, settings.prior_std2)


def stream_seed(settings: Settings, stream: str) -> int:
    """Derive the seed of one random stream, independent of the others."""
    return int(np.random.SeedSequence([settings.seed, _STREAMS.index(stream)]).generate_state(1, np.uint64)[0] >> 1)


def generator(settings: Settings, stream: str, device: torch.device | None = None) -> torch.Generator:
    """Create the generator of one random stream."""
    return torch.Generator(device or torch.device("cpu")).manual_seed(stream_seed(settings, stream))


def _keeps_head(settings: Settings, source: Source) -> bool:
    if settings.head == "auto":
        there = source.about.get("dataset"), source.about.get("digits")
        return there == (settings.dataset, list(settings.digits))
    return settings.head == "keep"


def _check_layout(settings: Settings, source: Source, sizes: Sequence[int], keep_head: bool) -> None:
    flow, num_flows = source.about["flow"], source.about["num_flows"]
    num_compared = len(sizes) if keep_head else len(sizes) - 1
    there = _layout(source.network.sizes[:num_compared], num_flows, flow)
    wanted = _layout(sizes[:num_compared], settings.num_flows, settings.flow)
    if there != wanted or len(source.network.sizes) != len(sizes):
        whole_there, whole_wanted = (
            _layout(source.network.sizes, num_flows, flow),
            _layout(sizes, settings.num_flows, settings.flow),
        )
        change = "num_layers, num_hidden, dataset, digits, num_flows or flow" + ("; or head=fresh" * keep_head)
        raise checkpoint.WeightsError(
            f"pretrained={settings.pretrained!r}: {source.path} has layers of {whole_there}, the configuration asks "
            f"for {whole_wanted}; change {change}"
        )


def _layout(sizes: Sequence[int], num_flows: int, flow: str | None) -> str:
    """Put what must agree between weights and a configuration into words."""
    units = f"{'-'.join(map(str, sizes))} units"
    return f"{units} and {num_flows} {flow} flows" if num_flows else units
